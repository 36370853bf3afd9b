"""What two sources say of one order, together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_node.domain.order import RANKS, Order, priority_of
from edge_node.worklist.priority import decide

orders = st.builds(Order, st.sampled_from(RANKS), st.sampled_from(["", "E", "I", "O"]))


@given(orders, orders)
def test_what_becomes_known_of_an_order_never_puts_a_study_back(one: Order, other: Order) -> None:
    both = one.with_(other)
    assert both == other.with_(one)
    assert both.with_(one) == both
    for each in (one, other):
        if each.patient_class or not both.patient_class:
            before, after = (
                decide(arrival=0.0, order=o.priority, patient_class=o.patient_class, finding=None) for o in (each, both)
            )
            assert (after.tier, after.due) <= (before.tier, before.due)


def test_the_words_of_an_order_are_those_of_the_standard_and_of_its_older_edition() -> None:
    words = ("STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW", "ASAP", "MED", "stat ", "x")
    meant = ["STAT", "URGENT", "ROUTINE", "URGENT", "ROUTINE", "STAT", "URGENT", "STAT", ""]
    assert [priority_of([word]) for word in words] == meant
    assert priority_of(["LOW", "STAT"]) == "STAT"
    assert priority_of([]) == ""
