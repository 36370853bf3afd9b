"""The triage step: a clean study goes in, findings and a key image come out."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.finding import Finding, KeyImage, Mask, ModelIdentity, TriageOutcome, TriageResult, Verdict
from edge_node.domain.study import CleanStudy
from edge_node.triage import picture, score
from edge_node.triage.card import Card, load_card
from edge_node.triage.decode import stored_values
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
from edge_node.triage.rule import Rule, parse
from edge_node.triage.runner import OutOfTime, Runner, check_onnxruntime_owner, wants_cuda
from edge_node.triage.select import Series, SliceHeader, candidates, read_headers

MAX_LOST: Final = 0.2  # so many slices of a series may be undecodable; more and it cannot be judged
_SLABS_PER_RUN: Final = 16


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified package, ready to run: identity and provider are what `status` and `doctor` show."""

    identity: ModelIdentity
    provider: str
    card: Card
    rule: Rule
    runner: Runner

    @property
    def label(self) -> str:
        """One line for people: what it is and where it runs."""
        return f"{self.identity.name} {self.identity.version} ({self.identity.variant} on {self.provider})"


class Triage:
    """All models of this node; lives in the compute process. Not thread-safe: one study at a time."""

    def __init__(
        self, models_dir: Path, *, provider: str, require_gpu: bool, threads: int, time_limit_s: float
    ) -> None:
        """Load every package below `models_dir` and verify hashes, signature and golden vectors.

        `provider` is auto, cpu or cuda; `threads` 0 lets onnxruntime choose; `time_limit_s` counts per study.
        Raises `Stop`: ``triage.model-invalid``, ``triage.no-models``, ``triage.no-gpu``, ``triage.onnxruntime-owner``.
        """
        check_onnxruntime_owner()
        folders = sorted(card.parent for card in models_dir.glob("*/card.toml"))
        if not folders:
            raise Stop("triage.no-models", "no model package found", hint="set [triage] models_dir, or enabled = false")
        cuda = wants_cuda(provider, require_gpu)
        self._time_limit_s = time_limit_s
        self._workers = threads or min(4, os.cpu_count() or 1)
        self.models: tuple[LoadedModel, ...] = tuple(
            _load(folder, cuda=cuda, require_gpu=require_gpu, threads=threads) for folder in folders
        )

    def judge(self, study: CleanStudy) -> TriageResult:
        """Judge one study with every model whose selection rule fits one of its series.

        A study that does not fit is NOT_APPLICABLE, one that takes too long SKIPPED, one whose input is not fit to be
        judged a Finding CANNOT_JUDGE. Raises `Retry` or `Stop` only when the device or the model fails.
        """
        deadline = time.monotonic() + self._time_limit_s
        headers, unreadable = read_headers(study.objects)
        if not headers:
            if unreadable:
                return TriageResult(TriageOutcome.SKIPPED, "triage.unreadable: no CT image of the study can be parsed")
            return TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-ct: no model is made for these objects")
        notes = (f"select.unreadable: {unreadable} CT images cannot be parsed",) if unreadable else ()
        findings: list[tuple[Finding, KeyImage | None]] = []
        try:
            for model in self.models:
                judged = self._judge_with(model, headers, notes, deadline)
                if judged is not None:
                    findings.append(judged)
        except OutOfTime:
            return TriageResult(TriageOutcome.SKIPPED, f"triage.time-limit: not judged within {self._time_limit_s:g} s")
        if not findings:
            return TriageResult(
                TriageOutcome.NOT_APPLICABLE, "triage.no-series: no series fits the selection rule of a model"
            )
        result = TriageResult(TriageOutcome.FINDING, findings=tuple(f for f, _ in findings))
        pictures = {id(f): image for f, image in findings}
        return replace(result, key_image=pictures[id(result.top)])

    def _judge_with(
        self, model: LoadedModel, headers: list[SliceHeader], notes: tuple[str, ...], deadline: float
    ) -> tuple[Finding, KeyImage | None] | None:
        """The first series that can be judged, in order of preference; else why the preferred one cannot."""
        refused: tuple[Finding, None] | None = None
        for series in candidates(headers, model.rule):
            started = time.monotonic()
            try:
                return self._judge_series(model, series, notes, started, deadline)
            except CannotJudge as error:
                refused = refused or (_refusal(model, series, error, notes, time.monotonic() - started), None)
        return refused

    def _judge_series(
        self, model: LoadedModel, series: Series, notes: tuple[str, ...], started: float, deadline: float
    ) -> tuple[Finding, KeyImage]:
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
        logits = self._logits(model, made, deadline)
        mask = score.cell_mask(head.cavity, model.card.file.output.cells)
        if not (mask.sum((1, 2)) >= score.MIN_CELLS).any():
            raise CannotJudge("quality.not-a-head", "no slice shows enough of a cranial cavity")
        return _finding(model, series, stack, stored, made, logits, mask, tuple(quality), started)

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

    def _logits(self, model: LoadedModel, made: Prepared, deadline: float) -> Floats:
        tensor = made.tensor()
        parts = [
            model.runner.run(tensor[i : i + _SLABS_PER_RUN], deadline - time.monotonic())
            for i in range(0, len(tensor), _SLABS_PER_RUN)
        ]
        return np.concatenate(parts)


def _load(folder: Path, *, cuda: bool, require_gpu: bool, threads: int) -> LoadedModel:
    card = load_card(folder)
    runner = Runner(card, cuda=cuda, require_gpu=require_gpu, threads=threads)
    variant = card.file.variants[runner.variant]
    identity = ModelIdentity(card.file.name, card.file.version, variant.sha256, runner.variant, card.file.label)
    return LoadedModel(identity, runner.provider, card, parse(card.file.selection.rule), runner)


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
    variant = model.card.file.variants[model.runner.variant]
    scores = score.slab_scores(logits, mask)
    p = score.probability(score.study_logit(scores), variant.calibration.slope, variant.calibration.offset)
    flagged = p >= variant.threshold
    slab = int(scores.argmax())
    index = made.members[slab][len(made.members[slab]) // 2]
    key = stack.slices[index]
    hot = score.region(logits[slab], mask[slab])
    box = _stored_box(hot, stack, index, made) if flagged else None
    finding = Finding(
        verdict=Verdict.FLAGGED if flagged else Verdict.NOT_FLAGGED,
        model=model.identity,
        provider=model.runner.provider,
        code=model.card.code,
        probability=p,
        threshold=variant.threshold,
        category=model.card.file.finding.category,
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
        model.card.file.finding.short,
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
    variant = model.card.file.variants[model.runner.variant]
    return Finding(
        verdict=Verdict.CANNOT_JUDGE,
        model=model.identity,
        provider=model.runner.provider,
        code=model.card.code,
        probability=0.0,
        threshold=variant.threshold,
        category=model.card.file.finding.category,
        series_uid=series.uid,
        key_sop_uid=series.slices[len(series.slices) // 2].item.sop_uid,
        key_frame=1,
        box=None,
        seconds=seconds,
        reason=str(error),
        quality=notes,
    )
