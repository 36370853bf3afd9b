"""What the check knows before it judges: what it reads, what it looks for, and what it looks in."""

from __future__ import annotations

import struct

import pytest

from edge_node.deid.needles import Needle, fold, name_of, names_as_sent, needles, squeezed, telling
from edge_node.deid.said import Said, pixel_places
from edge_node.deid.wire import Syntax
from edge_node.deid.witness import Testimony as Heard
from edge_node.deid.witness import Unreadable, vr_of, witness, witness_file
from tests.unit.deid.objects import ct, encoded
from tests.unit.deid.test_bytes import (
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

NAME, NUMBER, BORN, STUDIED, SERIES = 0x00100010, 0x00100020, 0x00100030, 0x00080020, 0x00080021
NOTHING: frozenset[int] = frozenset()


def told(*elements: tuple[int, str, bytes]) -> Heard:
    return witness(b"".join(sent(EXPLICIT, *one) for one in elements), implicit=False, big=False)


def sought(*elements: tuple[int, str, bytes], kept: frozenset[int] = NOTHING) -> set[Needle]:
    was = told(*elements)
    found = needles(was, telling(was), kept)
    assert all(text == needle.text for text, needle in found.items())
    return set(found.values())


def person(text: str, spelled: str = "", anywhere: bool = True, tag: int = NAME) -> Needle:
    return Needle(name_of(tag), text, spelled or text, anywhere, person=True)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Zorblax^Li", {person("zorblax")}),
        ("Quint", {person("quint")}),
        ("Quin^Kim", {person("quin", anywhere=False), person("kim", anywhere=False)}),
        ("Li=Bo", set()),
        ("Li^Bo", {person(both, anywhere=False) for both in ("li bo", "bo li", "li^bo", "li, bo")}),
        ("Li^Bo^Ng", set()),
        ("Li^B2", set()),
        ("1234^123^12345", {person("1234", anywhere=False), person("12345", anywhere=False)}),
        ("Anonymous^Unknown^Zorblax^Test^Quint", {person("zorblax"), person("quint")}),
        ("王^小东", {person("小东"), person("王小东")}),
        ("Wang=王小东", {person("wang", anywhere=False), person("王小东")}),
        ("Öl^Äd^Ül^Öd^Äl^Üd", {person(two, short, anywhere=False) for two, short in
         (("oel", "öl"), ("aed", "äd"), ("uel", "ül"), ("oed", "öd"), ("ael", "äl"), ("ued", "üd"))}),
        ("Müllermann", {person("mullermann", "müllermann"), person("muellermann", "müllermann")}),
        ("Quen\u200bton", {person("quenton")}),
        ("Mu\u0308ller", {person("muller", "müller"), person("mueller", "müller")}),
        ("", set()),
    ],
)  # fmt: skip
def test_a_name_is_looked_for_by_its_parts(name: str, found: set[Needle]) -> None:
    utf8 = (0x00080005, "CS", b"ISO_IR 192")
    assert sought(utf8, (NAME, "PN", name.encode())) == found
    assert sought(utf8, (NAME, "UN", name.encode())) == found
    assert sought(utf8, (NAME, "PN", name.encode()), kept=frozenset([NAME])) == set()
    operator = {needle._replace(attribute="OperatorsName") for needle in found}
    assert sought(utf8, (0x00081070, "PN", name.encode())) == operator


def number(text: str, spelled: str, anywhere: bool, bare: str, tag: int = NUMBER) -> Needle:
    return Needle(name_of(tag), text, spelled, anywhere, bare=bare)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"PAT-42", {number("pat-42", "pat-42", True, "")}),
        (b"AB-1234 ", {number("ab-1234", "ab-1234", True, "ab1234")}),
        (b"AB-123\0", {number("ab-123", "ab-123", True, "")}),
        (b"AB12C", {number("ab12c", "ab12c", False, "")}),
        (b"00094347", {number("00094347", "00094347", False, "")}),
        (b"009434765", {number("009434765", "009434765", False, "9434765")}),
        (b"1234", {number("1234", "1234", False, "")}),
        (b"123", set()),
        (b"X1", set()),
        (b"X1\\X12\\\\Unknown\\Y12345", {number("x12", "x12", False, ""), number("y12345", "y12345", True, "y12345")}),
        (b"abcdefgh", {number("abcdefgh", "abcdefgh", True, "")}),
        ("Jürgen7 ".encode(), {number("jurgen7", "jürgen7", True, "jurgen7")}),
        (b"\tX12345X", {number("\tx12345x", "\tx12345x", True, "x12345x")}),
    ],
)
def test_a_number_is_looked_for_as_it_is_and_bare(value: bytes, found: set[Needle]) -> None:
    assert sought((0x00080005, "CS", b"ISO_IR 192"), (NUMBER, "LO", value)) == found


