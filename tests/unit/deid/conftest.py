"""For scripts/mutants: what was worked out before the code was changed must not be taken for what the change gives."""

from __future__ import annotations

import os
import sys

import pytest

from edge_node.deid import wire, witness
from tests.unit.deid.objects import DEIDENTIFIER, KEY, RESEARCH

_DATA = ("edge_node.deid.e1_1", "edge_node.deid.codes")  # tables of the standard: nothing there is changed


@pytest.fixture(autouse=True)
def forgotten(request: pytest.FixtureRequest) -> None:
    if "MUTANTS" in os.environ:
        for known in (wire._vr_cache, wire._implied, witness._vrs):
            known.clear()
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_node.deid.") and name not in _DATA:
                for value in vars(module).values():
                    if callable(getattr(value, "cache_clear", None)):
                        value.cache_clear()
        if os.environ["MUTANTS"] == "plan":
            for shared, users in ((DEIDENTIFIER, {"DEIDENTIFIER", "clean"}), (RESEARCH, {"RESEARCH"})):
                if users & vars(request.module).keys():
                    shared.__init__(shared.recipe.path, KEY, version="0.1.0")  # type: ignore[misc]
