"""Who may write what: the most cautious mode counts, for node, writer and model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.config.write_back import Worklist
from edge_node.domain.finding import Finding, TriageOutcome, Verdict
from edge_node.domain.modes import MAY_WRITE, Mode, lowest, may_write
from edge_node.worklist.modes import Modes
from edge_node.worklist.words import withdrawn
from tests.results_back import MODEL, finding, result

MODELS = ("one", "two", "three")
modes = st.sampled_from(list(Mode))


def of_model(name: str, verdict: Verdict = Verdict.FLAGGED, category: int = 1) -> Finding:
    return finding(verdict, model=replace(MODEL, name=name), category=category)


def test_the_table_grows_with_the_mode_and_nobody_reorders_who_may_not_write() -> None:
    assert MAY_WRITE == {
        Mode.SHADOW: {"leaves": False, "reorders": False},
        Mode.INFORMATION: {"leaves": True, "reorders": False},
        Mode.LIVE: {"leaves": True, "reorders": True},
    }


@given(st.lists(modes, min_size=1), modes)
def test_one_more_mode_never_allows_more(some: list[Mode], more: Mode) -> None:
    for reorders in (True, False):
        assert may_write(lowest(*some, more), reorders=reorders) <= may_write(lowest(*some), reorders=reorders)


@given(st.dictionaries(st.sampled_from(MODELS), modes), st.permutations(MODELS), st.booleans())
def test_no_finding_of_a_model_that_may_not_speak_is_left(
    by_model: dict[str, Mode], order: list[str], reorders: bool
) -> None:
    whole = result(*(of_model(name, category=at) for at, name in enumerate(order, start=1)))
    left = Modes.of("live", {}, {name: str(mode) for name, mode in by_model.items()}).permitted(
        whole, reorders=reorders
    )
    speaking = {name for name in MODELS if may_write(by_model.get(name, Mode.LIVE), reorders=reorders)}
    assert {one.model.name for one in left.findings} == speaking
    assert (left.outcome is TriageOutcome.FINDING) == bool(speaking)
    # The picture shows the deciding finding of all of them.
    assert (left.key_image is not None) == (order[0] in speaking)


@pytest.mark.parametrize(
    ("unavailable", "outcome"),
    [((), TriageOutcome.NOT_APPLICABLE), (("chest 1.0.0: model.crashed",), TriageOutcome.SKIPPED)],
)
def test_where_a_model_could_not_judge_silence_is_no_answer(
    unavailable: tuple[str, ...], outcome: TriageOutcome
) -> None:
    whole = replace(result(of_model("one")), unavailable=unavailable)
    left = Modes.of("live", {}, {"one": "shadow"}).permitted(whole, reorders=True)
    assert (left.outcome, left.unavailable, left.findings) == (outcome, unavailable, ())
    assert left.reason.startswith("worklist.models-silent: ")


def test_what_a_model_said_that_cannot_judge_now_is_not_withdrawn() -> None:
    earlier = result(*(of_model(name, category=at) for at, name in enumerate(MODELS, start=1)))
    now = [of_model("two", Verdict.NOT_FLAGGED)]
    names = [one.model.name for one in withdrawn(earlier, now)]
    assert names == ["one", "three"]
    gone = ("one 2.0.0 (int8 on CPU; live): triage.gpu-memory", "thr 1.0.0: model.crashed: dead")
    assert [one.model.name for one in withdrawn(earlier, now, gone)] == ["three"]
    assert withdrawn(None, now, gone) == []


@pytest.mark.parametrize(
    ("stage", "leaves", "reorders"),
    [("shadow", False, False), ("information", True, False), ("live", True, True), ("quarantined", False, False)],
)
def test_the_stage_that_a_model_had_when_it_judged_binds_what_is_said(stage: str, leaves: bool, reorders: bool) -> None:
    whole = result(finding(Verdict.FLAGGED, model=replace(MODEL, stage=stage)))
    some = Modes.of("live", {}, {})
    assert bool(some.permitted(whole, reorders=False).findings) == leaves
    assert bool(some.permitted(whole, reorders=True).findings) == reorders


def test_a_writer_is_bound_by_the_node_and_by_its_own_mode() -> None:
    some = Modes.of("information", {"hl7": "live", "evidence": "shadow"}, {})
    assert [some.of_writer(name) for name in ("hl7", "evidence", "ups")] == ["information", "shadow", "information"]


@pytest.mark.parametrize("options", [{"writer_modes": {"pigeon": "live"}}, {"model_modes": {"one": "loud"}}])
def test_a_mode_of_nobody_and_a_mode_that_is_none_are_told(options: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"pigeon is no writer|the mode of one"):
        Worklist.model_validate(options)
