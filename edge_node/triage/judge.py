"""The triage step: a clean study goes in, findings and a key image come out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import Finding, KeyImage, Mask, TriageOutcome, TriageResult, Verdict
from edge_node.domain.study import CleanStudy
from edge_node.triage import picture, score
from edge_node.triage.calibration import corrected
from edge_node.triage.card_tables import FindingTable
from edge_node.triage.decode import stored_values
from edge_node.triage.model import LoadedModel, ModelFault, speaking_first
from edge_node.triage.places import Grid, stored_box, stored_heat
from edge_node.triage.prepare import (
    CannotJudge,
    Floats,
    Prepared,
    Shorts,
    Stack,
    assemble,
    order,
    slab_thickness,
    to_hu,
)
from edge_node.triage.quality import check_head
from edge_node.triage.runner import Arrays, OutOfTime
from edge_node.triage.seen import seen_of
from edge_node.triage.select import Series, SliceHeader, candidates, read_headers
from edge_node.triage.volume import Resampled, class_maps, resample, volume_score

MAX_LOST: Final = 0.2  # so many slices of a series may be undecodable; more and it cannot be judged


class Triage:
    """The models in force for the studies that begin now; lives in the compute process. Thread-safe."""

    def __init__(
        self,
        models: Sequence[LoadedModel],
        *,
        time_limit_s: float,
        threads: int = 0,
        absent: Sequence[str] = (),
        on_fault: Callable[[LoadedModel], None] | None = None,
    ) -> None:
        """`time_limit_s` counts per study; `threads` 0 decodes on up to four cores; `absent` are models that should
        run and cannot, each with its reason; `on_fault` is told of a model that must not run on."""
        self.models = speaking_first(models)
        self.absent = tuple(absent)
        self._time_limit_s = time_limit_s
        self._workers = threads or min(4, os.cpu_count() or 1)
        self._on_fault = on_fault

    def judge(self, study: CleanStudy, urgency: float = 100.0) -> TriageResult:
        """Judge one study with every model whose selection rule fits one of its series; the smaller `urgency`, the
        sooner its turn at every model.

        A study that does not fit is NOT_APPLICABLE, one that takes too long SKIPPED, one whose input is not fit to be
        judged a Finding CANNOT_JUDGE. Raises `Retry` or `Stop` only when the device fails.
        """
        deadline = time.monotonic() + self._time_limit_s
        unavailable = list(self.absent)
        headers, unreadable = read_headers(study.objects)
        if not headers:
            if unreadable:
                return TriageResult(TriageOutcome.SKIPPED, "triage.unreadable: no CT image of the study can be parsed")
            return TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-ct: no model is made for these objects")
        notes = (f"select.unreadable: {unreadable} CT images cannot be parsed",) if unreadable else ()
        findings: list[tuple[Finding, KeyImage | None]] = []
        late = 0
        for model in self.models:
            if model.broken():
                unavailable.append(f"{model.label}: {model.fault}")
                continue
            try:
                findings.extend(self._judge_with(model, headers, notes, deadline, urgency))
            except OutOfTime:
                late += 1
                unavailable.append(f"{model.label}: triage.time-limit")
            if model.broken() and self._on_fault is not None:
                self._on_fault(model)
        if findings:
            result = TriageResult(
                TriageOutcome.FINDING, findings=tuple(f for f, _ in findings), unavailable=tuple(unavailable)
            )
            pictures = {id(f): image for f, image in findings}
            return replace(result, key_image=pictures[id(result.top)])
        outcome = TriageOutcome.SKIPPED
        if late:
            reason = f"triage.time-limit: not judged within {self._time_limit_s:g} s"
        elif unavailable:
            reason = "triage.no-model-runs: a model that might have judged it is out of service"
        elif not self.models:
            reason = "triage.no-model-runs: no model is in shadow, information or live"
        else:
            outcome = TriageOutcome.NOT_APPLICABLE
            reason = "triage.no-series: no series fits the selection rule of a model"
        return TriageResult(outcome, reason, unavailable=tuple(unavailable))

    def _judge_with(
        self,
        model: LoadedModel,
        headers: list[SliceHeader],
        notes: tuple[str, ...],
        deadline: float,
        urgency: float,
    ) -> list[tuple[Finding, KeyImage | None]]:
        """The first series that can be judged, in order of preference; else why the preferred one cannot."""
        refused: tuple[Finding, None] | None = None
        for series in candidates(headers, model.rule):
            started = time.monotonic()
            try:
                return list(self._judge_series(model, series, notes, started, deadline, urgency))
            except CannotJudge as error:
                refused = refused or (_refusal(model, series, error, notes, time.monotonic() - started), None)
                if isinstance(error, ModelFault):
                    refused = (_refusal(model, series, error, notes, time.monotonic() - started), None)
                    break
        return [refused] if refused else []

    def _judge_series(
        self,
        model: LoadedModel,
        series: Series,
        notes: tuple[str, ...],
        started: float,
        deadline: float,
        urgency: float,
    ) -> list[tuple[Finding, KeyImage | None]]:
        placed = {h.item.sop_uid: h for h in series.slices if h.geometry is not None and h.rescale is not None}
        if len(placed) < (1 - MAX_LOST) * len(series.slices):
            raise CannotJudge("geometry.missing", "the slices do not say where they lie, or are not in HU")
        stack = order([h.geometry for h in placed.values() if h.geometry is not None])
        stored, decoded = self._decode(stack, placed, deadline)
        lost = len(decoded) - sum(decoded)
        if lost > MAX_LOST * len(stack.slices):
            raise CannotJudge("decode.undecodable", f"{lost} of {len(stack.slices)} slices cannot be decoded")
        quality = [*notes]
        if lost:
            quality.append(f"decode.undecodable: {lost} slices cannot be decoded and were left out")
            stack = order([s for s, good in zip(stack.slices, decoded, strict=True) if good])
            stored = stored[np.array(decoded)]
        if len(placed) < len(series.slices):
            quality.append(
                f"geometry.missing: {len(series.slices) - len(placed)} slices without place or scale left out"
            )
        quality.extend(stack.warnings)
        volume = stack.plane.canonical(stored)
        seen = seen_of(series.slices[0].item.read, volume)
        if (patches := model.card.slabs_input.patches) is not None:
            whole = resample(stack, volume, patches, len(model.card.file.findings) + 1)
            maps = class_maps(model, whole, deadline, urgency)
            told = [
                _of_volume(model, finding, maps[finding.short], series, stack, stored, whole, tuple(quality), started)
                for finding in model.card.file.findings
            ]
            return [(replace(finding, seen=seen), image) for finding, image in told]
        made = assemble(stack, volume, model.card.spec)
        slabs = model.card.slabs_input.slabs
        head = None
        if slabs is not None and slabs.check == "head":
            head = check_head(made.hu, made.spec.pixel_mm, slab_thickness(stack, made.members))
            quality.extend(head.warnings)
        name = model.card.first.output
        tensor: Arrays = {model.card.slabs_input.name: made.tensor()}
        logits = model.run(tensor, deadline, urgency)[name].astype(np.float32)[:, 0]
        mask = np.ones(logits.shape, np.bool_) if head is None else score.cell_mask(head.cavity, logits.shape[-1])
        if not (mask.sum((1, 2)) >= score.MIN_CELLS).any():
            raise CannotJudge("quality.not-a-head", "no slice shows enough of a cranial cavity")
        finding, image = _finding(model, series, stack, stored, made, logits, mask, tuple(quality), started)
        return [(replace(finding, seen=seen), image)]

    def _decode(self, stack: Stack, placed: dict[str, SliceHeader], deadline: float) -> tuple[Shorts, tuple[bool, ...]]:
        """Stored slices in HU, int16 (slices, rows, columns) in stack order, and which of them could be decoded."""
        first = stack.slices[0]
        # One volume, filled in place: 500 slices are 262 MB as int16 and must not exist twice.
        volume = np.empty((len(stack.slices), first.rows, first.columns), np.int16)

        def one(index: int) -> bool:
            if time.monotonic() > deadline:
                raise OutOfTime
            header = placed[stack.slices[index].sop_uid]
            try:
                stored = stored_values(dcmread(BytesIO(header.item.read())))
            except Quarantine:
                return False
            slope, intercept = header.rescale or (1.0, 0.0)
            volume[index] = to_hu(stored, slope, intercept)
            return True

        with ThreadPoolExecutor(self._workers, "decode") as pool:
            return volume, tuple(pool.map(one, range(len(stack.slices))))


def _finding(
    model: LoadedModel,
    series: Series,
    stack: Stack,
    stored: Shorts,
    made: Prepared,
    logits: Floats,
    mask: NDArray[np.bool_],
    quality: tuple[str, ...],
    started: float,
) -> tuple[Finding, KeyImage]:
    """Score, place and picture of a judged series."""
    point = model.card.point(model.variant, model.card.first)
    scores = score.slab_scores(logits, mask)
    p = corrected(score.probability(score.study_logit(scores), point.slope, point.offset), point.isotonic)
    flagged = p >= point.threshold
    slab = int(scores.argmax())
    index = made.members[slab][len(made.members[slab]) // 2]
    hot = score.region(logits[slab], mask[slab])
    half, cell_mm = made.spec.size * made.spec.pixel_mm / 2, made.spec.size * made.spec.pixel_mm / len(hot)
    grid = Grid((made.centre[0] - half, made.centre[1] - half), (cell_mm, cell_mm))
    cells = np.where(hot, 1 / (1 + np.exp(-np.clip(logits[slab], -30, 30))), 0).astype(np.float32)
    told = _Told(model, model.card.first, p, flagged, index, hot, cells, grid)
    return _told(told, series, stack, stored, quality, started)


def _of_volume(
    model: LoadedModel,
    finding: FindingTable,
    map_: Floats,
    series: Series,
    stack: Stack,
    stored: Shorts,
    whole: Resampled,
    quality: tuple[str, ...],
    started: float,
) -> tuple[Finding, KeyImage]:
    """Score, place and picture of one finding of a volume."""
    point = model.card.point(model.variant, finding)
    raw = min(max(volume_score(map_, model.card.output(finding.output).top_voxels), 1e-6), 1 - 1e-6)
    p = corrected(score.probability(float(np.log(raw / (1 - raw))), point.slope, point.offset), point.isotonic)
    flagged = p >= point.threshold
    layer = int(map_.max((1, 2)).argmax())
    logits = np.log(np.clip(map_[layer], 1e-6, 1 - 1e-6) / (1 - np.clip(map_[layer], 1e-6, 1 - 1e-6)))
    hot = score.region(logits.astype(np.float32), np.ones(logits.shape, np.bool_))
    cells = np.where(hot, map_[layer], 0).astype(np.float32)
    told = _Told(model, finding, p, flagged, whole.slice_of(stack, layer), hot, cells, whole.grid)
    return _told(told, series, stack, stored, quality, started)


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What a model says: the finding, its probability, the slice and the cells where."""

    model: LoadedModel
    finding: FindingTable
    probability: float
    flagged: bool
    index: int
    hot: NDArray[np.bool_]
    cells: Floats
    grid: Grid


