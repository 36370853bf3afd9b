"""The check's own reader: what it reads, what it refuses, in which letters."""

from __future__ import annotations

import struct

import pytest

from edge_node.deid.said import pixel_places
from edge_node.deid.wire import Syntax
from edge_node.deid.witness import Testimony as Heard
from edge_node.deid.witness import Unreadable, vr_of, witness, witness_file
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
    sent,
)
from tests.unit.deid.heard import told
from tests.unit.deid.objects import ct, encoded

NAME, NUMBER, BORN, STUDIED, SERIES = 0x00100010, 0x00100020, 0x00100030, 0x00080020, 0x00080021


def places(was: Heard) -> set[tuple[str, int, bytes, tuple[int, ...]]]:
    return {(vr, place[0], was.value(place), place[3]) for vr in was.places for place in was.of([vr]) if vr != "SQ"}


@ALL
def test_the_check_reads_everything_at_any_depth(syntax: Syntax) -> None:
    _, data = example(syntax)
    was = witness(data, implicit=syntax.implicit, big=syntax.big)
    rows = struct.pack(">H" if syntax.big else "<H", 512)
    inside = (REFERENCES, 0)
    assert places(was) == {
        ("CS", 0x00080008, b"A\\BC", ()),
        ("LO", TEXT, b"two ", ()),
        ("UI", UID, b"1.2\0", inside),
        ("US", ROWS, rows, inside),
        ("LO", TEXT, b"one ", (*inside, PURPOSES, 0)),
        ("OW", 0x00281201, b"\0\1\2\3", ()),
    }
    assert {(place[0], place[3]) for place in was.places["SQ"]} == {(REFERENCES, ()), (PURPOSES, inside)}


@ALL
def test_the_check_refuses_what_ends_anywhere_but_between_two_elements(syntax: Syntax) -> None:
    uid = sent(syntax, UID, "UI", b"1.2\0")
    closed = mark(syntax, ITEM, len(uid)) + uid
    ended = mark(syntax, ITEM, OPEN) + uid + mark(syntax, ITEM_END, 0) + closed * 2 + mark(syntax, SEQUENCE_END, 0)
    parts = [uid, sent(syntax, REFERENCES, "SQ", closed), sent(syntax, PURPOSES, "SQ", ended, OPEN)]
    pixels = mark(syntax, ITEM, 0) + mark(syntax, ITEM, 4) + b"code" + mark(syntax, SEQUENCE_END, 0)
    parts.append(sent(syntax, 0x7FE00010, "OB", pixels, OPEN))
    data = b"".join(parts)
    whole = {len(b"".join(parts[:n])) for n in range(5)}
    for at in range(len(data) + 1):
        if at in whole:
            witness(data[:at], implicit=syntax.implicit, big=syntax.big)
        else:
            with pytest.raises(Unreadable):
                witness(data[:at], implicit=syntax.implicit, big=syntax.big)
    was = witness(data, implicit=syntax.implicit, big=syntax.big)
    assert [place[3] for place in was.places["UI"]] == [
        (),
        (REFERENCES, 0),
        (PURPOSES, 0),
        (PURPOSES, 1),
        (PURPOSES, 2),
    ]
    assert was.value(pixel_places(was)[0x7FE00010]) == pixels[:-8]


@pytest.mark.parametrize(
    "data",
    [
        mark(EXPLICIT, ITEM_END, 0),
        mark(EXPLICIT, ITEM, 0),
        mark(EXPLICIT, SEQUENCE_END, 0),
        sent(EXPLICIT, ITEM_END, "UI", b""),
        sent(EXPLICIT, TEXT, "ZZ", b"x "),
        sent(EXPLICIT, TEXT, "LO", b"x ", 3),
        sent(EXPLICIT, 0x00281201, "OW", b"xy", 3),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, SEQUENCE_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8) + mark(EXPLICIT, ITEM_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN) + mark(EXPLICIT, ITEM_END, 4) + b"0000"),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 0), OPEN),
        sent(EXPLICIT, 0x7FE00010, "OB", mark(EXPLICIT, ITEM, 5) + b"four", OPEN),
        sent(EXPLICIT, 0x7FE00010, "OB", mark(EXPLICIT, ITEM_END, 0) + mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, 0x7FE00010, "OB", b"", OPEN),
    ],
)
def test_the_check_refuses_what_is_no_data_set(data: bytes) -> None:
    with pytest.raises(Unreadable):
        witness(data, implicit=False, big=False)


def nested(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, len(data)) + data)
    return data


