"""Elements, items and small data sets, written by hand as PS3.5 has them."""

from __future__ import annotations

import struct
import zlib

import pytest

from edge_node.deid import wire
from edge_node.deid.wire import Element, Node, Syntax

IMPLICIT, EXPLICIT, BIG = Syntax(implicit=True), Syntax(), Syntax(big=True)
ALL = pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG], ids=["implicit", "explicit", "big"])
OPEN = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
TEXT, UID, ROWS, PURPOSES, REFERENCES = 0x00080070, 0x00080018, 0x00280010, 0x0040A170, 0x00081140


def mark(syntax: Syntax, tag: int, length: int) -> bytes:
    """An item, a delimiter, or the head of an element in implicit VR."""
    return struct.pack((">" if syntax.big else "<") + "HHL", tag >> 16, tag & 0xFFFF, length)


def sent(syntax: Syntax, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element, its head written by hand."""
    size, order = len(value) if length is None else length, ">" if syntax.big else "<"
    if syntax.implicit:
        return mark(syntax, tag, size) + value
    layout = "HH2s2xL" if vr in wire._LONG else "HH2sH"
    return struct.pack(order + layout, tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def example(syntax: Syntax) -> tuple[Node, bytes]:
    """A small data set with sequences in sequences, and its bytes with defined lengths."""
    rows = struct.pack(">H" if syntax.big else "<H", 512)
    inner = sent(syntax, UID, "UI", b"1.2\0") + sent(syntax, ROWS, "US", rows)
    purpose = sent(syntax, TEXT, "LO", b"one ")
    items = mark(syntax, ITEM, len(purpose)) + purpose + mark(syntax, ITEM, 0)
    inner += sent(syntax, PURPOSES, "SQ", items)
    data = sent(syntax, 0x00080008, "CS", b"A\\BC") + sent(syntax, TEXT, "LO", b"two ")
    data += sent(syntax, REFERENCES, "SQ", mark(syntax, ITEM, len(inner)) + inner)
    data += sent(syntax, 0x00281201, "OW", b"\0\1\2\3")
    reference: Node = {
        UID: Element(UID, "UI", b"1.2\0"),
        ROWS: Element(ROWS, "US", rows),
        PURPOSES: Element(PURPOSES, "SQ", items=[{TEXT: Element(TEXT, "LO", b"one ")}, {}]),
    }
    node: Node = {
        0x00080008: Element(0x00080008, "CS", b"A\\BC"),
        TEXT: Element(TEXT, "LO", b"two "),
        REFERENCES: Element(REFERENCES, "SQ", items=[reference]),
        0x00281201: Element(0x00281201, "OW", b"\0\1\2\3"),
    }
    return node, data


def packed(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()
