"""How much of the bytes sent as pixels are pixels, and which of them belong to which frame."""

from __future__ import annotations

import struct

import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from edge_node.deid.bitstream import clean_pixels, frames_in, frames_of, moved_table, native_length, syntax_of
from edge_node.deid.offsets import OFFSET_LENGTHS, OFFSETS
from edge_node.deid.wire import PIXEL_DATA, Element, Node
from edge_node.domain.errors import Quarantine
from tests.unit.deid.streams import FRAME, HUFFMAN, NAME, PLAIN, SCAN, TABLE, WIDE, jpeg, segment

FLOATS, DOUBLES, MPEG2 = 0x7FE00008, 0x7FE00009, "1.2.840.10008.1.2.4.100"
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
def test_frames_that_stay_keep_their_tables(syntax: str, frame: bytes) -> None:
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
