"""An arrival that was spilled, read where it lies: sealed windows in a file without a name, the end in memory."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from edge_node.domain.body import Buffer, Source
from edge_node.domain.errors import Quarantine
from edge_node.store.seal import CHUNK, HEAD, SealedParts, sealed_length


class Spill:
    """A Source: a few chunks of it are in the clear at a time, and only in memory.

    `windows` are the plain lengths of the sealed windows in `file`, `context` names the one of a number.
    """

    def __init__(self, file: int, key: bytes, windows: tuple[int, ...], rest: Source) -> None:
        self._file = file
        self._rest = rest
        self._ends = list(accumulate(windows))
        self._key = key
        self._windows = windows
        self._places = [0, *accumulate(map(sealed_length, windows))]
        self._parts: dict[int, SealedParts] = {}  # opened when read: one bad window is one object's misfortune
        self._last: tuple[int, int, bytes] = (-1, -1, b"")

    @property
    def size(self) -> int:
        return self._ends[-1] + self._rest.size

    def read(self, start: int, stop: int) -> bytes:
        return b"".join(self.chunks(start, stop))

    def chunks(self, start: int, stop: int) -> Iterator[Buffer]:
        stop = min(stop, self.size)
        while start < min(stop, self._ends[-1]):
            window = bisect_right(self._ends, start)
            begin = self._ends[window - 1] if window else 0
            index, first = divmod(start - begin, CHUNK)
            piece = memoryview(self._opened(window, index))[first : first + stop - start]
            yield piece
            start += len(piece)
        if start < stop:
            yield from self._rest.chunks(start - self._ends[-1], stop - self._ends[-1])

    def _opened(self, window: int, index: int) -> bytes:
        """A chunk; the last one is kept, because heads of fragments are read one by one."""
        if self._last[:2] != (window, index):
            place = self._places[window]
            try:
                parts = self._parts.get(window)
                if parts is None:
                    head = os.pread(self._file, HEAD, place)
                    parts = self._parts[window] = SealedParts(self._key, head, self._windows[window], context(window))
                offset, length = parts.place(index)
                plain = parts.open(index, os.pread(self._file, length, place + offset))
            except Quarantine:  # our own file, in this very minute: the disk is at fault, not the object
                raise OSError("a spilled window does not open") from None
            self._last = window, index, plain
        return self._last[2]

    def __repr__(self) -> str:
        return f"<Spill {self.size} bytes>"


def context(number: int) -> str:
    """What a window is sealed as."""
    return f"arrival window {number}"
