"""What compressed pixels may say beside the image: nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from edge_node.deid.bitstream import (
    RLE_HEADER,
    check_beginning,
    clean_pixels,
    frames_in,
    frames_of,
    kept_of,
    moved_table,
    native_length,
    syntax_of,
)
from edge_node.deid.offsets import OFFSET_LENGTHS, OFFSETS
from edge_node.deid.wire import PIXEL_DATA, Element, Node
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


FLOATS, DOUBLES, JPEG_XL, MPEG2 = 0x7FE00008, 0x7FE00009, "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.100"
NATIVE = syntax_of(ExplicitVRLittleEndian)


def header(**values: object) -> Node:
    """Of an image of 2 x 3 pixels of 16 bits, or as a test says; None: without."""
    given = {"samples": 1, "kind": b"MONOCHROME2", "frames": b"1 ", "rows": 2, "columns": 3, "bits": 16, **values}
    tags = {"samples": 0x00280002, "kind": 0x00280004, "frames": 0x00280008, "rows": 0x00280010, "columns": 0x00280011,
            "bits": 0x00280100}  # fmt: skip
    made: Node = {}
    for name, value in given.items():
        if isinstance(value, bytes):
            made[tags[name]] = Element(tags[name], "CS" if name == "kind" else "IS", value)
        elif isinstance(value, int):
            made[tags[name]] = Element(tags[name], "US", struct.pack("<H", value))
    return made


@pytest.mark.parametrize(
    ("values", "width", "due"),
    [
        ({}, 0, 12),
        ({"samples": None}, 0, 12),
        ({"samples": 3, "bits": 8}, 0, 18),
        ({"samples": 3, "bits": 8, "kind": b"YBR_FULL_422"}, 0, 12),
        ({"samples": 4, "bits": 8, "kind": b"YBR_FULL_422"}, 0, 24),
        ({"samples": 3, "bits": 8, "kind": b"YBR_FULL"}, 0, 18),
        ({"frames": b"5 "}, 0, 60),
        ({"frames": b"+2"}, 0, 24),
        ({"frames": None}, 0, 12),
        ({"bits": None}, 4, 24),
        ({}, 8, 48),
        ({"bits": 1, "columns": 5}, 0, 2),
        ({"bits": 1, "rows": 1}, 0, 1),
    ],
)
def test_native_pixels_are_as_long_as_the_header_says(values: dict[str, object], width: int, due: int) -> None:
    node = header(**values)
    assert native_length(node, due, NATIVE, width) == due
    assert native_length(node, due + 1, NATIVE, width) == due
    with pytest.raises(Quarantine, match="shorter"):
        native_length(node, due - 1, NATIVE, width)


def test_what_stands_behind_the_pixels_may_be_as_long_as_a_frame_but_for_a_byte() -> None:
    assert native_length(header(), 12 + 11, NATIVE, 0) == 12
    with pytest.raises(Quarantine, match="longer"):
        native_length(header(), 12 + 12, NATIVE, 0)
    tiny = header(rows=1, columns=1, bits=8)
    assert native_length(tiny, 2, NATIVE, 0) == 1
    with pytest.raises(Quarantine, match="longer"):
        native_length(tiny, 3, NATIVE, 0)


@pytest.mark.parametrize("missing", ["rows", "columns", "bits"])
@pytest.mark.parametrize("value", [None, 0])
def test_without_rows_columns_or_bits_nobody_knows_where_pixels_end(missing: str, value: object) -> None:
    with pytest.raises(Quarantine, match="missing"):
        native_length(header(**{missing: value}), 12, NATIVE, 0)


@pytest.mark.parametrize("text", [b"0 ", b"-1", b"1.0 ", b"one ", b"1234567890", b"0x10"])
def test_a_number_of_frames_is_a_positive_number(text: bytes) -> None:
    with pytest.raises(Quarantine, match="number of frames"):
        frames_of(header(frames=text))


def cleaned(node: Node, *elements: Element, syntax: str = ExplicitVRLittleEndian, apart: int = 0) -> Node:
    source, clean = {**node, **{one.tag: one for one in elements}}, dict(node)
    clean_pixels(source, clean, syntax_of(str(syntax)), str(syntax), apart=apart)
    return clean


def test_pixels_of_every_kind_are_cut_where_they_end() -> None:
    odd = header(rows=1, columns=3, bits=8)
    for tag, vr, width in ((PIXEL_DATA, "OB", 1), (PIXEL_DATA, "OW", 1), (FLOATS, "OF", 4), (DOUBLES, "OD", 8)):
        pixels = bytes(range(1, 1 + 3 * width))
        even = pixels + b"\0" * (len(pixels) & 1)
        clean = cleaned(odd, Element(tag, vr, pixels + b"K"))
        assert (clean[tag].tag, clean[tag].vr, clean[tag].value) == (tag, vr, even)
        whole = Element(tag, vr, pixels)
        assert cleaned(odd, whole)[tag].value is whole.value
    several = cleaned(odd, Element(PIXEL_DATA, "OB", b"abcK"), Element(DOUBLES, "OD", bytes(24) + b"K"))
    assert (several[PIXEL_DATA].value, several[DOUBLES].value) == (b"abc\0", bytes(24))
    alone = cleaned(odd, Element(PIXEL_DATA, "OB", b"K"), Element(FLOATS, "OF", bytes(12) + b"K"), apart=PIXEL_DATA)
    assert (PIXEL_DATA in alone, alone[FLOATS].value) == (False, bytes(12))


@pytest.mark.parametrize("vr", ["UN", "UT", "SQ", "OL", "of", ""])
def test_pixels_have_the_value_representation_of_pixels(vr: str) -> None:
    with pytest.raises(Quarantine, match="value representation"):
        cleaned(header(), Element(PIXEL_DATA, vr, bytes(12)))


def test_pixels_are_in_fragments_where_the_transfer_syntax_says_so_and_nowhere_else() -> None:
    with pytest.raises(Quarantine, match="value representation"):
        cleaned(header(), Element(PIXEL_DATA, "OB", items=[header()]))
    with pytest.raises(Quarantine, match="it is not"):
        cleaned(header(), Element(PIXEL_DATA, "OB", fragments=[b"", PLAIN]))
    with pytest.raises(Quarantine, match="not in fragments"):
        cleaned(header(), Element(PIXEL_DATA, "OB", bytes(12)), syntax=JPEGBaseline8Bit)
    for nothing in ([], [b""]):
        with pytest.raises(Quarantine, match="no fragments"):
            cleaned(header(), Element(PIXEL_DATA, "OB", fragments=nothing), syntax=JPEGBaseline8Bit)


def extended(*lengths: int) -> tuple[Element, Element]:
    begins = [sum(8 + one for one in lengths[:index]) for index in range(len(lengths))]
    packed = (struct.pack(f"<{len(lengths)}Q", *numbers) for numbers in (begins, lengths))
    offsets, sizes = packed
    return Element(OFFSETS, "OV", offsets), Element(OFFSET_LENGTHS, "OV", sizes)


@pytest.mark.parametrize(("syntax", "frame"), [(JPEGBaseline8Bit, PLAIN), (MPEG2, b"\0\0\1\xb3" + bytes(8))])
def test_frames_that_stay_keep_their_tables_and_frames_that_change_get_new_ones(syntax: str, frame: bytes) -> None:
    node = header(frames=b"2 ")
    node |= {one.tag: one for one in extended(len(frame), len(frame))}
    table = struct.pack("<2L", 0, 8 + len(frame))
    kept = cleaned(node, Element(PIXEL_DATA, "OB", fragments=[table, frame, frame]), syntax=syntax)
    assert kept[PIXEL_DATA].fragments == [table, frame, frame]
    assert kept[PIXEL_DATA].tag == PIXEL_DATA
    assert {OFFSETS, OFFSET_LENGTHS} <= set(kept)


def test_frames_that_change_get_a_new_table_if_they_had_one() -> None:
    node = header(frames=b"2 ")
    node |= {one.tag: one for one in extended(len(PLAIN), len(PLAIN))}
    loud = jpeg(segment(0xFE, NAME), TABLE, WIDE, FRAME, HUFFMAN, SCAN)
    quiet = PLAIN
    for table, new in ((bytes(8), struct.pack("<2L", 0, 8 + len(quiet))), (b"", b"")):
        clean = cleaned(node, Element(PIXEL_DATA, "OB", fragments=[table, loud, PLAIN]), syntax=JPEGBaseline8Bit)
        assert [one.rstrip(b"\0") for one in clean[PIXEL_DATA].fragments or []] == [
            new.rstrip(b"\0"), quiet.rstrip(b"\0"), PLAIN.rstrip(b"\0")
        ]  # fmt: skip
        assert not {OFFSETS, OFFSET_LENGTHS} & set(clean)
    in_two = [b"", loud[:20], loud[20:]]
    one = cleaned(header(), Element(PIXEL_DATA, "OB", fragments=in_two), syntax=JPEGBaseline8Bit)
    assert [len(fragment) & 1 for fragment in one[PIXEL_DATA].fragments or []] == [0, 0]


class Long:
    """Fragments of two gigabytes and more, by their length alone."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def test_a_new_table_counts_heads_and_padding_and_is_left_out_where_its_numbers_would_not_fit() -> None:
    assert struct.unpack("<3L", moved_table({}, [[b"abc", b"de"], [b"f"], [b""]])) == (0, 22, 32)
    small, gigabytes = [Long(8)], [Long((1 << 32) - 24)]
    assert len(moved_table({}, [gigabytes, small])) == 0
    assert struct.unpack("<2L", moved_table({}, [[Long((1 << 32) - 26)], [Long(8)]])) == (0, (1 << 32) - 18)