def _told(
    said: _Told, series: Series, stack: Stack, stored: Shorts, quality: tuple[str, ...], started: float
) -> tuple[Finding, KeyImage]:
    model, index = said.model, said.index
    key = stack.slices[index]
    flagged = said.flagged
    marked = flagged and bool(model.card.file.picture.mask)
    box = stored_box(said.hot, stack, index, said.grid) if marked else None
    finding = Finding(
        verdict=Verdict.FLAGGED if flagged else Verdict.NOT_FLAGGED,
        model=model.identity,
        provider=model.provider,
        code=model.card.code(said.finding),
        probability=said.probability,
        threshold=model.card.point(model.variant, said.finding).threshold,
        category=said.finding.category,
        series_uid=series.uid,
        key_sop_uid=key.sop_uid,
        key_frame=1,
        box=box,
        seconds=time.monotonic() - started,
        quality=quality,
    )
    heat = stored_heat(said.cells, stack, index, said.grid) if marked else None
    image = picture.draw(
        stored[index],
        finding,
        said.finding.short,
        heat,
        picture.edge_letters(key.along_row, key.along_column),
        key.spacing[0] / key.spacing[1],
    )
    return finding, image if heat is None else replace(image, mask=_mask(heat))


def _mask(heat: Floats) -> Mask | None:
    """The stored pixels within half of the strongest mark, None when there is no mark."""
    marked = heat >= heat.max() / 2
    if not heat.max() > 0:
        return None
    rows, columns = heat.shape
    return Mask(rows, columns, np.packbits(marked, bitorder="little").tobytes())


def _refusal(model: LoadedModel, series: Series, error: CannotJudge, notes: tuple[str, ...], seconds: float) -> Finding:
    point = model.card.point(model.variant, model.card.first)
    return Finding(
        verdict=Verdict.CANNOT_JUDGE,
        model=model.identity,
        provider=model.provider,
        code=model.card.code(model.card.first),
        probability=0.0,
        threshold=point.threshold,
        category=model.card.first.category,
        series_uid=series.uid,
        key_sop_uid=series.slices[len(series.slices) // 2].item.sop_uid,
        key_frame=1,
        box=None,
        seconds=seconds,
        reason=str(error),
        quality=notes,
    )
