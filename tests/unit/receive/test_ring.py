"""An object in memory that is too small for it: whatever is spilled, and wherever the rest lies, it is read whole."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.receive import landing
from edge_node.receive.landing import FIRST_WINDOW, MOST, USUAL, WINDOW, Arrival, Budget, Landing

SMALL = {"FIRST_WINDOW": 1000, "WINDOW": 4000, "USUAL": 16_000, "MOST": 64_000, "MAPPED": 5000}
STAMP = b"ZAPHOD^BEEBLEBROX"


def arrival_of(place: Landing) -> Arrival:
    """As it goes to a worker."""
    made = Arrival("1.2.840.10008.1.2.1", "1.2", "1.2.3", "CT1", "EDGENODE", "", 0.0, *place.handles())
    return pickle.loads(pickle.dumps(made))


def land(place: Landing, data: bytes, pdu: int) -> None:
    left = memoryview(data)
    while left:
        with place.room(min(pdu, len(left))) as room:
            count = len(room)
            assert 0 < count <= pdu
            room[:] = left[:count]
        place.took(count)
        left = left[count:]


def body(size: int, seed: int) -> bytes:
    numbers = b"".join(seed.to_bytes(2, "big") + at.to_bytes(4, "big") + STAMP for at in range(size // 23 + 1))
    return numbers[:size]


@contextmanager
def small() -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as now, tempfile.TemporaryDirectory() as folder:
        for name, value in SMALL.items():
            now.setattr(landing, name, value)
        yield Path(folder)


ACTIONS = st.one_of(
    st.tuples(st.just("object"), st.integers(0, 200_000)),
    st.tuples(st.just("broken off"), st.integers(1, 200_000)),
    st.tuples(st.just("memory goes"), st.integers(0, 100_000)),
    st.tuples(st.just("memory comes"), st.just(0)),
    st.tuples(st.just("silence"), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 130_000), st.lists(ACTIONS, min_size=1, max_size=8), st.integers(1, 9000), st.randoms())
def test_whatever_comes_and_whatever_memory_is_left_each_object_is_read_as_it_was_sent(
    size: int, actions: list[tuple[str, int]], pdu: int, random: object
) -> None:
    budget, gone = Budget(size), 0
    with small() as folder:
        place = Landing(folder, budget)
        for number, (what, much) in enumerate(actions):
            if what == "memory goes" and budget.take(much):
                gone += much
            elif what == "memory comes":
                budget.give_back(gone)
                gone = 0
            elif what == "silence":
                place.shrink()
            elif what in ("object", "broken off"):
                data = body(much, number)
                land(place, data, pdu)
                assert place.size == len(data)
                if what == "object":
                    read_back(arrival_of(place), data)
                place.clear()
            assert os.fstat(place._memory).st_size <= 1000 + max(0, size - gone) if place._memory >= 0 else True
        place.close()
        budget.give_back(gone)
        assert budget.take(size)
        assert not budget.take(1)
        assert list(folder.iterdir()) == []


def read_back(arrival: Arrival, data: bytes) -> None:
    assert arrival.size == len(data)
    with arrival.opened() as opened:
        source = opened.source
        assert source.read(0, len(data)) == data
        begin = arrival.size - arrival.in_memory
        for at in {0, 1, begin, begin + arrival.in_memory // 2, len(data) // 2, len(data)}:
            for length in (1, 30, 4000):
                for start in (max(0, at - length), at, max(0, at - length // 2)):
                    assert source.read(start, start + length) == data[start : start + length]
    if arrival.file >= 0:
        assert STAMP[:8] not in os.pread(arrival.file, 1 << 20, 0)


def test_memory_comes_back_while_an_object_comes_and_its_rest_lands_there() -> None:
    budget, data = Budget(128_000), body(300_000, 1)
    with small() as folder:
        assert budget.take(128_000 - 15_000)
        place = Landing(folder, budget)
        land(place, data[:50_000], 700)
        narrow = arrival_of(place)
        budget.give_back(128_000 - 15_000)
        land(place, data[50_000:], 700)
        wide = arrival_of(place)
        read_back(wide, data)
        assert (narrow.in_memory <= 16_000, 60_000 <= wide.in_memory <= 64_000) == (True, True)
        place.close()


def test_of_an_object_that_is_a_little_too_large_a_little_is_spilled(tmp_path: Path) -> None:
    place, data = Landing(tmp_path, Budget(256 << 20)), os.urandom(1 << 20) * 70
    land(place, data, 131_000)
    arrival = arrival_of(place)
    assert arrival.spilled is not None
    assert arrival.spilled.windows == (WINDOW, WINDOW)
    assert arrival.in_memory == (70 << 20) - 2 * WINDOW
    with arrival.opened() as opened:
        assert opened.source.read(0, len(data)) == data
    place.close()


def test_objects_of_usual_size_find_memory_beside_any_number_of_large_ones(tmp_path: Path) -> None:
    budget = Budget(256 << 20)
    large = [Landing(tmp_path, budget) for _ in range(5)]
    data = bytes(80 << 20)
    for place in large:
        land(place, data, 1 << 20)
    in_memory = [place.handles()[0] for place in large]
    assert in_memory[:3] == [MOST] * 3
    assert min(in_memory) >= USUAL - WINDOW
    usual = Landing(tmp_path, budget)
    land(usual, data[:USUAL], 1 << 20)
    assert usual.handles()[0] == USUAL
    for place in (*large, usual):
        place.close()
    assert budget.take(256 << 20)


def test_memory_of_a_large_object_is_given_back_when_nothing_comes(tmp_path: Path) -> None:
    budget = Budget(256 << 20)
    place = Landing(tmp_path, budget)
    land(place, bytes(70 << 20), 1 << 20)
    place.shrink()
    assert place.handles()[0] == (70 << 20) - 2 * WINDOW  # an object is there: nothing is taken from it
    place.clear()
    place.shrink()
    assert os.fstat(place.handles()[1]).st_size == FIRST_WINDOW
    assert budget.take(256 << 20)
    place.close()
