"""DICOM PS3.15 Table E.1-1: which attributes identify, and what the profile and its options ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute: `basic` is the action of the Basic Profile (``X``, ``Z``, ``D``, ``U``, ``X/Z/D`` …).

    `options` maps an option to ``K`` (keep) or ``C`` (clean): ``uids``, ``device``, ``institution``, ``patient``,
    ``full-dates``, ``modified-dates``, ``descriptors``, ``structured``, ``graphics``, ``private``.
    """

    name: str
    basic: str
    options: dict[str, str]


def table_text() -> str:
    """The table's file as text."""
    return resources.files("edge_node.deid").joinpath("e1_1.json").read_text(encoding="utf-8")


@cache
def table() -> dict[int, Row]:
    """Rows by tag. Private attributes, curves and overlays (repeating rows of the table) are refused by code."""
    rows = json.loads(table_text())["attributes"]
    return {int(tag, 16): Row(name, basic, options) for tag, (name, basic, options) in rows.items()}
