"""What a model says of the radiographs of a study: each frontal film for itself, the strongest answer counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_node.domain.errors import EdgeNodeError
from edge_node.triage import score
from edge_node.triage.calibration import corrected
from edge_node.triage.card_tables import FindingTable
from edge_node.triage.film import Film, FilmHeader, made_of
from edge_node.triage.model import LoadedModel, ModelFault
from edge_node.triage.places import Grid
from edge_node.triage.prepare import CannotJudge, Floats, SliceGeometry, Stack
from edge_node.triage.rule import Rule
from edge_node.triage.runner import OutOfTime
from edge_node.triage.seen import Facts, seen_of_film
from edge_node.triage.select import WORDS, Series
from edge_node.triage.series_volume import SeriesVolume

GREYS = 1000  # of a film that is handed on as whole numbers

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class FilmAnswer:
    """One finding on one film: probability, cells where (bool and 0..1) with their grid, facts for the watch."""

    finding: FindingTable
    film: Film
    probability: float
    flagged: bool
    hot: NDArray[np.bool_]
    cells: Floats
    grid: Grid
    seen: Facts
    volume: SeriesVolume  # the film as a slice that has no place

    @property
    def series(self) -> Series:
        """Where the film lies."""
        return Series(self.film.header.item.series_uid, (), {}, {})


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """The strongest answer for each finding of the card; `refused` is why a film could not be judged, if none could;
    `notes` say what was left out or odd."""

    answers: tuple[FilmAnswer, ...]
    refused: tuple[FilmHeader, CannotJudge] | None
    notes: tuple[str, ...]


def fitting_films(rule: Rule, films: Sequence[FilmHeader]) -> list[FilmHeader]:
    """The films that a selection rule is made for, usable or not."""
    return [one for one in films if rule.matches(_asked(one, films))]


def look(model: LoadedModel, films: Sequence[FilmHeader], deadline: float, urgency: float) -> Looked | None:
    """Show every film that fits the model's rule to it; None when there is none.

    Raises `OutOfTime` and as `LoadedModel.run`, unless a film was flagged: no film takes the flag of another away.
    `CannotJudge` concerns one film only.
    """
    told = fitting_films(model.rule, films)
    fitting = [one for one in told if not one.unfit]
    if not fitting:
        return None
    notes = [
        f"{why}: {n} {WORDS[why]} left out" for why, n in sorted(Counter(o.unfit for o in told if o.unfit).items())
    ]
    best: dict[str, FilmAnswer] = {}
    refusals: list[tuple[FilmHeader, CannotJudge]] = []
    failures: list[Exception] = []
    for at, header in enumerate(fitting):
        try:
            answers = _answers(model, header, deadline, urgency)
        except ModelFault as error:
            if not any(one.flagged for one in best.values()):
                return Looked((), (header, error), tuple(notes))
            failures += [error] * (len(fitting) - at)  # it runs no more
            break
        except CannotJudge as error:
            refusals.append((header, error))
            continue
        except Exception as error:
            failures.append(error)
            continue
        notes += [note for note in header.notes if note not in notes]
        for one in answers:
            known = best.get(one.finding.short)
            if known is None or one.probability > known.probability:
                best[one.finding.short] = one
    if failures and not any(one.flagged for one in best.values()):
        raise failures[0]
    for code, n in sorted(Counter(map(_code, failures)).items()):
        notes.append(f"{code}: {n} of {len(fitting)} films not judged")
        log.error("model.failed", model=model.card.file.name, code=code, count=n)
    if best:
        notes += [f"{error} (one of {len(fitting)} films)" for _, error in refusals]
    return Looked(tuple(best.values()), None if best else refusals[0], tuple(notes))


def _code(error: Exception) -> str:
    if isinstance(error, OutOfTime):
        return "triage.time-limit"
    if isinstance(error, CannotJudge):
        return error.reason
    return error.code if isinstance(error, EdgeNodeError) else f"internal.{type(error).__name__}"


def unfit_films(films: Sequence[FilmHeader], rules: Sequence[Rule]) -> str:
    """Which films were left out although a rule fits them, in words; "" if there is none."""
    counts = Counter(one.unfit for one in films if one.unfit and any(r.matches(_asked(one, films)) for r in rules))
    return "; ".join(f"{why}: {n} {WORDS[why]} left out" for why, n in sorted(counts.items()))


def _asked(one: FilmHeader, films: Sequence[FilmHeader]) -> dict[str, tuple[str | float, ...]]:
    count = sum(other.item.series_uid == one.item.series_uid for other in films)
    return one.attributes | {"Instances": (float(count),)}


def _answers(model: LoadedModel, header: FilmHeader, deadline: float, urgency: float) -> list[FilmAnswer]:
    table = model.card.slabs_input
    assert table.film is not None
    if time.monotonic() > deadline:
        raise OutOfTime
    film = made_of(header, table.film)
    outputs = model.run({table.name: film.tensor[None]}, deadline, urgency)
    seen, volume = seen_of_film(header.item.read, film.image), as_volume(film)
    found = []
    for finding in model.card.file.findings:
        logits = outputs[finding.output].astype(np.float32)[0, 0]
        inside = film.inside(len(logits))
        point = model.card.point(model.variant, finding)
        raw = float(score.slab_scores(logits[None], inside[None])[0])
        p = corrected(score.probability(raw, point.slope, point.offset), point.isotonic)
        hot = score.region(logits, inside)
        # The box is round the strongest place; a film may show several, and all of them are tinted.
        seen_at = inside & ((logits > 0) | hot)
        cells = np.where(seen_at, 1 / (1 + np.exp(-np.clip(logits, -30, 30))), 0).astype(np.float32)
        grid, flagged = film.grid(len(logits)), p >= point.threshold
        found.append(FilmAnswer(finding, film, p, flagged, hot, cells, grid, seen, volume))
    return found


def as_volume(film: Film) -> SeriesVolume:
    """A film as a volume of one slice, so that box, heat and picture are made in one way for all."""
    header, plane = film.header, film.header.plane
    rows, columns = (plane.columns, plane.rows) if plane.transposed else (plane.rows, plane.columns)
    place = SliceGeometry(header.item.sop_uid, (0, 0, 0), (1, 0, 0), (0, 0, -1), (1, 1), rows, columns)
    stack = Stack((place,), (0.0,), ((0.0, 0.0),), plane, 1.0, ())
    values = np.rint(film.image * GREYS).astype(np.int16)
    return SeriesVolume(
        stack,
        stack,
        values[None],
        1,
        (),
        lambda _: plane.stored(values),
        window=(0.0, float(GREYS)),
        letters=header.letters,
    )
