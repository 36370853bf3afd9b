"""The paper is generated from the schema and says the truth about it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.config.document import (
    effective_toml,
    example_toml,
    options_markdown,
    schema_json,
    toml_key,
    toml_value,
)
from edge_node.config.load import Origin, load
from edge_node.config.options import option_at, sections
from edge_node.config.schema import Config, Deid, DeidRule

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "configs" / "edge-node.toml"


def test_the_shipped_example_is_the_generated_one() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == example_toml()


def test_the_shipped_options_table_is_the_generated_one() -> None:
    assert (ROOT / "edge_node" / "docs" / "options.md").read_text(encoding="utf-8") == options_markdown()


def test_the_shipped_example_loads_and_changes_nothing() -> None:
    assert load(SHIPPED, environ={}).config == Config()


def test_the_example_without_its_comment_signs_says_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"(?m)^#(?=[a-z\[])", "", example_toml()), encoding="utf-8")
    loaded = load(path, environ={})
    assert loaded.config == Config(peers=loaded.config.peers, deid=Deid(rules=loaded.config.deid.rules))
    [rule] = loaded.config.deid.rules
    assert rule == DeidRule(calling_ae_titles=["CT1"], recipe=Path("basic+research"), trial="LUNG-1")
    assert set(loaded.config.peers) == {"pacs", "ups"}
    assert {origin.kind for origin in loaded.origin.values()} == {"file"}


def test_every_option_stands_in_the_example_and_in_the_table_with_its_sentence() -> None:
    example = " ".join(example_toml().replace("\n# ", " ").split())
    table = options_markdown()
    for options in sections().values():
        for option in options.values():
            assert option.sentence
            assert f"{option.sentence} ({option.type_text}; " in example
            assert f"| `{option.key}` | {option.type_text} | " in table


def test_the_json_schema_names_every_section() -> None:
    assert set(json.loads(schema_json())["properties"]) == set(Config.model_fields)


def test_what_is_in_force_can_be_written_down_and_read_back(tmp_path: Path) -> None:
    peer = {"ae_title": 'P"Q', "host": "h", "port": 1}
    flags: dict[str, object] = {
        "receive.calling_ae_titles": "A,B",
        "settle.quiet_by_modality": "CT=3",
        "peers": {"a b.c": peer},
    }
    loaded = load(environ={}, flags=flags)
    path = tmp_path / "written.toml"
    for origin in (None, loaded.origin):
        path.write_text(effective_toml(loaded.config, origin), encoding="utf-8")
        assert load(path, environ={}).config == loaded.config


def test_what_is_in_force_says_where_it_comes_from() -> None:
    text = effective_toml(Config(), load(environ={}, flags={"receive.port": 7}).origin)
    assert re.search(r"(?m)^port = 11112 +# --set receive\.port$", text)
    text = effective_toml(Config(), {"settle.quiet_by_modality.CT": Origin("environment", "X")})
    assert re.search(r"(?m)^quiet_by_modality = .* # X$", text)


@given(
    st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False), st.lists(st.text(st.characters(codec="utf-8")))
)
def test_any_value_survives_its_way_through_toml(text: str, number: float, texts: list[str]) -> None:
    written = f"{toml_key(text)} = {toml_value({'a': [text, *texts], 'b': number, 'c': True})}"
    assert tomllib.loads(written) == {text: {"a": [text, *texts], "b": number, "c": True}}


def test_a_value_that_toml_cannot_say_is_an_error() -> None:
    with pytest.raises(TypeError):
        toml_value(object())


def test_an_option_is_found_by_its_dotted_path() -> None:
    port = option_at(("receive", "port"))
    assert port is not None
    assert (port.kind, port.variable, port.default) == ("integer", "EDGE_NODE_RECEIVE__PORT", 11112)
    peer = option_at(("peers", "pacs", "host"))
    assert peer is not None
    assert peer.required
    assert option_at(("peers", "pacs")) is None
    assert option_at(("receive",)) is None
