"""Private elements that a recipe keeps by the name of their creator (PS3.5 7.8.1): numbers, codes and text, no bulk."""

from __future__ import annotations

import re

from pydicom.datadict import private_dictionary_VR

from edge_node.deid import functions
from edge_node.deid.scene import Scene
from edge_node.deid.wire import Element, Node

_WIDTH = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "UV": 8, "SV": 8}
_NUMERIC = re.compile(rb"[0-9+\-.eE \\]*")
_STRINGS = frozenset({"AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UI", "UT"})


def creator_of(tag: int, node: Node) -> str:
    """The creator that reserved the block of `tag` in its data set; "" if none did."""
    if not tag & 0xFFFF >= 0x1000:
        return ""
    return creator_at(tag & 0xFFFF0000 | (tag >> 8 & 0xFF), node)


def creator_at(block: int, node: Node) -> str:
    """What the element says that reserves a block; "" if it is not there."""
    creator = node.get(block)
    return "" if creator is None or creator.items is not None else creator.value.decode("latin-1").strip(" \0")


def as_known(element: Element, creator: str, big: bool) -> Element | None:
    """The element under the VR it was sent with, or the one the creator is known for where it was sent as UN; None for
    sequences, bulk and what nobody knows. `big`: the data set is big endian, what is UN in it is not (PS3.5 6.2.2)."""
    vr = element.vr
    if vr == "UN":
        if big:
            return None
        try:
            vr = private_dictionary_VR(element.tag, creator)
        except KeyError:
            return None
    if element.items is not None or element.fragments is not None or (vr not in _STRINGS and vr not in _WIDTH):
        return None
    return Element(element.tag, vr, element.value)


def keep(element: Element, scene: Scene) -> bytes | None:
    """What KEEP does to a private value: numbers of the right width, numeric strings, code strings as they are; text
    without names; dates shifted, UIDs replaced."""
    vr, value = element.vr, element.value
    if vr in _WIDTH:
        return value if len(value) % _WIDTH[vr] == 0 else None
    if vr in ("DS", "IS"):
        return value if _NUMERIC.fullmatch(value.rstrip(b" \0")) else None
    if vr == "CS":
        return functions.keep_term(element, scene)
    if vr == "UI":
        return functions.pseudonym_uid(element, scene)
    if vr in ("DA", "DT", "TM"):
        return functions.shift_private(element, scene)
    return functions.keep_technical(element, scene)
