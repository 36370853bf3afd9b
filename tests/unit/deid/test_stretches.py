"""What is remembered of stretches of bytes is what reading them anew gives, however the next object differs."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.deid import stretches
from edge_node.deid.stretches import LONGEST, LONGEST_ELEMENT, MOST_ALIKE, MOST_BYTES, MOST_READ, Stretches

Elements = list[bytes]


def element(kind: int, value: int, more: int = 0) -> bytes:
    return kind.to_bytes(7, "big") + bytes([more + 1, value]) + bytes(more)


def reading(known: Stretches[Elements], data: bytes, stop: int = -1) -> tuple[Elements, int]:
    """The elements of `data`, and how many were read one by one."""
    found: Elements = []
    alone = 0

    def one(at: int) -> int:
        nonlocal alone
        behind = at + 8 + data[at + 7]
        found.append(data[at:behind])
        alone += 1
        return behind

    assert known.walk(data, 0, len(data), one, found.extend, stop) == len(data)
    return found, alone


def divided(raw: bytes, count: int) -> Elements:
    found: Elements = []
    at = 0
    while at < len(raw):
        found.append(raw[at : at + 8 + raw[at + 7]])
        at += len(found[-1])
    assert len(found) == count >= stretches.SHORTEST
    return found


AN_ELEMENT = st.builds(element, st.integers(0, 12), st.integers(0, 3), st.integers(0, 2))


@settings(max_examples=300)
@given(st.lists(st.lists(AN_ELEMENT, max_size=30), max_size=12), st.integers(0, 300))
def test_objects_are_read_as_if_each_were_the_first(objects: list[Elements], stop: int) -> None:
    known = Stretches(divided)
    for one in [*objects, *objects]:
        assert reading(known, b"".join(one))[0] == one
        assert reading(known, b"".join(one), stop)[0] == one
    assert known._bytes == sum(len(one.raw) for some in known._known.values() for one in some)


def series(number: int, *, of: int = 40, varying: tuple[int, ...] = (3, 20)) -> Elements:
    return [element(kind, number % 256 if kind in varying else kind) for kind in range(of)]


@pytest.mark.parametrize("varying", [(0,), (39,), (3, 20), (0, 1, 2, 3, 4, 5), (5, 6, 7, 8, 30)])
def test_of_a_series_only_what_differs_is_read_again(varying: tuple[int, ...]) -> None:
    known = Stretches(divided)
    alone = [reading(known, b"".join(series(number, varying=varying)))[1] for number in range(200)]
    assert alone[0] == 40
    assert set(alone[-16:]) == {len(varying)}


def test_series_that_come_in_turns_do_not_take_each_others_place() -> None:
    known = Stretches(divided)
    alone = []
    for number in range(60):
        for patient in range(6):
            one = [element(kind, 100 + patient if 10 <= kind < 20 else kind) for kind in range(40)]
            one[25] = element(25, number)
            alone.append(reading(known, b"".join(one))[1])
    assert set(alone[-60:]) == {1}


def test_what_begins_alike_but_never_comes_again_is_not_kept_for_ever() -> None:
    known = Stretches(divided)
    for number in range(2000):
        reading(known, b"".join([element(1, number % 251), element(2, number % 241), element(3, number % 239)]))
    assert known._bytes <= 4 * MOST_ALIKE * 27
    assert max(map(len, known._known.values())) <= MOST_ALIKE


def test_what_is_kept_stays_small_and_long_elements_are_not_kept() -> None:
    known = Stretches(divided)
    for number in range(3000):
        begin = 100 * number
        reading(known, b"".join(element(begin + kind, 1, 200) for kind in range(10)))
        assert 0 <= known._bytes <= MOST_BYTES
    assert known._bytes == sum(len(one.raw) for some in known._known.values() for one in some)
    assert "bytes" in repr(known)
    assert len(repr(known)) < 40


def test_a_long_element_is_in_no_stretch() -> None:
    sizes = [8, 8, 8, LONGEST_ELEMENT + 1, 8, 8, 8]
    data = b"".join(number.to_bytes(2, "big") + bytes(size - 2) for number, size in enumerate(sizes))
    ends = [0, *accumulate(sizes)]
    known: Stretches[int] = Stretches(lambda raw, count: count)
    for expected in ([], [3, 3]):
        taken: list[int] = []
        known.walk(data, 0, len(data), lambda at: ends[ends.index(at) + 1], taken.append)
        assert taken == expected


def test_nothing_known_reaches_over_the_end_or_touches_where_something_is_left_out() -> None:
    known = Stretches(divided)
    data = b"".join(series(1))
    reading(known, data)
    taken: list[Elements] = []
    half = 20 * 9
    known.walk(data, 0, half, lambda at: at + 9, taken.append)
    assert taken == []
    assert reading(known, data, stop=half)[1] == 40
    reader = Stretches(divided)
    for _ in range(3):  # and what touches it is not kept either
        assert reading(reader, data, stop=half)[0] == series(1)
    kept = [one.raw for some in reader._known.values() for one in some]
    assert sorted(map(len, kept)) == [19 * 9, 19 * 9]


def test_what_shall_not_be_kept_is_read_each_time() -> None:
    known: Stretches[Elements] = Stretches(lambda raw, count: None)
    for _ in range(3):
        assert reading(known, b"".join(series(1)))[1] == 40


def test_what_is_read_one_by_one_for_long_is_left_to_be_read_at_once_and_not_learned() -> None:
    known = Stretches(divided)
    data = b"".join(element(number, 1) for number in range(3 * MOST_READ))
    read: list[int] = []

    def one(at: int) -> int:
        read.append(at)
        return at + 9

    assert known.walk(data, 0, len(data), one, list[Elements]().append) == 9 * MOST_READ
    assert len(read) == MOST_READ
    assert known._bytes == 0


def test_a_stretch_that_is_missed_again_and_again_in_one_object_is_compared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Stretches(divided)
    same = element(1, 1)
    reading(known, same * 100 + element(2, 2) * 3)
    looked = []
    pieces = stretches._pieces
    monkeypatch.setattr(stretches, "_pieces", lambda *of: looked.append(of) or pieces(*of))  # type: ignore[func-returns-value]
    reading(known, same * 300)
    assert len(looked) <= 2 * MOST_ALIKE


def test_no_stretch_is_longer_than_it_may_be_and_all_together_stay_small() -> None:
    known = Stretches(divided)
    for begin in range(0, 20_000, 500):
        reading(known, b"".join(element(begin + kind, 1, 240) for kind in range(500)))
        assert known._bytes <= MOST_BYTES
    assert max(len(one.raw) for some in known._known.values() for one in some) <= LONGEST
