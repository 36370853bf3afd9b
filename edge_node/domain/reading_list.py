"""An entry of the node's own reading list: what the ledger knows of it, pseudonymous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge_node.domain.finding import Code
from edge_node.domain.worklist import Priority


class ReadState(StrEnum):
    """Procedure Step State (PS3.4 CC.1.1) of an entry, as its reader changed it."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def final(self) -> bool:
        """Nothing of the entry may change any more; it leaves the list."""
        return self in (ReadState.COMPLETED, ReadState.CANCELED)


@dataclass(frozen=True, slots=True)
class Entry:
    """One study to read: `uid` ours (a keyed hash of the study key), times in seconds since the epoch.

    `ready_at` is when its result was known, `changed_at` when its place or state changed last; `flagged` are the codes
    of flagged findings; `lock` is the keyed hash of the Transaction UID of whoever claimed it. `number` counts from 1
    how often the study came onto the list: images after a reader had finished it bring it back.
    """

    study_key: str
    uid: str
    priority: Priority
    modalities: tuple[str, ...]
    body_part: str
    flagged: tuple[str, ...]
    arrived_at: float
    ready_at: float
    changed_at: float
    state: ReadState
    lock: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True)
class Performer:
    """Who should read a study: a code of the site's own scheme with its meaning, and the organization."""

    code: Code
    organization: str


@dataclass(frozen=True, slots=True)
class Routes:
    """Who should read what, in the order of the configuration: (words that must all fit, code of the reader)."""

    routes: tuple[tuple[str, str], ...] = ()
    names: Mapping[str, str] | None = None
    scheme: str = ""
    organization: str = ""

    def reader(self, modalities: tuple[str, ...], body_part: str, flagged: tuple[str, ...]) -> Performer | None:
        """The reader that the first fitting route names; None when none fits."""
        facts = {f"modality:{one.upper()}" for one in modalities}
        facts |= {f"body:{body_part.upper()}"} | {f"finding:{one.upper()}" for one in flagged}
        for words, value in self.routes:
            if {_folded(word) for word in words.split()} <= facts:
                meaning = (self.names or {}).get(value, value)
                return Performer(Code(value, self.scheme, meaning), self.organization or meaning)
        return None


def _folded(word: str) -> str:
    kind, _, value = word.partition(":")
    return f"{kind}:{value.upper()}"
