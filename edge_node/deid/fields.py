"""What stands between action and value in a rule: one attribute, a pattern over attributes, or a named list."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from pydicom.datadict import dictionary_description, keyword_for_tag, tag_for_keyword

from edge_node.deid import wire

Matches = Callable[[int, str], bool]
PATTERNS = ("startswith", "endswith", "contains", "except")
EXPANDERS = (*PATTERNS, "exceptfields", "select")
_ALL = ("all", "allfields")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
_PRIVATE = re.compile(r'\(?([0-9A-Fa-f]{4}),"([^"\\]{1,64})",([0-9A-Fa-f]{2})\)?')
_EXPANDER = re.compile(r'([^:"]*):(.*)', re.DOTALL)


class BadField(Exception):
    """`what` is wrong; `guess` may be a misspelling of one of `among`; or `instead` is what to write."""

    def __init__(self, what: str, guess: str = "", among: tuple[str, ...] = (), instead: str = "") -> None:
        super().__init__(what)
        self.what, self.guess, self.among, self.instead = what, guess, among, instead


@dataclass(frozen=True, slots=True)
class Field:
    """`kind` says which of the others count.

    ``tag``: `tag` wherever it stands, or only at `path`; ``private``: `tag` is group << 16 | offset, `text` the
    creator; ``pattern``, ``all``: `matches(tag, vr)`; ``fields``, ``values``: the list named `text`. `path` holds the
    sequences around it, each with the item's number counted from 0, or -1 for every item.
    """

    kind: str
    text: str = ""
    tag: int = 0
    path: tuple[tuple[int, int], ...] = ()
    matches: Matches | None = None

    @property
    def ground(self) -> bool:
        """Speaks of (nearly) everything: every other rule is more exact, wherever it stands in the file."""
        return self.kind == "all"


def parse_tag(text: str) -> int | None:
    """Tag of a keyword, ``(gggg,eeee)`` or ``ggggeeee``; None if it is none of these."""
    match = _TAG.fullmatch(text)
    if match:
        return int(match[1] + match[2], 16)
    tag = tag_for_keyword(text)
    return _repeating().get(text) if tag is None else int(tag)


@cache
def _repeating() -> dict[str, int]:
    """Keywords of curves and overlays, as their first group."""
    from pydicom._dicom_dict import RepeatersDictionary

    return {entry[4]: int(mask.replace("x", "0"), 16) for mask, entry in RepeatersDictionary.items() if entry[4]}


def parse_field(text: str) -> Field:
    """Read a field as deid's documentation writes it. Raises BadField."""
    if text.lower() in _ALL:
        return Field("all", matches=lambda _tag, _vr: True)
    private = _PRIVATE.fullmatch(text)
    if private:
        if not int(private[1], 16) & 1:
            raise BadField("an even group has no private creators", instead=f"{private[1]},{private[3]}")
        return Field("private", private[2].strip(), int(private[1], 16) << 16 | int(private[3], 16))
    expander = _EXPANDER.fullmatch(text)
    if expander:
        return _expanded(expander[1], expander[2])
    return _path(text)


def _expanded(kind: str, rest: str) -> Field:
    name = kind.lower()
    if name in ("fields", "values"):
        return Field(name, rest)
    if name not in EXPANDERS:
        raise BadField(f"{kind!r} is no expander", kind, EXPANDERS)
    if not rest:
        raise BadField("the expander has no expression")
    if name == "select":
        return _selected(rest)
    if name == "exceptfields":
        spared = {_known_tag(one) for one in rest.split("|")}
        return Field("all", rest, matches=lambda tag, _vr: tag not in spared)
    trouble = regex_trouble(rest)
    if trouble:
        raise BadField(trouble, instead="a plain word, or words with | between them")
    pattern = {"startswith": f"^(?:{rest})", "endswith": f"(?:{rest})$"}.get(name, rest)
    search = re.compile(pattern, re.IGNORECASE).search
    if name == "except":
        return Field("all", rest, matches=lambda tag, _vr: not any(search(form) for form in _forms(tag)))
    return Field("pattern", rest, matches=lambda tag, _vr: any(search(form) for form in _forms(tag)))


def _selected(rest: str) -> Field:
    what, _, wanted = rest.upper().partition(":")
    if what == "VR" and wanted in wire.VRS:
        return Field("pattern", f"VR:{wanted}", matches=lambda _tag, vr: vr == wanted)
    if what == "GROUP" and re.fullmatch(r"(0X)?[0-9A-F]{1,4}", wanted):
        group = int(wanted, 16)
        return Field("pattern", f"GROUP:{wanted}", matches=lambda tag, _vr: tag >> 16 == group)
    raise BadField("select: is followed by VR:XX or GROUP:gggg", wanted, wire.VRS)


def _path(text: str) -> Field:
    *around, last = text.split("__")
    path: list[tuple[int, int]] = []
    for part in around:
        if re.fullmatch(r"\d{1,4}", part) and path and path[-1][1] < 0:
            path[-1] = (path[-1][0], int(part))
            continue
        tag = _known_tag(part)
        if wire.dictionary_vr(tag) != "SQ":
            raise BadField(f"{part} is no sequence, nothing can stand in it", instead=last)
        path.append((tag, -1))
    return Field("tag", tag=_known_tag(last), path=tuple(path))


def _known_tag(text: str) -> int:
    tag = parse_tag(text)
    if tag is None:
        what = f"{text!r} is no attribute of the data dictionary"
        raise BadField(what, text, keywords(), 'a keyword, (gggg,eeee), or (gggg,"CREATOR",ee)')
    return tag


@cache
def keywords() -> tuple[str, ...]:
    """All keywords of the data dictionary."""
    from pydicom._dicom_dict import DicomDictionary

    return tuple(keyword for tag in DicomDictionary if (keyword := keyword_for_tag(tag)))


def _forms(tag: int) -> tuple[str, ...]:
    """What an expression is held against: keyword, name, ``(gggg,eeee)`` and ``ggggeeee``."""
    try:
        name = dictionary_description(tag)
    except KeyError:
        name = ""
    return keyword_for_tag(tag), name, wire.tag_name(tag), f"{tag:08X}"


def regex_trouble(expression: str) -> str:
    """Why an expression may not be used: it is none, or it can take exponential time; "" if it is fine."""
    from re import _parser  # type: ignore[attr-defined]  # the only public view of an expression is matching with it

    try:
        parsed = _parser.parse(expression)
        re.compile(expression)
    except (re.error, OverflowError, RecursionError):
        return "the expression is no regular expression"
    return "the expression can take for ever (a repeat inside a repeat)" if _explodes(parsed, False) else ""


def _explodes(parsed: object, repeated: bool) -> bool:
    for operation, argument in parsed:  # type: ignore[attr-defined]
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, body = argument
            many = int(high) - int(low) > 8
            if (repeated and int(high) != int(low)) or _explodes(body, repeated or many):
                return True
        elif name == "BRANCH":
            if repeated or any(_explodes(one, repeated) for one in argument[1]):
                return True
        elif name == "SUBPATTERN":
            if _explodes(argument[3], repeated):
                return True
        elif name in ("GROUPREF", "GROUPREF_EXISTS") or (
            name in ("ASSERT", "ASSERT_NOT") and _explodes(argument[1], repeated)
        ):
            return True
    return False
