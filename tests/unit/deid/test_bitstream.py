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
from tests.unit.deid.streams import FRAME, HUFFMAN, NAME, PLAIN, SCAN, SIZES, TABLE, WIDE, j2k, jpeg, rle, segment
from tests.unit.deid.test_apart import encapsulated, pixels_apart_from
from tests.unit.deid.test_guard import verdict_of

JPEG_XL = "1.2.840.10008.1.2.4.110"


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


SOUND = [
    (0xDB, b"\0" + bytes(64)),
    (0xDB, b"\x13" + bytes(128)),
    (0xDB, b"\1" + bytes(64) + b"\x12" + bytes(128)),
    (0xDB, b"".join(bytes([table]) + bytes(64) for table in range(4))),
    (0xC4, b"\x13" + bytes(16)),
    (0xC4, b"\0\1\2" + bytes(14) + b"abc"),
    (0xC4, b"\0\1" + bytes(15) + b"a" + b"\x11" + bytes(15) + b"\1b"),
    (0xC0, b"\x08\0\4\0\4\1\1\x11\0"),
    (0xC3, b"\x10\0\4\0\4\3" + bytes(9)),
    (0xF7, b"\x08\0\4\0\4\1\1\x11\0"),
    (0xDE, b"\x08\0\4\0\4\1\1\x11\0"),
    (0xDA, b"\0\0\x3f\0"),
    (0xDA, b"\3" + bytes(6) + b"\0\x3f\0"),
    (0xCC, b"\0\1"),
    (0xCC, b"\0\1\x10\5"),
    (0xDC, b"\0\4"),
    (0xDD, b"\0\4"),
    (0xDD, b"\0\0\4"),
    (0xDD, b"\0\0\0\4"),
    (0xDF, b"\x11"),
    (0xF8, b"\1" + bytes(10)),
    (0xF8, b"\2\1\1palette"),
    (0xF8, b"\3\1\1 of it"),
    (0xF8, b"\4\2\0\4\0\4"),
    (0xF8, b"\4\0"),
]


@pytest.mark.parametrize(("code", "body"), SOUND)
def test_a_segment_holds_what_it_is_for_to_its_last_byte(code: int, body: bytes) -> None:
    assert kept_of(jpeg(segment(code, body), TABLE, SCAN), JPEGBaseline8Bit) is None
    if body[0] in (2, 3) and code == 0xF8:
        return  # a palette is as long as it is
    shorter = [body[:-1]] if code != 0xDD or len(body) == 2 else []  # an interval has two to four
    for other in (*shorter, body + NAME):
        with pytest.raises(Quarantine, match="something else"):
            kept_of(jpeg(TABLE, FRAME, segment(code, other), HUFFMAN, SCAN), JPEGLSLossless)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (0xDB, b"\x20" + bytes(64)),
        (0xDB, b"\x20" + bytes(128)),
        (0xDB, b"\4" + bytes(64)),
        (0xC4, b"\x20" + bytes(16)),
        (0xC4, b"\4" + bytes(16)),
        (0xF8, b"\5" + bytes(10)),
        (0xF8, b""),
        (0xF8, b"\1"),
        (0xDA, b""),
        (0xC0, b"\x08\0\4\0\4"),
        (0xC0, b"\x08"),
        (0xDD, b"\1"),
        (0xDD, bytes(5)),
    ],
)
def test_a_segment_that_is_none_is_refused(code: int, body: bytes) -> None:
    with pytest.raises(Quarantine, match="something else"):
        kept_of(jpeg(segment(code, body), TABLE, SCAN), JPEGBaseline8Bit)


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
        rle(16, *[64] * 15),
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
        (JPEGBaseline8Bit, PLAIN, jpeg(TABLE, FRAME, HUFFMAN, SCAN, segment(0xC4, bytes(17) + NAME), SCAN)),
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


@pytest.mark.parametrize(
    ("code", "body", "stays"),
    [
        (0xE0, b"JFIF\0" + bytes(9), True),
        (0xE0, b"JFIF\0" + bytes(10), False),
        (0xE0, b"JFIF\0" + bytes(8), False),
        (0xE0, b"JFXX\0" + bytes(9), False),
        (0xE0, b"jfif\0" + bytes(9), False),
        (0xE1, b"JFIF\0" + bytes(9), False),
        (0xEE, b"Adobe" + bytes(7), True),
        (0xEE, b"Adobe" + bytes(8), False),
        (0xEE, b"ADOBE" + bytes(7), False),
        (0xEE, b"adobe" + bytes(7), False),
        (0xEF, b"Adobe" + bytes(7), False),
        (0xE8, b"mrfx\1", True),
        (0xE8, b"mrfx\1\1", False),
        (0xE8, b"MRFX\1", False),
        (0xE9, b"mrfx\1", False),
        (0xFE, b"mrfx\1", False),
    ],
)
def test_of_application_segments_those_stay_that_decide_colours(code: int, body: bytes, stays: bool) -> None:
    one = segment(code, body)
    assert (one in what_is_kept(jpeg(one, TABLE, FRAME, SCAN), JPEGBaseline8Bit)) is stays


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xd8" + TABLE,
        b"\xff\xd8" + TABLE + b"\xff\xc0\0",
        b"\xff\xd8" + TABLE + b"\xff\xc0",
        b"\xff\xd8\xff\xc0\0\1\xff\xd9",
        b"\xff\xd8\xff\xc0\0\x09abc\xff\xd9",
        b"\xff\xd8\xff\xd8\0\4ab\xff\xd9",
        b"\xff\xd8" + TABLE + b"\xff\xe1\0\0\xff\xd9",
        b"\xff\xd8" + TABLE + b"\xff\xe1\0\1\xff\xd9",
        b"GIF89a" + bytes(20),
    ],
)
def test_a_broken_jpeg_is_refused(frame: bytes) -> None:
    with pytest.raises(Quarantine) as refused:
        kept_of(frame, JPEGBaseline8Bit)
    assert refused.value.code == "deid.pixel-data"


