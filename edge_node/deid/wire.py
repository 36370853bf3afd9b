"""DICOM data sets as bytes (PS3.5): encoded data set -> tree of raw elements -> encoded data set.

Values stay as they were sent: nothing is decoded or validated here, so what a rule does not touch comes out bit for
bit. Whatever cannot be read raises `Malformed`, whose text names tags and reasons, never values.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from dataclasses import dataclass
from typing import cast

from pydicom.datadict import dictionary_VR

UNDEFINED = 0xFFFFFFFF
NEVER = 1 << 32  # bytes that no value can have
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
PIXELS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)  # and as floats and doubles
# Nesting in real objects stays below ten; a limit keeps hostile input away from the interpreter's own.
MAX_DEPTH = 32
# What has to be in memory whole, such as a data set that was deflated; pixel data in `apart` has not.
MOST_IN_MEMORY = 256 << 20
_SOME = 1 << 20
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SPACED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"})
_SHORT = _SPACED - {"UC", "UR", "UT"} | {"AT", "FD", "FL", "SL", "SS", "UI", "UL", "US"}
_SAMPLES = frozenset({"OB", "OW", "OF", "OD"})
VRS = tuple(sorted(_SHORT | _LONG))
_CODES = {vr.encode(): vr for vr in VRS}
_SHORT_CODES = {code: vr for code, vr in _CODES.items() if vr in _SHORT}
_BYTES = {vr: code for code, vr in _CODES.items()}


class Malformed(Exception):
    """The bytes are not a readable data set. The text is safe to show."""


class TooLarge(Exception):
    """More than may be held in memory."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a transfer syntax encodes the data set (PS3.5 A): VR implicit, big endian, deflated, pixels in fragments."""

    implicit: bool = False
    big: bool = False
    deflated: bool = False
    encapsulated: bool = False


@dataclass(slots=True)
class Element:
    """One element: `value` as sent, or `items` of a sequence, or `fragments` of encapsulated pixel data.

    `fragments[0]` is the basic offset table (PS3.5 A.4).
    """

    tag: int
    vr: str
    value: bytes = b""
    items: list[Node] | None = None
    fragments: list[bytes] | None = None


Node = dict[int, Element]
Found = tuple[int, str, int, int] | None  # tag, VR, first byte and length of a value
_vr_cache: dict[int, str] = {}
_implied: dict[int, str] = {}


