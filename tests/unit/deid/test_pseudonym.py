"""Pseudonyms and keys: what they hang on, and what keeps two of them apart."""

from __future__ import annotations

import pytest

from edge_node.deid.pseudonym import (
    Pseudonyms,
    instance_key_of,
    joined,
    patient_key,
    patient_of,
    signal_key_of,
    study_key_of,
)
from edge_node.domain.errors import Stop
from tests.unit.deid.nodes import NAMES
from tests.unit.deid.objects import KEY


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("a", "b"), "a|b"),
        (("a|b",), "a\\|b"),
        (("a\\", "b"), "a\\\\|b"),
        (("a\\|b", "", "c"), "a\\\\\\|b||c"),
        (("XX|XX", "XX\\XX"), "XX\\|XX|XX\\\\XX"),
    ],
)
def test_what_divides_the_parts_of_a_pseudonym_is_marked_inside_them(parts: tuple[str, ...], text: str) -> None:
    assert joined(*parts) == text


def test_without_an_id_a_patient_is_known_by_the_study_whoever_issued_nothing() -> None:
    assert patient_of("H", "A", "1.2") == patient_of(" H ", " A ", "1.3") == "id|H|A"
    assert patient_of("H", "", "1.2") == patient_of("", " ", "1.2") == "study|1.2"
    assert NAMES.patient("H", " ", "1.2") == NAMES.patient(" H", "", "1.2") != NAMES.patient("H", "", "1.3")
    assert NAMES.patient("", "", "1.2") == "55N4EPLORBHQ"
    assert patient_key(KEY, "B", "A") == patient_key(KEY, "\0B ", " A\0")
    assert study_key_of(KEY, " 1.2\0") == study_key_of(KEY, "1.2") != study_key_of(KEY, "1.2X")
    ids = [("A", ""), ("AX", ""), ("XA", ""), ("A", "X"), ("A", "H"), ("A", "HX"), ("A", "XH")]
    assert len({patient_key(KEY, *one) for one in ids}) == len({patient_of(b, a, "") for a, b in ids}) == len(ids)
    assert len({NAMES.patient(issuer, number, "") for number, issuer in ids}) == len(ids)


def test_what_an_instance_and_an_announcement_are_called_stays_from_version_to_version() -> None:
    for name, always in (
        (instance_key_of, "4ZP6BC2W6W4KPUZMEUX5AASIXQ"),
        (signal_key_of, "MYEWOOQV5T3AA25LB5CO6GEIIL"),
    ):
        assert name(KEY, "1.2") == name(KEY, " 1.2\0") == always
        assert len({name(KEY, one) for one in ("1.2", "X1.2", "1.2X", "1.3")} | {name(KEY[::-1] + b"k", "1.2")}) == 5


def test_a_label_that_is_refused_is_refused_by_its_code() -> None:
    with pytest.raises(Stop) as caught:
        Pseudonyms(KEY, "a b")
    assert caught.value.code == "deid.label-invalid"


def test_pseudonyms_of_more_uids_than_are_remembered_stay_the_same() -> None:
    names = Pseudonyms(KEY)
    first = [names.uid(f"1.2.{n}") for n in range(600)]
    assert [names.uid(f"1.2.{n}") for n in range(600)] == first == [Pseudonyms(KEY).uid(f"1.2.{n}") for n in range(600)]
