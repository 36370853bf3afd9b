"""What identifies in an object as received: names, numbers, days, in all their spellings."""

from __future__ import annotations

import pytest

from edge_node.deid.needles import Needle, fold, name_of, names_as_sent, needles, squeezed, telling
from tests.unit.deid.elements import (
    TEXT,
)
from tests.unit.deid.heard import told

NAME, NUMBER, BORN, STUDIED, SERIES = 0x00100010, 0x00100020, 0x00100030, 0x00080020, 0x00080021
NOTHING: frozenset[int] = frozenset()


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
