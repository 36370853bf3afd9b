"""What others say of a study's completeness: a performed procedure step (MPPS) or a list of what is available (IAN)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MPPS = "1.2.840.10008.3.1.2.3.3"  # Modality Performed Procedure Step SOP Class (PS3.4 F.7)
IAN = "1.2.840.10008.5.1.4.33"  # Instance Availability Notification SOP Class (PS3.4 R.3)


class Kind(StrEnum):
    """Who says it: the modality of its step, or the archive of what it has."""

    MPPS = "mpps"
    IAN = "ian"


CLASSES = {Kind.MPPS: MPPS, Kind.IAN: IAN}


class Command(StrEnum):
    """The DIMSE-N request that said it."""

    CREATE = "N-CREATE"
    SET = "N-SET"


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252) in the words of PS3.3 C.4.14; an archive's list is COMPLETED."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"

    @property
    def final(self) -> bool:
        """The step is over: nothing of it may change any more."""
        return self is not StepState.IN_PROGRESS


@dataclass(frozen=True, slots=True, repr=False)
class IdentifiedSignal:
    """One DIMSE-N request as received, identity and all: lives in memory for milliseconds, is never written.

    `dataset` is its attribute list as encoded in `transfer_syntax`. `again`: a worker died on it, and nobody knows
    whether it had taken it down.
    """

    command: Command
    dataset: bytes
    transfer_syntax: str
    sop_class: str
    sop_instance: str
    calling_ae: str
    received_at: float  # seconds since the epoch, UTC
    again: bool = False

    def __repr__(self) -> str:
        return f"<IdentifiedSignal {self.command}>"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is left of such a request without identity: keyed hashes of UIDs, a state and counts.

    `listed` names the instances that belong to it; None when the request says nothing of instances.
    """

    kind: Kind
    command: Command
    signal_key: str
    study_keys: tuple[str, ...]
    state: StepState | None
    listed: tuple[str, ...] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Announced:
    """What all announcements together say of one study, against what came.

    `open_steps` of the `steps` are in progress; `notices` are lists of an archive. Of the `listed` instances (those of
    finished steps and of lists) `missing` did not come, neither clean nor into quarantine. `unlisted` instances came
    that none of them names, `unlisted_now` of these in the present revision. `changed_at`: the last word.
    """

    steps: int = 0
    open_steps: int = 0
    discontinued: int = 0
    notices: int = 0
    listed: int = 0
    missing: int = 0
    unlisted: int = 0
    unlisted_now: int = 0
    changed_at: float = 0.0

    def told(self) -> dict[str, object]:
        """For the audit: counts, only those that say something."""
        counts: dict[str, object] = {
            "steps": self.steps,
            "in_progress": self.open_steps,
            "discontinued": self.discontinued,
            "notices": self.notices,
        }
        lists = {"announced": self.listed, "missing": self.missing} if self.listed else {}
        return {name: count for name, count in counts.items() if count} | lists


NOTHING_ANNOUNCED = Announced()