def tag_name(tag: int) -> str:
    """``(gggg,eeee)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def dictionary_vr(tag: int) -> str:
    """VR of a tag by the data dictionary (PS3.6), such as ``US or SS``; "" for a tag that it does not know."""
    vr = _vr_cache.get(tag)
    if vr is None:
        try:
            vr = "" if tag >> 16 & 1 else str(dictionary_VR(tag))
        except KeyError:
            vr = ""
        if len(_vr_cache) < 20_000:  # hostile input must not grow it without end
            _vr_cache[tag] = vr
    return vr


def _implied_vr(tag: int) -> str:
    """VR of an element in implicit VR: of several that the dictionary allows, the one that stays bit for bit."""
    known = dictionary_vr(tag)
    vr = "OW" if "OW" in known else known[:2] or "UN"
    if len(_implied) < 20_000:
        _implied[tag] = vr
    return vr


def tags_of(vr: str) -> list[int]:
    """All tags of the data dictionary with this VR."""
    from pydicom._dicom_dict import DicomDictionary

    return [tag for tag, entry in DicomDictionary.items() if entry[0] == vr]


# By whether it is big endian: tag, VR and short length; tag and length; tag; length; tag, VR and long length.
_LAYOUTS = ("HH2sH", "HHL", "HH", "L", "HH2s2xL")
_HEADS = {big: [struct.Struct((">" if big else "<") + layout) for layout in _LAYOUTS] for big in (True, False)}


class Reader:
    """Reads from `data`; top-level elements up to the tag `last`, at most."""

    def __init__(self, data: bytes, big: bool, last: int = UNDEFINED, apart: int = NEVER, view: int = NEVER) -> None:
        self.data = data
        self.last = last
        self.apart = apart  # top-level pixel data of that many bytes or in fragments is not read, `found` says where
        self.found: Found = None
        self.view = view  # pixel data of that many bytes is not copied out of `data`: its value is a view of it
        self.explicit, self.implicit, self.pair, self.long, _ = [head.unpack_from for head in _HEADS[big]]
        self.little = self if not big else Reader(data, False)

    def tag_length(self, pos: int, end: int) -> tuple[int, int]:
        if pos + 8 > end:
            raise Malformed("the data ends inside a sequence")
        group, element = self.pair(self.data, pos)
        return group << 16 | element, self.long(self.data, pos + 4)[0]

    def node(self, pos: int, end: int, implicit: bool, delimited: bool, depth: int, found: Node) -> int:
        """Read elements into `found` up to `end` or, if `delimited`, to the delimiter; gives the position after."""
        if depth > MAX_DEPTH:
            raise Malformed(f"sequences are nested deeper than {MAX_DEPTH}")
        data, read, last = self.data, self.implicit if implicit else self.explicit, self.last
        short = _SHORT_CODES.get
        while pos < end:
            if pos + 8 > end:
                raise Malformed("the data ends inside an element")
            if implicit:
                group, element, length = read(data, pos)
            else:
                group, element, code, length = read(data, pos)
            tag = group << 16 | element
            pos += 8
            if group == 0xFFFE:
                if tag == ITEM_END and delimited:
                    return pos
                raise Malformed("a delimiter stands where an element is due")
            if implicit:
                vr = _implied.get(tag) or _implied_vr(tag)
            else:
                vr = short(code, "")
                if vr:
                    after = pos + length
                    if after > end:
                        raise Malformed(f"{tag_name(tag)} is longer than the data that is left")
                    found[tag] = Element(tag, vr, data[pos:after])
                    pos = after
                    if tag >= last and not depth:
                        return pos
                    continue
                vr = _CODES.get(code, "")
                if vr:
                    if pos + 4 > end:
                        raise Malformed("the data ends inside an element")
                    length = self.long(data, pos)[0]
                    pos += 4
                else:
                    raise Malformed(f"{tag_name(tag)} has no known value representation")
            if vr == "UN" and length <= 0xFFFE and self.little is self:
                # PS3.5 6.2.2: somebody did not know it, we do: the rules for what it is hold. Sequences stay unknown.
                known = dictionary_vr(tag)
                vr = known if known in _SHORT else vr
            if group == 0x7FE0 and not depth and length >= self.apart and tag in PIXELS and vr in _SAMPLES:
                self.found = tag, vr, pos, length
                return pos
            if length == UNDEFINED:
                made, pos = self.undefined(tag, vr, pos, end, implicit, depth)
            elif pos + length > end:
                raise Malformed(f"{tag_name(tag)} is longer than the data that is left")
            elif vr == "SQ":
                items, pos = self.items(pos, pos + length, implicit, False, depth)
                made = Element(tag, vr, items=items)
            else:
                samples = length >= self.view and not depth and vr in _SAMPLES and tag in PIXELS
                of = cast(bytes, memoryview(data)) if samples else data
                made = Element(tag, vr, of[pos : pos + length])
                pos += length
            found[tag] = made
            if tag >= last and not depth:
                return pos
        if delimited:
            raise Malformed("an item is not closed")
        return pos

    def undefined(self, tag: int, vr: str, pos: int, end: int, implicit: bool, depth: int) -> tuple[Element, int]:
        if vr == "SQ":
            items, pos = self.items(pos, end, implicit, True, depth)
            return Element(tag, vr, items=items), pos
        if vr == "UN":  # PS3.5 6.2.2: a sequence of unknown kind, in implicit little endian whatever surrounds it
            items, pos = self.little.items(pos, end, True, True, depth)
            return Element(tag, vr, items=items), pos
        if tag == PIXEL_DATA and vr in ("OB", "OW"):
            fragments: list[bytes] = []
            while True:
                mark, length = self.tag_length(pos, end)
                pos += 8
                if mark == SEQUENCE_END:
                    return Element(tag, vr, fragments=fragments), pos
                if mark != ITEM or length == UNDEFINED or pos + length > end:
                    raise Malformed("a fragment of the pixel data is broken")
                fragments.append(self.data[pos : pos + length])
                pos += length
        raise Malformed(f"{tag_name(tag)} has an undefined length and is no sequence")

    def items(self, pos: int, end: int, implicit: bool, delimited: bool, depth: int) -> tuple[list[Node], int]:
        found: list[Node] = []
        while pos < end:
            mark, length = self.tag_length(pos, end)
            pos += 8
            if mark == SEQUENCE_END and delimited:
                return found, pos
            if mark != ITEM:
                raise Malformed("a sequence holds something that is no item")
            node: Node = {}
            if length == UNDEFINED:
                pos = self.node(pos, end, implicit, True, depth + 1, node)
            elif pos + length > end:
                raise Malformed("an item is longer than its sequence")
            else:
                pos = self.node(pos, pos + length, implicit, False, depth + 1, node)
            found.append(node)
        if delimited:
            raise Malformed("a sequence is not closed")
        return found, pos


def inflate(data: bytes) -> bytes:
    """Undo PS3.5 A.5 (raw deflate). Raises TooLarge above `MOST_IN_MEMORY`."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = engine.decompress(data, MOST_IN_MEMORY)
    except zlib.error:
        raise Malformed("the deflated data set cannot be inflated") from None
    if engine.unconsumed_tail:
        raise TooLarge
    if not engine.eof:
        raise Malformed("the deflated data set is cut off")
    return plain