def test_the_check_reads_down_to_forty_levels() -> None:
    assert len(witness(nested(40), implicit=False, big=False).places["SQ"]) == 40
    with pytest.raises(Unreadable):
        witness(nested(41), implicit=False, big=False)


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG], ids=["explicit", "big"])
@pytest.mark.parametrize("tag", [0x00091001, 0x00104444])
def test_the_check_reads_unknown_values_without_length_as_implicit_little_endian(syntax: Syntax, tag: int) -> None:
    inner = sent(IMPLICIT, UID, "UI", b"1.2\0")
    items = mark(IMPLICIT, ITEM, len(inner)) + inner + mark(IMPLICIT, SEQUENCE_END, 0)
    data = sent(syntax, tag, "UN", items, OPEN) + sent(syntax, TEXT, "LO", b"after ")
    was = witness(data, implicit=False, big=syntax.big)
    assert places(was) == {("UI", UID, b"1.2\0", (tag, 0)), ("LO", TEXT, b"after ", ())}
    assert [place[0] for place in was.places["SQ"]] == [tag]


def test_in_implicit_syntax_the_dictionary_says_the_kind_or_nobody_does() -> None:
    data = b"".join(mark(IMPLICIT, tag, 2) + b"xy" for tag in (ROWS, 0x00091001, 0x00104444, 0x00280106))
    assert list(witness(data, implicit=True, big=False).places) == ["US", "private", "UN"]
    assert (vr_of(ROWS), vr_of(0x00280106), vr_of(0x00091001), vr_of(0x00104444)) == ("US", "US", "private", "UN")
    for first, second, kind in ((NUMBER, 0x00080020, "DA"), (0x00000110, 0x00180110, "UN")):
        turned = witness(mark(IMPLICIT, first, 2) + b"xy" + mark(IMPLICIT, second, 2) + b"xy", implicit=True, big=False)
        assert [place[0] for place in turned.places[kind]] == [second]
    items = mark(IMPLICIT, ITEM, 0) + mark(IMPLICIT, SEQUENCE_END, 0)
    private = witness(mark(IMPLICIT, 0x00091001, OPEN) + items, implicit=True, big=False)
    assert [place[0] for place in private.places["SQ"]] == [0x00091001]


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", "Müller".encode(), "Müller"),
        (b"ISO_IR 192\0", b"M\xfcller", "Müller"),
        (b"", b"M\xfcller", "Müller"),
        (b"NONSENSE", b"M\xfcller", "Müller"),
        (b"\\ISO 2022 IR 87", b"A=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "A=山田^太郎"),
        (b"\\ISO 2022 IR 149", b"=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce", "=洪^吉"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\xfc\x1b-L\xd0\x1b-A\xfc", "üаü"),
        (b"ISO 2022 IR 100", b"\xfc\x1b(Z\xfc", "üü"),
        (b"ISO_IR 192\\ISO_IR 100", b"M\xfc", "Mü"),
        (b"ISO_IR 192\\ISO_IR 144", b"\xd0\xd0", "аа"),
        (b" ISO_IR 144\0", b"\xd0", "а"),
        (b"ISO_IR 144X", b"\xd0", "Ð"),
        (b"\\ISO 2022 IR 87", b"a\x1b$B\xff", "a\x1b$Bÿ"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
    ],
)
def test_the_check_reads_text_in_the_character_set_that_holds_where_it_stands(
    terms: bytes, raw: bytes, text: str
) -> None:
    was = told((0x00080005, "CS", terms), (NAME, "PN", raw))
    assert was.text(was.places["PN"][0]) == text
    plain, name = (sent(EXPLICIT, NAME, "PN", value) for value in (b"\xd0\xb0", raw))
    innermost = mark(EXPLICIT, ITEM, 0) + mark(EXPLICIT, ITEM, len(name)) + name
    deeper = sent(EXPLICIT, 0x00080005, "CS", terms) + name + sent(EXPLICIT, PURPOSES, "SQ", innermost)
    items = mark(EXPLICIT, ITEM, len(plain)) + plain + mark(EXPLICIT, ITEM, len(deeper)) + deeper
    was = told((0x00080005, "CS", b"ISO_IR 192"), (REFERENCES, "SQ", items))
    assert [was.text(place) for place in was.places["PN"]] == ["а", text, text]


def a_file(length: int = 0, meta: bytes = b"") -> bytes:
    group = meta or sent(EXPLICIT, 0x00020010, "UI", b"1.2.840.10008.1.2.2\0")
    return bytes(128) + b"DICM" + sent(EXPLICIT, 0x00020000, "UL", struct.pack("<L", len(group) + length)) + group


def test_file_meta_information_and_data_set_are_read_as_one() -> None:
    was = witness_file(a_file() + sent(BIG, TEXT, "LO", b"text"), implicit=False, big=True)
    assert places(was) >= {("UI", 0x00020010, b"1.2.840.10008.1.2.2\0", ()), ("LO", TEXT, b"text", ())}
    was = witness_file(a_file() + sent(IMPLICIT, TEXT, "LO", b"text"), implicit=True, big=False)
    assert ("LO", TEXT, b"text", ()) in places(was)
    assert len(witness_file(a_file(), implicit=False, big=False).places["UI"]) == 1
    wrong = [
        b"",
        a_file(1),
        a_file()[:131],
        a_file()[:128] + b"XICM" + a_file()[132:],
        a_file().replace(b"UL", b"US", 1),
    ]
    for data in wrong:
        with pytest.raises(Unreadable):
            witness_file(data, implicit=False, big=False)


def test_the_check_reads_what_the_tests_send() -> None:
    was = witness(encoded(ct()), implicit=False, big=False)
    assert [was.text(place) for place in was.places["PN"]] == ["Quincy^Jack ", "Kildare^James ", "Beeblebrox^Zaphod "]


PIXELS, PADDING = 0x7FE00010, 0xFFFCFFFC


@pytest.mark.parametrize("length", [40, OPEN])
def test_a_value_that_is_left_out_must_be_the_whole_value_of_an_element_of_the_first_level(length: int) -> None:
    rows = sent(EXPLICIT, ROWS, "US", b"\2\0")
    before, behind = rows + sent(EXPLICIT, PIXELS, "OW", b"", length), sent(EXPLICIT, PADDING, "OB", b"\0\0")
    gap = len(before)
    was = witness(before + behind, implicit=False, big=False, gap=gap, gap_bytes=40)
    assert was.met == (PIXELS, length == OPEN)
    there = {("US", ROWS, b"\2\0", ()), ("OW", PIXELS, b"", ()), ("OB", PADDING, b"\0\0", ())}
    assert places(was) == there
    wrong = [(gap - 2, 40), (gap + 12, 40), (len(rows), 40), (0, 0)] + ([(gap, 38)] if length == 40 else [])
    for place, size in wrong:
        with pytest.raises(Unreadable):
            witness(before + behind, implicit=False, big=False, gap=place, gap_bytes=size)
    with pytest.raises(Unreadable):  # nothing is left out of this
        witness(rows + behind, implicit=False, big=False, gap=4, gap_bytes=5)
    nested = mark(EXPLICIT, ITEM, len(before)) + before
    inside = sent(EXPLICIT, REFERENCES, "SQ", nested) + rows
    with pytest.raises(Unreadable):
        witness(inside, implicit=False, big=False, gap=12 + len(nested), gap_bytes=40)


def test_a_value_that_is_left_out_of_a_file_is_none_of_its_meta_information() -> None:
    version = b"\2\0\1\0OB\0\0\2\0\0\0"
    rows = sent(EXPLICIT, ROWS, "US", b"\2\0")
    cut = bytes(128) + b"DICM\2\0\0\0UL\4\0" + struct.pack("<L", len(version)) + version + rows
    with pytest.raises(Unreadable):
        witness_file(cut, implicit=False, big=False, gap=144 + len(version), gap_bytes=2)
    with pytest.raises(Unreadable):
        witness_file(cut[:144] + version + b"\0\1" + rows, implicit=False, big=False, gap=len(cut), gap_bytes=2)
    pixels = sent(EXPLICIT, PIXELS, "OW", b"", 4)
    whole = bytes(128) + b"DICM\2\0\0\0UL\4\0" + struct.pack("<L", len(version) + 2) + version + b"\0\1" + pixels
    assert witness_file(whole, implicit=False, big=False, gap=len(whole), gap_bytes=4).met == (PIXELS, False)


def test_the_codes_of_the_method_are_read_alike_the_second_time_and_never_for_others() -> None:
    def a_file(text: bytes) -> bytes:
        inside = sent(EXPLICIT, 0x00080100, "SH", text) + sent(EXPLICIT, 0x00080119, "UC", text + b"X ")
        items = mark(EXPLICIT, ITEM, len(inside)) + inside
        method = sent(EXPLICIT, 0x00120064, "SQ", items)
        return bytes(128) + b"DICM\2\0\0\0UL\4\0\0\0\0\0" + method + sent(EXPLICIT, ROWS, "US", b"\2\0")

    for text in (b"113100", b"113107", b"113100", b"113107"):
        was = witness_file(a_file(text), implicit=False, big=False)
        assert places(was) == {
            ("UL", 0x00020000, bytes(4), ()),
            ("SH", 0x00080100, text, (0x00120064, 0)),
            ("UC", 0x00080119, text + b"X ", (0x00120064, 0)),
            ("US", ROWS, b"\2\0", ()),
        }
