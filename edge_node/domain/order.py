"""What is known of the order behind a study: how urgent it was asked for, and where the patient lies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

RANKS = ("", "ROUTINE", "URGENT", "STAT")  # ascending


@dataclass(frozen=True, slots=True)
class Order:
    """`priority` STAT, URGENT, ROUTINE or "" (not said); `patient_class` E, I, O (HL7 table 0004) or ""."""

    priority: str = ""
    patient_class: str = ""

    def with_(self, other: Order) -> Order:
        """What both say together: the more urgent priority, and the class that is read sooner."""
        classes = [one for one in ("E", "I", "O") if one in (self.patient_class, other.patient_class)]
        return Order(max(self.priority, other.priority, key=RANKS.index), classes[0] if classes else "")


def priority_of(words: Iterable[str]) -> str:
    """The order priority that the values of Requested Procedure Priority (PS3.3 C.4.11) and Study Priority ID mean."""
    found = {word.strip(" \0").upper() for word in words}
    if found & {"STAT", "ASAP"}:
        return "STAT"
    if found & {"URGENT", "HIGH", "MEDIUM", "MED"}:
        return "URGENT"
    return "ROUTINE" if found & {"ROUTINE", "LOW"} else ""
