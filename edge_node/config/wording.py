"""The problems of a configuration in the administrator's words."""

from __future__ import annotations

import difflib
import json
import re
from functools import partial

from pydantic_core import ErrorDetails

from edge_node.config.lines import Key
from edge_node.config.options import REPEATED, Option, depth_of, option_at, sections

_SHOWN = 60  # characters of a wrong value that are repeated


def syntax_problem(text: str, message: str) -> tuple[int, str]:
    """Line and sentence for tomllib's `message` about `text`."""
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = text.count("\n") + 1
    if place is not None:
        message = message[: place.start()]
        line = int(place[1]) if place[1] else line
    return line, f"not valid TOML: {message[:1].lower()}{message[1:]}"


def title(path: Key) -> str:
    """`[receive] port`, `[peers.pacs] host`, `[[deid.rules]] #2 trial`, `[receive]`."""
    if path[:2] == ("deid", "rules") and len(path) > 2 and path[2].isdigit():
        return f"[[deid.rules]] #{int(path[2]) + 1} {'.'.join(path[3:])}".strip()
    depth = 2 if path[0] == "peers" else 1
    head, rest = ".".join(path[:depth]), ".".join(path[depth:])
    return f"[{head}] {rest}" if rest else f"[{head}]"


def sentence(detail: ErrorDetails, path: Key) -> str:
    """One problem in the administrator's words."""
    kind, value = detail["type"], detail["input"]
    option = option_at(path)
    if kind == "extra_forbidden":
        return _unknown(path, value)
    if kind == "missing":
        return f"{title(path)}: is missing"
    if kind in ("model_type", "dict_type") and option is None:
        return f"{title(path)}: must be a table"
    place, depth = title(path), depth_of(path)
    inside = len(path) > depth
    if option is not None and option.kind == "list" and inside:
        place = f"{title(path[:depth])}: element {int(path[depth]) + 1}"
    if option is None or kind == "value_error":
        return f"{place}: {detail['msg'].removeprefix('Value error, ')}"
    if option.kind in ("list", "texts") and inside:
        return f"{place}: must be text; not {_shown(option, value)}"
    wanted = "a number" if option.kind == "map" and inside else option.type_text
    close = difflib.get_close_matches(str(value), option.choices, 1)
    return f"{place}: must be {wanted}; not {_shown(option, value)}" + _did_you_mean(*close)


def _shown(option: Option, value: object) -> str:
    if option.section == "forward" and isinstance(value, str):
        return "that text"  # somebody may have put a password there
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _unknown(path: Key, value: object) -> str:
    """An unknown section or key, with the most likely right one: in its table, else one of that name elsewhere."""
    close = partial(difflib.get_close_matches, n=1, cutoff=0.6)
    elsewhere = [f"[{name}] {path[-1]}" for name, options in sections().items() if path[-1] in options]
    if len(path) == 1:
        names = [f"[{name}]" for name in close(path[0].lower(), sections())]
        if isinstance(value, dict):
            return f"[{path[0]}]: there is no such section" + _did_you_mean(*names)
        return f"{path[0]}: stands outside of any section" + _did_you_mean(*(elsewhere or names)[:1])
    known = sections()["deid.rules" if path[:2] == ("deid", "rules") else path[0]]
    spelled = path[-1].lower().replace("-", "_")
    same = [name for name in known if name == spelled]
    found = same or close(spelled, known)
    others = [name for name in elsewhere if name[1:].partition("]")[0] not in REPEATED]
    return f"{title(path)}: there is no such option" + _did_you_mean(*(found or others)[:1])


def _did_you_mean(*names: str) -> str:
    return f"; did you mean {names[0]}?" if names else ""
