"""When a study is complete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_node.config.schema import Settle
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