A, B, C = PLAIN, b"abcdefgh", b"\xff\xd8\xffrest"


@pytest.mark.parametrize(
    ("fragments", "table", "frames", "found"),
    [
        ([A, B], b"", 2, [[A], [B]]),
        ([A, B, C], b"", 1, [[A, B, C]]),
        ([A, B, C], b"", 2, [[A, B], [C]]),
        ([A, C, B], b"", 2, [[A], [C, B]]),
        ([B, B, B, B], struct.pack("<2L", 0, 32), 2, [[B, B], [B, B]]),
        ([B, B, B, B], struct.pack("<2L", 0, 16), 2, [[B], [B, B, B]]),
        ([A, C, A, B], struct.pack("<2L", 0, 16 + len(A) + len(C)), 2, [[A, C], [A, B]]),
        ([A, B, C], struct.pack("<2L", 0, 5), 2, [[A, B], [C]]),
        ([B, B, B], struct.pack("<2L", 16, 32), 2, None),
        ([B, B, B], struct.pack("<2L", 16, 0), 2, None),
        ([B, B, B], struct.pack("<2L", 0, 0), 2, None),
        ([B, B, B], b"", 2, None),
        ([B, A, C], b"", 2, None),
        ([A, B, C, C], b"", 2, None),
    ],
)
def test_fragments_are_told_into_frames_by_the_table_or_by_how_they_begin(
    fragments: list[bytes], table: bytes, frames: int, found: list[list[bytes]] | None
) -> None:
    def told() -> list[list[bytes]]:
        return frames_in(fragments, table, frames, str(JPEGBaseline8Bit))

    if found is None:
        with pytest.raises(Quarantine, match="told into frames"):
            told()
    else:
        assert told() == found


def test_jpeg_2000_begins_as_it_does_and_rle_is_never_told_by_how_it_begins() -> None:
    begin, rest = b"\xff\x4f\xff\x51", b"\xff\xd8\xff"
    assert frames_in([begin, rest, begin], b"", 2, str(JPEG2000Lossless)) == [[begin, rest], [begin]]
    with pytest.raises(Quarantine, match="told into frames"):
        frames_in([begin, rest, begin], b"", 2, str(JPEGBaseline8Bit))
    with pytest.raises(Quarantine, match="told into frames"):
        frames_in([rest, begin, rest], b"", 2, str(RLELossless))


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
        b"GIF89a" + bytes(20),
    ],
)
def test_a_broken_jpeg_is_refused(frame: bytes) -> None:
    with pytest.raises(Quarantine) as refused:
        kept_of(frame, JPEGBaseline8Bit)
    assert refused.value.code == "deid.pixel-data"


def test_the_smallest_segment_and_one_that_ends_with_the_image_are_whole() -> None:
    for frame in (b"\xff\xd8\xff\xdb\0\2\xff\xd9", b"\xff\xd8\xff\xda\0\2\xff\xd9"):
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
