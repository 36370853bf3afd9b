"""Text and names of an object: the character set that holds, the words that name somebody."""

from __future__ import annotations

import pytest

from edge_node.deid.charset import Charset
from edge_node.deid.scene import charset_of, person_words, set_scene
from edge_node.deid.wire import Element
from tests.unit.deid.nodes import NAME, NAMES, NUMBER, TEXT, node_of


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (["", "ISO 2022 IR 149"], b"\xb0\xa1", "°¡"),
        (["ISO 2022 IR 149"], b"\xb0\xa1", "가"),
        (["ISO 2022 IR 87"], b"A\x1b$B;3ED\x1b(B", "A山田"),
        (["ISO_IR 100"], b"a\x1b(Zb", "ab"),
        (["ISO_IR 100"], b" \ta \0\0 ", " \ta"),
        (["ISO_IR 100"], b" a\x1b-Ab\t \0", " ab\t"),
        (["ISO_IR 100"], b"XaX \0X", "XaX \0X"),
        (["ISO_IR 100"], b"a\x1b-AX", "aX"),
        (["iso ir 192"], "ü".encode(), "ü"),
        (["ISO_IR 6"], b"\xfc", "ü"),
    ],
)
def test_text_is_decoded_as_its_first_character_set_and_its_escapes_say(
    terms: list[str], raw: bytes, text: str
) -> None:
    assert Charset(terms).text(raw) == text


@pytest.mark.parametrize(("terms", "declared"), [([""], False), ([], False), (["ISO_IR 6"], True), (["", "X"], True)])
def test_a_character_set_is_declared_if_any_is_named(terms: list[str], declared: bool) -> None:
    assert Charset(terms).declared is declared


def test_names_are_known_by_every_word_of_two_letters_or_more_at_any_depth() -> None:
    inner = node_of((0x00080090, "PN", "Müller^Ün^Ö".encode("latin-1")), (TEXT, "LO", b"nobody"))
    other = node_of((0x00080005, "CS", b"\\ISO_IR 144 "), (0x00080090, "PN", b"plain"))
    cyrillic = node_of((0x00080005, "CS", b"ISO_IR 144"), (0x00080090, "PN", "Иванов".encode("iso8859_5")))
    cyrillic[0x00081110] = Element(0x00081110, "SQ", items=[node_of((0x00080090, "PN", "Петров".encode("iso8859_5")))])
    node = node_of(
        (0x00080005, "CS", b"ISO_IR 100"),
        (NAME, "PN", "Zörb^X Li".encode("latin-1")),
        (0x00101005, "UN", b"Birthname"),
        (0x00101060, "LO", b"Mothers"),
        (0x00080092, "LO", b"street"),
        (0x00104444, "UN", b"unknown"),
        (0x00091001, "PN", b"Makers"),
        (0x00081048, "SH", b"shorttext"),
    )
    node[0x00081140] = Element(0x00081140, "SQ", items=[inner, {}, other, cyrillic])
    said = {"zörb", "li", "birthname", "mothers", "makers", "müller", "ün", "plain", "иванов", "петров"}
    assert person_words(node) == said
    assert set_scene(node, NAMES).names == said


def test_a_character_set_holds_until_an_item_names_another() -> None:
    outer = Charset(["ISO_IR 144"])
    assert charset_of({}, outer) is outer
    assert charset_of(node_of((0x00080005, "CS", b"ISO_IR 192")), outer).text("ü".encode()) == "ü"
    assert charset_of({}).text(b"\xfc") == "ü"
    multi = charset_of(node_of((0x00080005, "CS", b" \\ ISO 2022 IR 149 ")), outer)
    assert (multi.text(b"\xb0\xa1"), multi.declared) == ("°¡", True)
    korean = charset_of(node_of((0x00080005, "CS", b"ISO 2022 IR 149\\ISO_IR 192")))
    assert korean.text(b"\xb0\xa1") == "가"


def test_a_scene_hangs_on_issuer_and_id_or_else_on_the_study() -> None:
    node = node_of((0x00080005, "CS", b"ISO_IR 100"), (NUMBER, "LO", b" P\xfc "), (0x00100021, "LO", b"H "))
    assert set_scene(node, NAMES).patient == "id|H|Pü"
    assert set_scene(node, NAMES).patient_pseudonym == NAMES.patient("H", "Pü", "")
    one, two = (set_scene(node_of((0x0020000D, "UI", uid)), NAMES) for uid in (b"1.2\0", b"1.3\0"))
    assert (one.patient, two.patient) == ("study|1.2", "study|1.3")
    assert one.patient_pseudonym != two.patient_pseudonym
    assert one.shift_days == NAMES.shift_days("study|1.2")
