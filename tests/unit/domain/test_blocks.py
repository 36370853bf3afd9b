"""What a body is made of, read in the blocks it is sealed in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.domain.body import PIECE, Body, Buffer, Memory, Part, Slice
from edge_node.store.seal import CHUNK, seal_body, unseal


class Pieces:
    """A source that gives its bytes in pieces of a size of its own, each gone when the next is asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = data, step

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]

    def chunks(self, start: int, stop: int) -> Iterator[Buffer]:
        stop = min(stop, self.size)
        while start < stop:
            end = min(stop, start + self._step - start % self._step)
            piece = bytearray(self._data[start:end])
            yield piece
            piece[:] = b"\xee" * len(piece)
            start = end


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Body, bytes]:
    parts: list[Part] = []
    whole = b""
    for _ in range(draw(st.integers(0, 5))):
        data = draw(st.binary(min_size=0, max_size=60))
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, len(data)))
        kind = draw(st.sampled_from(["bytes", "memory", "pieces"]))
        source = Memory(data) if kind == "memory" else Pieces(data, draw(st.integers(1, 9)))
        parts.append(data[start:stop] if kind == "bytes" else Slice(source, start, stop))
        whole += data[start:stop]
    return Body(parts), whole


@given(bodies(), st.integers(1, 40))
def test_the_blocks_of_a_body_are_its_bytes_whatever_it_is_made_of(made: tuple[Body, bytes], size: int) -> None:
    body, whole = made
    assert [bytes(block) for block in body.blocks(size)] == [whole[at : at + size] for at in range(0, len(whole), size)]


def test_a_block_that_lies_in_one_piece_is_not_copied() -> None:
    data = bytearray(2 * PIECE + 5)
    body = Body([b"head", Slice(Memory(memoryview(data)), 0, len(data))])
    blocks = body.blocks(CHUNK)
    assert bytes(next(blocks)[:4]) == b"head"
    there = next(blocks)
    data[CHUNK - 4] = 7
    assert there[0] == 7


def test_a_source_that_ends_before_it_said_is_never_sealed_as_if_it_were_whole() -> None:
    short = Body([b"head", Slice(Memory(b"ab"), 0, 3)])
    with pytest.raises(ValueError, match="not as long"):
        list(seal_body(bytes(32), short, "x"))
    gone = Body([Slice(Memory(b"ab"), 2, 3)])
    with pytest.raises(ValueError, match="not as long"):
        list(seal_body(bytes(32), gone, "x"))


def test_a_large_body_of_many_pieces_comes_back_as_it_was() -> None:
    data = bytes(range(251)) * 8000
    body = Body([b"head", Slice(Pieces(data, CHUNK), 5, len(data)), b"tail"])
    sealed = b"".join(seal_body(bytes(32), body, "x"))
    assert unseal(bytes(32), sealed, "x") == b"head" + data[5:] + b"tail"
