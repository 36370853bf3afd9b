"""When a study is complete."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.config.load import ConfigInvalid, load
from edge_node.config.schema import Settle
from edge_node.domain.announcement import Announced
from edge_node.receive.settle import quiet_seconds, settlement
from edge_node.store.studies import Unsettled

CONFIG = Settle()


def test_the_longest_quiet_time_of_a_study_of_many_modalities_counts() -> None:
    assert quiet_seconds(CONFIG, ("CT",)) == 10
    assert quiet_seconds(CONFIG, ("CT", "CR")) == 10
    assert quiet_seconds(CONFIG, ("CT", "MR")) == 30
    assert quiet_seconds(CONFIG, ()) == 30


def test_a_study_that_never_falls_quiet_is_settled_as_incomplete_at_the_hard_cap() -> None:
    busy = Unsettled("S", 1, ("CT",), opened_at=0.0, last_received_at=1799.0)
    assert settlement(CONFIG, busy, 1799.5) is None
    capped = settlement(CONFIG, busy, 1800.0)
    assert capped is not None
    assert not capped.complete
    assert "incomplete" in capped.reason


def test_a_reopened_study_waits_its_quiet_time_again_however_old_it_is() -> None:
    reopened = Unsettled("S", 2, ("CT",), opened_at=10_000.0, last_received_at=10_000.0)
    assert settlement(CONFIG, reopened, 10_005.0) is None


@given(st.floats(0, 5000), st.floats(0, 5000), st.floats(0, 5000))
def test_a_settled_study_never_becomes_unsettled_by_waiting(opened: float, gap: float, wait: float) -> None:
    study = Unsettled("S", 1, ("CT",), opened_at=opened, last_received_at=opened + gap)
    now = opened + gap
    if settlement(CONFIG, study, now) is not None:
        assert settlement(CONFIG, study, now + wait) is not None


MAMMOGRAPHY = Settle(quiet_s=5, required_instances={"MG": 4}, missing_s=60)
CHEST = Settle(quiet_by_modality={}, quiet_s=5, required_series={"CT": "CT:20 CT:100 SR:1"}, missing_s=60)
STUDY = Unsettled("S", 1, ("MG",), opened_at=0.0, last_received_at=10.0)


def test_too_few_instances_of_a_modality_are_waited_for_and_then_said_to_be_missing() -> None:
    three = replace(STUDY, series=(("MG", 1), ("MG", 2)))
    assert settlement(MAMMOGRAPHY, three, 69.9) is None
    done = settlement(MAMMOGRAPHY, three, 70.0)
    assert done is not None
    assert (done.complete, done.reason) == (False, "lacks 1 of 4 MG after 60 s, incomplete")
    assert done.detail["lacks"] == "1 of 4 MG"
    four = replace(STUDY, series=(("MG", 2), ("MG", 2)))
    assert settlement(MAMMOGRAPHY, four, 14.9) is None  # more may come: the quiet time counts
    done = settlement(MAMMOGRAPHY, four, 15.0)
    assert done is not None
    assert done.complete


@pytest.mark.parametrize(
    ("series", "lacks"),
    [
        ((("CT", 120), ("CT", 30), ("SR", 1)), None),
        ((("CT", 120), ("CT", 200), ("SR", 1)), None),
        ((("CT", 120), ("CT", 19), ("SR", 1)), "a series CT:100"),
        ((("CT", 120), ("SR", 1)), "a series CT:100"),
        ((("CT", 30), ("CT", 30), ("SR", 1)), "a series CT:100"),
        ((("CT", 120), ("CT", 20)), "a series SR:1"),
        ((("CT", 120), ("CT", 20), ("SEG", 1)), "a series SR:1"),
    ],
)
def test_each_required_series_needs_a_series_of_its_own(series: tuple[tuple[str, int], ...], lacks: str | None) -> None:
    study = Unsettled("S", 1, ("CT",), opened_at=0.0, last_received_at=10.0, series=series)
    done = settlement(CHEST, study, 100.0)
    assert done is not None
    assert (done.complete, done.detail.get("lacks")) == (lacks is None, lacks)


@pytest.mark.parametrize(
    ("revision", "said", "reason"),
    [
        (1, Announced(steps=1, listed=1), "step completed, all 1 announced came"),
        # A scout's own step says nothing of what came with it; of what came before it was reopened, quiet time did.
        (1, Announced(steps=1, listed=1, unlisted=299, unlisted_now=299), None),
        (2, Announced(steps=1, listed=1, unlisted=299), "step completed, all 1 announced came"),
        (2, Announced(steps=1, listed=1, unlisted=300, unlisted_now=1), None),
        (1, Announced(steps=1, notices=1, listed=2, unlisted=1), None),
    ],
)
def test_a_step_speaks_for_a_study_only_if_the_steps_list_all_of_it(
    revision: int, said: Announced, reason: str | None
) -> None:
    study = replace(STUDY, revision=revision, announced=said)
    done = settlement(CONFIG, study, 10.0)
    assert (done and done.reason) == reason


def test_what_the_site_requires_outweighs_what_a_step_says() -> None:
    said = Announced(steps=1, listed=2, changed_at=10.0)
    short = replace(STUDY, series=(("MG", 2),), announced=said)
    assert settlement(MAMMOGRAPHY, short, 20.0) is None
    assert settlement(Settle(quiet_s=30), short, 10.0) is not None


def test_a_study_whose_step_goes_on_may_be_given_more_time() -> None:
    scanning = replace(STUDY, announced=Announced(steps=1, open_steps=1))
    config = Settle(quiet_s=5, in_progress_s=300)
    assert settlement(config, scanning, 309.0) is None
    done = settlement(config, scanning, 310.0)
    assert done is not None
    assert done.reason == "quiet for 5 s, step in progress"


def test_missing_images_do_not_hold_a_study_beyond_the_hard_cap() -> None:
    waiting = replace(STUDY, last_received_at=1790.0, announced=Announced(steps=1, listed=5, missing=1, changed_at=1.0))
    assert settlement(CONFIG, waiting, 1799.0) is None
    done = settlement(CONFIG, waiting, 1800.0)
    assert done is not None
    assert not done.complete


def test_a_word_that_came_late_begins_the_wait_anew() -> None:
    waiting = replace(STUDY, announced=Announced(steps=1, listed=5, missing=1, changed_at=500.0))
    assert settlement(CONFIG, waiting, 619.0) is None
    assert settlement(CONFIG, waiting, 620.0) is not None


@given(
    st.builds(
        Announced,
        steps=st.integers(0, 3),
        open_steps=st.integers(0, 1),
        notices=st.integers(0, 2),
        listed=st.integers(0, 5),
        missing=st.integers(0, 5),
        unlisted=st.integers(0, 2),
        unlisted_now=st.integers(0, 2),
        changed_at=st.floats(0, 3000),
    ),
    st.integers(1, 3),
    st.floats(0, 4000),
)
def test_whatever_is_announced_a_study_settles_by_its_hard_cap_and_never_whole_with_images_missing(
    said: Announced, revision: int, now: float
) -> None:
    study = replace(STUDY, revision=revision, announced=said)
    done = settlement(CONFIG, study, now)
    if done is not None and done.complete:
        assert not said.missing
    assert settlement(CONFIG, study, 1800.0 + now) is not None


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({"settle.required_series": {"CT": "20 CT"}}, "MODALITY:FEWEST_INSTANCES"),
        ({"settle.required_instances": {"MG": 0.5}}, "whole number"),
        ({"settle.signals": ["hl7"]}, "settle.signals"),
    ],
)
def test_a_policy_that_cannot_hold_is_refused(flags: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigInvalid, match=names):
        load(environ={}, flags=flags)
