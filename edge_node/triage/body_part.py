"""What a CT series shows, as a recogniser of body parts suggests it: a reason to mark or to decline, never a header.

A few axial slices of each series are shown to the model, each for itself; their answers are averaged. A suggestion
stands in the result. While the recogniser is in shadow that is all; in information a finding of a model that is not
made for the suggested part is marked; live, that model declines where it did not flag. Nothing is ever judged because
of a suggestion, and no flag is ever taken away: a recogniser may err too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import numpy as np
import structlog
from pydicom import dcmread

from edge_node.domain.errors import EdgeNodeError, Quarantine, Stop
from edge_node.domain.finding import Finding, KeyImage, Suggestion, Verdict
from edge_node.domain.model import Stage
from edge_node.triage import score
from edge_node.triage.calibration import corrected
from edge_node.triage.card_tables import SliceTable
from edge_node.triage.decode import Frames
from edge_node.triage.headers import SliceHeader
from edge_node.triage.hounsfield import to_hu
from edge_node.triage.model import LoadedModel
from edge_node.triage.prepare import AIR, CannotJudge, Floats, Shorts, area_weights, axial_plane
from edge_node.triage.runner import OutOfTime
from edge_node.triage.select import Series, candidates
from edge_node.triage.series_volume import Volumes

log = structlog.get_logger()

KIND: Final = "body-part"
OTHER: Final = "OTHER"
MOST_SERIES: Final = 4  # of one study, the preferred ones
_BODY_HU: Final = -300


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The study as a recogniser is shown it; `deadline` is monotonic."""

    headers: list[SliceHeader]
    volumes: Volumes
    deadline: float
    urgency: float


def suggested(
    models: Sequence[LoadedModel], shown: Shown, on_fault: Callable[[LoadedModel], None] | None, *, raises: bool
) -> tuple[tuple[Suggestion, ...], list[str]]:
    """What all recognisers suggest, and which of them are silent and why: that is never a missing finding.

    Raises `Stop` of a device that is gone, if `raises`: then nothing urgent would be lost.
    """
    found: list[Suggestion] = []
    silent: list[str] = []
    for model in models:
        if model.card.file.says != KIND or not shown.headers:
            continue
        if model.broken():  # told when it broke
            silent.append(f"{model.label}: {model.fault}")
            continue
        try:
            found += suggestions(model, shown.headers, shown.volumes, shown.deadline, shown.urgency)
        except OutOfTime:
            silent.append(f"{model.label}: triage.time-limit")
        except CannotJudge as error:
            silent.append(f"{model.label}: {error}")
        except Exception as error:
            if raises and isinstance(error, Stop):
                raise
            code = error.code if isinstance(error, EdgeNodeError) else f"internal.{type(error).__name__}"
            silent.append(f"{model.label}: {code}")
            log.exception("model.failed", model=model.card.file.name, code=code)
        if model.broken() and on_fault is not None:
            on_fault(model)
    return tuple(found), silent


def suggestions(
    model: LoadedModel, headers: list[SliceHeader], volumes: Volumes, deadline: float, urgency: float
) -> list[Suggestion]:
    """What the series of a study seem to show; a series without a clear answer is left out. Raises `OutOfTime` and as
    `LoadedModel.run`."""
    found = []
    for series in candidates(headers, model.rule)[:MOST_SERIES]:
        tensor = _tensor(model, series, volumes, deadline)
        if tensor is None:
            continue
        output = model.card.output(model.card.first.output)
        raw = model.run({model.card.slabs_input.name: tensor}, deadline, urgency)[output.name].astype(np.float32)
        shares = score.softmax(raw) if output.activation == "softmax" else raw
        each = shares.mean(0)
        finding = max(model.card.file.findings, key=lambda one: float(each[one.index]))
        point = model.card.point(model.variant, finding)
        share = float(np.clip(each[finding.index], 1e-6, 1 - 1e-6))
        p = score.probability(float(np.log(share / (1 - share))), point.slope, point.offset)
        p = corrected(p, point.isotonic)
        if p < point.threshold:
            continue
        said = series.attributes.get("BodyPartExamined", ())
        found.append(
            Suggestion(
                kind=KIND,
                value=finding.short,
                code=model.card.code(finding),
                probability=p,
                series_uid=series.uid,
                said=str(said[0]).upper() if said else "",
                model=model.identity,
                provider=model.provider,
            )
        )
    return found


