"""The triage step: a clean study goes in, findings and a key image come out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_node.domain.errors import EdgeNodeError, Stop
from edge_node.domain.finding import Finding, KeyImage, TriageOutcome, TriageResult, Verdict
from edge_node.domain.model import SPEAKING
from edge_node.domain.quality import InputQuality, Score
from edge_node.domain.study import CleanStudy
from edge_node.triage import body_part, picture, score
from edge_node.triage.ahead import Ahead, Ready
from edge_node.triage.calibration import corrected
from edge_node.triage.card_tables import FindingTable
from edge_node.triage.film import FilmHeader, read_films
from edge_node.triage.film_judge import look, unfit_films
from edge_node.triage.header_quality import header_quality
from edge_node.triage.headers import SliceHeader, read_headers
from edge_node.triage.measures import head_scores, refuse, volume_scores
from edge_node.triage.measures import score as measure
from edge_node.triage.model import LoadedModel, ModelFault, speaking_first
from edge_node.triage.places import Grid, mask_of, stored_box, stored_heat
from edge_node.triage.prepare import CannotJudge, Floats, Prepared, assemble, slab_thickness
from edge_node.triage.quality import check_head
from edge_node.triage.refusal import refusal
from edge_node.triage.regions import Areas
from edge_node.triage.runner import Arrays, OutOfTime
from edge_node.triage.seen import seen_of
from edge_node.triage.select import Series, candidates, unfit_words
from edge_node.triage.series_volume import SeriesVolume, Volumes
from edge_node.triage.turns import Precedence, politely
from edge_node.triage.volume import Resampled, class_maps, resample

SHADOW_S: Final = 20.0  # all models in shadow together, where others speak

log = structlog.get_logger()

# The pixels are not what the header says they are.
_OTHER_BODY_PART: Final = frozenset({"quality.not-a-head", "quality.no-skull"})


@dataclass(slots=True, eq=False)
class _Work:
    """One study while it is judged."""

    headers: list[SliceHeader]
    volumes: Volumes
    notes: tuple[str, ...]
    deadline: float
    urgency: float
    films: list[FilmHeader] = field(default_factory=list)
    inputs: dict[str, InputQuality] = field(default_factory=dict)
    areas: Areas = field(default_factory=Areas)
    trial: bool = False

    def on_trial(self) -> None:
        """From here on only models in shadow judge: what was found by others must not wait long for them."""
        if not self.trial:
            self.trial, self.deadline = True, min(self.deadline, time.monotonic() + SHADOW_S)

    def measured(self, uid: str, scores: tuple[Score, ...]) -> None:
        """Scores of a series seen in pixels; what was measured of it before stays unless it is measured anew."""
        known = self.inputs.get(uid)
        kept = {s.name: s for s in known.scores} if known is not None else {}
        merged = tuple((kept | {s.name: s for s in scores}).values())
        self.inputs[uid] = InputQuality(uid, known.modality if known is not None else "CT", pixels=True, scores=merged)


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
        ahead: Ahead | None = None,
        precedence: Precedence | None = None,
    ) -> None:
        """`time_limit_s` counts per study; `threads` 0 decodes on up to four cores; `absent` are models that should
        run and cannot, each with its reason; `on_fault` is told of a model that must not run on; `ahead` has decoded
        what it could while the study came in; `precedence` is shared with whatever else gives way to these studies."""
        self.models = speaking_first(models)
        self.absent = tuple(absent)
        self._time_limit_s = time_limit_s
        self._workers = threads or min(4, os.cpu_count() or 1)
        self._on_fault = on_fault
        self._ahead = ahead
        self._precedence = precedence or Precedence()

    def judge(self, study: CleanStudy, urgency: float = 100.0) -> TriageResult:
        """Judge one study with every model whose selection rule fits one of its series; the smaller `urgency`, the
        sooner its turn at every model.

        A study that does not fit is NOT_APPLICABLE, one that takes too long SKIPPED, one whose input is not fit to be
        judged a Finding CANNOT_JUDGE. What fails under one model takes nothing from the others: it stands in
        `unavailable`. It is raised only when nothing urgent would be lost: no model that speaks has flagged the study,
        and one that speaks has failed, or the device is gone (`Stop`).
        """
        lent = nullcontext() if self._ahead is None else self._ahead.lent(study.study_key)
        with lent as ready, self._precedence.judging(urgency) as give_way:
            return self._judge(study, urgency, ready, give_way)

    def _judge(
        self, study: CleanStudy, urgency: float, ready: Ready | None, give_way: Callable[[], None]
    ) -> TriageResult:
        deadline = time.monotonic() + self._time_limit_s
        unavailable = list(self.absent)
        inputs = header_quality(study.objects)
        headers, unreadable = read_headers(politely(study.objects, give_way))
        films, unreadable_films = read_films(study.objects)
        # Without a model for radiographs one more radiograph is nobody's subject, unless such a model is missing.
        looks = bool(self.absent) or any(m.card.slabs_input.film for m in self.models)
        if not headers and not (films and looks):
            seen = tuple(inputs.values())
            if unreadable or unreadable_films:
                what = "CT image" if unreadable else "radiograph"
                reason = f"triage.unreadable: no {what} of the study can be parsed"
                return TriageResult(TriageOutcome.SKIPPED, reason, inputs=seen)
            reason = "triage.no-ct: no model is made for these objects"
            return TriageResult(TriageOutcome.NOT_APPLICABLE, reason, inputs=seen)
        notes = (f"select.unreadable: {unreadable} CT images cannot be parsed",) if unreadable else ()
        if unreadable_films:
            notes = (*notes, f"select.unreadable: {unreadable_films} radiographs cannot be parsed")
        volumes = Volumes(self._workers, ready=ready, give_way=give_way)
        work = _Work(headers, volumes, notes, deadline, urgency, films, inputs)
        findings: list[tuple[Finding, KeyImage | None]] = []
        late = 0.0
        failure: Exception | None = None
        speaks = any(m.stage in SPEAKING and m.card.file.says == "findings" for m in self.models)
        for model in self.models:
            if model.card.file.says == "body-part":
                continue
            give_way()
            if speaks and model.stage not in SPEAKING:
                work.on_trial()
            if model.broken():
                unavailable.append(f"{model.label}: {model.fault}")
                continue
            try:
                findings.extend(self._judge_with(model, work))
            except OutOfTime:
                late = max(late, self._time_limit_s if not work.trial else SHADOW_S)
                unavailable.append(f"{model.label}: triage.time-limit")
            except Exception as error:
                code = error.code if isinstance(error, EdgeNodeError) else f"internal.{type(error).__name__}"
                unavailable.append(f"{model.label}: {code}")
                log.exception("model.failed", model=model.card.file.name, code=code)
                if isinstance(error, Stop) or (model.stage in SPEAKING and not isinstance(failure, Stop)):
                    failure = error
            if model.broken() and self._on_fault is not None:
                self._on_fault(model)
        urgent = any(_urgent(finding) for finding, _ in findings)
        if failure is not None and not urgent:
            raise failure
        work.on_trial()  # a suggestion keeps nobody waiting
        shown = body_part.Shown(headers, work.volumes, work.deadline, urgency)
        suggestions, silent = body_part.suggested(self.models, shown, self._on_fault, raises=not urgent)
        if findings:
            # When every model has judged: figures take the time of none.
            findings = work.areas.measured(findings, deadline, urgency)
            findings = body_part.heeded(self.models, headers, findings, suggestions)
            result = TriageResult(
                TriageOutcome.FINDING,
                findings=tuple(f for f, _ in findings),
                unavailable=(*unavailable, *silent),
                inputs=tuple(work.inputs.values()),
                suggestions=suggestions,
            )
            pictures = {id(f): image for f, image in findings}
            return replace(result, key_image=pictures[id(result.top)])
        outcome = TriageOutcome.SKIPPED
        if late:
            reason = f"triage.time-limit: not judged within {late:g} s"
        elif unavailable:
            reason = "triage.no-model-runs: a model that might have judged it is out of service"
        elif not self.models:
            reason = "triage.no-model-runs: no model is in shadow, information or live"
        else:
            outcome = TriageOutcome.NOT_APPLICABLE
            reason = "triage.no-series: no series fits the selection rule of a model"
            if unfit := unfit_words(headers, [model.rule for model in self.models]):
                reason += f" ({unfit})"
            if unfit := unfit_films(films, [model.rule for model in self.models]):
                reason += f" ({unfit})"
            if missing := body_part.missing(suggestions):
                reason += f" ({missing})"
        return TriageResult(
            outcome,
            reason,
            unavailable=(*unavailable, *silent),
            inputs=tuple(work.inputs.values()),
            suggestions=suggestions,
        )

    def _judge_with(self, model: LoadedModel, work: _Work) -> list[tuple[Finding, KeyImage | None]]:
        """The first series that can be judged, in order of preference; else why the preferred one cannot."""
        if model.card.slabs_input.film is not None:
            return _judge_films(model, work)
        refused: tuple[Finding, None] | None = None
        for series in candidates(work.headers, model.rule):
            started = time.monotonic()
            quality = [*work.notes, *series.notes]
            try:
                return list(_judge_series(model, series, work, quality, started))
            except CannotJudge as error:
                if error.reason in _OTHER_BODY_PART and "BodyPartExamined" in series.attributes:
                    work.measured(series.uid, (measure("body-part", 1, model.card.file.quality.limits),))
                middle = series.slices[len(series.slices) // 2]
                key = (series.uid, middle.item.sop_uid, middle.frame)
                said = refusal(model, key, error, tuple(quality), time.monotonic() - started)
                refused = refused or (said, None)
                if isinstance(error, ModelFault):
                    refused = (said, None)
                    break
        return [refused] if refused else []


def _urgent(finding: Finding) -> bool:
    """Whether somebody waits for this finding."""
    return finding.verdict is Verdict.FLAGGED and finding.model.stage in SPEAKING


def _judge_series(
    model: LoadedModel, series: Series, work: _Work, quality: list[str], started: float
) -> list[tuple[Finding, KeyImage | None]]:
    """`quality` gathers what was odd, so that a refusal can say it too."""
    series.check()
    volume = work.volumes.of(series, work.deadline)
    stack = volume.coarse
    quality.extend(volume.notes)
    table = model.card.file.quality
    seen = seen_of(series.slices[0].item.read, volume.hu)

    def told(scores: tuple[Score, ...]) -> None:
        work.volumes.give_way()
        work.measured(series.uid, scores)
        said = {note.partition(":")[0] for note in quality}
        # What the geometry said in its own words is not said twice.
        spoken = {"quality.missing-slices": "geometry.gap", "quality.spacing": "geometry.uneven"}
        refuse(scores, table.refused)
        notes = [s.note for s in scores if s.note]
        quality.extend(n for n in notes if not {(k := n.partition(":")[0]), spoken.get(k, k)} & said)

    told(work.inputs[series.uid].scores if series.uid in work.inputs else ())
    told(volume_scores(stack, stack.plane, volume.hu, table.limits))
    if (patches := model.card.slabs_input.patches) is not None:
        whole = resample(stack, volume.hu, patches, len(model.card.file.findings) + 1, work.volumes.give_way)
        maps = class_maps(model, whole, work.deadline, work.urgency)
        found: list[tuple[Finding, KeyImage | None]] = []
        for of in model.card.file.findings:
            finding, image = _of_volume(model, of, maps[of.short], series, volume, whole, tuple(quality), started)
            finding = replace(finding, seen=seen)
            work.areas.mark(model, finding, whole.hu, maps[of.short], whole.spacing)
            found.append((finding, image))
        return found
    made = assemble(stack, volume.hu, model.card.spec, work.volumes.give_way)
    slabs = model.card.slabs_input.slabs
    head = None
    if slabs is not None and slabs.check == "head":
        thickness = slab_thickness(stack, made.members)
        head = check_head(made.hu, made.spec.pixel_mm, thickness)
        quality.extend(head.warnings)
        told(head_scores(made.hu, head, made.spec.pixel_mm, thickness, table.limits))
    inputs: Arrays = {model.card.slabs_input.name: made.tensor()}
    logits = model.run(inputs, work.deadline, work.urgency)[model.card.first.output].astype(np.float32)[:, 0]
    mask = np.ones(logits.shape, np.bool_) if head is None else score.cell_mask(head.cavity, logits.shape[-1])
    if not (mask.sum((1, 2)) >= score.MIN_CELLS).any():
        raise CannotJudge("quality.not-a-head", "no slice shows enough of a cranial cavity")
    finding, image = _finding(model, series, volume, made, logits, mask, tuple(quality), started)
    finding = replace(finding, seen=seen)
    work.areas.mark(model, finding, made.hu, score.chances(logits, mask), made.spec.spacing)
    return [(finding, image)]


def _judge_films(model: LoadedModel, work: _Work) -> list[tuple[Finding, KeyImage | None]]:
    """One answer for each finding of the card, of the film where it is most probable."""
    started = time.monotonic()
    looked = look(model, work.films, work.deadline, work.urgency)
    if looked is None:
        return []
    quality = (*work.notes, *looked.notes)
    if looked.refused is not None:
        header, error = looked.refused
        key = (header.item.series_uid, header.item.sop_uid, 1)
        return [(refusal(model, key, error, quality, time.monotonic() - started), None)]
    judged: list[tuple[Finding, KeyImage | None]] = []
    for one in looked.answers:
        said = _Told(model, one.finding, one.probability, one.flagged, 0, one.hot, one.cells, one.grid)
        finding, image = _told(said, one.series, one.volume, quality, started)
        judged.append((replace(finding, seen=one.seen), image))
    return judged


def _finding(
    model: LoadedModel,
    series: Series,
    volume: SeriesVolume,
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
    return _told(told, series, volume, quality, started)


def _of_volume(
    model: LoadedModel,
    finding: FindingTable,
    map_: Floats,
    series: Series,
    volume: SeriesVolume,
    whole: Resampled,
    quality: tuple[str, ...],
    started: float,
) -> tuple[Finding, KeyImage]:
    """Score, place and picture of one finding of a volume."""
    point = model.card.point(model.variant, finding)
    raw = min(max(score.volume_score(map_, model.card.output(finding.output).top_voxels), 1e-6), 1 - 1e-6)
    p = corrected(score.probability(float(np.log(raw / (1 - raw))), point.slope, point.offset), point.isotonic)
    flagged = p >= point.threshold
    layer = int(map_.max((1, 2)).argmax())
    logits = np.log(np.clip(map_[layer], 1e-6, 1 - 1e-6) / (1 - np.clip(map_[layer], 1e-6, 1 - 1e-6)))
    hot = score.region(logits.astype(np.float32), np.ones(logits.shape, np.bool_))
    cells = np.where(hot, map_[layer], 0).astype(np.float32)
    told = _Told(model, finding, p, flagged, whole.slice_of(volume.stack, layer), hot, cells, whole.grid)
    return _told(told, series, volume, quality, started)


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
    said: _Told, series: Series, volume: SeriesVolume, quality: tuple[str, ...], started: float
) -> tuple[Finding, KeyImage]:
    model, index, stack = said.model, said.index, volume.stack
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
        key_frame=key.frame,
        box=box,
        seconds=time.monotonic() - started,
        quality=quality,
    )
    heat = stored_heat(said.cells, stack, index, said.grid) if marked else None
    image = picture.draw(
        volume.image(index),
        finding,
        said.finding.short,
        heat,
        volume.letters or picture.edge_letters(key.along_row, key.along_column),
        key.spacing[0] / key.spacing[1],
        volume.window,
    )
    return finding, image if heat is None else replace(image, mask=mask_of(heat))
