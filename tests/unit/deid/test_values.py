from __future__ import annotations

import re
import uuid
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid import patient_key, study_key_of
from edge_node.deid.charset import Charset
from edge_node.deid.dates import shift_da, shift_dt
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.vocabulary import clean_text

KEY = bytes(32)
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("20240229", "20240222"),
        ("2024.02.29", "2024.02.22"),
        ("20240229-20240307", "20240222-20240229"),
        ("20240229-", "20240222-"),
        ("-20240229", "-20240222"),
        ("-20240229-", ""),
        ("20240229-20240301-20240302", ""),
        ("00000000", ""),
        ("UNKNOWN", ""),
        ("20230229", ""),
        ("202402", ""),
        ("", ""),
        ("-", ""),
    ],
)
def test_dates_are_shifted_or_emptied_but_never_guessed(before: str, after: str) -> None:
    assert shift_da(before, -7) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("20240229101500.123456+0100", "20240222101500.123456+0100"),
        ("20240229", "20240222"),
        ("2024022910", "2024022210"),
        ("20240229101500-0500", "20240222101500-0500"),
        ("202403", "202403"),
        ("2024", "2024"),
        ("202408", "202408"),
        ("202401", "202401"),
        ("-20240229", "-20240222"),
        ("20240229-", "20240222-"),
        ("-", ""),
        ("", ""),
        ("20240229-soon", ""),
        ("2024-2025", "2024-2025"),
        ("00010101", ""),
        ("20240229-20240307", "20240222-20240229"),
        ("20240229101500+0100-", "20240222101500+0100-"),
        ("20240229991500", ""),
        ("soon", ""),
    ],
)
def test_moments_keep_precision_clock_and_offset(before: str, after: str) -> None:
    assert shift_dt(before, -7) == after


@pytest.mark.parametrize(
    ("days", "before", "after"),
    [
        (-183, "2024", "2023"),
        (-182, "2024", "2024"),
        (183, "2024", "2024"),
        (184, "2024", "2025"),
        (-15, "202408", "202407"),
        (-14, "202408", "202408"),
        (16, "202408", "202408"),
        (17, "202408", "202409"),
    ],
)
def test_what_is_known_to_the_month_or_year_moves_from_its_middle(days: int, before: str, after: str) -> None:
    assert shift_dt(before, days) == after


@given(st.dates(min_value=date(1900, 1, 1)), st.integers(0, 3000), st.text(max_size=20))
def test_shifted_intervals_are_the_true_intervals(first: date, days: int, patient: str) -> None:
    shift = Pseudonyms(KEY).shift_days(patient)
    assert -3647 <= shift <= -7
    assert shift % 7 == 0
    if first > date(9000, 1, 1):
        return
    one, two = (shift_da(f"{d.year:04}{d:%m%d}", shift) for d in (first, first + timedelta(days)))
    assert (date.fromisoformat(two) - date.fromisoformat(one)).days == days
    assert date.fromisoformat(one).weekday() == first.weekday()


@given(st.from_regex(r"1\.(2|3)\.[1-9][0-9]{0,12}(\.[1-9][0-9]{0,8}){0,4}", fullmatch=True))
def test_pseudonymous_uids_are_valid_uuid_uids_and_stable(old: str) -> None:
    names = Pseudonyms(KEY)
    new = names.uid(old)
    if old.startswith("1.2.840.10008."):
        assert new == old
        return
    assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", new)
    made = uuid.UUID(int=int(new.removeprefix("2.25.")))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
    assert new == names.uid(old) != Pseudonyms(b"x" * 32).uid(old)


def test_keys_have_their_length_and_ignore_padding() -> None:
    assert re.fullmatch(r"[A-Z2-7]{12}", study_key_of(KEY, "1.2.3"))
    assert study_key_of(KEY, "1.2.3\0") == study_key_of(KEY, "1.2.3")
    assert re.fullmatch(r"[A-Z2-7]{20}", patient_key(KEY, "A1"))
    assert patient_key(KEY, " A1 ", " H ") == patient_key(KEY, "A1", "H") != patient_key(KEY, "A1")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("CT Head w/o contrast", "CT Head w/o contrast"),
        ("THORAX 1.25mm LUNG", "THORAX 1.25mm LUNG"),
        ("AX T2 FLAIR 512x512 5 mm", "AX T2 FLAIR 512x512 5 mm"),
        ("Head, Dr. Miller 0171/5551234", "Head"),
        ("MRN 12345678 knee", "knee"),
        ("born 1950-01-02 brain", "brain"),
        ("chest/abdomen/pelvis", "chest abdomen pelvis"),
        ("room 12", ""),
        ("5 kg, 3 Hz 60 fps", "5 kg 3 Hz 60 fps"),
        ("Hz lung 3", "lung"),
        ("kg Hz 3", ""),
        ("3 lung Hz", "lung"),
        ("-head- ./lung.", "head lung"),
        ("Schädel von Frau Ächz", ""),
        ("", ""),
    ],
)
def test_cleaned_text_says_what_was_imaged_and_not_of_whom(before: str, after: str) -> None:
    assert clean_text(before, NOBODY) == after


def test_a_name_that_is_a_word_of_the_trade_is_dropped() -> None:
    assert clean_text("Chest of CHEST, lung", frozenset({"chest"})) == "lung"


@given(st.text())
def test_cleaning_is_ascii_no_longer_than_the_text_and_stable(text: str) -> None:
    cleaned = clean_text(text, NOBODY)
    assert cleaned.isascii()
    assert len(cleaned) <= len(text)


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (["ISO_IR 100"], "Müller".encode("latin-1"), "Müller"),
        (["ISO_IR 192"], "Müller".encode(), "Müller"),
        (["GB18030"], "王^小东".encode("gb18030"), "王^小东"),
        (["", "ISO 2022 IR 149"], b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
        ([""], "Müller".encode("latin-1"), "Müller"),
        (["nonsense"], b"plain", "plain"),
        (["ISO_IR 192"], b"\xff\xfe", "ÿþ"),
    ],
)
def test_text_is_read_in_the_declared_character_set_and_never_fails(terms: list[str], raw: bytes, text: str) -> None:
    assert Charset(terms).text(raw) == text
