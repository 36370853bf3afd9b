"""What the demo's report shows, as plain data. JSON in, JSON out: `--json` prints what the page is made of.

Unlike everything else in the product this holds names: the report shows the hospital's own view, and its patients are
fictional. Nothing here is ever made from a real site's data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, whether this run kept it, and the figure that says so."""

    promise: str
    kept: bool
    detail: str


@dataclass(frozen=True, slots=True)
class StudyEvents:
    """Moments of one study in seconds since the run began; None: did not happen."""

    first_image: float | None = None
    last_image: float | None = None
    settled: float | None = None
    triaged: float | None = None
    worklist: float | None = None
    delivered: float | None = None

    @property
    def seconds_to_worklist(self) -> float | None:
        """From the last image received to the worklist entry."""
        if self.last_image is None or self.worklist is None:
            return None
        return self.worklist - self.last_image


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One study: `number` is its place in arrival order from 1, and its name everywhere else in the report.

    `truth` and `outcome` are words for people; `verdict` is FLAGGED, NOT_FLAGGED, CANNOT_JUDGE, NOT_APPLICABLE,
    SKIPPED or QUARANTINED; `probability` in 0..1; `forwarded` counts objects that the trainer confirmed.
    """

    number: int
    patient: str
    patient_id: str
    accession: str
    description: str
    modality: str
    objects: int
    order_priority: str
    truth: str
    verdict: str
    outcome: str
    events: StudyEvents = field(default_factory=StudyEvents)
    probability: float | None = None
    forwarded: int = 0


@dataclass(frozen=True, slots=True)
class WorklistRow:
    """One line of the prioritised reading list: UPS `level`, the node's one-line `reason`, `due` as shown (10:31)."""

    study: int
    level: str
    reason: str
    due: str
    flagged: bool


@dataclass(frozen=True, slots=True)
class KeyImageCard:
    """A key image as the PACS got it: `png` is base64, `finding` the coded meaning, `seconds` decode to score."""

    study: int
    png: str
    finding: str
    probability: float
    threshold: float
    category: int
    provider: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DeidRow:
    """One attribute before and after; `action` is removed, replaced or kept."""

    tag: str
    name: str
    before: str
    after: str
    action: str


@dataclass(frozen=True, slots=True)
class DeidView:
    """One object on both sides of the wall; `removed`, `replaced`, `kept` count its attributes at any nesting."""

    study: int
    recipe: str
    rows: tuple[DeidRow, ...]
    removed: int
    replaced: int
    kept: int
    before_png: str
    after_png: str


@dataclass(frozen=True, slots=True)
class TrainerView:
    """What reached the trainer, and what it looked for. `needles` are the identifiers searched for in every byte."""

    name: str
    objects: int
    studies: int
    size: int
    needles: int
    needles_found: int
    refused: int
    repeated: int
    changed: int


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A study (or a part of it) that did not go all the way: `state` withheld, not applicable, skipped, quarantined."""

    study: int
    state: str
    objects: int
    reason: str
    explanation: str
    next_step: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """The model card in short; `label` is shown wherever the model's opinion is."""

    name: str
    version: str
    variant: str
    sha256: str
    provider: str
    label: str
    threshold: float
    intended_use: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """The whole report. `started_at` is text for people, `hospital` says who played PACS and trainer."""

    started_at: str
    seconds: float
    seed: int
    version: str
    hospital: str
    studies: tuple[StudyRow, ...]
    checks: tuple[Check, ...]
    worklist_before: tuple[int, ...]
    worklist_after: tuple[WorklistRow, ...]
    key_images: tuple[KeyImageCard, ...]
    deid: DeidView | None
    trainer: TrainerView
    held: tuple[HeldRow, ...]
    models: tuple[ModelView, ...]

    def to_json(self) -> str:
        """The data as JSON, pictures included, with `seconds_to_worklist` for every study."""
        plain: dict[str, Any] = asdict(self)
        for row, study in zip(plain["studies"], self.studies, strict=True):
            row["seconds_to_worklist"] = study.events.seconds_to_worklist
        return json.dumps(plain, ensure_ascii=False)
