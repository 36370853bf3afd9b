"""What goes into the ledger, and what became of it: the words of intake."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge_node.domain.study import Deidentified


class Received(StrEnum):
    """What became of a received instance; every one of them may be acknowledged with Success."""

    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    QUARANTINED = "QUARANTINED"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The durable fact behind a Success: what was done, under which study key, with which stable code."""

    received: Received
    study_key: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Clean:
    """A clean object on its way into the ledger; `received_at` in seconds since the epoch."""

    what: Deidentified
    calling_ae: str
    received_at: float

    @property
    def uid(self) -> str:
        """Pseudonymous SOP Instance UID."""
        return self.what.instance.sop_uid

    @property
    def study_key(self) -> str:
        return self.what.instance.study_key


class Conflict(Exception):
    """The same SOP Instance UID is already kept with other content."""


class OtherRecipe(Conflict):
    """The same SOP Instance UID is already kept as another recipe made it; with the same content or not."""


class OtherPseudonyms(Conflict):
    """The study is already kept under the pseudonyms of another trial: this instance would be a second study."""


Answer = Receipt | Conflict
