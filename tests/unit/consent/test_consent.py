from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.config.schema import Consent
from edge_node.consent.gate import source_for
from edge_node.domain.consent import ConsentDecision
from edge_node.domain.errors import Stop

ANN, BOB, EVE = "A" * 26, "B2" * 13, "E7" * 13

Listed = Callable[[str | bytes], Callable[[str], ConsentDecision]]


@pytest.fixture
def listed(tmp_path: Path) -> Listed:
    """Write a list and get its `decide`."""

    def write(content: str | bytes) -> Callable[[str], ConsentDecision]:
        path = tmp_path / "consent.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return source_for(Consent(source="csv", csv_file=path)).decide

    return write


def test_the_default_lets_nothing_leave() -> None:
    assert source_for(Consent()).decide(ANN) == ConsentDecision(False, "consent.deny-all", "deny-all")


def test_allow_all_says_that_consent_is_held_elsewhere() -> None:
    decision = source_for(Consent(source="allow-all")).decide(ANN)
    assert decision == ConsentDecision(True, "consent.held-elsewhere", "allow-all")


def test_a_csv_source_without_a_file_stops_the_role() -> None:
    with pytest.raises(Stop) as stopped:
        source_for(Consent(source="csv"))
    assert stopped.value.code == "consent.no-csv-file"


def test_the_list_decides_and_who_is_not_listed_is_denied(listed: Listed) -> None:
    decide = listed(f"patient_key,consent\n{ANN},allow\n{BOB},deny\n")
    assert decide(ANN) == ConsentDecision(True, "consent.allowed", "csv")
    assert decide(BOB) == ConsentDecision(False, "consent.denied", "csv")
    assert decide(EVE) == ConsentDecision(False, "consent.unlisted", "csv")


def test_a_spreadsheet_may_add_a_bom_crlf_spaces_blank_lines_and_turn_columns_round(listed: Listed) -> None:
    decide = listed(b"\xef\xbb\xbfconsent , patient_key\r\n\r\nALLOW, " + ANN.lower().encode() + b"\r\n")
    assert decide(ANN).allowed


def test_rows_that_contradict_each_other_deny_in_any_order(listed: Listed) -> None:
    for words in ("allow deny", "deny allow", "allow deny allow", "allow allow deny"):
        decide = listed("patient_key,consent\n" + "".join(f"{ANN},{word}\n" for word in words.split()))
        assert decide(ANN) == ConsentDecision(False, "consent.contradiction", "csv")


def test_the_same_row_twice_is_no_contradiction(listed: Listed) -> None:
    assert listed(f"patient_key,consent\n{ANN},allow\n{ANN},allow\n")(ANN).allowed


@pytest.mark.parametrize("row", [f"{ANN},yes", f"{ANN}", f"{ANN},allow,extra", f"{ANN},", f",{ANN}", f"{ANN};allow"])
def test_a_malformed_row_denies_its_patient_and_nobody_else(listed: Listed, row: str) -> None:
    decide = listed(f"patient_key,consent\n{BOB},allow\n{row}\n")
    assert not decide(ANN).allowed
    assert decide(BOB).allowed


def test_a_malformed_row_takes_back_an_earlier_consent(listed: Listed) -> None:
    assert not listed(f"patient_key,consent\n{ANN},allow\n{ANN},maybe\n")(ANN).allowed


@pytest.mark.parametrize(
    "content",
    [
        "",
        f"{ANN},allow\n",
        f"patient,consent\n{ANN},allow\n",
        f"patient_key,consent,note\n{ANN},allow,x\n",
        f"patient_key\n{ANN}\n",
        f"patient_key,patient_key\n{ANN},allow\n",
        f'patient_key,consent\n{ANN},allow\n"{BOB},allow\n',
        f"patient_key,consent\n{ANN},allow\n".encode("utf-16"),
        b"patient_key,consent\n" + ANN.encode() + b",allow\n\xff\n",
        f"patient_key,consent\n{ANN},allow\n\0\n",
    ],
)
def test_a_file_that_cannot_be_understood_denies_everyone(listed: Listed, content: str | bytes) -> None:
    assert listed(content)(ANN) == ConsentDecision(False, "consent.source-unreadable", "csv")


def test_a_missing_file_denies_and_its_return_is_noticed(tmp_path: Path, listed: Listed) -> None:
    decide = listed(f"patient_key,consent\n{ANN},allow\n")
    assert decide(ANN).allowed
    (tmp_path / "consent.csv").rename(tmp_path / "elsewhere")
    assert decide(ANN) == ConsentDecision(False, "consent.source-unreadable", "csv")
    (tmp_path / "elsewhere").rename(tmp_path / "consent.csv")
    assert decide(ANN).allowed


def test_a_withdrawal_counts_from_the_next_question_on(tmp_path: Path, listed: Listed) -> None:
    decide = listed(f"patient_key,consent\n{ANN},allow\n")
    assert decide(ANN).allowed
    (tmp_path / "consent.csv").write_text(f"patient_key,consent\n{ANN},deny\n")
    assert decide(ANN) == ConsentDecision(False, "consent.denied", "csv")


def test_a_file_of_the_same_size_with_another_time_is_read_again(tmp_path: Path, listed: Listed) -> None:
    path = tmp_path / "consent.csv"
    decide = listed(f"patient_key,consent\n{ANN},allow\n")
    assert decide(ANN).allowed
    path.write_text(f"patient_key,consent\n{BOB},allow\n")
    os.utime(path, ns=(1, 1))
    assert not decide(ANN).allowed
    assert decide(BOB).allowed


def test_a_folder_in_place_of_the_file_denies(tmp_path: Path) -> None:
    decision = source_for(Consent(source="csv", csv_file=tmp_path)).decide(ANN)
    assert decision == ConsentDecision(False, "consent.source-unreadable", "csv")


@pytest.mark.parametrize("key", ["", "DOE^JANE", "MRN-12345", "12345", "A" * 200, ANN + "\n"])
def test_what_is_no_patient_key_is_denied_even_if_listed(listed: Listed, key: str) -> None:
    decide = listed(f'patient_key,consent\n"{key}",allow\n')
    assert decide(key) == ConsentDecision(False, "consent.malformed-key", "csv")


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from([ANN, BOB, EVE, "", "x"]), st.text(max_size=6)), max_size=6))
def test_only_patients_whose_every_row_says_allow_are_allowed(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("consent") / "consent.csv"
    path.write_bytes("".join(f"{key},{word}\n" for key, word in [("patient_key", "consent"), *rows]).encode("utf-8"))
    source = source_for(Consent(source="csv", csv_file=path))
    for key in (ANN, BOB, EVE):
        words = [word.strip().casefold() for listed_key, word in rows if listed_key == key]
        if source.decide(key).allowed:
            assert words
            assert set(words) == {"allow"}
