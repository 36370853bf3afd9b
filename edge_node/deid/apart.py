"""Large pixel data apart from everything else: its bytes stay where the object landed.

The header is read into memory, and what stands behind the pixels; the pixels themselves are cleaned by reference. What
comes out is byte for byte what the way through memory gives (`wire.parse`, `bitstream.clean_pixels`, `wire.encode`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edge_node.deid import bitstream, offsets, wire
from edge_node.deid.header import Header
from edge_node.deid.wire import (
    MOST_IN_MEMORY,
    PIXEL_DATA,
    PIXELS,
    UNDEFINED,
    Element,
    Malformed,
    Node,
    Syntax,
    TooLarge,
)
from edge_node.domain.body import Body, Part, Slice, Source

APART = 1 << 20  # bytes of pixel data from which they stay apart: below, copies cost less than taking care
MOST_FRAGMENTS = 1 << 18  # of one object by reference: each takes a hundred bytes
_FIRST_READ = 1 << 16
_WIDTHS = {PIXEL_DATA: 0, 0x7FE00008: 4, 0x7FE00009: 8}
_ITEM = struct.Struct("<HHL")
_DELIMITER = _ITEM.pack(0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixel data where it landed: `value` is all of it, with heads of fragments and delimiter; `fragments` begin with
    the offset table."""

    tag: int
    vr: str
    value: Slice
    fragments: list[Slice] | None = None

    @property
    def samples(self) -> int:
        """Bytes without the heads of fragments."""
        return len(self.value) if self.fragments is None else sum(map(len, self.fragments))


def read(source: Source, syntax: Syntax, header: Header | None = None) -> tuple[Node, Pixels | bytes]:
    """An encoded data set, and its pixels if they stay apart: then their element in the node is empty. Else with the
    bytes of all of it. `header` reads with what it remembers of earlier ones.

    Raises Malformed, TooLarge for what would have to be in memory and is more than `MOST_IN_MEMORY`.
    """
    if source.size < APART or syntax.deflated:
        return _whole(source, syntax, header)
    size, begin = source.size, _FIRST_READ
    while True:
        data = source.read(0, begin)
        try:
            node, found = (header or wire).parse_up_to_pixels(data, syntax, APART)
        except (Malformed, struct.error):
            if begin >= size:
                raise
            found = None  # cut off by us, or broken: with more of it we shall see
        if found is not None:
            break
        if begin >= size:
            return node, data
        if begin >= MOST_IN_MEMORY:
            raise TooLarge
        begin = min(4 * begin, MOST_IN_MEMORY)
    pixels = _pixels(source, *found)
    if pixels is None or size - pixels.value.stop > MOST_IN_MEMORY:
        return _whole(source, syntax, header)
    behind = wire.parse(source.read(pixels.value.stop, size), syntax)
    if any(tag in behind for tag in PIXELS):
        return _whole(source, syntax, header)
    node[pixels.tag] = Element(pixels.tag, pixels.vr)
    node.update(behind)
    if header is not None:
        header.completed(node)
    return node, pixels


def _whole(source: Source, syntax: Syntax, header: Header | None) -> tuple[Node, bytes]:
    if source.size > MOST_IN_MEMORY:
        raise TooLarge
    data = source.read(0, source.size)
    return (header or wire).parse(data, syntax), data


def _pixels(source: Source, tag: int, vr: str, start: int, length: int) -> Pixels | None:
    """The pixels that begin at `start`; None if they are too many pieces."""
    if length != UNDEFINED:
        if start + length > source.size:
            raise Malformed(f"{wire.tag_name(tag)} is longer than the data that is left")
        return Pixels(tag, vr, Slice(source, start, start + length))
    if tag != PIXEL_DATA or vr not in ("OB", "OW"):
        raise Malformed(f"{wire.tag_name(tag)} has an undefined length and is no sequence")
    fragments: list[Slice] = []
    at = start
    while True:
        head = source.read(at, at + 8)
        if len(head) < 8:
            raise Malformed("the data ends inside a sequence")
        group, number, length = _ITEM.unpack(head)
        at += 8
        if (group, number) == (0xFFFE, 0xE0DD):
            return Pixels(tag, vr, Slice(source, start, at), fragments)
        if (group, number) != (0xFFFE, 0xE000) or length == UNDEFINED or at + length > source.size:
            raise Malformed("a fragment of the pixel data is broken")
        if len(fragments) >= MOST_FRAGMENTS:
            return None
        fragments.append(Slice(source, at, at + length))
        at += length


