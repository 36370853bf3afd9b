"""What the demo knows of its own day before anybody is asked."""

from __future__ import annotations

from dataclasses import dataclass

from edge_node.demo.studies import DemoStudy


@dataclass(frozen=True, slots=True)
class Run:
    """What the demo knows of its own day: `sent` is C-STORE status names by arrival, `keys` study keys by arrival."""

    seed: int
    started: float
    opened: float  # when the first association began: the report's clock
    hospital: str
    studies: list[DemoStudy]
    sent: dict[int, dict[str, int]]
    keys: dict[int, str]
    without_consent: int
