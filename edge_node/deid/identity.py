"""The identity that is parted from an object, as DICOM JSON (PS3.18 F): what brings a result back to its patient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from edge_node.deid import wire
from edge_node.deid.charset import Charset
from edge_node.deid.remembered import LONGEST
from edge_node.deid.scene import CHARACTER_SET, charset_of
from edge_node.deid.wire import Element, Node
from edge_node.domain.order import priority_of
from edge_node.domain.study import IdentityEnvelope

# Patient, study and order: equal in all instances of a study. Body part, side and class hints come with them because
# result objects of the same study need them.
# fmt: off
STUDY = frozenset([
    CHARACTER_SET, 0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080060, 0x00080080, 0x00080081,
    0x00080090, 0x00081030, 0x00081032, 0x00081040, 0x00081048, 0x00100010, 0x00100020, 0x00100021, 0x00100024,
    0x00100030, 0x00100032, 0x00100040, 0x00101000, 0x00101002, 0x00101010, 0x00101020, 0x00101030, 0x00102160,
    0x00180015, 0x0020000D, 0x00200010, 0x00200060, 0x00321032, 0x00321033, 0x00321060, 0x00321064, 0x00380010,
    0x00380014, 0x00380060, 0x00380300, 0x00380400, 0x00401001, 0x00401003, 0x00401008, 0x00402001, 0x00402016,
    0x00402017, 0x00400275, 0x00101050, 0x001021C0, 0x00380016, 0x00380008,
])
# fmt: on
INSTANCE = frozenset(
    [CHARACTER_SET, 0x00080016, 0x00080018, 0x00180015, 0x0020000E, 0x00200013, 0x00200052, 0x00200060, 0x00200062]
)
_NUMBERS = {"US": (2, False), "SS": (2, True), "UL": (4, False), "SL": (4, True)}
_WHOLE = frozenset({"LT", "ST", "UT", "UR"})  # a backslash is text there
_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def envelope_of(node: Node, big: bool) -> IdentityEnvelope:
    """Envelope of an object as received. Text is Unicode; (0008,0005) says in what the sender had encoded it, or
    ISO_IR 192 where the sender's declaration does not cover the text."""
    charset = charset_of(node)
    return IdentityEnvelope(study=_json(node, STUDY, charset, big), instance=_json(node, INSTANCE, charset, big))


_ORDER = {tags: tuple(sorted(tags)) for tags in (STUDY, INSTANCE)}
_SIMPLE = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})  # text or nothing
_quoted = json.encoder.encode_basestring
_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json(node: Node, tags: frozenset[int], charset: Charset, big: bool) -> str:
    there = [node[tag] for tag in _ORDER[tags] if tag in node]
    members = _members(there, charset, big)
    text = ",".join(members)
    if not text.isascii() and not charset.declared:
        others = [one for one, element in zip(members, there, strict=True) if element.tag != CHARACTER_SET]
        text = ",".join(['"00080005":{"vr":"CS","Value":["ISO_IR 192"]}', *others])  # the first tag of all
    return f"{{{text}}}"


def _members(there: list[Element], charset: Charset, big: bool) -> Sequence[str]:
    """The members of the object; sequences are written each time, all else once for a study."""
    plain = tuple([(one.tag, one.vr, one.value) for one in there if one.items is None])
    if sum([len(value) for _, _, value in plain]) > LONGEST:
        return [_member(one, charset, big) for one in there]
    known = _plain_members(plain, charset, big)
    if len(plain) == len(there):
        return known
    rest = iter(known)
    return [next(rest) if one.items is None else _member(one, charset, big) for one in there]


@lru_cache(64)
def _plain_members(plain: tuple[tuple[int, str, bytes], ...], charset: Charset, big: bool) -> tuple[str, ...]:
    return tuple([_plain(*one, charset, big) for one in plain])


def _member(element: Element, charset: Charset, big: bool) -> str:
    if element.items is not None:
        items = ",".join([_item(item, charset, big) for item in element.items])
        return f'"{element.tag:08X}":{{"vr":"{element.vr}","Value":[{items}]}}'
    known = _plain if len(element.value) <= LONGEST else _plain.__wrapped__
    return known(element.tag, element.vr, element.value, charset, big)


def _item(item: Node, charset: Charset, big: bool) -> str:
    inner = charset_of(item, charset)
    kept = [tag for tag in sorted(item) if not tag >> 16 & 1 and item[tag].vr != "UN"]
    return f"{{{','.join([_member(item[tag], inner, big) for tag in kept])}}}"


@lru_cache(256)  # but for a number and a UID the same in all instances of a series
def _plain(tag: int, vr: str, value: bytes, charset: Charset, big: bool) -> str:
    element = Element(tag, vr, value)
    if vr not in _SIMPLE:
        return f'"{tag:08X}":{_written(_element(element, charset, big))}'
    values = _element(element, charset, big).get("Value")
    listed = "" if values is None else f',"Value":[{",".join([_quoted(one) if one else "null" for one in values])}]'
    return f'"{tag:08X}":{{"vr":"{vr}"{listed}}}'


def _element(element: Element, charset: Charset, big: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"vr": element.vr}
    if element.vr in _NUMBERS:
        width, signed = _NUMBERS[element.vr]
        raw = element.value
        numbers = [raw[i : i + width] for i in range(0, len(raw) - width + 1, width)]
        values: list[Any] = [int.from_bytes(n, "big" if big else "little", signed=signed) for n in numbers]
    elif element.vr in ("OB", "OW", "OF", "OD", "OL", "OV", "UN", "AT", "FL", "FD", "SV", "UV"):
        return made
    else:
        text = charset.text(element.value)
        parts = [text] if element.vr in _WHOLE else [part.strip(" \0") for part in text.split("\\")]
        values = [_value(element.vr, part) for part in parts] if text.strip(" \0") else []
    if values:
        made["Value"] = values
    return made


def _value(vr: str, text: str) -> Any:
    if vr != "PN":
        return text or None
    groups = {name: part for name, part in zip(_PN_GROUPS, text.split("="), strict=False) if part}
    return groups or None


def order_priority(node: Node) -> str:
    """STAT, URGENT or ROUTINE by Requested Procedure Priority or Study Priority ID, here or in the request; else ""."""
    return priority_of(wire.ascii_text(place, tag) for place in _requests(node) for tag in (0x00401003, 0x0032000C))


def _requests(node: Node) -> list[Node]:
    request = node.get(0x00400275)
    return [node, *(request.items or [])] if request is not None else [node]
