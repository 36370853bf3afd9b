"""An arrival read where it lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from edge_node.domain.body import PIECE, Memory
from edge_node.receive.spill import Spill, context
from edge_node.store.seal import CHUNK, seal_chunks

KEY = bytes(range(32))
WINDOWS = (CHUNK * 2 + 5, CHUNK - 1)


def plain(size: int, seed: int) -> bytes:
    return bytes((seed + at) % 251 for at in range(size))


PARTS = [plain(size, seed) for seed, size in enumerate(WINDOWS)]
REST = b"the end"


@pytest.fixture
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as handle:
        for number, part in enumerate(PARTS):
            for piece in seal_chunks(KEY, part, context(number)):
                handle.write(piece)
        handle.flush()
        yield handle.fileno()


def test_any_range_of_it_is_what_was_sent(file: int) -> None:
    whole = b"".join([*PARTS, REST])
    spill = Spill(file, KEY, WINDOWS, Memory(REST))
    edges = sorted({0, 1, CHUNK, CHUNK + 1, WINDOWS[0] - 1, WINDOWS[0], WINDOWS[0] + 1, len(whole) - 8, len(whole)})
    for start in edges:
        for stop in edges:
            assert spill.read(start, stop) == whole[start:stop]


def test_a_window_that_does_not_open_is_an_error_of_who_reads_it_and_of_nobody_else(file: int) -> None:
    os.pwrite(file, b"\0" * 40, 0)
    spill = Spill(file, KEY, WINDOWS, Memory(REST))
    assert spill.read(WINDOWS[0], spill.size) == PARTS[1] + REST
    with pytest.raises(OSError, match="does not open"):
        spill.read(0, 1)


def test_memory_that_was_given_back_is_not_read_as_the_next_object() -> None:
    memory = Memory(bytearray(PIECE + 3))
    pieces = memory.chunks(0, memory.size)
    assert len(bytes(next(pieces))) == PIECE
    memory.close()
    with pytest.raises(ValueError, match="released"):
        memory.read(0, 1)
    with pytest.raises(ValueError, match="released"):
        list(memory.chunks(0, 1))