def parse(data: bytes, syntax: Syntax) -> Node:
    """Read one encoded data set (without Part 10 header). Duplicate elements: the last one counts."""
    if syntax.deflated:
        data = inflate(data)
    node: Node = {}
    Reader(data, syntax.big).node(0, len(data), syntax.implicit, False, 0, node)
    return node


def parse_up_to_pixels(data: bytes, syntax: Syntax, apart: int) -> tuple[Node, Found]:
    """The elements before the first pixel data that is in fragments or has at least `apart` bytes; its tag, VR, place
    of its value and length, None if there is none in `data`."""
    node: Node = {}
    reader = Reader(data, syntax.big, apart=apart)
    reader.node(0, len(data), syntax.implicit, False, 0, node)
    return node, reader.found


class _Writer:
    def __init__(self, syntax: Syntax) -> None:
        self.implicit = syntax.implicit
        # `head` is that of an implicit element, an item or a delimiter.
        self.short, self.head, _, _, self.long = [head.pack for head in _HEADS[syntax.big]]

    def node(self, node: Node) -> bytes:
        return b"".join(self.parts(node))

    def parts(self, node: Node) -> list[bytes]:
        parts: list[bytes] = []
        implicit, head, short, long = self.implicit, self.head, self.short, self.long
        for tag in sorted(node):
            element = node[tag]
            value, vr = element.value, element.vr
            if element.items is None and element.fragments is None:
                length = len(value)
                if length & 1:
                    value += b" " if vr in _SPACED else b"\0"
                    length += 1
            elif element.items is not None:
                body = [self.node(item) for item in element.items]
                value = b"".join(x for b in body for x in (self.head(0xFFFE, 0xE000, len(b)), b))
                length = len(value)
            else:
                frames = [f + b"\0" * (len(f) & 1) for f in element.fragments or ()]
                value = b"".join(x for f in frames for x in (self.head(0xFFFE, 0xE000, len(f)), f))
                value += self.head(0xFFFE, 0xE0DD, 0)
                length = UNDEFINED
            if implicit:
                parts.append(head(tag >> 16, tag & 0xFFFF, length))
            elif vr in _LONG:
                parts.append(long(tag >> 16, tag & 0xFFFF, _BYTES[vr], length))
            elif length > 0xFFFF:
                raise Malformed(f"{tag_name(tag)} is too long for its value representation")
            else:
                parts.append(short(tag >> 16, tag & 0xFFFF, _BYTES[vr], length))
            parts.append(value)
        return parts


def encode(node: Node, syntax: Syntax) -> bytes:
    """Write a data set: tags ascending, defined lengths, even values. Deterministic."""
    return b"".join(encode_parts(node, syntax))


