"""Pixel data as bytes: is it as long as the header says, and does its code stream carry anything but the image?

Samples and entropy-coded data are never touched. What goes: bytes behind the last frame, comment and application
segments of JPEG and JPEG-LS, comment segments of JPEG 2000, bytes behind the end-of-image marker.
"""

from __future__ import annotations

import re
import struct
from typing import NoReturn

from edge_node.deid import wire
from edge_node.deid.wire import PIXEL_DATA, Element, Node, Syntax
from edge_node.domain.errors import Quarantine

OFFSETS, OFFSET_LENGTHS, FLOATS, DOUBLES = 0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009
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
# A marker in JPEG or JPEG-LS data: entropy-coded bytes after FF are 00..7F, restarts D0..D7, fill FF.
_COUNT = re.compile(r"\+?\d{1,9}")
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")


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


def clean_pixels(source: Node, clean: Node, syntax: Syntax, transfer_syntax: str) -> None:
    """Check the pixel data of `source` and put what may be kept of it into `clean`.

    Raises Quarantine("deid.pixel-data") when there is less than the header says, whole frames more, or the code
    stream is none.
    """
    for tag, width in ((PIXEL_DATA, 0), (FLOATS, 4), (DOUBLES, 8)):
        element = source.get(tag)
        if element is None:
            continue
        if element.items is not None or element.vr not in ("OB", "OW", "OF", "OD"):
            _refuse("the pixel data has an impossible value representation")
        if element.fragments is not None:
            if not syntax.encapsulated:
                _refuse("the pixel data is in fragments, the transfer syntax says it is not")
            clean[tag] = Element(tag, "OB", fragments=_encapsulated(source, clean, element, transfer_syntax))
        elif syntax.encapsulated and tag == PIXEL_DATA:
            _refuse("the transfer syntax says that the pixel data is compressed, it is not in fragments")
        else:
            clean[tag] = Element(tag, element.vr, _native(source, element.value, syntax, width))


def _refuse(why: str) -> NoReturn:
    raise Quarantine("deid.pixel-data", why, hint="edge-node study show; ask the modality to send again")


def frames_of(node: Node) -> int:
    """Number of Frames; 1 if absent."""
    text = wire.ascii_text(node, 0x00280008)
    if not text:
        return 1
    if not _COUNT.fullmatch(text) or int(text) < 1:
        _refuse("the number of frames is no positive number")
    return int(text)


