"""The schema as paper: the commented example file, JSON Schema, the table of options, and a configuration in force."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_node.config.load import DEFAULT_PATH, PATH_VARIABLE, Origin
from edge_node.config.options import REPEATED, RULES, Option, section_model, sections
from edge_node.config.schema import Config

_WIDTH = 110
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_PEERS = {  # what an administrator replaces; required options have no default to show
    "pacs": {"ae_title": "PACS", "host": "pacs.example.org", "port": 104},
    "ups": {"ae_title": "WORKLIST", "host": "worklist.example.org", "port": 104},
}
_RULE = {"calling_ae_titles": ["CT1"], "recipe": "basic+research", "trial": "LUNG-1"}


def example_toml() -> str:
    """The shipped configuration file: every option with its sentence, type and default, each commented out.

    A line that begins with "#" and no blank after it is an option: uncommented, the file stays valid and says the
    defaults (and two invented peers and a rule).
    """
    lines = [
        "# Configuration of edge-node.",
        "#",
        "# Every option stands here with its default; remove the # before it and change it. What is not set keeps its",
        "# default. Order: default < this file < environment (EDGE_NODE_RECEIVE__PORT=11112) < flag (--set",
        "# receive.port=11112). Relative paths are relative to the folder of this file. Passwords never stand here,",
        "# only the paths of files that hold them.",
        "#",
        f"# Read from ${PATH_VARIABLE}, else {DEFAULT_PATH}. Check it with: edge-node config check",
        "# This file is generated from the schema.",
    ]
    for name, options in sections().items():
        lines += ["", *_comment(_summary(name))]
        if name == "peers":
            for peer, values in _PEERS.items():
                lines += ["", f"#[peers.{peer}]"]
                for option in options.values():
                    value = values.get(option.key, option.default)
                    lines += [*_comment(_described(option)), f"#{option.key} = {toml_value(value)}"]
            continue
        lines.append("#[[deid.rules]]" if name == RULES else f"[{name}]")
        shown = _RULE if name == RULES else {}
        for option in options.values():
            lines += [
                *_comment(_described(option)),
                f"#{option.key} = {toml_value(shown.get(option.key, option.default))}",
            ]
    return "\n".join(lines) + "\n"


def schema_json() -> str:
    """JSON Schema (2020-12) of the file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def options_markdown() -> str:
    """Every option as Markdown tables, one a section."""
    lines = [
        "# Options",
        "",
        "Every option: type, default, meaning. Generated from the schema.",
        "Order: default < file < environment < flag (`--set section.option=value`).",
        "A variable is named `EDGE_NODE_SECTION__OPTION`; lists are written with commas, tables as `CT=10,CR=5`.",
    ]
    for name, options in sections().items():
        lines += ["", f"## {heading(name)}", "", _summary(name), ""]
        lines += ["| option | type | default | meaning |", "|---|---|---|---|"]
        for option in options.values():
            default = "required" if option.required else "unset" if option.default is None else ""
            default = default or f"`{toml_value(option.default)}`"
            cells = (f"`{option.key}`", option.type_text, default, option.sentence)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def effective_toml(config: Config, origin: Mapping[str, Origin] | None = None) -> str:
    """`config` as TOML that loads to the same configuration; with `origin`, where each value came from as a comment."""
    lines: list[str] = []
    for header, path, table in _tables(config):
        rows = [
            (f"{toml_key(key)} = {toml_value(value)}", _origins(origin, ".".join((*path, key))))
            for key, value in table.items()
        ]
        width = max(len(text) for text, _ in rows)
        lines += ["", header]
        lines += [f"{text:{width}}  # {note}" if note else text for text, note in rows]
    return "\n".join(lines).lstrip("\n") + "\n"


def heading(name: str) -> str:
    """How the tables of a section begin in the file: `[receive]`, `[peers.NAME]`, `[[deid.rules]]`."""
    return f"[[{name}]]" if name == RULES else "[peers.NAME]" if name in REPEATED else f"[{name}]"


def _tables(config: Config) -> Iterator[tuple[str, tuple[str, ...], dict[str, object]]]:
    """Header, dotted path and values of every table."""
    for name, table in config.model_dump().items():
        if name == "peers":
            for peer, values in table.items():
                yield f"[peers.{toml_key(peer)}]", (name, peer), values
            continue
        rules = table.pop("rules", [])
        yield f"[{name}]", (name,), table
        for number, values in enumerate(rules):
            yield f"[[{name}.rules]]", (name, "rules", str(number)), values


def toml_value(value: object) -> str:
    """`value` (text, path, number, boolean, list, table; None as "", which unsets) in TOML."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, str | Path):
        # JSON escapes are TOML escapes, but for DEL, which JSON leaves as it is
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"no TOML for {type(value).__name__}")


def toml_key(key: str) -> str:
    """`key`, quoted if TOML asks for it."""
    return key if key and set(key) <= _BARE else toml_value(key)


def _summary(name: str) -> str:
    if name == "peers":
        return "DICOM peers, one table each; [worklist] names them."
    return (section_model(name).__doc__ or "").strip()


def _described(option: Option) -> str:
    return f"{option.sentence} ({option.type_text}; {_default(option)})"


def _default(option: Option) -> str:
    if option.required:
        return "required"
    return "unset" if option.default is None else f"default {toml_value(option.default)}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _origins(origin: Mapping[str, Origin] | None, dotted: str) -> str:
    if origin is None:
        return ""
    if dotted in origin:
        return str(origin[dotted])
    inner = [str(place) for key, place in origin.items() if key.startswith(f"{dotted}.")]
    return ", ".join(dict.fromkeys(inner)) or "default"
