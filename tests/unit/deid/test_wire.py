"""Data sets as bytes, to the byte: what is read, what is refused, what is written."""

from __future__ import annotations

import hashlib
import struct
import zlib

import pytest

from edge_node.deid import wire
from edge_node.deid.wire import Element, Malformed, Node, Syntax
from tests.unit.deid.elements import (
    ALL,
    BIG,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    OPEN,
    PURPOSES,
    REFERENCES,
    ROWS,
    SEQUENCE_END,
    TEXT,
    UID,
    example,
    mark,
    packed,
    sent,
)
from tests.unit.deid.objects import CT


@ALL
def test_a_data_set_is_read_and_written_as_the_standard_says(syntax: Syntax) -> None:
    node, data = example(syntax)
    assert wire.parse(data, syntax) == node
    assert wire.encode(node, syntax) == data
    assert wire.encode(dict(reversed(node.items())), syntax) == data
    assert b"".join(wire.encode_parts(node, syntax)) == data
    told = wire.encode_items(node[REFERENCES].items or [], syntax)
    assert sent(syntax, REFERENCES, "SQ", told) in data
    assert wire.uint(node[REFERENCES].items[0], ROWS, syntax) == 512  # type: ignore[index]


@ALL
def test_sequences_and_items_of_open_end_say_the_same(syntax: Syntax) -> None:
    uid, end = sent(syntax, UID, "UI", b"1.2\0"), mark(syntax, ITEM_END, 0)
    inner = sent(syntax, PURPOSES, "SQ", mark(syntax, ITEM, OPEN) + uid + end + mark(syntax, SEQUENCE_END, 0), OPEN)
    outer = mark(syntax, ITEM, OPEN) + inner + end + mark(syntax, ITEM, len(uid)) + uid + mark(syntax, SEQUENCE_END, 0)
    data = sent(syntax, REFERENCES, "SQ", outer, OPEN) + sent(syntax, ROWS, "US", b"\1\2")
    one: Node = {UID: Element(UID, "UI", b"1.2\0")}
    assert wire.parse(data, syntax) == {
        REFERENCES: Element(REFERENCES, "SQ", items=[{PURPOSES: Element(PURPOSES, "SQ", items=[one])}, one]),
        ROWS: Element(ROWS, "US", b"\1\2"),
    }


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_compressed_pixels_are_fragments_and_stay_so(vr: str) -> None:
    items = b"".join(mark(EXPLICIT, ITEM, len(f)) + f for f in (b"", b"\xff\xd8\xff\xd9", b"two "))
    data = sent(EXPLICIT, wire.PIXEL_DATA, vr, items + mark(EXPLICIT, SEQUENCE_END, 0), OPEN)
    [element] = wire.parse(data, EXPLICIT).values()
    assert element == Element(wire.PIXEL_DATA, vr, fragments=[b"", b"\xff\xd8\xff\xd9", b"two "])
    assert wire.encode({wire.PIXEL_DATA: element}, EXPLICIT) == data
    odd = Element(wire.PIXEL_DATA, vr, fragments=[b"", b"\xff\xd8\xff"])
    assert mark(EXPLICIT, ITEM, 4) + b"\xff\xd8\xff\0" in wire.encode({wire.PIXEL_DATA: odd}, EXPLICIT)


def deep(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, len(data)) + data)
    return data


@ALL
def test_what_ends_anywhere_but_between_two_elements_is_refused(syntax: Syntax) -> None:
    """At every byte of a data set that has items of either kind."""
    uid = sent(syntax, UID, "UI", b"1.2\0")
    closed = mark(syntax, ITEM, len(uid)) + uid
    ended = mark(syntax, ITEM, OPEN) + uid + mark(syntax, ITEM_END, 0) + mark(syntax, SEQUENCE_END, 0)
    parts = [uid, sent(syntax, REFERENCES, "SQ", closed), sent(syntax, PURPOSES, "SQ", ended, OPEN)]
    data = b"".join(parts)
    whole = {len(b"".join(parts[:n])) for n in range(4)}
    for at in range(len(data) + 1):
        if at in whole:
            assert len(wire.parse(data[:at], syntax)) == sorted(whole).index(at)
            assert len(wire.parse_some(data[:at], syntax)) == sorted(whole).index(at)
        else:
            with pytest.raises(Malformed):
                wire.parse(data[:at], syntax)
            assert len(wire.parse_some(data[:at], syntax)) == len([end for end in whole if 0 < end < at])


