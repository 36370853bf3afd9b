"""For scripts/mutants: what was worked out before the code was changed must not be taken for what the change gives."""

from __future__ import annotations

import os
import sys

import pytest

from edge_node.deid import wire, witness
from tests.unit.deid.objects import DEIDENTIFIER, KEY, RECIPE


@pytest.fixture(autouse=True)
def forgotten() -> None:
    if "MUTANTS" in os.environ:
        for known in (wire._vr_cache, wire._implied, witness._vrs):
            known.clear()
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_node.deid."):
                for value in vars(module).values():
                    if callable(getattr(value, "cache_clear", None)):
                        value.cache_clear()
        if os.environ["MUTANTS"] == "plan":
            DEIDENTIFIER.__init__(RECIPE, KEY, version="0.1.0")  # type: ignore[misc]