def _native(node: Node, value: bytes, syntax: Syntax, width: int) -> bytes:
    rows, columns = wire.uint(node, 0x00280010, syntax), wire.uint(node, 0x00280011, syntax)
    samples = wire.uint(node, 0x00280002, syntax) or 1
    bits = width * 8 or wire.uint(node, 0x00280100, syntax)
    if not rows or not columns or not bits:
        _refuse("rows, columns or bits allocated are missing")
    if wire.ascii_text(node, 0x00280004) == "YBR_FULL_422" and samples == 3:
        samples = 2
    frame_bits = rows * columns * samples * bits
    due = (frame_bits * frames_of(node) + 7) // 8
    if len(value) < due:
        _refuse("the pixel data is shorter than the header says")
    if len(value) - due > max(1, frame_bits // 8 - 1):
        _refuse("the pixel data is longer than the header says, by a frame or more")
    return value if len(value) == due else value[:due] + b"\0" * (due & 1)


def _encapsulated(node: Node, clean: Node, element: Element, transfer_syntax: str) -> list[bytes]:
    table, *fragments = element.fragments or [b""]
    if not fragments:
        _refuse("the pixel data has no fragments")
    if transfer_syntax in _VIDEO:
        return [table, *fragments]
    frames = _frames(fragments, table, frames_of(node), transfer_syntax)
    cleaned = [_frame(frame, transfer_syntax) for frame in frames]
    if cleaned == frames:
        return [table, *fragments]
    # Something went: the offsets have moved (PS3.5 A.4), an extended table would be wrong.
    clean.pop(OFFSETS, None)
    clean.pop(OFFSET_LENGTHS, None)
    flat, offsets, position = [], [], 0
    for frame in cleaned:
        offsets.append(position)
        for fragment in frame:
            flat.append(fragment)
            position += 8 + len(fragment) + (len(fragment) & 1)
    fits = table and position < 1 << 32
    return [struct.pack(f"<{len(offsets)}L", *offsets) if fits else b"", *flat]


def _frames(fragments: list[bytes], table: bytes, frames: int, transfer_syntax: str) -> list[list[bytes]]:
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
        offsets = struct.unpack(f"<{frames}L", table)
        if all(offset in at for offset in offsets):
            starts = [at[offset] for offset in offsets]
    if not starts and transfer_syntax != _RLE:
        marker = b"\xff\x4f\xff\x51" if transfer_syntax in _J2K else b"\xff\xd8\xff"
        starts = [i for i, fragment in enumerate(fragments) if fragment.startswith(marker)]
    if len(starts) != frames or starts != sorted(set(starts)) or starts[0] != 0:
        _refuse("the fragments of the pixel data cannot be told into frames")
    return [fragments[a:b] for a, b in zip(starts, [*starts[1:], len(fragments)], strict=True)]


def _frame(fragments: list[bytes], transfer_syntax: str) -> list[bytes]:
    whole = fragments[0] if len(fragments) == 1 else b"".join(fragments)
    if transfer_syntax in _JPEG:
        cleaned = _jpeg(whole)
    elif transfer_syntax in _J2K:
        cleaned = _jpeg_2000(whole)
    elif transfer_syntax == _RLE:
        if len(whole) < 64 or not 1 <= struct.unpack_from("<L", whole)[0] <= 15:
            _refuse("a frame does not begin with an RLE header")
        cleaned = whole
    else:
        if not whole.startswith(b"\xff\x0a"):
            _refuse("a frame is no bare JPEG XL code stream")
        cleaned = whole
    return fragments if cleaned == whole else [cleaned + b"\0" * (len(cleaned) & 1)]


def _jpeg(data: bytes) -> bytes:
    """One JPEG or JPEG-LS image without APPn and COM segments, except the markers that decide its colours."""
    if not data.startswith(b"\xff\xd8"):
        _refuse("a frame does not begin with the JPEG start-of-image marker")
    kept, position, run = [], 2, 0  # [run:position) is to be kept
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            _refuse("a JPEG image has no end-of-image marker")
        start, code = found.start(), data[found.start() + 1]
        if code == 0xD9:
            kept.append(data[run : start + 2])
            kept.append(_padding(data[start + 2 :]))
            return b"".join(kept)
        if start + 4 > len(data):
            _refuse("a JPEG segment is cut off")
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if code == 0xD8 or end < start + 4 or end > len(data):
            _refuse("a JPEG segment is broken")
        if (0xE0 <= code <= 0xEF or code == 0xFE) and not _decides_colours(code, data[start + 4 : end]):
            kept.append(data[run:start])
            run = end
        position = end


def _decides_colours(code: int, body: bytes) -> bool:
    if code == 0xE0:  # JFIF without thumbnail
        return body.startswith(b"JFIF\0") and len(body) == 14
    if code == 0xEE:  # Adobe: colour transform
        return body.startswith(b"Adobe") and len(body) == 12
    return code == 0xE8 and body.startswith(b"mrfx") and len(body) == 5  # JPEG-LS colour transform


def _jpeg_2000(data: bytes) -> bytes:
    """One JPEG 2000 code stream: comments blanked where they stand, so that no length changes."""
    if not data.startswith(b"\xff\x4f\xff\x51"):
        _refuse("a frame is no bare JPEG 2000 code stream")
    out, position, tile_end = bytearray(data), 2, 0
    while True:
        if position + 4 > len(data):
            return bytes(out)  # a stream without end marker: decoders accept it, nothing follows it
        code = data[position + 1]
        if data[position] != 0xFF:
            _refuse("a JPEG 2000 header is broken")
        if code == 0xD9:
            break
        if code == 0x93:  # start of data: jump to the next tile-part
            position = tile_end if tile_end else data.rfind(b"\xff\xd9")
            if position < 0:
                return bytes(out)
            if position + 2 <= len(data) and data[position : position + 2] == b"\xff\xd9":
                break
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2 or position + 2 + length > len(data):
            _refuse("a JPEG 2000 segment is broken")
        if code == 0x90:  # start of tile-part: Psot counts from here, 0 means to the end
            psot = int.from_bytes(data[position + 6 : position + 10], "big")
            tile_end = position + psot if psot else 0
        if code == 0x64:
            out[position + 6 : position + 2 + length] = b" " * (length - 4)
        position += 2 + length
    return bytes(out[: position + 2]) + _padding(data[position + 2 :])


def _padding(rest: bytes) -> bytes:
    """What stands behind an end marker stays only if it can say nothing: zeros, or one odd byte."""
    return rest if len(rest) < 2 or not rest.strip(b"\0") else b""
