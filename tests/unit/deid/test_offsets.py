"""Offset tables of compressed pixels: nothing but offsets may stand in them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from edge_node.deid import wire
from edge_node.deid.bitstream import syntax_of
from edge_node.deid.offsets import OFFSET_LENGTHS, OFFSETS, basic_table, begins_of, keep_extended
from edge_node.deid.wire import PIXEL_DATA, Element, Node
from edge_node.domain.body import Memory
from edge_node.domain.study import DeidentifiedInstance, IdentifiedInstance
from tests.unit.deid.objects import DEIDENTIFIER, ct, received
from tests.unit.deid.test_apart import both_ways, encapsulated, pixels_apart_from
from tests.unit.deid.test_guard import verdict_of

RLE = struct.pack("<16L", 1, 64, *[0] * 14) + bytes(16)
JPEG = b"\xff\xd8\xff\xda\0\6\0\0\x3f\0\1\2\xff\xd9"
VIDEO = "1.2.840.10008.1.2.4.102"
NAME = b"Beeblebrox^Zaphod"
SYNTAXES = [(str(RLELossless), RLE), (str(JPEGBaseline8Bit), JPEG), (VIDEO, b"\0\0\1\xb3" + bytes(60))]


def pixels_of(made: DeidentifiedInstance) -> Element:
    start = 144 + int.from_bytes(made.part10[140:144], "little")
    return wire.parse(made.part10[start:], syntax_of(made.transfer_syntax))[PIXEL_DATA]


@pytest.mark.parametrize(("syntax", "frame"), SYNTAXES)
@pytest.mark.parametrize("apart_from", [1, 1 << 62])
@pytest.mark.parametrize("table", [NAME + b"   ", NAME[:8], struct.pack("<2L", 0, 4), struct.pack("<2L", 8, 0)])
def test_a_table_in_which_something_else_stands_goes(syntax: str, frame: bytes, apart_from: int, table: bytes) -> None:
    instance = encapsulated(syntax, [table, frame, frame], 2)
    assert both_ways(instance) == ""
    with pixels_apart_from(apart_from):
        made = DEIDENTIFIER.clean(instance)
    assert pixels_of(made).fragments == [b"", frame, frame]


@pytest.mark.parametrize(("syntax", "frame"), SYNTAXES)
def test_a_table_of_offsets_stays(syntax: str, frame: bytes) -> None:
    table = struct.pack("<2L", 0, 8 + len(frame))
    assert pixels_of(DEIDENTIFIER.clean(encapsulated(syntax, [table, frame, frame], 2))).fragments == [
        table,
        frame,
        frame,
    ]


def with_extended(offsets: bytes, lengths: bytes) -> IdentifiedInstance:
    made = encapsulated(str(RLELossless), [b"", RLE, RLE], 2)
    extended = b"".join(
        struct.pack("<HH2s2xL", 0x7FE0, number, b"OV", len(value)) + value
        for number, value in ((1, offsets), (2, lengths))
    )
    at = made.dataset.index(struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF))
    return replace(made, source=Memory(made.dataset[:at] + extended + made.dataset[at:]))


@pytest.mark.parametrize(
    ("offsets", "lengths", "stays"),
    [
        (struct.pack("<2Q", 0, 88), struct.pack("<2Q", 80, 80), True),
        (struct.pack("<2Q", 0, 88), struct.pack("<2Q", 80, 79), True),
        (struct.pack("<2Q", 0, 88), struct.pack("<2Q", 80, 78), False),
        (b"Beeblebrox      ", struct.pack("<2Q", 80, 80), False),
        (struct.pack("<2Q", 0, 88), b"Zaphod  Beeblebr", False),
        (struct.pack("<2Q", 0, 88), b"Zaphod  ", False),
    ],
)
def test_an_extended_table_stays_only_if_it_is_right(offsets: bytes, lengths: bytes, stays: bool) -> None:
    for apart_from in (1, 1 << 62):
        with pixels_apart_from(apart_from):
            made = DEIDENTIFIER.clean(with_extended(offsets, lengths))
        start = 144 + int.from_bytes(made.part10[140:144], "little")
        node = wire.parse(made.part10[start:], syntax_of(made.transfer_syntax))
        assert {tag for tag in (OFFSETS, OFFSET_LENGTHS) if tag in node} == (
            {OFFSETS, OFFSET_LENGTHS} if stays else set()
        )


def test_pixels_that_are_not_in_fragments_have_no_extended_table() -> None:
    ds = ct()
    ds.add_new(OFFSETS, "OV", b"Zaphod  ")
    made = DEIDENTIFIER.clean(received(ds))
    assert b"Zaphod" not in made.part10


def test_the_check_looks_into_the_table() -> None:
    source = encapsulated(str(RLELossless), [b"", RLE], 1)
    clean = DEIDENTIFIER.clean(source).part10
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    at = clean.rindex(empty)
    spoiled = clean[:at] + struct.pack("<HHL", 0xFFFE, 0xE000, 20) + NAME + b"   " + clean[at + 8 :]
    assert verdict_of(source.dataset, str(RLELossless), clean) == "passed"
    assert verdict_of(source.dataset, str(RLELossless), spoiled) == "residual-identifier"


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=6), st.data())
def test_the_table_of_any_fragments_that_begin_a_frame_is_kept_and_any_other_number_is_not(
    fragments: list[bytes], data: st.DataObject
) -> None:
    begins = begins_of(fragments)
    some = [0, *sorted(data.draw(st.sets(st.sampled_from(begins[1:]))) if begins[1:] else ())]
    table = struct.pack(f"<{len(some)}L", *some)
    assert basic_table(table, fragments) == table
    wrong = data.draw(st.integers(0, 1 << 20).filter(lambda number: number not in begins))
    assert basic_table(struct.pack(f"<{len(some)}L", *some[:-1], wrong), fragments) == b""


def test_an_extended_table_of_another_number_of_fragments_goes() -> None:
    node: Node = {tag: Element(tag, "OV", bytes(8)) for tag in (OFFSETS, OFFSET_LENGTHS)}
    keep_extended(node, [RLE, RLE])
    assert not node


def test_a_basic_table_stays_if_it_ascends_over_beginnings_of_fragments_from_the_first() -> None:
    fragments = [b"abc", b"de", b"", b"fghi"]
    assert begins_of(fragments) == [0, 12, 22, 30]
    for begins in ([0], [0, 12], [0, 22], [0, 12, 22, 30]):
        table = struct.pack(f"<{len(begins)}L", *begins)
        assert basic_table(table, fragments) == table
        assert basic_table(table + b"K", fragments) == b""
    for begins in ([12], [0, 0], [0, 22, 12], [0, 11], [0, 12, 22, 30, 42]):
        assert basic_table(struct.pack(f"<{len(begins)}L", *begins), fragments) == b""
    assert basic_table(b"", fragments) == b""