@pytest.mark.parametrize(
    "data",
    [
        mark(EXPLICIT, ITEM_END, 0),
        mark(EXPLICIT, ITEM, 0),
        mark(EXPLICIT, SEQUENCE_END, 0),
        sent(EXPLICIT, TEXT, "ZZ", b"x "),
        sent(EXPLICIT, TEXT, "LO", b"x ", 3),
        sent(EXPLICIT, 0x00281201, "OW", b"xy", 3),
        sent(EXPLICIT, TEXT, "UT", b"", OPEN),
        sent(EXPLICIT, 0x00281201, "OW", mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "UT", mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", b"", OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", mark(EXPLICIT, ITEM, 5) + b"four", OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", mark(EXPLICIT, ITEM, OPEN) + mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", mark(EXPLICIT, ITEM_END, 0) + mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, SEQUENCE_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8)) + bytes(8),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN) + mark(EXPLICIT, SEQUENCE_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 0), OPEN),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8) + mark(EXPLICIT, ITEM_END, 0)),
        deep(wire.MAX_DEPTH + 1),
    ],
)
def test_what_is_no_data_set_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse(data, EXPLICIT)


def test_nesting_is_read_down_to_the_limit() -> None:
    node: Node | None = wire.parse(deep(wire.MAX_DEPTH), EXPLICIT)
    for _ in range(wire.MAX_DEPTH):
        assert node
        node = (node[REFERENCES].items or [])[0]
    assert node == {}
    for levels in (wire.MAX_DEPTH, wire.MAX_DEPTH + 1, 100):
        data = sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN), OPEN) * levels
        data += (mark(EXPLICIT, ITEM_END, 0) + mark(EXPLICIT, SEQUENCE_END, 0)) * levels
        if levels == wire.MAX_DEPTH:
            assert list(wire.parse(data, EXPLICIT)) == [REFERENCES]
        else:
            with pytest.raises(Malformed, match="nested deeper"):
                wire.parse(data, EXPLICIT)


def test_an_element_without_value_may_be_the_last() -> None:
    assert wire.parse(sent(EXPLICIT, TEXT, "LO", b""), EXPLICIT) == {TEXT: Element(TEXT, "LO")}
    assert wire.parse(sent(EXPLICIT, 0x00281201, "OW", b""), EXPLICIT) == {0x00281201: Element(0x00281201, "OW")}
    title = sent(EXPLICIT, 0x00020016, "AE", b"")
    assert wire.group_end(META + title, 0, 2, {}) == len(META + title)


@pytest.mark.parametrize(
    ("tag", "value", "vr"),
    [
        (0x00100010, b"Zorblax ", "PN"),
        (0x00081030, b"x" * 0xFFFE, "LO"),
        (0x00081030, b"x" * 0xFFFF, "UN"),
        (0x00081030, b"x" * 0x10000, "UN"),
        (0x00281201, b"lut!", "UN"),
        (REFERENCES, b"", "UN"),
        (0x00104444, b"what", "UN"),
        (0x00091001, b"what", "UN"),
    ],
)
def test_what_was_sent_as_unknown_is_what_the_dictionary_knows_unless_it_is_long(
    tag: int, value: bytes, vr: str
) -> None:
    assert wire.parse(sent(EXPLICIT, tag, "UN", value), EXPLICIT) == {tag: Element(tag, vr, value)}
    if len(value) < 0xFFFF:
        assert wire.parse(sent(BIG, tag, "UN", value), BIG) == {tag: Element(tag, "UN", value)}


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG], ids=["explicit", "big"])
def test_an_unknown_value_without_length_is_a_sequence_in_implicit_little_endian(syntax: Syntax) -> None:
    inner = sent(IMPLICIT, UID, "UI", b"1.2\0")
    items = mark(IMPLICIT, ITEM, len(inner)) + inner + mark(IMPLICIT, SEQUENCE_END, 0)
    data = sent(syntax, 0x00091001, "UN", items, OPEN) + sent(syntax, TEXT, "LO", b"after ")
    node = wire.parse(data, syntax)
    assert node[0x00091001] == Element(0x00091001, "UN", items=[{UID: Element(UID, "UI", b"1.2\0")}])
    assert node[TEXT].value == b"after "


