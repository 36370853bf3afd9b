"""HL7 as text: what goes in comes out again, whatever it is."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.worklist.hl7 import (
    components,
    dicom_moment,
    escape,
    lines_of,
    moment,
    person_names,
    read_acknowledgement,
    segment,
)

BACK = {"E": "\\", "F": "|", "S": "^", "T": "&", "R": "~"}
PRINTABLE = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=300)


@given(PRINTABLE)
def test_escaped_text_has_no_delimiter_and_can_be_read_back(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("|^&~\r\n")
    assert re.sub(r"\\([EFSTR])\\", lambda found: BACK[found[1]], escaped) == text


@given(st.text(max_size=300))
def test_control_characters_never_end_a_segment(text: str) -> None:
    assert not re.search(r"[\x00-\x1f\x7f]", escape(text))


@given(PRINTABLE)
def test_lines_stay_short_and_lose_no_word(text: str) -> None:
    lines = lines_of(text)
    assert all(len(escape(line)) <= 199 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_segment_counts_its_fields_and_ends_with_the_last_one_that_says_something() -> None:
    assert segment("OBX", {1: "1", 5: "x", 9: ""}) == "OBX|1||||x"
    assert segment("MSH", {2: "^~\\&", 4: "F"}) == "MSH|^~\\&||F"
    assert components("a", "", "b", "") == "a^^b"


def test_a_moment_keeps_its_zone() -> None:
    there = timezone(-timedelta(hours=3, minutes=30))
    assert moment(datetime(2026, 11, 21, 9, 5, 7, 999, tzinfo=there)) == "20261121090507-0330"


@pytest.mark.parametrize(
    ("date", "clock", "offset", "written"),
    [
        ("20261121", "101500.5", "+0100", "20261121101500.5+0100"),
        ("20261121", "10", "", "2026112110"),
        ("20261121", "24h", "+0100", "20261121"),
        ("19570313", "", "", "19570313"),
        ("195703", "10", "", "195703"),
        ("1957.03.13", "", "", ""),
        ("UNKNOWN", "10", "", ""),
        ("", "101500", "+0100", ""),
    ],
)
def test_a_dicom_date_is_as_precise_as_it_was_and_nothing_is_guessed(
    date: str, clock: str, offset: str, written: str
) -> None:
    assert dicom_moment(date, clock, offset) == written


def test_a_name_without_a_word_is_no_name() -> None:
    assert person_names("^^^=") == ""
    assert person_names("=山田^太郎") == "山田^太郎^^^^^L^I"
    assert person_names("Nowak^Jan", numbered=True) == "^Nowak^Jan^^^^^^^L^^^^^A"


@given(st.binary(max_size=200))
def test_no_answer_breaks_the_reader(block: bytes) -> None:
    assert read_acknowledgement(block) is None or block.decode("utf-8", "replace").lstrip().startswith("MSH")


def test_the_error_number_is_told_and_the_words_are_not() -> None:
    rows = ["MSH|^~\\&|RIS", "MSA|AE|ID1|Kowalska not found", "ERR|||Kowalska^not found|E"]
    answer = read_acknowledgement("\r".join(rows).encode())
    assert answer is not None
    assert (answer.code, answer.control_id, answer.error) == ("AE", "ID1", "")
    assert "Kowalska" not in repr(answer)
