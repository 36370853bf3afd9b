"""Who may hold how many associations, send how fast, and what is told of those who may not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_node.receive.admission import TOO_MANY, TOO_MANY_OF_SENDER, Pace, Places
from edge_node.receive.tally import MOST_ROWS, OTHERS, Tally


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), max_size=80), st.integers(1, 20), st.integers(0, 5))
def test_no_order_of_coming_and_going_breaks_a_limit_or_leaks_a_place(
    moves: list[tuple[str, bool]], most: int, of_one: int
) -> None:
    places, held = Places(most, of_one), dict.fromkeys("ABC", 0)
    for sender, comes in moves:
        if comes:
            held[sender] += places.take(sender) is None
        elif held[sender]:
            places.leave(sender)
            held[sender] -= 1
        assert sum(held.values()) <= most
        assert all(count <= (of_one or most) for count in held.values())
    for sender, count in held.items():
        for _ in range(count):
            places.leave(sender)
    assert places.take("new") is None


def test_the_last_places_are_for_senders_that_have_none() -> None:
    places = Places(16, 0)
    assert [places.take("greedy") for _ in range(15)] == [None] * 14 + [TOO_MANY_OF_SENDER]
    assert [places.take(name) for name in ("a", "b", "c")] == [None, None, TOO_MANY]


def test_a_sender_waits_for_as_long_as_its_bytes_were_too_many() -> None:
    pace = Pace(1000.0)
    assert pace.wait_s("a", 2000, 100.0) == 0.0  # a burst
    assert pace.wait_s("a", 500, 100.0) == 0.5
    assert pace.wait_s("b", 500, 100.0) == 0.0
    assert pace.wait_s("a", 10**9, 100.0) == Pace.LONGEST_WAIT_S
    assert Pace(0).wait_s("a", 10**9, 100.0) == 0.0


def test_senders_that_invent_names_do_not_fill_the_tally() -> None:
    tally = Tally()
    for number in range(MOST_ROWS + 50):
        tally.count(f"X{number}", "reason")
    tally.count("\x1b[31m\nX", "reason")
    rows = tally.rows()
    assert len(rows) == MOST_ROWS + 1
    assert rows[0] | {"last_at": 0} == {"from": OTHERS, "reason": "reason", "count": 51, "last_at": 0}
    assert Tally().count("", "reason") == 1
