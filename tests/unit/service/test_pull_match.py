"""Which answers of an archive are taken: those of the patient who was meant."""

from __future__ import annotations

import pytest

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.pull import Kind, Wanted
from edge_node.service import pull_match
from edge_node.service.pull_match import Matches


def found(wanted: Wanted, *answers: tuple[str, str, str]) -> list[str]:
    """UIDs that fit, of answers (UID, value, issuer)."""
    matches = Matches(wanted, "PACS")
    for uid, value, issuer in answers:
        matches.add(uid, value, issuer=issuer, modalities=(), instances="1")
    return [match.study_uid for match in matches.fitting()]


P1, P1_OF_A = Wanted(Kind.PRIORS, "P1"), Wanted(Kind.PRIORS, "P1", "A")


def test_priors_are_those_of_the_issuer_that_was_named() -> None:
    assert found(P1_OF_A, ("1.1", "P1", "A"), ("1.2", "P1", "B"), ("1.3", "P1", ""), ("1.4", "P2", "A")) == ["1.1"]
    assert found(P1_OF_A, ("1.2", "P1", "B")) == []
    assert found(P1_OF_A) == []
    assert found(P1_OF_A, ("1.1", "P1 ", " A ")) == ["1.1"]


def test_an_archive_that_does_not_name_the_issuer_is_not_believed_and_that_is_said() -> None:
    for answers in ([("1.3", "P1", "")], [("1.3", "P1", ""), ("1.2", "P1", "B")]):
        with pytest.raises(Quarantine, match=r"pull\.patient-ambiguous") as caught:
            found(P1_OF_A, *answers)
        assert "P1" not in str(caught.value)


def test_a_patient_id_that_two_issuers_gave_is_nobodys() -> None:
    assert found(P1, ("1.1", "P1", ""), ("1.2", "P1", "A")) == ["1.1", "1.2"]
    assert found(P1, ("1.1", "P1", "A"), ("1.2", "P2", "B")) == ["1.1"]
    with pytest.raises(Quarantine, match=r"pull\.patient-ambiguous"):
        found(P1, ("1.1", "P1", "A"), ("1.2", "P1", "B"))


def test_studies_and_days_have_no_issuer() -> None:
    assert found(Wanted(Kind.DAY, "20240101"), ("1.1", "20240101", "A"), ("1.2", "20240101", "B")) == ["1.1", "1.2"]


def test_a_modality_narrows_and_an_archive_that_names_none_is_believed() -> None:
    matches = Matches(Wanted(Kind.DAY, "20240101", modality="CT"), "PACS")
    for uid, modalities in (("1.1", {"CT", "SR"}), ("1.2", {"MR"}), ("1.3", set[str]()), ("1.4", {""})):
        assert matches.add(uid, "20240101", issuer="", modalities=modalities, instances="x")
    assert [(match.study_uid, match.instances) for match in matches.fitting()] == [("1.1", 0), ("1.3", 0), ("1.4", 0)]


def test_answers_without_end_are_counted_whether_they_fit_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_match, "MOST_MATCHES", 3)
    matches = Matches(P1, "PACS")
    assert [matches.add(uid, "P2", issuer="", modalities=(), instances="") for uid in ("1.1", "1.1", "")] == [
        True,
        False,
        False,
    ]
    with pytest.raises(Retry, match=r"pull\.query-failed"):
        matches.add("1.9", "P2", issuer="", modalities=(), instances="")