def _tensor(model: LoadedModel, series: Series, volumes: Volumes, deadline: float) -> Floats | None:
    """A few slices of a series as the model wants them, (n, channels, size, size); None if there is none to show."""
    spec = model.card.slabs_input.slices
    assert spec is not None
    held = volumes.held(series)
    if held is not None:  # decoded already for another model
        few = np.unique(np.linspace(0, len(held.hu) - 1, spec.most).round().astype(int))
        plane = held.coarse.plane
        return np.stack([slice_tensor(held.hu[k], plane.dy, plane.dx, spec) for k in few])
    placed = []
    for header in series.slices:
        if header.geometry is not None and header.rescale is not None:
            plane_and_place = axial_plane(header.geometry)
            if plane_and_place is not None:
                placed.append((plane_and_place[1], header.item.sop_uid, header.frame, plane_and_place[0], header))
    placed.sort(key=lambda one: one[:3])
    made = []
    opened: tuple[str, Frames | None] = ("", None)
    for k in np.unique(np.linspace(0, len(placed) - 1, spec.most).round().astype(int)) if placed else ():
        if time.monotonic() > deadline:
            raise OutOfTime
        _, uid, frame, plane, header = placed[k]
        if opened[0] != uid:
            opened = (uid, _frames(header))
        try:
            stored = opened[1].stored(frame) if opened[1] is not None else None
        except Quarantine:
            stored = None
        if stored is not None:
            slope, intercept = header.rescale or (1.0, 0.0)
            made.append(slice_tensor(plane.canonical(to_hu(stored, slope, intercept)), plane.dy, plane.dx, spec))
    return np.stack(made) if made else None


def _frames(header: SliceHeader) -> Frames | None:
    try:
        return Frames(dcmread(BytesIO(header.item.read())))
    except Exception:  # not shown: pydicom's texts may print values
        return None


def slice_tensor(hu: Shorts, dy: float, dx: float, spec: SliceTable) -> Floats:
    """One canonical slice in HU (rows, columns) as float32 (channels, size, size) in 0..1, the body in the middle."""
    body = hu > _BODY_HU
    rows, columns = hu.shape
    half = spec.size * spec.pixel_mm / 2
    # Halves of the body above and below, left and right: a table moves this little.
    y, x = (_median(body.sum(axis)) * step for axis, step in ((1, dy), (0, dx)))
    wy = area_weights(rows, dy, 0.0, spec.size, spec.pixel_mm, y - half)
    wx = area_weights(columns, dx, 0.0, spec.size, spec.pixel_mm, x - half)
    small = wy @ (hu.astype(np.float32) - np.float32(AIR)) @ wx.T + np.float32(AIR)
    return np.stack([np.clip((small - c.low) / (c.high - c.low), 0, 1) for c in spec.channels]).astype(np.float32)


def _median(counts: np.ndarray[tuple[int], np.dtype[np.int_]]) -> float:
    """Where half of what is counted lies to either side, the middle if there is nothing."""
    total = counts.cumsum()
    return float(np.searchsorted(total, total[-1] / 2)) + 0.5 if total[-1] else len(counts) / 2


def missing(found: Sequence[Suggestion]) -> str:
    """What to say of series that name no body part, "" if there is nothing to say."""
    values = sorted({one.value for one in found if not one.said and one.value != OTHER})
    return f"body part missing: suggests {', '.join(values)}" if values else ""


def heeded(
    models: Sequence[LoadedModel],
    headers: list[SliceHeader],
    judged: list[tuple[Finding, KeyImage | None]],
    found: Sequence[Suggestion],
) -> list[tuple[Finding, KeyImage | None]]:
    """The findings, marked where a speaking recogniser suggests a part that their model is not made for; declined where
    it is live and they did not flag."""
    by_name = {(m.card.file.name, m.card.file.version): m for m in models}
    out = []
    for finding, image in judged:
        model = by_name[finding.model.name, finding.model.version]
        strange = [
            one
            for one in found
            if one.series_uid == finding.series_uid
            and one.model.stage != Stage.SHADOW
            and finding.verdict is not Verdict.CANNOT_JUDGE
            and _stranger(model, headers, one, by_name[one.model.name, one.model.version])
        ]
        if not strange:
            out.append((finding, image))
            continue
        values = ", ".join(sorted({one.value for one in strange}))
        text = f"select.body-part: the pixels suggest {values}, for which this model is not made"
        live = any(one.model.stage == Stage.LIVE for one in strange)
        if live and finding.verdict is not Verdict.FLAGGED:
            refused = replace(finding, verdict=Verdict.CANNOT_JUDGE, probability=0.0, box=None, reason=text)
            out.append((refused, None))
        else:
            out.append((replace(finding, quality=(*finding.quality, text)), image))
    return out


def _stranger(model: LoadedModel, headers: list[SliceHeader], one: Suggestion, recogniser: LoadedModel) -> bool:
    """Whether the model's rule would pass the series over if its header said what the pixels suggest, and nothing else
    in words. A rule that does not ask for the body part says nothing here."""
    series = next((s for s in candidates(headers, model.rule) if s.uid == one.series_uid), None)
    if series is None or one.value == OTHER:
        return False

    def fits(value: str) -> bool:
        words = dict.fromkeys(("StudyDescription", "SeriesDescription", "ProtocolName"), ("-",))
        return model.rule.matches({**series.attributes, **words, "BodyPartExamined": (value,)})

    return not fits(one.value) and any(fits(finding.short) for finding in recogniser.card.file.findings)