def test_a_place_is_looked_for_unless_it_is_one_plain_word() -> None:
    assert sought((0x00081040, "LO", b"Radiology")) == set()
    seventh = number("radiology 7", "radiology 7", True, "radiology7", 0x00081040)
    assert sought((0x00081040, "LO", b"Radiology 7")) == {seventh}
    assert {needle.text for needle in sought((0x00081040, "LO", b"Radiology\\Ward 7b\\Main"))} == {"ward 7b"}


def test_a_birth_date_is_looked_for_in_many_spellings_and_is_no_day_of_work() -> None:
    for said in (b"19500102", b"1950-01-02", b"1950.01.021"):
        found = sought((BORN, "DA", said))
        assert {"19500102", "02011950", "1950-1-2", "2 jan 1950", "january 2, 1950", "02-jan-1950"} <= {
            needle.text for needle in found
        }
        assert {(n.attribute, n.anywhere, n.day, n.person) for n in found} == {
            ("PatientBirthDate", False, False, False)
        }
    for month in (b"13", b"00"):
        texts = {needle.text for needle in sought((BORN, "DA", b"1950" + month + b"02"))}
        assert "1950" + month.decode() + "02" in texts
        assert not any(letter.isalpha() for text in texts for letter in text)
    assert len(sought((BORN, "DA", b"19501231"))) == len({n.text for n in sought((BORN, "DA", b"19501231"))}) == 27
    assert sought((BORN, "DA", b"195001")) == set()


DAY = {"20240229", "2024-02-29", "29.02.2024", "02/29/2024", "29/02/2024"}


def test_the_days_of_a_study_are_looked_for_as_days() -> None:
    assert {needle.text for needle in sought((STUDIED, "DA", b"20240229"))} == DAY
    moment = sought((0x0008002A, "DT", b"20240229101500\\20230101"))
    assert {needle.text for needle in moment} >= DAY | {"20230101"}
    assert {(needle.day, needle.anywhere) for needle in moment} == {(True, False)}
    assert sought((STUDIED, "DA", b"202402")) == set()


def test_a_day_that_is_kept_under_one_tag_is_not_looked_for_unless_it_is_a_birth_date() -> None:
    same = ((STUDIED, "DA", b"20240229"), (SERIES, "DA", b"20240229"), (0x00080022, "DA", b"20240229"))
    assert {needle.text for needle in sought(*same)} == DAY
    for kept in ({STUDIED}, {SERIES}, {STUDIED, SERIES}, {0x00080022}, {STUDIED, SERIES, 0x00080022}):
        assert sought(*same, kept=frozenset(kept)) == set()
    born = sought(*same, (BORN, "DA", b"20240229"), kept=frozenset([STUDIED, SERIES, 0x00080022]))
    assert {(needle.attribute, needle.day) for needle in born} == {("PatientBirthDate", False)}
    assert {needle.text for needle in born} >= DAY


def test_what_stands_behind_a_day_said_twice_is_looked_for() -> None:
    rest = ((NUMBER, "LO", b"ID4711"), (0x00080050, "SH", b"ID4711"), (NAME, "PN", b"Zorblax"))
    found = sought((STUDIED, "DA", b"20240229"), (SERIES, "DA", b"20240229"), *rest)
    assert {needle.text for needle in found} == DAY | {"id4711", "zorblax"}
    late = sought((STUDIED, "DA", b"20240229"), (SERIES, "DA", b"20240229"), (0x00080022, "DA", b"20240301"))
    assert "20240301" in {needle.text for needle in late}


