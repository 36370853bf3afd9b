"""Consent as the forward gate asks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ConsentDecision:
    """`allowed` with the source that said so; `reason` is a stable code (``consent.denied`` …)."""

    allowed: bool
    reason: str
    source: str


class ConsentSource(Protocol):
    """Answers for one patient key (keyed hash, never an identifier). Must not raise for an unknown patient: deny."""

    def decide(self, patient_key: str) -> ConsentDecision: ...
