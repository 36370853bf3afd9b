"""What a clean object says outside its pixels, as the check searches it."""

from __future__ import annotations

import pytest

from edge_node.deid.said import Said, pixel_places
from edge_node.deid.witness import witness
from tests.unit.deid.elements import (
    EXPLICIT,
    ITEM,
    OPEN,
    REFERENCES,
    ROWS,
    SEQUENCE_END,
    TEXT,
    UID,
    mark,
    sent,
)
from tests.unit.deid.heard import told

NAME, NUMBER, BORN, STUDIED, SERIES = 0x00100010, 0x00100020, 0x00100030, 0x00080020, 0x00080021


def heard(*elements: tuple[int, str, bytes], native: bool = True) -> Said:
    return Said(told(*elements), native)


def test_text_is_what_was_sent_as_text_and_numbers_are_what_was_sent_as_numbers() -> None:
    said = heard((TEXT, "LO", b"Quincy"), (STUDIED, "DA", b"20240229"), (SERIES, "DA", b"2023"), (ROWS, "US", b"\1\2"))
    assert (said.text, said.numbers, said.raw, said.binary) == ("quincy", "20240229\n2023", b"", b"")
    assert list(said.pieces()) == [(TEXT, "LO", "quincy")]


def test_a_number_that_is_none_is_read_as_text_beside_the_text() -> None:
    said = heard((TEXT, "LO", b"Head"), (STUDIED, "DA", b"20240229"), (0x00200013, "IS", b"of Quincy"))
    assert said.text.split("\n") == ["head", "of quincy"]
    assert list(said.pieces()) == [(TEXT, "LO", "head"), (0x00200013, "IS", "of quincy")]


def test_text_that_is_not_in_ascii_is_folded_and_also_had_as_it_was_sent() -> None:
    said = heard((0x00080005, "CS", b"ISO_IR 100"), (TEXT, "LO", "MÜLLER".encode("latin-1")), (0x00081030, "LO", b"A"))
    assert (said.text, said.raw) == ("iso_ir 100\nmuller\na", b"iso_ir 100\nm\xdcller\na")
    assert [text for *_, text in said.pieces()] == ["iso_ir 100", "muller", "a"]
    escaped = heard((TEXT, "LO", b"a\x1b(BX"))
    assert (escaped.text, escaped.raw) == ("ax", b"a\x1b(bx")


def test_binary_values_of_five_bytes_and_more_are_looked_in_and_native_pixels_are_not() -> None:
    said = heard(
        (0x00282000, "OB", b"ABCDE"),
        (0x00281201, "OW", b"FGHI"),
        (ROWS, "US", b"JKLMNO"),
        (0x7FE00010, "OW", b"PIXELS"),
    )
    assert said.binary.split(b"\n") == [b"abcde", b"jklmno"]
    inner = sent(EXPLICIT, 0x7FE00010, "OB", b"NESTED") + sent(EXPLICIT, TEXT, "LO", b"Quincy")
    nested = heard((REFERENCES, "SQ", mark(EXPLICIT, ITEM, len(inner)) + inner))
    assert (nested.binary, nested.text) == (b"nested", "quincy")


def test_the_nodes_own_words_are_no_find_wherever_they_stand() -> None:
    inner = sent(EXPLICIT, 0x00080104, "LO", b"Quincy")
    said = heard(
        (0x00120063, "LO", b"Quincy"),
        (0x00120064, "SQ", mark(EXPLICIT, ITEM, len(inner)) + inner),
        (TEXT, "LO", b"Quincy"),
    )
    assert list(said.pieces()) == list(said.pieces_with("quincy")) == [(TEXT, "LO", "quincy")]


def test_every_value_with_a_text_is_found_once() -> None:
    said = heard(
        *((tag, "LO", value) for tag, value in ((1 << 20, b"kim kim"), (TEXT, b"x kim"), (UID, b"no"), (9, b"kim")))
    )
    assert [tag for tag, *_ in said.pieces_with("kim")] == [1 << 20, TEXT, 9]
    assert list(said.pieces_with("zorblax")) == []


def test_numbers_of_four_and_eight_bytes_are_had_one_by_one() -> None:
    said = heard((1, "UL", b"1234"), (2, "FD", b"12345678"), (3, "UL", b"12341234"), (4, "US", b"12"), (5, "FL", b"12"))
    assert said.single_numbers == {b"1234": 1, b"12345678": 2, b"12341234": 3}


def framed(*parts: bytes) -> bytes:
    return b"".join(mark(EXPLICIT, ITEM, len(part)) + part for part in parts)


TABLE, SCAN = b"\xff\xdb\0\5abc", b"\xff\xda\0\4xy"
TILE = b"\xff\x90\0\4gh\xff\x93"


@pytest.mark.parametrize(
    ("fragment", "beside"),
    [
        (b"\xff\xd8" + TABLE + SCAN + b"data\xff\xd9tail", [b"\xff\xd8", TABLE, SCAN, b"\xff\xd9tail"]),
        (b"\xff\xd8\xff" + TABLE + SCAN + b"da\xff\0ta", [b"\xff\xd8", TABLE, SCAN, b""]),
        (b"\xff\xd8" + SCAN + b"d\xff\xd3ata" + TABLE + SCAN + b"data", [b"\xff\xd8", SCAN, TABLE, SCAN, b""]),
        (b"\xff\xd8" + TABLE + b"lost" + SCAN + b"data", [b"\xff\xd8", TABLE, b"lost" + SCAN + b"data"]),
        (b"\xff\xd8" + SCAN + b"\xff\xd9xx\xff\xd9tail", [b"\xff\xd8", SCAN, b"\xff\xd9xx\xff\xd9tail"]),
        (b"\xff\x4f\xff\x51\0\4ef" + TILE + b"data" + TILE + b"\xff\xd9",
         [b"\xff\x6f", b"\xff\x71\0\4ef", TILE[:6], TILE[6:], TILE[:6], TILE[6:], b"\xff\xd9"]),
        (b"R" * 63 + b"LE or whatever", [b"r" * 63 + b"l"]),
    ],
)  # fmt: skip
def test_of_compressed_pixels_everything_beside_the_samples_is_looked_in(fragment: bytes, beside: list[bytes]) -> None:
    value = framed(b"Table", fragment) + mark(EXPLICIT, SEQUENCE_END, 0)
    data = sent(EXPLICIT, 0x00282000, "OB", b"Profile") + sent(EXPLICIT, 0x7FE00010, "OB", value, OPEN)
    was = witness(data, implicit=False, big=False)
    assert Said(was, False).binary == b"\n".join([b"profile", b"table", *beside])
    assert Said(was, True).binary == b"profile"
    assert was.value(pixel_places(was)[0x7FE00010]) == framed(b"Table", fragment)


def test_a_fragment_in_the_middle_of_a_stream_begins_among_samples() -> None:
    parts = b"\xff\xd8" + SCAN + b"da", b"ta Quincy" + TABLE + SCAN + b"da", b"ta"
    value = framed(b"", *parts) + mark(EXPLICIT, SEQUENCE_END, 0)
    was = witness(sent(EXPLICIT, 0x7FE00010, "OB", value, OPEN), implicit=False, big=False)
    assert Said(was, False).binary == b"\n".join([b"", b"\xff\xd8", SCAN, b"", TABLE, SCAN, b"", b""])


def nested(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, len(data)) + data)
    return data