def test_only_values_that_can_name_somebody_are_told_however_far_they_stand() -> None:
    far = (0x00081030, "UT", b"x" * 30_000)
    for vr, tag in (("PN", NAME), ("UN", NUMBER)):
        for length, counts in ((0, False), (1, True), (10_240, True), (10_241, False)):
            was = told(far, (tag, vr, b"z" * length))
            assert [(who, place[0]) for who, place in telling(was)] == ([(vr == "PN", tag)] if counts else [])
    was = told((NAME, "LO", b"a "), (TEXT, "LO", b"b "), (0x00091001, "PN", b"c "), (NUMBER, "US", b"dd"))
    assert [(who, place[0]) for who, place in telling(was)] == [(True, NAME), (True, 0x00091001)]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (b"M\xfcllex^Kim", {b"m\xfcllex"}),
        (b"M\xfcllx^K\xf6l", {b"m\xfcllx"}),
        (b"M\xfcll", set()),
        (b"\xfc\xf6\xe4\xdf", {b"\xfc\xf6\xe4\xdf"}),
        (b"\x80\x80\x81\x81", {b"\x80\x80\x81\x81"}),
        (b"\xfc\xf6\xe4", set()),
        (b"Zorblax^Kim", set()),
        (b"A^B=\x1b$B;3ED\x1b(B", {b"\x1b$b;3ed"}),
        (b"A^B=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", {b"\xd1\xce\xd4\xd7"}),
    ],
)
def test_a_name_that_is_not_in_ascii_is_looked_for_as_it_was_sent(value: bytes, parts: set[bytes]) -> None:
    was = told((NAME, "PN", value), (NUMBER, "LO", b"\xfc\xf6\xe4\xdf\xfc\xf6"))
    assert names_as_sent(was, telling(was), NOTHING) == parts
    assert names_as_sent(was, telling(was), frozenset([NAME])) == set()


@pytest.mark.parametrize(
    ("text", "spelled", "there", "missing"),
    [
        ("quincy", "quincy", {b"quincy", b"q\0u\0i\0n\0c\0y", b"uqniyc"}, set()),
        ("quint", "quint", {b"quint", b"q\0u\0i\0n\0t", b"uqni t"}, set()),
        ("quin", "quin", {b"q\0u\0i\0n"}, {b"quin", b"uqni"}),
        ("müllex", "müllex", {"müllex".encode(), b"m\xfcllex", b"m\0\xfc\0l\0l\0e\0x\0", b"\0m\0\xfc\0l\0l\0e\0x",
                              b"m\xc3\x9cllex", b"m\xdcllex"}, {b"muller"}),
        ("muller", "müller", {b"muller", b"m\xfcller", "müller".encode()}, set()),
        ("山田桜子", "山田桜子", {"山田桜子".encode(), "山田桜子".encode("gb18030").lower(),
                                  "山田桜子".encode("shift_jis").lower(), "山田桜子".encode("euc_jp").lower()}, set()),
        ("иванов", "иванов", {"иванов".encode("iso8859_5"), "ИВАНОВ".encode("cp1251").lower()}, set()),
    ],
)  # fmt: skip
def test_what_is_looked_for_in_binary_values_has_five_bytes_or_more(
    text: str, spelled: str, there: set[bytes], missing: set[bytes]
) -> None:
    forms = Needle("PatientName", text, spelled, True).forms
    assert there <= forms
    assert not missing & forms
    assert min(map(len, forms)) >= 5
    assert len(forms) == len(there) or not text.isascii() or text != spelled


def test_what_looks_alike_is_alike() -> None:
    assert (fold("Ямщик"), fold("ÉÜ"), fold("Straße"), fold("Œuvre")) == ("ямщик", "eu", "strasse", "oeuvre")
    assert squeezed("A-1.2_3/4 (5)\t[6]{7}#8+9*'\"\0;,:") == "A123456789"
    assert (name_of(NAME), name_of(0x00091001), name_of(0x00104444)) == ("PatientName", "", "")


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


@pytest.mark.parametrize(
    ("fragment", "beside"),
    [
        (b"\xff\xd8HEAD\xff\xdascan\xff\xdascan\xff\xd9tail", [b"\xff\xd8head", b"\xff\xd9tail"]),
        (b"\xff\x4fHEAD\xff\x93tile\xff\x93tile\xff\xda\xff\xd9", [b"\xff\x6fhead", b"\xff\xd9"]),
        (b"\xff\xd8HEAD\xff\xda\xff\xd9XX\xff\xd9tail", [b"\xff\xd8head", b"\xff\xd9tail"]),
        (b"\xff\xdascan\xff\x93", [b""]),
        (b"\xff\x93scan\xff\xda", [b""]),
        (b"\xff\xd9tail", [b"", b"\xff\xd9tail"]),
        (b"RLE or whatever", [b""]),
    ],
)
def test_of_compressed_pixels_what_stands_before_the_scan_and_behind_the_end_is_looked_in(
    fragment: bytes, beside: list[bytes]
) -> None:
    value = framed(b"Table", fragment) + mark(EXPLICIT, SEQUENCE_END, 0)
    data = sent(EXPLICIT, 0x00282000, "OB", b"Profile") + sent(EXPLICIT, 0x7FE00010, "OB", value, OPEN)
    was = witness(data, implicit=False, big=False)
    assert Said(was, False).binary == b"\n".join([b"profile", b"table", *beside])
    assert Said(was, True).binary == b"profile"
    assert was.value(pixel_places(was)[0x7FE00010]) == framed(b"Table", fragment)


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