def test_the_smallest_segment_and_one_that_ends_with_the_image_are_whole() -> None:
    for frame in (b"\xff\xd8\xff\xdb\0\2\xff\xd9", b"\xff\xd8\xff\xda\0\6\0\0\x3f\0\xff\xd9"):
        assert kept_of(frame, JPEGBaseline8Bit) is None


def tile(data: bytes, psot: int | None = None, more: bytes = b"") -> bytes:
    """A tile-part; `psot` is what it says of its length, by default the truth."""
    length = 12 + len(more) + 2 + len(data)
    return (
        segment(0x90, b"\0\0" + struct.pack(">L", length if psot is None else psot) + b"\0\1")
        + more
        + b"\xff\x93"
        + data
    )


SOC, EOC = b"\xff\x4f" + SIZES, b"\xff\xd9"
COMMENT, BLANK = segment(0x64, b"\0\1" + NAME), segment(0x64, b"\0\1" + b" " * len(NAME))


@pytest.mark.parametrize(
    ("stream", "kept"),
    [
        (SOC + tile(b"data") + EOC, None),
        (SOC + tile(b"data"), None),
        (SOC + tile(b"data", 0) + EOC, None),
        (SOC + tile(b"da\xff\xd9ta", 0) + EOC, None),
        (SOC + tile(b"data", 0), None),
        (SOC + tile(b"data", 0) + EOC + NAME, SOC + tile(b"data", 0) + EOC),
        (SOC + tile(b"data") + EOC + NAME, SOC + tile(b"data") + EOC),
        (SOC + tile(b"data") + EOC + b"\0\0\0", None),
        (SOC + tile(b"data") + EOC + b"K", None),
        (SOC + tile(b"data") + EOC + b"K\0", SOC + tile(b"data") + EOC),
        (SOC + tile(b"data") + EOC + b"XX", SOC + tile(b"data") + EOC),
        (SOC + EOC + NAME, SOC + EOC),
        (SOC + segment(0x52, bytes(10)), None),
        (SOC + segment(0x64, bytes(2) + 16 * NAME) + EOC, SOC + segment(0x64, bytes(2) + b" " * 16 * len(NAME)) + EOC),
        (SOC + COMMENT + tile(b"data") + EOC, SOC + BLANK + tile(b"data") + EOC),
        (SOC + tile(b"da") + tile(b"ta", None, COMMENT) + EOC, SOC + tile(b"da") + tile(b"ta", None, BLANK) + EOC),
        (SOC + tile(b"da") + tile(b"ta", 0, COMMENT) + EOC, SOC + tile(b"da") + tile(b"ta", 0, BLANK) + EOC),
        (SOC + BLANK + tile(b"data") + EOC, None),
        (SOC + segment(0x5C, b"") + tile(b"data") + EOC, None),
        (SOC + tile(b"data") + b"\xff", None),
        (SOC + tile(b"data", 400) + EOC, None),
    ],
)
def test_of_jpeg_2000_everything_stays_but_comments_and_what_stands_behind_the_end(
    stream: bytes, kept: bytes | None
) -> None:
    assert what_is_kept(stream, JPEG2000Lossless) == (stream if kept is None else kept)


@pytest.mark.parametrize(
    "stream",
    [
        SOC + b"\xff\x52\0\1" + tile(b"data") + EOC,
        SOC + b"\xff\x52\0\xff" + tile(b"data") + EOC,
        SOC + segment(0x52, bytes(10))[:-1],
        SOC + b"name" + tile(b"data") + EOC,
        SOC + tile(b"data", 14) + EOC,
        SOC + tile(b"data", 12) + EOC,
        SOC + tile(b"data", 1) + EOC,
        SOC + tile(b"data", 16) + EOC,
        b"\xff\x4f\xff\x52" + bytes(20),
    ],
)
def test_a_broken_jpeg_2000_is_refused(stream: bytes) -> None:
    with pytest.raises(Quarantine) as refused:
        kept_of(stream, JPEG2000Lossless)
    assert refused.value.code == "deid.pixel-data"


def test_jpeg_xl_is_a_bare_code_stream_and_no_container() -> None:
    assert kept_of(b"\xff\x0a" + bytes(10), JPEG_XL) is None
    for other in (b"\0\0\0\x0cJXL \r\n\x87\n", b"\x0a\xff", b""):
        with pytest.raises(Quarantine, match="JPEG XL"):
            kept_of(other, JPEG_XL)
