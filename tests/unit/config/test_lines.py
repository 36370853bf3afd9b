"""The line index agrees with tomllib about which keys there are, and with the text about where they stand."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge_node.config.lines import Key, key_lines

TRICKY = '''# [not.a.table]
title = "a # no comment, no [table], no \\" end"  # [x]
[ receive ]  # the door
port = 11112
"calling ae" = 'C:\\new'
names = [
  "one",  # first
  """two
  [three]
  port = 1""", # ends in a quote: ]
  { deep = [1,
            2] },
]
text = """"quoted"""\"
[peers . "pacs.main"]
host.name = "h"
host.port = 104
table = { x = 1, y.z = "}", s = '{' }
when = 2024-01-02 03:04:05
[[rules]]
a = 1
[[rules]]
a = 2
[rules.more]
b = 3
'''


def test_every_key_of_a_tricky_file_is_found_on_its_line() -> None:
    lines = key_lines(TRICKY)
    at = {".".join(key): line for key, line in lines.items()}
    assert at == {
        "title": 2,
        "receive": 3,
        "receive.port": 4,
        "receive.calling ae": 5,
        "receive.names": 6,
        "receive.names.0": 7,
        "receive.names.1": 8,
        "receive.names.2": 11,
        "receive.names.2.deep": 11,
        "receive.names.2.deep.0": 11,
        "receive.names.2.deep.1": 12,
        "receive.text": 14,
        "peers": 15,
        "peers.pacs.main": 15,
        "peers.pacs.main.host": 16,
        "peers.pacs.main.host.name": 16,
        "peers.pacs.main.host.port": 17,
        "peers.pacs.main.table": 18,
        "peers.pacs.main.table.x": 18,
        "peers.pacs.main.table.y": 18,
        "peers.pacs.main.table.y.z": 18,
        "peers.pacs.main.table.s": 18,
        "peers.pacs.main.when": 19,
        "rules": 20,
        "rules.0": 20,
        "rules.0.a": 21,
        "rules.1": 22,
        "rules.1.a": 23,
        "rules.1.more": 24,
        "rules.1.more.b": 25,
    }
    assert set(lines) == _paths(tomllib.loads(TRICKY))


def test_windows_line_ends_count_once() -> None:
    assert key_lines("a = 1\r\n\r\n[b]\r\nc = 2\r\n")[("b", "c")] == 4


def test_an_empty_text_has_no_keys() -> None:
    assert key_lines("") == {}
    assert key_lines("# only this") == {}


NAMES = st.text(st.characters(codec="ascii"), max_size=8)
LEAVES = st.one_of(
    st.integers(-(2**60), 2**60), st.booleans(), st.floats(), st.text(st.characters(codec="utf-8"), max_size=12)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=3), max_size=4), st.booleans())
def test_the_index_holds_exactly_the_keys_that_tomllib_finds(data: dict[str, dict[str, Any]], spread: bool) -> None:
    written: dict[Key, int] = {}
    lines: list[str] = []
    for section, table in data.items():
        lines += ["", f"# {section!r} = [", f"[{_string(section)}] # ]"]
        written[(section,)] = len(lines)
        for key, value in table.items():
            lines += [*(["  # {"] if spread else []), f" {_string(key)} = {_inline(value, spread)}"]
            written[(section, key)] = len("\n".join(lines[:-1]).split("\n")) + 1
            lines = "\n".join(lines).split("\n")
    text = "\n".join(lines)
    found = key_lines(text)
    assert set(found) == _paths(tomllib.loads(text))
    assert {key: line for key, line in found.items() if key in written} == written


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=True).replace("\x7f", "\\u007f") if text.isascii() else _escaped(text)


def _escaped(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


def _inline(value: Any, spread: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        gap = "\n # , ]\n" if spread else " "
        return f"[{gap}" + f",{gap}".join(_inline(item, spread) for item in value) + f"{gap}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_string(key)} = {_inline(item, spread)}" for key, item in value.items()) + " }"
    return repr(value)


def _paths(value: Any, path: Key = ()) -> set[Key]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for key, item in inner:
        found |= _paths(item, (*path, str(key)))
    return found