def encode_items(items: list[Node], syntax: Syntax) -> bytes:
    """The value of a sequence with these items: an element may have it instead of `items`."""
    element = Element(0, "SQ", items=items)
    return _Writer(syntax).parts({0: element})[1]


def encode_parts(node: Node, syntax: Syntax) -> list[bytes]:
    """Like `encode`, in pieces: who joins them with more copies large values once."""
    if not syntax.deflated:
        return _Writer(syntax).parts(node)
    plain = _Writer(syntax).node(node)
    engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = engine.compress(plain) + engine.flush()
    return [packed + b"\0" * (len(packed) & 1)]


def encode_around(node: Node, tag: int, length: int, syntax: Syntax) -> tuple[bytes, bytes]:
    """Like `encode`, but of the element `tag` the beginning only, with a value of `length` bytes to come; and what
    stands behind that value."""
    writer, vr, group, number = _Writer(syntax), node[tag].vr, tag >> 16, tag & 0xFFFF
    before = writer.parts({one: node[one] for one in node if one < tag})
    head = writer.head(group, number, length) if syntax.implicit else writer.long(group, number, _BYTES[vr], length)
    return b"".join((*before, head)), writer.node({one: node[one] for one in node if one > tag})


def uint(node: Node, tag: int, syntax: Syntax) -> int | None:
    """The first value of an unsigned 16-bit element, or None if it is absent or of another length."""
    element = node.get(tag)
    if element is None or len(element.value) < 2:
        return None
    return int.from_bytes(element.value[:2], "big" if syntax.big else "little")


def ascii_text(node: Node, tag: int) -> str:
    """An element of a default-repertoire VR (UI, CS, IS, DA …) without its padding; "" if absent."""
    element = node.get(tag)
    return "" if element is None else element.value.decode("latin-1").strip(" \0")


def inflate_some(data: bytes) -> bytes:
    """As much of the beginning of a damaged deflated data set as can be had, at most 1 MB."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = b""
    with contextlib.suppress(zlib.error):
        for start in range(0, len(data), 512):
            plain += engine.decompress(data[start : start + 512], _SOME - len(plain))
            if len(plain) == _SOME:
                break
    return plain


def parse_some(data: bytes, syntax: Syntax, last: int = UNDEFINED) -> Node:
    """The top-level elements of a damaged data set, up to the damage, or up to the tag `last`."""
    found: Node = {}
    with contextlib.suppress(Malformed):
        Reader(data, syntax.big, last).node(0, len(data), syntax.implicit, False, 0, found)
    return found


def group_end(data: bytes, pos: int, group: int, found: Node) -> int:
    """Read the elements of one group (explicit little endian) from `pos` into `found`; the position after the group.

    Raises Malformed.
    """
    explicit, _, _, long, _ = _HEADS[False]
    while pos + 8 <= len(data):
        at, number, code, length = explicit.unpack_from(data, pos)
        if at != group:
            break
        vr = _CODES.get(code, "")
        size = 12 if vr in _LONG else 8
        if not vr or pos + size > len(data):
            raise Malformed("an element has no known value representation")
        if size == 12:
            (length,) = long.unpack_from(data, pos + 8)
        end = pos + size + length
        if end > len(data):
            raise Malformed("an element is longer than the data that is left")
        tag = group << 16 | number
        found[tag] = Element(tag, vr, data[pos + size : end])
        pos = end
    return pos


def search_uid(data: bytes, tag: int, syntax: Syntax) -> str:
    """The value of a UID element somewhere in bytes that cannot be walked; "" unless exactly one value is found."""
    order = ">" if syntax.big else "<"
    mark = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    values = set()
    for match in re.finditer(re.escape(mark), data[: 1 << 20]):
        head = data[match.end() : match.end() + 4]
        if len(head) < 4:
            break
        length = struct.unpack(order + "H", head[2:])[0] if head[:2] == b"UI" else struct.unpack(order + "L", head)[0]
        value = data[match.end() + 4 : match.end() + 4 + min(length, 65)]
        if re.fullmatch(rb"[0-9]+(?:\.[0-9]+)+[\0 ]?", value) and len(value) == length:
            values.add(value.decode().strip(" \0"))
    return values.pop() if len(values) == 1 else ""