def test_of_two_elements_with_one_tag_the_last_counts() -> None:
    data = sent(EXPLICIT, TEXT, "LO", b"one ") + sent(EXPLICIT, TEXT, "LO", b"two ")
    assert wire.parse(data, EXPLICIT)[TEXT].value == b"two "


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(ROWS, "US"), (0x00280106, "US"), (0x7FE00010, "OW"), (0x00283006, "OW"), (0x00104444, "UN"), (0x00091001, "UN")],
)
def test_the_dictionary_says_what_implicit_values_are(tag: int, vr: str) -> None:
    assert wire.parse(mark(IMPLICIT, tag, 2) + b"\1\2", IMPLICIT)[tag].vr == vr


def test_a_tag_is_named_as_the_standard_writes_it() -> None:
    assert [wire.tag_name(tag) for tag in (0x0019100C, 0x7FE00010)] == ["(0019,100C)", "(7FE0,0010)"]


def test_the_dictionary_knows_several_kinds_for_some_and_none_for_private_ones() -> None:
    assert wire.dictionary_vr(0x00280106) == "US or SS"
    assert (wire.dictionary_vr(0x00091001), wire.dictionary_vr(0x00104444)) == ("", "")
    assert wire.dictionary_vr(0x00090010) == ""
    assert set(wire.tags_of("UR")) > {0x00080407}
    assert not set(wire.tags_of("UR")) & set(wire.tags_of("DA"))


@pytest.mark.parametrize(
    ("vr", "value", "written"),
    [("LO", b"odd", b"odd "), ("UI", b"1.2", b"1.2\0"), ("OB", b"x", b"x\0"), ("UT", b"x", b"x "), ("DA", b"", b"")],
)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_values_are_written_with_an_even_length(vr: str, value: bytes, written: bytes, syntax: Syntax) -> None:
    assert wire.encode({TEXT: Element(TEXT, vr, value)}, syntax) == sent(syntax, TEXT, vr, written)


def test_a_value_too_long_for_its_kind_is_not_written() -> None:
    assert len(wire.encode({TEXT: Element(TEXT, "LO", bytes(0xFFFE))}, EXPLICIT)) == 8 + 0xFFFE
    with pytest.raises(Malformed):
        wire.encode({TEXT: Element(TEXT, "LO", bytes(0xFFFF))}, EXPLICIT)
    with pytest.raises(Malformed):
        wire.encode({TEXT: Element(TEXT, "LO", bytes(0x10000))}, EXPLICIT)
    assert len(wire.encode({TEXT: Element(TEXT, "UT", bytes(0x10000))}, EXPLICIT)) == 12 + 0x10000


def test_deflated_data_is_inflated_within_its_limit_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    node, data = example(EXPLICIT)
    deflated = Syntax(deflated=True)
    assert wire.parse(packed(data), deflated) == node
    assert wire.inflate(packed(data)) == data
    for wrong in (packed(data)[:-1], b"\xff\xff\xff", b""):
        with pytest.raises(Malformed):
            wire.inflate(wrong)
    written = wire.encode_parts(node, deflated)
    assert len(written) == 1
    several = [
        wire.encode({TEXT: Element(TEXT, "LT", hashlib.sha512(bytes([n])).digest()[:n])}, deflated)
        for n in range(0, 60, 2)
    ]
    assert {len(one) % 2 for one in several} == {0}
    ends = [zlib.decompressobj(-15) for _ in several]
    plain = [end.decompress(one) for end, one in zip(ends, several, strict=True)]
    assert [len(one) for one in plain] == [8 + n for n in range(0, 60, 2)]
    assert {end.unused_data for end in ends} == {b"", b"\0"}
    assert zlib.decompressobj(-15).decompress(written[0]) == data
    monkeypatch.setattr(wire, "MOST_IN_MEMORY", len(data))
    assert wire.inflate(packed(data)) == data
    monkeypatch.setattr(wire, "MOST_IN_MEMORY", len(data) - 1)
    with pytest.raises(Malformed):
        wire.inflate(packed(data))


