"""The reading order: two tiers and a virtual deadline."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.domain.finding import Finding, Verdict
from edge_node.worklist.priority import decide, sort_key
from tests.results_back import finding

ORDERS = st.sampled_from(["STAT", "URGENT", "ROUTINE", "", "unheard of"])
CLASSES = st.sampled_from(["E", "I", "O", ""])
ARRIVALS = st.floats(0, 4e9)
FINDINGS = st.builds(
    finding,
    st.sampled_from(list(Verdict)),
    probability=st.floats(allow_nan=True),
    threshold=st.floats(0, 1),
    category=st.integers(0, 4),
)
STUDIES = st.fixed_dictionaries(
    {
        "id": st.integers(),
        "arrival": st.floats(0, 1e7),
        "ready": st.floats(0, 1e7),
        "order": ORDERS,
        "patient_class": CLASSES,
    }
)


def at(clock: str) -> float:
    """Seconds since the epoch of a local time on the day of the tests."""
    return datetime.fromisoformat(f"2026-11-21 {clock}").timestamp()


@pytest.mark.parametrize(
    ("order", "patient_class", "minutes", "tier", "level"),
    [
        ("STAT", "E", 45, 0, "HIGH"),
        ("STAT", "I", 54, 0, "HIGH"),
        ("STAT", "O", 60, 0, "HIGH"),
        ("URGENT", "E", 180, 1, "MEDIUM"),
        ("URGENT", "O", 240, 1, "MEDIUM"),
        ("ROUTINE", "E", 540, 1, "LOW"),
        ("ROUTINE", "O", 720, 1, "LOW"),
        ("", "", 720, 1, "LOW"),
    ],
)
def test_order_and_patient_class_give_the_target(
    order: str, patient_class: str, minutes: float, tier: int, level: str
) -> None:
    decided = decide(arrival=1000.0, order=order, patient_class=patient_class, finding=None)
    assert (decided.target_minutes, decided.tier, decided.level) == (minutes, tier, level)
    assert decided.due == 1000.0 + minutes * 60
    assert not decided.raised_by_ai


@pytest.mark.parametrize(
    ("category", "probability", "minutes", "level"),
    [(1, 1.0, 15, "HIGH"), (1, 0.5, 30, "HIGH"), (2, 1.0, 60, "HIGH"), (2, 0.75, 90, "MEDIUM"), (3, 1.0, 480, "LOW")],
)
def test_a_finding_shortens_the_target_by_category_and_probability(
    category: int, probability: float, minutes: float, level: str
) -> None:
    flagged = finding(category=category, probability=probability)
    decided = decide(arrival=0.0, order="ROUTINE", patient_class="O", finding=flagged)
    assert (decided.target_minutes, decided.level, decided.raised_by_ai) == (pytest.approx(minutes), level, True)


def test_the_reason_is_one_line_that_explains_the_place_in_the_list() -> None:
    decided = decide(arrival=at("10:14"), order="ROUTINE", patient_class="O", finding=finding(probability=0.94))
    assert decided.reason == "Intracranial hemorrhage 0.94 (threshold 0.50), category 1, target 17 min, due 10:30"


def test_a_study_that_is_not_flagged_is_explained_by_its_order() -> None:
    decided = decide(arrival=at("10:15"), order="URGENT", patient_class="E", finding=finding(Verdict.NOT_FLAGGED))
    assert decided.reason == ("Intracranial hemorrhage not flagged, URGENT order, emergency, target 180 min, due 13:15")


def test_a_deadline_on_another_day_names_the_day() -> None:
    decided = decide(arrival=at("20:00"), order="ROUTINE", patient_class="O", finding=None)
    assert decided.reason.endswith("due 2026-11-22 08:00")


def test_a_finding_slower_than_the_order_is_told_but_raises_nothing() -> None:
    decided = decide(arrival=0.0, order="STAT", patient_class="E", finding=finding(category=3))
    assert decided.target_minutes == 45
    assert not decided.raised_by_ai
    assert "STAT order" in decided.reason


@given(ARRIVALS, ORDERS, CLASSES, FINDINGS)
def test_a_finding_never_makes_a_study_wait_longer(
    arrival: float, order: str, patient_class: str, found: Finding
) -> None:
    without = decide(arrival=arrival, order=order, patient_class=patient_class, finding=None)
    with_it = decide(arrival=arrival, order=order, patient_class=patient_class, finding=found)
    assert (with_it.tier, with_it.due) <= (without.tier, without.due)
    assert with_it.raised_by_ai == (with_it.due < without.due or with_it.target_minutes < without.target_minutes)


@given(ARRIVALS, ORDERS, CLASSES, FINDINGS)
def test_only_a_flagged_finding_moves_a_study(arrival: float, order: str, patient_class: str, found: Finding) -> None:
    if found.verdict is not Verdict.FLAGGED:
        without = decide(arrival=arrival, order=order, patient_class=patient_class, finding=None)
        with_it = decide(arrival=arrival, order=order, patient_class=patient_class, finding=found)
        assert (with_it.tier, with_it.due, with_it.level) == (without.tier, without.due, without.level)


@given(STUDIES, st.dictionaries(st.text(), st.floats(0, 1)), st.sampled_from([True, False, None]))
def test_the_list_key_never_grows_with_a_finding(
    study: dict[str, Any], scores: dict[str, float], flagged: bool | None
) -> None:
    before = {**study, "ai": None, "flagged": False}
    assert sort_key({**study, "ai": scores, "flagged": flagged})[:2] <= sort_key(before)[:2]


@given(STUDIES, st.floats(0, 1), st.floats(0, 1e7))
def test_the_list_key_does_not_depend_on_when_the_result_was_ready(
    study: dict[str, Any], score: float, later: float
) -> None:
    known = {**study, "ai": {"finding": score}, "flagged": score >= 0.5}
    assert sort_key(known) == sort_key({**known, "ready": study["ready"] + later})


@given(STUDIES, st.floats(0, 1), ORDERS)
def test_the_list_and_the_decision_agree(study: dict[str, Any], score: float, order: str) -> None:
    flagged = score >= 0.5
    tier, due, *_ = sort_key({**study, "order": order, "ai": {"finding": score}, "flagged": flagged})
    decided = decide(
        arrival=study["arrival"] * 60,
        order=order,
        patient_class=study["patient_class"],
        finding=finding(Verdict.FLAGGED if flagged else Verdict.NOT_FLAGGED, probability=score),
    )
    assert tier == decided.tier
    assert due * 60 == pytest.approx(decided.due)


def test_a_critical_study_passes_every_older_routine_one_but_no_older_critical_one() -> None:
    old = {"id": 1, "arrival": 0.0, "order": "ROUTINE", "patient_class": "O", "ai": None, "flagged": False}
    critical = {**old, "id": 2, "arrival": 600.0, "ai": {"ICH": 0.9}, "flagged": True}
    earlier = {**critical, "id": 3, "arrival": 590.0}
    assert sorted([old, critical, earlier], key=sort_key) == [earlier, critical, old]
