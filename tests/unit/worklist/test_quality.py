"""What is wrong with a study as it came, in one line, without a word of what was found."""

from __future__ import annotations

import pytest

from edge_node.domain.finding import TriageOutcome, TriageResult, Verdict
from edge_node.worklist.quality import decided, faults_of
from tests.results_back import finding

ALL = ("missing", "gap", "unreadable", "geometry", "clipping", "body-part")
FINE = "quiet for 10 s"


def said(*quality: str, settle: str = FINE, body_part: str = "HEAD", result: TriageResult | None = None) -> list[str]:
    judged = result or TriageResult(TriageOutcome.FINDING, "", (finding(quality=tuple(quality)),))
    return [one.reason for one in faults_of(settle_reason=settle, body_part=body_part, result=judged, wanted=ALL)]


@pytest.mark.parametrize(
    ("settle", "reasons"),
    [
        ("3 of 40 announced missing after 120 s, incomplete", ["images missing: 3 of 40"]),
        ("lacks 2 of 4 MG after 120 s, incomplete", ["images missing: 2 of 4 MG"]),
        ("lacks a series CT:20 after 60 s, incomplete", ["images missing: a series CT:20"]),
        ("hard cap of 1800 s, incomplete", []),
        ("step discontinued, all 12 announced came", []),
        ("archive lists all 40 instances", []),
    ],
)
def test_missing_images_are_said_as_the_study_settled(settle: str, reasons: list[str]) -> None:
    assert said(settle=settle) == reasons


@pytest.mark.parametrize(
    ("quality", "reasons"),
    [
        (("geometry.gap: slices seem to be missing at 2 places",), ["gap between slices: 2"]),
        (("decode.undecodable: 3 slices cannot be decoded and were left out",), ["images cannot be decoded: 3"]),
        (
            ("select.unreadable: 1 CT images cannot be parsed", "decode.undecodable: 3 slices cannot be decoded"),
            ["images cannot be read: 1"],
        ),
        (
            ("quality.border: dense material reaches the edge of the model's field of view",),
            ["the patient reaches the edge of the field of view"],
        ),
        (("quality.metal: material denser than bone, expect streaks", "geometry.tilt: gantry tilt of 9.0 degrees"), []),
    ],
)
def test_what_triage_notes_of_its_input_becomes_one_line_a_fault(quality: tuple[str, ...], reasons: list[str]) -> None:
    assert said(*quality) == reasons


def test_a_study_that_could_not_be_judged_says_what_for_only_if_the_technologist_can_mend_it() -> None:
    gap = finding(Verdict.CANNOT_JUDGE, reason="geometry.gap: a gap of 31 mm between slices")
    assert said(result=TriageResult(TriageOutcome.FINDING, "", (gap,))) == ["gap between slices: 31 mm"]
    other = finding(Verdict.CANNOT_JUDGE, reason="quality.not-a-head: 12 ml of soft tissue inside bone")
    assert said(result=TriageResult(TriageOutcome.FINDING, "", (other,))) == []
    broken = TriageResult(TriageOutcome.SKIPPED, "triage.unreadable: no CT image of the study can be parsed")
    assert said(result=broken) == ["images cannot be read"]


def test_a_body_part_that_is_not_stated_is_a_fault() -> None:
    assert said(body_part=" ") == ["body part not stated"]


def test_only_a_model_that_looked_can_say_that_images_are_mended() -> None:
    assert "gap" in decided(TriageResult(TriageOutcome.FINDING, "", (finding(),)))
    for outcome in (TriageOutcome.SKIPPED, TriageOutcome.NOT_APPLICABLE):
        assert decided(TriageResult(outcome, "")) == {"missing", "body-part"}
