"""Functions of the recipe language on either side of each decision: the last word, byte and day."""

from __future__ import annotations

import pytest

from edge_node.deid.functions import FUNCTIONS, PREDICATES, deid_function, jitter, keep_term, upper_words
from edge_node.deid.wire import Element
from tests.unit.deid.nodes import NAMES, TEXT, done, node_of, scene_of


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("keep_age", b"089Y", b"089Y"),
        ("keep_age", b"000Y", b"000Y"),
        ("keep_age", b"090Y", b"090Y"),
        ("keep_age", b"091Y", b"090Y"),
        ("keep_age", b"999Y", b"090Y"),
        ("keep_age", b"044YX", None),
        ("keep_age", b"999M", b"999M"),
        ("keep_sex", b"MX", b""),
        ("keep_size", b"1.5X", None),
        ("code_value", b"XA1", b"ANON"),
        ("shift_date", b"X20240229", b""),
        ("shift_date", b"20240229X", b""),
    ],
)
def test_what_stands_beside_a_value_is_part_of_it(name: str, value: bytes, becomes: bytes | None) -> None:
    assert done(FUNCTIONS[name], value, 0x00080020 if name == "shift_date" else TEXT) == becomes


def test_a_public_code_is_kept_to_its_last_letter_and_a_uid_is_taken_whole() -> None:
    scene = scene_of()
    scene.node = node_of((0x00080102, "SH", b"SCT "))
    assert FUNCTIONS["code_value"](Element(0x00080100, "SH", b"XA20X "), scene) == b"XA20X"
    assert done(FUNCTIONS["pseudonym_uid"], b"X1.2.3", vr="UI") == NAMES.uid("X1.2.3").encode()
    assert done(FUNCTIONS["pseudonym_uid"], b"1.2.3X\\\0", vr="UI") == NAMES.uid("1.2.3X").encode() + b"\\"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"axial zorblax\\head lung", b"AXIAL\\LUNG"),
        (b"abdomen pelvis x", b"ABDOMEN PELVIS"),
        (b"abdomen, pelvis!", b"ABDOMEN PELVIS"),
        (b"thorax abdo pelvis", b"THORAX ABDO PELV"),
        (b"abdomen pelvis. thorax", b"ABDOMEN PELVIS T"),
        (b"abdomen thorax  t2", b"ABDOMEN THORAX T"),
        (b"a thoracic spine knee", b"THORACIC SPINE K"),
        (b"w/o contrast", b"WO CONTRAST"),
        (b"abdomen lung ct spine", b"ABDOMEN LUNG CT"),
        (b"zorblax", None),
        (b"zorblax\\zorblax", b"\\"),
    ],
)
def test_a_code_string_is_made_of_words_that_are_known_and_fits_in_sixteen_letters(
    value: bytes, words: bytes | None
) -> None:
    assert done(upper_words, value, vr="CS") == words


@pytest.mark.parametrize(("value", "term"), [(b"ZORB7\0", b"ZORB7"), (b"ZORB7 \0", b"ZORB7"), (b"AXIALX", b"AXIALX"),
                                             (b"zorb seven", None)])  # fmt: skip
def test_a_term_that_is_one_is_kept_without_its_padding(value: bytes, term: bytes | None) -> None:
    assert done(keep_term, value, vr="CS") == term


@pytest.mark.parametrize(
    ("options", "day"),
    [
        ("jitter", b"20240301"),
        ("jitter days=-31", b"20240129"),
        ("jitter days=2", b"20240302"),
        ("jitter years=1", b"20250228"),
        ("jitter years=1 days=1", b"20250301"),
        ("jitter days=-2 years=-1", b"20230227"),
    ],
)
def test_jitter_counts_days_and_years_of_365_and_one_day_if_it_says_none(options: str, day: bytes) -> None:
    assert done(deid_function(options), b"20240229", 0x00080020, "DA") == day


def test_jitter_leaves_the_shift_of_the_patient_to_all_that_follows() -> None:
    scene = scene_of(days=-14)
    assert jitter(1)(Element(0x00080020, "DA", b"20240229"), scene) == b"20240301"
    assert scene.shift_days == -14


def test_a_function_of_deid_makes_a_uid_of_what_is_one_and_an_identifier_of_everything_else() -> None:
    function = deid_function("suffix_uuid")
    uid = NAMES.uid("1.2.3").encode()
    assert done(function, b"1.2.3", 0x00200052, "UI") == uid
    assert done(function, b"1.2.3", 0x00200052, "UN") == uid
    assert done(function, b"1.2.3", 0x00104444, "UI") == uid
    assert done(function, b"1.2.3", TEXT, "LO") == done(FUNCTIONS["pseudonym_id"], b"1.2.3", TEXT, "LO") != uid


@pytest.mark.parametrize(
    ("name", "value", "true"),
    [
        ("is_name", b"seen by ZORBLAX", True),
        ("is_name", b"zorblaxian", False),
        ("has_digits", b"room 123", True),
        ("has_digits", b"1 2 3 12", False),
    ],
)
def test_a_condition_is_true_of_names_and_of_three_digits_in_a_row(name: str, value: bytes, true: bool) -> None:
    assert PREDICATES[name](Element(TEXT, "LO", value), scene_of()) is true
