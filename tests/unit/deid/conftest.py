"""For scripts/mutants: what was worked out before the code was changed must not be taken for what the change gives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from edge_node.deid import Deidentifier, wire, witness
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.objects import DEIDENTIFIER, KEY, RECIPE, RESEARCH
from tests.unit.deid.remembering import OWN, forget

_DATA = ("edge_node.deid.e1_1", "edge_node.deid.codes")  # tables of the standard: nothing there is changed

_METHODS = ("deidentify", "clean")


def _made_anew(shared: Deidentifier, method: str) -> Callable[[IdentifiedInstance], object]:
    """The method, which first compiles the plan anew: not every test of a module asks for it."""

    def first(instance: IdentifiedInstance) -> object:
        for name in _METHODS:
            vars(shared).pop(name, None)
        shared.__init__(shared.recipe.path, KEY, version="0.1.0")  # type: ignore[misc]
        return getattr(shared, method)(instance)

    return first


@pytest.fixture(autouse=True)
def forgotten() -> None:
    if "MUTANTS" in os.environ:
        forget(DEIDENTIFIER, RESEARCH)
        for known in (wire._vr_cache, wire._implied, witness._vrs):
            known.clear()
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_node.deid.") and name not in _DATA:
                for value in vars(module).values():
                    if callable(getattr(value, "cache_clear", None)):
                        value.cache_clear()
        if os.environ["MUTANTS"] == "plan":
            for shared in (DEIDENTIFIER, RESEARCH):
                for method in _METHODS:
                    vars(shared)[method] = _made_anew(shared, method)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Deidentifier:
    path = tmp_path_factory.mktemp("recipe") / "own.deid"
    path.write_text(OWN, encoding="utf-8")
    return Deidentifier(path, KEY, version="0.1.0", base=RECIPE)
