"""Pixels by reference: what refers to the bytes that were received is what was received; all else is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid.samples import compare
from edge_node.domain.body import Body, Buffer, Memory, Part, Slice
from edge_node.domain.errors import Quarantine

PIXELS = bytes(range(1, 201)) * 2


class Untouched(Memory):
    """A source that nobody may read."""

    def read(self, start: int, stop: int) -> bytes:
        raise AssertionError("read")

    def chunks(self, start: int, stop: int) -> Iterator[Buffer]:
        raise AssertionError("read")


def same(before: Body, after: Body) -> bool:
    try:
        compare(before, after, 0, endless=False)
    except Quarantine as refused:
        return refused.code != "deid.pixel-data"
    return True


def test_the_same_bytes_of_the_same_source_need_not_be_read() -> None:
    source = Untouched(PIXELS)
    whole = Body([Slice(source, 10, 300)])
    assert same(whole, Body([Slice(source, 10, 300)]))
    assert same(whole, Body([Slice(source, 10, 11), Slice(source, 11, 299), Slice(source, 299, 300)]))


def test_another_place_of_the_same_source_is_read_and_refused_if_it_is_another() -> None:
    source = Memory(PIXELS)
    assert not same(Body([Slice(source, 0, 100)]), Body([Slice(source, 1, 101)]))
    assert same(Body([Slice(source, 0, 100)]), Body([Slice(source, 200, 300)]))  # the same samples once more
    for pieces in ([(0, 50), (51, 101)], [(0, 50), (49, 99)], [(50, 100), (0, 50)]):
        assert not same(Body([Slice(source, 0, 100)]), Body([Slice(source, *piece) for piece in pieces]))


def test_another_source_is_read_even_at_the_same_place() -> None:
    other = bytearray(PIXELS)
    received = Body([Slice(Memory(PIXELS), 0, 400)])
    assert same(received, Body([Slice(Memory(bytes(other)), 0, 400)]))
    other[399] ^= 1
    assert not same(received, Body([Slice(Memory(bytes(other)), 0, 400)]))


def test_bytes_that_the_source_has_not_are_no_proof() -> None:
    source = Memory(PIXELS)
    beyond = Slice(source, 300, len(PIXELS) + 1)
    assert not same(Body([beyond]), Body([beyond]))


def test_what_is_put_between_is_read() -> None:
    source = Memory(PIXELS)
    for between, good in ((PIXELS[100:108], True), (b"Kim^John", False)):
        assert (
            same(Body([Slice(source, 0, 400)]), Body([Slice(source, 0, 100), between, Slice(source, 108, 400)])) == good
        )


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Body, Body]:
    """Two of equal length from pieces of two sources that differ little, and of bytes."""
    sources = [Memory(PIXELS), Memory(bytes([*PIXELS[:150], 0, *PIXELS[151:]]))]

    def pieces() -> Body:
        parts: list[Part] = []
        at = 0
        while at < 200:
            stop = draw(st.integers(at + 1, 200))
            moved = draw(st.sampled_from([0, 0, 0, 0, 1, 200]))  # 200: the same samples elsewhere
            source = sources[draw(st.integers(0, 1))]
            part = Slice(source, at + moved, stop + moved)
            parts.append(part if draw(st.booleans()) else part.read())
            at = stop
        return Body(parts)

    return pieces(), pieces()


@given(bodies())
def test_by_reference_or_by_reading_the_verdict_is_that_of_the_bytes(pair: tuple[Body, Body]) -> None:
    before, after = pair
    assert same(before, after) == (before.whole() == after.whole())


def test_the_last_samples_that_are_turned_are_compared_too() -> None:
    source, samples = Memory(PIXELS[:11] + b"\0"), 11
    received = Body([Slice(source, 0, 12)])
    turned = Body([Slice(source, 0, 10), b"\0", Slice(source, 11, 12)])
    compare(received, turned, samples, endless=False, words=True)
    with pytest.raises(Quarantine):
        compare(
            received, Body([Slice(source, 0, 10), b"\0", Slice(source, 10, 11)]), samples, endless=False, words=True
        )
