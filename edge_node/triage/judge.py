"""The triage step: a clean study goes in, findings and a key image come out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import Finding, KeyImage, TriageOutcome, TriageResult, Verdict
from edge_node.domain.study import CleanStudy
from edge_node.triage import picture, score
from edge_node.triage.decode import stored_values
from edge_node.triage.model import LoadedModel, ModelFault, speaking_first
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
from edge_node.triage.select import Series, SliceHeader, candidates, read_headers

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
        made = assemble(stack, volume, model.card.spec)
        head = check_head(made.hu, made.spec.pixel_mm, slab_thickness(stack, made.members))
        quality.extend(head.warnings)
        name = model.card.first.output
        tensor: Arrays = {model.card.slabs_input.name: made.tensor()}
        logits = model.run(tensor, deadline, urgency)[name].astype(np.float32)[:, 0]
        mask = score.cell_mask(head.cavity, logits.shape[-1])
        if not (mask.sum((1, 2)) >= score.MIN_CELLS).any():
            raise CannotJudge("quality.not-a-head", "no slice shows enough of a cranial cavity")
        return [_finding(model, series, stack, stored, made, logits, mask, tuple(quality), started)]

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
    p = score.probability(score.study_logit(scores), point.slope, point.offset)
    flagged = p >= point.threshold
    slab = int(scores.argmax())
    index = made.members[slab][len(made.members[slab]) // 2]
    key = stack.slices[index]
    hot = score.region(logits[slab], mask[slab])
    box = _stored_box(hot, stack, index, made) if flagged else None
    finding = Finding(
        verdict=Verdict.FLAGGED if flagged else Verdict.NOT_FLAGGED,
        model=model.identity,
        provider=model.provider,
        code=model.card.code(model.card.first),
        probability=p,
        threshold=point.threshold,
        category=model.card.first.category,
        series_uid=series.uid,
        key_sop_uid=key.sop_uid,
        key_frame=1,
        box=box,
        seconds=time.monotonic() - started,
        quality=quality,
    )
    heat = _stored_heat(np.where(mask[slab], logits[slab], score.NOTHING), hot, stack, index, made) if flagged else None
    image = picture.draw(
        stored[index],
        finding,
        model.card.first.short,
        heat,
        picture.edge_letters(key.along_row, key.along_column),
        key.spacing[0] / key.spacing[1],
    )
    return finding, image


def _stored_box(hot: NDArray[np.bool_], stack: Stack, index: int, made: Prepared) -> tuple[int, int, int, int]:
    """Bounding box of hot cells in stored pixels of slice `index`: top, left, bottom, right (exclusive)."""
    cell_mm = made.spec.size * made.spec.pixel_mm / len(hot)
    half = made.spec.size * made.spec.pixel_mm / 2
    plane, (y0, x0) = stack.plane, stack.origins[index]
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))

    def pixel(cell: float, centre: float, origin: float, step: float, count: int) -> int:
        return int(np.clip(round((centre - half + cell * cell_mm - origin) / step), 0, count))

    return plane.stored_box(
        (
            pixel(rows[0], made.centre[0], y0, plane.dy, plane.rows),
            pixel(columns[0], made.centre[1], x0, plane.dx, plane.columns),
            pixel(rows[-1] + 1, made.centre[0], y0, plane.dy, plane.rows),
            pixel(columns[-1] + 1, made.centre[1], x0, plane.dx, plane.columns),
        )
    )


def _stored_heat(logits: Floats, hot: NDArray[np.bool_], stack: Stack, index: int, made: Prepared) -> Floats:
    """Probability of the hot cells as a smooth map on the stored matrix, 0..1."""
    cell_mm = made.spec.size * made.spec.pixel_mm / len(hot)
    half = made.spec.size * made.spec.pixel_mm / 2
    plane, (y0, x0) = stack.plane, stack.origins[index]
    cells = np.where(hot, 1 / (1 + np.exp(-np.clip(logits, -30, 30))), 0).astype(np.float32)
    wy = picture.linear_weights(plane.rows, plane.dy, y0, len(hot), cell_mm, made.centre[0] - half)
    wx = picture.linear_weights(plane.columns, plane.dx, x0, len(hot), cell_mm, made.centre[1] - half)
    return plane.stored(picture.smooth_heat(cells, wy, wx))


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