def clean_pixels(node: Node, clean: Node, pixels: Pixels, syntax: Syntax, transfer_syntax: str) -> Body:
    """`bitstream.clean_pixels` for pixels that stay apart: the value of their element in the clean object.

    Raises Quarantine("deid.pixel-data"), TooLarge for a single frame of more than `MOST_IN_MEMORY`.
    """
    if pixels.fragments is None:
        if syntax.encapsulated and pixels.tag == PIXEL_DATA:
            bitstream.refuse("the transfer syntax says that the pixel data is compressed, it is not in fragments")
        due = bitstream.native_length(node, len(pixels.value), syntax, _WIDTHS[pixels.tag])
        clean[pixels.tag] = Element(pixels.tag, pixels.vr)
        offsets.drop_extended(clean)
        value = pixels.value
        start, end = value.start, value.start + due
        if bitstream.ends_turned(due, len(value), pixels.vr, syntax):
            return Body([Slice(value.source, start, end - 1), b"\0", Slice(value.source, end, end + 1)])
        return Body([Slice(value.source, start, end), b"\0" * (due & 1)])
    if not syntax.encapsulated:
        bitstream.refuse("the pixel data is in fragments, the transfer syntax says it is not")
    clean[pixels.tag] = Element(pixels.tag, "OB")
    return _written(pixels, _encapsulated(node, clean, pixels.fragments, transfer_syntax))


Fragment = list[Part]  # the pieces it is made of


def _encapsulated(node: Node, clean: Node, fragments: list[Slice], transfer_syntax: str) -> list[Fragment] | None:
    """The offset table and the fragments of the clean object; None if all stay as they are."""
    if len(fragments) < 2:
        bitstream.refuse("the pixel data has no fragments")
    table, *rest = fragments
    told = table.read() if len(table) <= 4 * len(rest) else b""  # a longer one is none
    if not bitstream.is_video(transfer_syntax):
        frames = bitstream.frames_in(rest, told, bitstream.frames_of(node), transfer_syntax)
        cleaned = [_frame(frame, transfer_syntax) for frame in frames]
    if bitstream.is_video(transfer_syntax) or not any(cleaned):
        offsets.keep_extended(clean, rest)
        kept = offsets.basic_table(told, rest)
        unchanged: list[Fragment] = [[one] for one in rest]
        return None if len(kept) == len(table) else [[kept], *unchanged]
    made: list[list[Fragment]] = [
        [[fragment] for fragment in frame] if new is None else [new] for frame, new in zip(frames, cleaned, strict=True)
    ]
    lengths = [[range(_length(fragment)) for fragment in frame] for frame in made]
    moved = bitstream.moved_table(clean, lengths if len(table) else ())
    return [[moved], *(fragment for frame in made for fragment in frame)]


def _length(fragment: Fragment) -> int:
    return sum(map(len, fragment))


def _frame(frame: list[Slice], transfer_syntax: str) -> Fragment | None:
    """The pieces of one frame in a single fragment of even length; None if it stays as it is."""
    body = Body(frame)
    if not bitstream.looks_inside(transfer_syntax):
        bitstream.check_beginning(body.read(0, bitstream.RLE_HEADER), body.size, transfer_syntax)
        return None
    if body.size > MOST_IN_MEMORY:
        raise TooLarge
    kept = bitstream.kept_of(body.whole(), transfer_syntax)
    if kept is None:
        return None
    pieces: Fragment = []
    for one in kept:
        pieces += [one] if isinstance(one, bytes) else body.slices(*one)
    return [*pieces, b"\0" * (_length(pieces) & 1)]


def _written(pixels: Pixels, fragments: list[Fragment] | None) -> Body:
    """Fragments with their heads, each of even length, and the delimiter."""
    if fragments is None:
        assert pixels.fragments is not None
        value = pixels.value
        closing = value.source.read(value.stop - 8, value.stop)
        if closing == _DELIMITER and not any(len(one) & 1 for one in pixels.fragments):
            return Body([value])
        fragments = [[one] for one in pixels.fragments]
    parts: list[Part] = []
    for fragment in fragments:
        length = _length(fragment)
        parts += [_ITEM.pack(0xFFFE, 0xE000, length + (length & 1)), *fragment, b"\0" * (length & 1)]
    return Body([*parts, _DELIMITER])
