"""Rules that choose a recipe: each can be chosen, and none parts a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.config.document import effective_toml
from edge_node.config.load import ConfigInvalid, Loaded, load
from edge_node.config.rules import called_ae_titles
from edge_node.config.schema import BUILT_IN_VARIABLES, SHIPPED_RECIPES, Config, DeidRule
from edge_node.deid.profiles import PROFILES
from edge_node.deid.recipe import BUILT_IN


def _load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Loaded:
    path = folder / "edge-node.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ=environ or {})


def _problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        _load(folder, text, environ)
    return [problem.removeprefix(f"{folder / 'edge-node.toml'}:") for problem in caught.value.problems]


def rules(*tables: str) -> str:
    """One line a table: `[[deid.rules]] key = value; key = value`."""
    return "\n".join("[[deid.rules]]\n" + table.replace("; ", "\n") for table in tables)


def test_rules_are_read_in_order_with_paths_of_the_file_and_names_of_shipped_recipes(tmp_path: Path) -> None:
    (tmp_path / "own.deid").touch()
    text = rules(
        'calling_ae_titles = ["CT1"]; recipe = "own.deid"; trial = "LUNG-1"; variables = { site = "07" }',
        'modalities = ["SR"]; recipe = "strict"',
    )
    deid = _load(tmp_path, '[deid]\nrecipe = "basic+research"\n' + text).config.deid
    assert deid.recipe == Path("basic+research")
    assert deid.rules == [
        DeidRule(calling_ae_titles=["CT1"], recipe=tmp_path / "own.deid", trial="LUNG-1", variables={"site": "07"}),
        DeidRule(modalities=["SR"], recipe=Path("strict")),
    ]


def test_what_is_in_force_can_be_written_down_and_read_back_with_its_rules(tmp_path: Path) -> None:
    loaded = _load(tmp_path, rules('calling_ae_titles = ["A"]; trial = "T"', 'modalities = ["CT"]; recipe = ""'))
    for origin in (None, loaded.origin):
        assert _load(tmp_path, effective_toml(loaded.config, origin)).config == loaded.config
    assert str(loaded.origin["deid.rules.0.trial"]).endswith("edge-node.toml:3")
    assert str(loaded.origin["deid.rules.1.trial"]) == "default"


def test_the_schema_knows_the_shipped_recipes_and_the_variables_of_the_language() -> None:
    assert set(SHIPPED_RECIPES) == set(PROFILES)
    assert BUILT_IN_VARIABLES == BUILT_IN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (rules('trial = "A"'), "1: [[deid.rules]] #1: has neither AE titles nor modalities"),
        (
            rules('calling_ae_titles = ["A", "B"]', 'calling_ae_titles = ["B"]; modalities = ["CT"]'),
            "3: [[deid.rules]] #2: is never chosen: #1 takes all that fits it; put it before",
        ),
        (
            rules('calling_ae_titles = ["A"]', 'calling_ae_titles = ["B"]', 'calling_ae_titles = ["A", "B"]'),
            "5: [[deid.rules]] #3: is never chosen: #1, #2 take all that fits it; put it before",
        ),
        (
            '[receive]\ncalling_ae_titles = ["A"]\n' + rules('calling_ae_titles = ["A", "C"]'),
            "4: [[deid.rules]] #1 calling_ae_titles: C may not send; add to [receive] calling_ae_titles",
        ),
        (
            rules('modalities = ["SR"]; trial = "T"'),
            "2: [[deid.rules]] #1 modalities: would part a study: its modalities go to trial T, others of the same"
            " sender by [deid] to no trial; a trial is chosen by AE titles alone",
        ),
        (
            rules('modalities = ["SR"]; recipe = "strict"', 'calling_ae_titles = ["A"]; trial = "T"'),
            "2: [[deid.rules]] #1 modalities: would part a study: its modalities go to no trial, others of the same"
            " sender by #2 to trial T;",
        ),
        (
            rules('calling_ae_titles = ["A"]; trial = "lung"', 'calling_ae_titles = ["B"]; trial = "LUNG"'),
            "6: [[deid.rules]] #2 trial: LUNG and lung differ in case only",
        ),
        (rules('calling_ae_titles = ["A"]; recipe = "gone.deid"'), "/gone.deid: no such file"),
        (rules('calling_ae_titles = ["A"]; recipe = "./strict"'), "/strict: no such file"),
        (rules('calling_ae_titles = ["A"]; trial = "a b"'), "3: [[deid.rules]] #1 trial: a trial's label has 1 to 16"),
        (rules('modalities = ["CT", "ct"]'), "2: [[deid.rules]] #1 modalities: element 2: a modality is written as in"),
        (rules('modalities = ["CT", 4]'), "2: [[deid.rules]] #1 modalities: element 2: must be text; not 4"),
        (rules('calling_ae_title = ["A"]'), "#1 calling_ae_title: there is no such option; did you mean calling_ae_ti"),
        (rules('modalities = ["CT"]; variables = { x = 1 }'), "3: [[deid.rules]] #1 variables.x: must be text; not 1"),
        ('[deid.rules]\ntrial = "T"\n', '1: [deid] rules: must be tables in double brackets; not {"trial": "T"}'),
        ("[deid]\nrules = 3\n", "2: [deid] rules: must be tables in double brackets; not 3"),
        ('[deid]\nvariables = { recipe_name = "x" }', "[deid] variables: the node itself says what var:recipe_name is"),
        ('[deid]\nvariables = { a = "Jos\u00e9" }', "[deid] variables: the value of a must have 1 to 64 printable ASC"),
        ('[deid]\nvariables = { "a b" = "x" }', "[deid] variables: the name of a variable has letters, digits and"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_told_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    [told] = _problems(tmp_path, text)
    assert problem in told


def test_one_trial_may_have_a_recipe_for_each_modality(tmp_path: Path) -> None:
    listed = rules(
        'called_ae_titles = ["LUNG"]; modalities = ["SR"]; recipe = "strict"; trial = "T"',
        'called_ae_titles = ["LUNG"]; trial = "T"',
        'modalities = ["US"]; recipe = "strict"',
    )
    assert len(_load(tmp_path, listed).config.deid.rules) == 3


def test_a_rule_is_changed_in_the_file_and_nowhere_else(tmp_path: Path) -> None:
    text = rules('calling_ae_titles = ["A"]; trial = "T"')
    [told] = _problems(tmp_path, text, {"EDGE_NODE_DEID__RULES__0__TRIAL": "U"})
    assert told == "EDGE_NODE_DEID__RULES__0__TRIAL: one rule cannot be changed here; write [[deid.rules]] in the file"
    [told] = _problems(tmp_path, text, {"EDGE_NODE_DEID__RULES": "x"})
    assert told.startswith("EDGE_NODE_DEID__RULES: [deid] rules: must be tables in double brackets")


def test_a_variable_of_the_recipes_keeps_its_spelling_in_the_environment(tmp_path: Path) -> None:
    environ = {"EDGE_NODE_DEID__VARIABLES__Site": "07"}
    assert _load(tmp_path, '[deid]\nvariables = { a = "b" }', environ).config.deid.variables == {"a": "b", "Site": "07"}
    assert _load(tmp_path, "", {"EDGE_NODE_DEID__VARIABLES": "a=1, b=2"}).config.deid.variables == {"a": "1", "b": "2"}


def test_the_node_answers_to_the_titles_that_rules_name(tmp_path: Path) -> None:
    config = _load(tmp_path, rules('called_ae_titles = ["LUNG ", "HEART"]')).config
    assert called_ae_titles(config) == {"EDGENODE", "LUNG", "HEART"}
    assert called_ae_titles(Config()) == {"EDGENODE"}
