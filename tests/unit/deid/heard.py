"""Data sets that a test writes element by element, read as the check reads them."""

from __future__ import annotations

from edge_node.deid.witness import Testimony as Heard
from edge_node.deid.witness import witness
from tests.unit.deid.elements import (
    EXPLICIT,
    sent,
)


def told(*elements: tuple[int, str, bytes]) -> Heard:
    return witness(b"".join(sent(EXPLICIT, *one) for one in elements), implicit=False, big=False)
