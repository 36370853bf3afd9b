"""Which condition comes first, and what an association's objects may meet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_node.domain.selection import Condition, fates, first_fit, plain

NAMES = ("A", "B", "C")
some = st.frozensets(st.sampled_from(NAMES), max_size=2)
conditions = st.lists(st.builds(Condition, some, some, some), max_size=5)
universe = st.none() | st.frozensets(st.sampled_from(NAMES), min_size=1)


def test_the_first_that_fits_counts_and_what_is_left_out_fits_everything() -> None:
    listed = [Condition(plain(["CT1 "]), modalities=plain(["SR"])), Condition(plain(["CT1", " CT2"])), Condition()]
    assert first_fit(listed, "CT1", "X", "SR") == 0
    assert first_fit(listed, " CT1 ", "X", "CT") == 1
    assert first_fit(listed, "CT2", "X", "SR") == 1
    assert first_fit(listed, "ct1", "X", "SR") == 2
    assert first_fit(listed[:2], "PACS", "X", "SR") == 2


def test_an_object_without_a_modality_fits_no_condition_that_names_any() -> None:
    assert first_fit([Condition(modalities=plain(["CT"]))], "A", "B", "") == 1


@given(conditions, universe, universe)
def test_fates_are_what_trying_everything_gives(
    listed: list[Condition], calling: frozenset[str] | None, called: frozenset[str] | None
) -> None:
    callers, calls = calling or {*NAMES, "other"}, called or {*NAMES, "other"}
    tried = {
        frozenset(first_fit(listed, who, whom, what) for what in (*NAMES, "other")) for who in callers for whom in calls
    }
    assert fates(listed, calling=calling, called=called) == tried


def test_fates_are_quick_for_long_lists() -> None:
    listed = [Condition(frozenset(f"CT{n}{i}" for i in range(200)), modalities=frozenset({"CT"})) for n in range(50)]
    assert len(fates(listed)) == 51
