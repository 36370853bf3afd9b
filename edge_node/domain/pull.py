"""Studies the node asks an archive for: what is wanted, where a request stands, what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a request names: one study, or something whose studies are to be found first."""

    STUDY = "study"
    ACCESSION = "accession"
    DAY = "day"
    PRIORS = "priors"


class PullState(StrEnum):
    """Where a request stands; the last three are final."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


OPEN = (PullState.WAITING, PullState.RUNNING)


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """One request, identity and all: sealed wherever it is kept.

    `value` is a Study Instance UID, an accession number, a date (YYYYMMDD) or a Patient ID; `issuer` is that of the
    Patient ID, `modality` limits what is found; "" is any.
    """

    kind: Kind
    value: str
    issuer: str = ""
    modality: str = ""

    def __repr__(self) -> str:
        return f"<Wanted {self.kind}>"


@dataclass(frozen=True, slots=True, repr=False)
class Match:
    """A study that the archive has; `instances` is 0 when it does not say how many. `date` (YYYYMMDD), `modalities` and
    `description` are its own words, "" where it has none."""

    study_uid: str
    instances: int = 0
    date: str = ""
    modalities: tuple[str, ...] = ()
    description: str = ""

    def __repr__(self) -> str:
        return f"<Match {self.instances} instances>"


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What the archive says of a retrieval: instances that were sent, and those that could not be."""

    sent: int
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Pulled:
    """The outcome of one study: a stable code and how many instances the node has of it."""

    code: str
    instances: int = field(default=0)