def test_of_a_broken_deflated_data_set_the_beginning_is_had() -> None:
    data = b"".join(struct.pack("<L", n * 2654435761 % (1 << 32)) for n in range(1000))
    assert wire.inflate_some(packed(data)) == data
    broken = packed(data)[:2048] + b"\xff" * 4000
    assert data.startswith(wire.inflate_some(broken)[:1500])
    assert len(wire.inflate_some(broken)) >= 1500
    assert wire.inflate_some(b"\xff\xff\xff") == b""
    assert [len(wire.inflate_some(packed(bytes((1 << 20) + more)))) for more in (-1, 0, 1, 1 << 22)] == [
        (1 << 20) - 1,
        1 << 20,
        1 << 20,
        1 << 20,
    ]


def test_reading_stops_behind_the_tag_that_is_looked_for_and_never_inside_a_sequence() -> None:
    _, data = example(EXPLICIT)
    assert list(wire.parse_some(data, EXPLICIT, TEXT)) == [0x00080008, TEXT]
    assert list(wire.parse_some(data, EXPLICIT, TEXT + 1)) == [0x00080008, TEXT, REFERENCES]
    implicit = example(IMPLICIT)[1]
    assert list(wire.parse_some(implicit, IMPLICIT, TEXT)) == [0x00080008, TEXT]
    assert list(wire.parse_some(implicit, IMPLICIT, REFERENCES)) == [0x00080008, TEXT, REFERENCES]
    [reference] = wire.parse_some(data, EXPLICIT, REFERENCES)[REFERENCES].items or []
    assert list(reference) == [UID, ROWS, PURPOSES]


def test_numbers_and_text_of_an_element_that_is_absent_or_short_are_nothing() -> None:
    node = {ROWS: Element(ROWS, "US", b"\1\2\3\4"), TEXT: Element(TEXT, "CS", b" A B\0 "), 0x00280011: Element(1, "US")}
    assert (wire.uint(node, ROWS, EXPLICIT), wire.uint(node, ROWS, BIG)) == (0x0201, 0x0102)
    assert (wire.uint(node, 0x00280011, EXPLICIT), wire.uint(node, UID, EXPLICIT)) == (None, None)
    assert (wire.ascii_text(node, TEXT), wire.ascii_text(node, UID)) == ("A B", "")


META = sent(EXPLICIT, 0x00020001, "OB", b"\0\1") + sent(EXPLICIT, 0x00020002, "UI", CT.encode() + b"\0")


def test_a_group_ends_where_another_begins() -> None:
    found: Node = {}
    assert wire.group_end(b"before" + META + sent(EXPLICIT, TEXT, "LO", b"x "), 6, 2, found) == 6 + len(META)
    assert found == {
        0x00020001: Element(0x00020001, "OB", b"\0\1"),
        0x00020002: Element(0x00020002, "UI", CT.encode() + b"\0"),
    }
    assert wire.group_end(META + b"short", 0, 2, {}) == len(META)
    assert wire.group_end(META, 0, 2, {}) == len(META)
    assert wire.group_end(sent(EXPLICIT, 0x00020001, "OB", b""), 0, 2, {}) == 12
    for wrong in (META[:-1], META[:10], META[:11], sent(EXPLICIT, 0x00020001, "ZZ", b"xy"), META[:13]):
        with pytest.raises(Malformed):
            wire.group_end(wrong, 0, 2, {})


@ALL
def test_a_uid_is_found_in_bytes_that_cannot_be_walked_if_there_is_one(syntax: Syntax) -> None:
    study = 0x0020000D

    def search(*values: bytes) -> str:
        return wire.search_uid(b"junk" + b"".join(sent(syntax, study, "UI", v) for v in values), study, syntax)

    assert search(b"1.2.3\0") == "1.2.3"
    assert search(b"1.2.34", b"1.2.34") == "1.2.34"
    assert search(b"1.2.3\0", b"1.2.34") == ""
    assert search(b"1.2 x ") == ""
    assert search(b"12") == ""
    assert search() == ""
    assert search(b"1." + b"2" * 62) == "1." + "2" * 62
    assert search(b"1." + b"2" * 63) == "1." + "2" * 63
    assert search(b"1." + b"2" * 64) == ""
    assert wire.search_uid(sent(syntax, study, "UI", b"1.2.3\0")[:-1], study, syntax) == ""
    whole = sent(syntax, study, "UI", b"1.2.3\0")
    assert [wire.search_uid(whole + whole[:at], study, syntax) for at in range(4, 8)] == ["1.2.3"] * 4
