"""The schema as a flat list of options: what `load` needs to read text and `document` needs to write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from edge_node.config.schema import Config, DeidRule, PeerEntry
from edge_node.config.section import Section

Kind = Literal["text", "path", "integer", "number", "boolean", "choice", "list", "map", "texts", "tables"]
ENV_PREFIX = "EDGE_NODE_"
RULES = "deid.rules"  # the section of the options of one [[deid.rules]]
REPEATED = ("peers", RULES)  # sections there may be several of: their options stand in tables, not in variables

_KINDS: dict[type, Kind] = {str: "text", Path: "path", int: "integer", float: "number", bool: "boolean"}
_WORDS: dict[Kind, str] = {
    "text": "text",
    "path": "a path",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list of texts",
    "map": "a table of numbers",
    "texts": "a table of texts",
    "tables": "tables in double brackets",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One key of one table. `type_text` reads after "must be"; `optional` options may be left unset."""

    section: str
    key: str
    kind: Kind
    type_text: str
    choices: tuple[str, ...]
    optional: bool
    required: bool
    default: object
    sentence: str

    @property
    def variable(self) -> str:
        """Name of the environment variable that sets it."""
        return f"{ENV_PREFIX}{self.section}__{self.key}".upper()


@cache
def sections() -> Mapping[str, Mapping[str, Option]]:
    """Options by key, by section in the order of the schema; `peers` holds the options of every [peers.NAME], and
    `deid.rules` those of every [[deid.rules]].
    """
    found: dict[str, Mapping[str, Option]] = {}
    for name in Config.model_fields:
        model = section_model(name)
        options = {key: _option(name, key, info) for key, info in model.model_fields.items()}
        found[name] = MappingProxyType({key: one for key, one in options.items() if one.kind != "tables"})
        if name == "deid":
            found[RULES] = MappingProxyType({k: _option(RULES, k, info) for k, info in DeidRule.model_fields.items()})
    return MappingProxyType(found)


def section_model(name: str) -> type[Section]:
    """The model of the section `name` (of one entry, for those of `REPEATED`)."""
    if name == RULES:
        return DeidRule
    annotation = Config.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else PeerEntry


def option_at(path: tuple[str, ...]) -> Option | None:
    """The option that the dotted path names, or None: `receive.port`, `peers.pacs.host`, `deid.rules.0.trial`."""
    if path[:2] == ("deid", "rules"):
        return _option("deid", "rules", section_model("deid").model_fields["rules"]) if len(path) == 2 else _rule(path)
    if len(path) == 3 and path[0] == "peers":
        return sections()["peers"].get(path[2])
    if len(path) < 2 or path[0] == "peers":
        return None
    return sections().get(path[0], {}).get(path[1])


def _rule(path: tuple[str, ...]) -> Option | None:
    return sections()[RULES].get(path[3]) if len(path) > 3 else None


def depth_of(path: tuple[str, ...]) -> int:
    """How many parts of a dotted path lead to its option; what follows is inside of its value."""
    return 4 if path[:2] == ("deid", "rules") else 3 if path[:1] == ("peers",) else 2


def _option(section: str, key: str, info: FieldInfo) -> Option:
    annotation: Any = info.annotation
    optional = False
    if get_origin(annotation) in (Union, UnionType):
        inner = [part for part in get_args(annotation) if part is not NoneType]
        optional, annotation = True, inner[0]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    choices: tuple[str, ...] = ()
    if get_origin(annotation) is Literal:
        kind: Kind = "choice"
        choices = tuple(get_args(annotation))
        type_text = "one of " + ", ".join(choices)
    else:
        kind = _kind(annotation)
        type_text = _WORDS[kind] + _bounds(info)
    return Option(
        section=section,
        key=key,
        kind=kind,
        type_text=type_text,
        choices=choices,
        optional=optional,
        required=info.is_required(),
        default=None if info.is_required() else info.default,
        sentence=info.description or "",
    )


def _kind(annotation: Any) -> Kind:
    if get_origin(annotation) is list:
        inner = get_args(annotation)[0]
        return "tables" if isinstance(inner, type) and issubclass(inner, Section) else "list"
    if get_origin(annotation) is dict:
        return "texts" if get_args(annotation)[1] is str else "map"
    return _KINDS[annotation]


def _bounds(info: FieldInfo) -> str:
    named = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    told = [(name, getattr(bound, name, None)) for bound in info.metadata for name in named]
    words = [f"{named[name]} {limit}" for name, limit in told if limit is not None]
    return ", " + " and ".join(words) if words else ""
