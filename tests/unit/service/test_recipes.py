"""What the configuration makes of its recipes, and what the doctor says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_node.config.schema import Config, Deid, DeidRule
from edge_node.domain.selection import Condition
from edge_node.service.doctor import _recipes
from edge_node.service.recipes import active, choices, recipes_in_force
from tests.unit.deid.objects import RECIPE


def config(**deid: Any) -> Config:
    return Config(deid=Deid(**deid))


def own(folder: Path, lines: str) -> Path:
    path = folder / "own.deid"
    path.write_text("FORMAT dicom\n\n%header\n" + lines)
    return path


def test_a_rule_without_a_recipe_has_the_sites_and_its_variables_come_on_top(tmp_path: Path) -> None:
    path = own(tmp_path, "KEEP Manufacturer\n")
    trial = DeidRule(calling_ae_titles=["A "], trial="T", variables={"b": "3"})
    [ruled, rest] = choices(config(recipe=path, variables={"a": "1", "b": "2"}, rules=[trial]))
    assert (ruled.recipe, ruled.trial, ruled.variables) == (path, "T", {"a": "1", "b": "3"})
    assert ruled.condition == Condition(calling=frozenset({"A"}))
    assert (rest.recipe, rest.trial, rest.variables) == (path, "", {"a": "1", "b": "2"})
    assert rest.condition == Condition()


def test_a_shipped_recipe_goes_by_its_name() -> None:
    [ruled, rest] = choices(config(rules=[DeidRule(modalities=["SR"], recipe=Path("strict"))]))
    assert (ruled.recipe, rest.recipe) == (RECIPE.with_name("strict.deid"), RECIPE)
    assert choices(config(recipe=Path("basic+research")))[0].recipe == RECIPE.with_name("basic+research.deid")


def test_the_hash_that_the_pixel_step_looks_for_is_that_of_the_door() -> None:
    told = active(config(rules=[DeidRule(modalities=["SR"], recipe=Path("strict"))]))
    found = recipes_in_force(config(rules=[DeidRule(modalities=["SR"], recipe=Path("strict"))]))
    assert [recipe.sha256 for recipe, _ in found] == [one.sha256 for one in told]
    assert [recipe.path.name for _, recipe in found] == ["strict.deid", "basic.deid"]


def test_the_doctor_looks_at_every_recipe(tmp_path: Path) -> None:
    wrong, doubtful = own(tmp_path, "REPLACE StudyID var:x\n"), tmp_path / "doubtful.deid"
    doubtful.write_text("FORMAT dicom\n\n%header\nKEEP PatientName\n")
    rules = [
        DeidRule(calling_ae_titles=["CT1"], recipe=wrong),
        DeidRule(calling_ae_titles=["CT2"], recipe=doubtful, trial="LUNG-1"),
    ]
    first, second, last = _recipes(config(rules=rules))
    assert (first.result, second.result, last.result) == ("fail", "warn", "ok")
    assert first.detail.startswith(f"#1 from CT1: own: {wrong}:4: the variable 'x' is not defined")
    assert second.detail.startswith("#2 from CT2: doubtful, trial LUNG-1, sha256 ")
    assert second.detail.endswith("doubts in line 4")
    assert second.hint == f"edge-node deid lint {doubtful}"
    assert last.detail.startswith("all others: basic, sha256 ")
    [alone] = _recipes(config())
    assert alone.detail.startswith("basic, sha256 ")


def test_a_recipe_that_is_gone_is_told(tmp_path: Path) -> None:
    [one] = active(config(recipe=tmp_path / "gone.deid"))
    assert one.problems() == [
        f"{tmp_path / 'gone.deid'}: the recipe cannot be read as UTF-8 text; instead: set [deid] recipe"
    ]
