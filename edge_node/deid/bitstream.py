"""Pixel data as bytes: is it as long as the header says, and does its code stream carry anything but the image?

Samples and entropy-coded data are never touched. What goes: bytes behind the last frame, of JPEG and JPEG-LS every
segment that decoding does not need and whatever stands between two, comment segments of JPEG 2000, bytes behind the
end-of-image marker.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence, Sized
from typing import NoReturn, Protocol, TypeVar

from edge_node.deid import offsets, wire
from edge_node.deid.wire import PIXEL_DATA, Element, Node, Syntax
from edge_node.domain.errors import Quarantine

FLOATS, DOUBLES = 0x7FE00008, 0x7FE00009
_PREFIX = "1.2.840.10008.1.2.4."
_JPEG = tuple(_PREFIX + n for n in ("50", "51", "57", "70", "80", "81"))  # JPEG and JPEG-LS
_J2K = tuple(_PREFIX + n for n in ("90", "91", "92", "93", "201", "202", "203"))  # JPEG 2000, HTJ2K
_JXL = tuple(_PREFIX + n for n in ("110", "111", "112"))
_RLE = "1.2.840.10008.1.2.5"
_VIDEO = tuple(f"{_PREFIX}{n}{s}" for n in range(100, 109) for s in ("", ".1"))
ENCAPSULATED = frozenset((*_JPEG, *_J2K, *_JXL, _RLE, *_VIDEO))
_SYNTAXES = {
    "1.2.840.10008.1.2": Syntax(implicit=True),
    "1.2.840.10008.1.2.1": Syntax(),
    "1.2.840.10008.1.2.1.99": Syntax(deflated=True),
    "1.2.840.10008.1.2.2": Syntax(big=True),
}
_COUNT = re.compile(r"\+?\d{1,9}")
# A marker in JPEG or JPEG-LS data: entropy-coded bytes after FF are 00..7F, restarts D0..D7, fill FF.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
# Segments that decoding needs (ITU-T T.81 B.1.1.3, T.87 C.1.1): frames (not C8, reserved) and DHT, DAC; SOS, DQT, DNL,
# DRI, DHP, EXP; SOF55 and LSE of JPEG-LS. Any other could say anything, and goes; these are held to their form.
_JPEG_SEGMENTS = frozenset([*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xE0), 0xF7, 0xF8])
_SCAN = 0xDA
# Those of JPEG 2000 (ITU-T T.800 A.2, T.814 A): CAP, SIZ, COD, COC, TLM, PRF, PLM, PLT, CPF, QCD, QCC, RGN, POC, PPM,
# PPT, CRG, COM, SOT. Lengths count here, so that an unknown one cannot be taken out: the object is refused.
_J2K_SEGMENTS = frozenset([*range(0x50, 0x54), *range(0x55, 0x5A), *range(0x5C, 0x62), 0x63, 0x64, 0x90])
RLE_HEADER = 64  # bytes: the number of segments and where each begins (PS3.5 G.3)


def syntax_of(uid: str) -> Syntax:
    """How a transfer syntax is encoded; Quarantine("deid.unsupported-transfer-syntax") for one we do not know."""
    if uid in ENCAPSULATED:
        return Syntax(encapsulated=True)
    if uid not in _SYNTAXES:
        raise Quarantine(
            "deid.unsupported-transfer-syntax",
            "the transfer syntax is private, refers to other places, or is not known",
            hint="let the modality send a standard transfer syntax",
        )
    return _SYNTAXES[uid]


def is_video(uid: str) -> bool:
    """True for MPEG and HEVC: streams that we pass on without looking inside."""
    return uid in _VIDEO


class Fragment(Protocol):
    """A fragment of encapsulated pixel data, in memory or by reference."""

    def __len__(self) -> int: ...

    def startswith(self, prefix: bytes, /) -> bool: ...


AFragment = TypeVar("AFragment", bound=Fragment)
# What is kept of a code stream, in order: a range of it (first byte, first byte behind), or bytes instead of others.
Kept = list[tuple[int, int] | bytes]


def clean_pixels(source: Node, clean: Node, syntax: Syntax, transfer_syntax: str, *, apart: int = 0) -> None:
    """Check the pixel data of `source` and put what may be kept of it into `clean`; `apart` is the tag of pixel data
    that somebody else sees to.

    Raises Quarantine("deid.pixel-data") when there is less than the header says, whole frames more, or the code
    stream is none.
    """
    if PIXEL_DATA not in source:
        offsets.drop_extended(clean)
    for tag, width in ((PIXEL_DATA, 0), (FLOATS, 4), (DOUBLES, 8)):
        element = source.get(tag)
        if element is None or tag == apart:
            continue
        if element.items is not None or element.vr not in ("OB", "OW", "OF", "OD"):
            refuse("the pixel data has an impossible value representation")
        if element.fragments is not None:
            if not syntax.encapsulated:
                refuse("the pixel data is in fragments, the transfer syntax says it is not")
            clean[tag] = Element(tag, "OB", fragments=_encapsulated(source, clean, element, transfer_syntax))
        elif syntax.encapsulated and tag == PIXEL_DATA:
            refuse("the transfer syntax says that the pixel data is compressed, it is not in fragments")
        else:
            value = element.value
            due = native_length(source, len(value), syntax, width)
            offsets.drop_extended(clean)
            if ends_turned(due, len(value), element.vr, syntax):
                value = b"".join((value[: due - 1], b"\0", value[due : due + 1]))
            elif len(value) != due:
                value = b"".join((value[:due], b"\0" * (due & 1)))
            clean[tag] = Element(tag, element.vr, value)


def refuse(why: str) -> NoReturn:
    raise Quarantine("deid.pixel-data", why, hint="edge-node study show; ask the modality to send again")


def frames_of(node: Node) -> int:
    """Number of Frames; 1 if absent."""
    text = wire.ascii_text(node, 0x00280008)
    if not text:
        return 1
    if not _COUNT.fullmatch(text) or int(text) < 1:
        refuse("the number of frames is no positive number")
    return int(text)


def native_length(node: Node, size: int, syntax: Syntax, width: int) -> int:
    """How many of `size` bytes of native pixel data are pixels; `width` bytes a sample, 0: as Bits Allocated says.

    Raises Quarantine("deid.pixel-data").
    """
    rows, columns = wire.uint(node, 0x00280010, syntax), wire.uint(node, 0x00280011, syntax)
    samples = wire.uint(node, 0x00280002, syntax) or 1
    bits = width * 8 or wire.uint(node, 0x00280100, syntax)
    if not rows or not columns or not bits:
        refuse("rows, columns or bits allocated are missing")
    if wire.ascii_text(node, 0x00280004) == "YBR_FULL_422" and samples == 3:
        samples = 2
    frame_bits = rows * columns * samples * bits
    due = (frame_bits * frames_of(node) + 7) // 8
    if size < due:
        refuse("the pixel data is shorter than the header says")
    if size - due > max(1, frame_bits // 8 - 1):
        refuse("the pixel data is longer than the header says, by a frame or more")
    return due


def ends_turned(due: int, size: int, vr: str, syntax: Syntax) -> bool:
    """Whether the last of an odd number of bytes stands behind the byte that fills its word: so in words of big endian
    (PS3.5 7.3).

    Raises Quarantine("deid.pixel-data") when that word is cut: nobody can tell which half of it is there.
    """
    turned = syntax.big and vr == "OW" and due & 1 == 1
    if turned and size == due:
        refuse("the pixel data ends in the middle of a word")
    return turned


def _encapsulated(node: Node, clean: Node, element: Element, transfer_syntax: str) -> list[bytes]:
    table, *fragments = element.fragments or [b""]
    if not fragments:
        refuse("the pixel data has no fragments")
    if transfer_syntax in _VIDEO:
        offsets.keep_extended(clean, fragments)
        return [offsets.basic_table(table, fragments), *fragments]
    frames = frames_in(fragments, table, frames_of(node), transfer_syntax)
    cleaned = [_frame(frame, transfer_syntax) for frame in frames]
    if cleaned == frames:
        offsets.keep_extended(clean, fragments)
        return [offsets.basic_table(table, fragments), *fragments]
    table = moved_table(clean, cleaned) if table else moved_table(clean, ())
    return [table, *(fragment for frame in cleaned for fragment in frame)]


def moved_table(clean: Node, frames: Sequence[Sequence[Sized]]) -> bytes:
    """The basic offset table of frames whose lengths have changed (PS3.5 A.4), empty if they do not fit; an extended
    table would be wrong, and goes."""
    offsets.drop_extended(clean)
    begins, position = [], 0
    for frame in frames:
        begins.append(position)
        position += sum(8 + len(fragment) + (len(fragment) & 1) for fragment in frame)
    return struct.pack(f"<{len(begins)}L", *begins) if position < 1 << 32 else b""


def frames_in(fragments: list[AFragment], table: bytes, frames: int, transfer_syntax: str) -> list[list[AFragment]]:
    """Fragments by frame: one each, or all of one frame, or as the offset table or the start markers say."""
    if frames == len(fragments):
        return [[fragment] for fragment in fragments]
    if frames == 1:
        return [fragments]
    starts: list[int] = []
    if len(table) == 4 * frames:
        position, at = 0, {}
        for index, fragment in enumerate(fragments):
            at[position] = index
            position += 8 + len(fragment)
        told = struct.unpack(f"<{frames}L", table)
        if all(offset in at for offset in told):
            starts = [at[offset] for offset in told]
    if not starts and transfer_syntax != _RLE:
        marker = b"\xff\x4f\xff\x51" if transfer_syntax in _J2K else b"\xff\xd8\xff"
        starts = [i for i, fragment in enumerate(fragments) if fragment.startswith(marker)]
    if len(starts) != frames or starts != sorted(set(starts)) or starts[0] != 0:
        refuse("the fragments of the pixel data cannot be told into frames")
    return [fragments[a:b] for a, b in zip(starts, [*starts[1:], len(fragments)], strict=True)]


def _frame(fragments: list[bytes], transfer_syntax: str) -> list[bytes]:
    whole = fragments[0] if len(fragments) == 1 else b"".join(fragments)
    kept = kept_of(whole, transfer_syntax)
    if kept is None:
        return fragments
    cleaned = b"".join(one if isinstance(one, bytes) else whole[one[0] : one[1]] for one in kept)
    return [cleaned + b"\0" * (len(cleaned) & 1)]


def kept_of(frame: bytes, transfer_syntax: str) -> Kept | None:
    """What may be kept of a frame; None for all of it. Raises Quarantine("deid.pixel-data").

    Of RLE and JPEG XL the beginning says whether it is one: `looks_inside` tells for which the whole frame is needed.
    """
    if transfer_syntax in _JPEG:
        kept = _jpeg(frame)
    elif transfer_syntax in _J2K:
        kept = _jpeg_2000(frame)
    else:
        check_beginning(frame[:RLE_HEADER], len(frame), transfer_syntax)
        return None
    at = 0
    for one in kept:
        if isinstance(one, bytes) or one[0] != at:
            return kept
        at = one[1]
    return None if at == len(frame) else kept


def looks_inside(transfer_syntax: str) -> bool:
    """Whether a frame has to be read whole to be cleaned."""
    return transfer_syntax in _JPEG or transfer_syntax in _J2K


def check_beginning(begin: bytes, length: int, transfer_syntax: str) -> None:
    """Refuse a frame of RLE or JPEG XL that does not begin like one; `begin` has `RLE_HEADER` bytes of it."""
    if transfer_syntax == _RLE:
        if length < RLE_HEADER:
            refuse("a frame does not begin with an RLE header")
        count, *begins = struct.unpack("<16L", begin)
        ends = [*begins[1:count], length]
        ascending = all(a <= b for a, b in zip(begins[:count], ends, strict=False))
        if not 1 <= count <= 15 or begins[0] != RLE_HEADER or any(begins[count:]) or not ascending:
            refuse("a frame does not begin with an RLE header")
    elif not begin.startswith(b"\xff\x0a"):
        refuse("a frame is no bare JPEG XL code stream")


def _jpeg(data: bytes) -> Kept:
    """One JPEG or JPEG-LS image: its scans, and of its segments those that decoding needs."""
    if not data.startswith(b"\xff\xd8"):
        refuse("a frame does not begin with the JPEG start-of-image marker")
    kept: Kept = []
    position, run, code = 2, 0, 0  # [run:position) is to be kept
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            refuse("a JPEG image has no end-of-image marker")
        start = found.start()
        if start > position and code != _SCAN:  # bytes between segments, which a decoder passes over
            kept.append((run, position))
            run = start
        code = data[start + 1]
        if code == 0xD9:
            return [*kept, (run, start + 2), *_padding(data, start + 2)]
        if start + 4 > len(data):
            refuse("a JPEG segment is cut off")
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if code == 0xD8 or end < start + 4 or end > len(data):
            refuse("a JPEG segment is broken")
        if code in _JPEG_SEGMENTS:
            if not _is_filled(code, data[start + 4 : end]):
                refuse("a segment of a JPEG image holds something else")
        elif not _decides_colours(code, data[start + 4 : end]):
            kept.append((run, start))
            run = end
        position = end


def _decides_colours(code: int, body: bytes) -> bool:
    if code == 0xE0:  # JFIF without thumbnail
        return body.startswith(b"JFIF\0") and len(body) == 14
    if code == 0xEE:  # Adobe: colour transform
        return body.startswith(b"Adobe") and len(body) == 12
    return code == 0xE8 and body.startswith(b"mrfx") and len(body) == 5  # JPEG-LS colour transform


def _is_filled(code: int, body: bytes) -> bool:
    """Whether a segment holds what it is for to its last byte, and nothing besides (T.81 B.2, T.87 C.2)."""
    at, size = 0, len(body)
    if code == 0xDB:  # quantization tables, of 8 or 16 bits
        while at < size and body[at] >> 4 <= 1 and body[at] & 15 <= 3:
            at += 129 if body[at] >> 4 else 65
    elif code == 0xC4:  # Huffman tables: for each length of a code how many there are, then what they mean
        while at < size and body[at] >> 4 <= 1 and body[at] & 15 <= 3:
            at += 17 + sum(body[at + 1 : at + 17])
    elif code == 0xCC:  # conditions of arithmetic coding
        at = size & ~1
    elif code == 0xDA:  # scan: its components
        at = 4 + 2 * body[0] if size else -1
    elif code == 0xF8:  # JPEG-LS: thresholds; a palette, and how it goes on; sizes
        at = {1: 11, 2: size, 3: size, 4: 2 + 2 * body[1]}.get(body[0], -1) if size > 1 else -1
    elif code in (0xDC, 0xDD):  # number of lines; restart interval, which JPEG-LS counts in up to four bytes
        at = size if code == 0xDD and 2 <= size <= 4 else 2
    elif code == 0xDF:  # expansion
        at = 1
    else:  # a frame: its components
        at = 6 + 3 * body[5] if size > 5 else -1
    return at == size


def _jpeg_2000(data: bytes) -> Kept:
    """One JPEG 2000 code stream: comments blanked where they stand, so that no length changes."""
    if not data.startswith(b"\xff\x4f\xff\x51"):
        refuse("a frame is no bare JPEG 2000 code stream")
    kept: Kept = []
    position, tile_end, run = 2, 0, 0  # [run:position) is to be kept
    while True:
        if position + 4 > len(data):
            return [*kept, (run, len(data))]  # a stream without end marker: decoders accept it, nothing follows it
        code = data[position + 1]
        if data[position] != 0xFF:
            refuse("a JPEG 2000 header is broken")
        if code == 0xD9:
            break
        if code == 0x93:  # start of data: jump to the next tile-part
            after = tile_end if tile_end else data.rfind(b"\xff\xd9")
            if after < 0:
                return [*kept, (run, len(data))]
            if after <= position:  # never back: it would not end
                refuse("a JPEG 2000 tile-part ends before it begins")
            position = after
            if position + 2 <= len(data) and data[position : position + 2] == b"\xff\xd9":
                break
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2 or position + 2 + length > len(data):
            refuse("a JPEG 2000 segment is broken")
        if code not in _J2K_SEGMENTS:
            refuse("a JPEG 2000 stream has a segment that the standard does not know")
        if code == 0x90:  # start of tile-part: Psot counts from here, 0 means to the end
            psot = int.from_bytes(data[position + 6 : position + 10], "big")
            tile_end = position + psot if psot else 0
        comment = position + 6, position + 2 + length
        blank = b" " * (length - 4)
        if code == 0x64 and data[comment[0] : comment[1]] != blank:
            kept += [(run, comment[0]), blank]
            run = comment[1]
        position += 2 + length
    return [*kept, (run, position + 2), *_padding(data, position + 2)]


def _padding(data: bytes, start: int) -> Kept:
    """What stands behind an end marker stays only if it can say nothing: zeros, or one odd byte."""
    rest = data[start:]
    return [(start, len(data))] if rest and (len(rest) < 2 or not rest.strip(b"\0")) else []
