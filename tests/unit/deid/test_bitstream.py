"""What compressed pixels may say beside the image: nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from edge_node.deid.bitstream import RLE_HEADER, check_beginning, kept_of
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.objects import DEIDENTIFIER
from tests.unit.deid.test_apart import encapsulated, pixels_apart_from
from tests.unit.deid.test_guard import verdict_of

NAME = b"Beeblebrox^Zaphod"


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


TABLE = segment(0xDB, b"\0" + bytes(range(64)))
WIDE = segment(0xDB, b"\x13" + bytes(128))
HUFFMAN = segment(0xC4, bytes(17))
FRAME = segment(0xC0, b"\x08\0\4\0\4\1\1\x11\0")
SCAN = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x12\xff\0\x34\xff\xd0\x56"
SIZES = segment(0x51, bytes(38))
TILE = segment(0x90, b"\0\0" + struct.pack(">L", 14 + 4) + b"\0\1") + b"\xff\x93" + b"tile"


def jpeg(*parts: bytes) -> bytes:
    whole = b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"
    return whole + b"\0" * (len(whole) & 1)


def j2k(*parts: bytes) -> bytes:
    whole = b"\xff\x4f" + SIZES + b"".join(parts) + TILE + b"\xff\xd9"
    return whole + b"\0" * (len(whole) & 1)


PLAIN = jpeg(TABLE, WIDE, FRAME, HUFFMAN, SCAN)


def rle(count: int, *begins: int, data: bytes = b"\3abcd\0") -> bytes:
    return struct.pack("<16L", count, *begins, *[0] * (15 - len(begins))) + data


def made_of(instance: IdentifiedInstance) -> bytes:
    """The clean object; nothing if it is held back."""
    try:
        return DEIDENTIFIER.clean(instance).part10
    except Quarantine:
        return b""


def what_is_kept(frame: bytes, syntax: str) -> bytes:
    kept = kept_of(frame, syntax)
    if kept is None:
        return frame
    return b"".join(one if isinstance(one, bytes) else frame[one[0] : one[1]] for one in kept)


@pytest.mark.parametrize("code", [0xFE, 0xE0, 0xE1, 0xE8, 0xEE, 0xEF, 0xF0, 0xF6, 0xFD, 0xC8])
@pytest.mark.parametrize("place", range(6))
def test_a_segment_that_decoding_does_not_need_goes_wherever_it_stands(code: int, place: int) -> None:
    parts = [TABLE, WIDE, FRAME, HUFFMAN, SCAN]
    parts.insert(place, segment(code, NAME))
    frame = jpeg(*parts)
    for syntax in (JPEGBaseline8Bit, JPEGLSLossless):
        assert what_is_kept(frame, syntax).rstrip(b"\0") == PLAIN.rstrip(b"\0")


@pytest.mark.parametrize("place", range(5))
def test_bytes_between_two_segments_go(place: int) -> None:
    parts = [TABLE, WIDE, FRAME, HUFFMAN, SCAN]
    parts.insert(place, NAME)
    assert what_is_kept(jpeg(*parts), JPEGBaseline8Bit).rstrip(b"\0") == PLAIN.rstrip(b"\0")


def test_a_stream_of_nothing_but_its_image_is_not_touched() -> None:
    assert kept_of(PLAIN, JPEGBaseline8Bit) is None
    scans = jpeg(TABLE, FRAME, HUFFMAN, SCAN, HUFFMAN, b"\xff\xff\xff" + SCAN)
    assert what_is_kept(scans, JPEGBaseline8Bit).count(SCAN) == 2


@pytest.mark.parametrize("more", [NAME, b"\1" + NAME, b"\0" + NAME * 4, b"\x20" + bytes(64), b"\4" + bytes(64)])
def test_a_quantization_table_that_is_none_is_refused(more: bytes) -> None:
    frame = jpeg(TABLE, FRAME, HUFFMAN, SCAN, segment(0xDB, b"\0" + bytes(64) + more), SCAN)
    with pytest.raises(Quarantine) as refused:
        kept_of(frame, JPEGBaseline8Bit)
    assert refused.value.code == "deid.pixel-data"


@pytest.mark.parametrize("code", [0x70, 0x54, 0x5B, 0x62, 0x65, 0x80])
def test_a_segment_that_jpeg_2000_does_not_know_is_refused_and_a_comment_is_blanked(code: int) -> None:
    with pytest.raises(Quarantine) as refused:
        kept_of(j2k(segment(code, NAME)), JPEG2000Lossless)
    assert refused.value.code == "deid.pixel-data"
    assert NAME not in what_is_kept(j2k(segment(0x64, b"\0\1" + NAME)), JPEG2000Lossless)
    assert what_is_kept(j2k(segment(0x52, bytes(10))), JPEG2000Lossless) == j2k(segment(0x52, bytes(10)))


@pytest.mark.parametrize(
    "frame",
    [
        rle(0, 64),
        rle(16, 64),
        rle(1, 65),
        rle(1, 0),
        rle(1, 64, 66),
        rle(2, 64, 63),
        rle(2, 64, 71),
        rle(3, 64, 68, 66),
        rle(1, 64)[:63],
        rle(1, 64)[:44] + NAME + b"   " + rle(1, 64)[64:],
    ],
)
def test_an_rle_header_that_says_anything_but_where_segments_begin_is_refused(frame: bytes) -> None:
    with pytest.raises(Quarantine, match="RLE"):
        check_beginning(frame[:RLE_HEADER], len(frame), RLELossless)


@pytest.mark.parametrize("frame", [rle(1, 64), rle(2, 64, 66), rle(2, 64, 70), rle(15, *[64] * 15)])
def test_an_rle_header_of_beginnings_stays(frame: bytes) -> None:
    assert kept_of(frame, RLELossless) is None


@pytest.mark.parametrize("apart_from", [1, 1 << 62])
@pytest.mark.parametrize(
    ("syntax", "good", "bad"),
    [
        (JPEGBaseline8Bit, PLAIN, jpeg(TABLE, FRAME, HUFFMAN, SCAN, segment(0xF0, NAME), SCAN)),
        (JPEGBaseline8Bit, PLAIN, jpeg(TABLE, FRAME, NAME, HUFFMAN, SCAN)),
        (JPEGBaseline8Bit, PLAIN, jpeg(TABLE, FRAME, HUFFMAN, SCAN, segment(0xDB, NAME), SCAN)),
        (JPEG2000Lossless, j2k(), j2k(segment(0x70, NAME))),
        (RLELossless, rle(1, 64), rle(1, 64)[:44] + NAME + b"   " + rle(1, 64)[64:]),
    ],
)
def test_a_name_beside_the_samples_never_leaves_and_the_check_would_find_it(
    syntax: str, good: bytes, bad: bytes, apart_from: int
) -> None:
    instance = encapsulated(str(syntax), [b"", bad], 1)
    with pixels_apart_from(apart_from):
        assert NAME not in made_of(instance)
    clean = DEIDENTIFIER.clean(encapsulated(str(syntax), [b"", good], 1)).part10
    assert clean.count(good) == 1
    leaking = clean.replace(struct.pack("<L", len(good)) + good, struct.pack("<L", len(bad)) + bad)
    received = instance.source.read(0, instance.source.size)
    assert verdict_of(received, str(syntax), leaking) == "residual-identifier"


@given(st.binary(max_size=200))
def test_whatever_stands_in_a_stream_is_kept_refused_or_gone_and_the_second_time_nothing_changes(noise: bytes) -> None:
    for syntax, begin in ((JPEGBaseline8Bit, b"\xff\xd8"), (JPEG2000Lossless, b"\xff\x4f\xff\x51"), (RLELossless, b"")):
        try:
            once = what_is_kept(begin + noise, syntax)
        except Quarantine:
            continue
        assert what_is_kept(once, syntax) == once
