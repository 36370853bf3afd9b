"""Bytes that need not be in memory: what was received stays where it landed, what is made of it refers to it.

A `Source` holds bytes somewhere (a mapping, a sealed spill); a `Body` is an object as it will be written: new bytes and
references, one behind the other. A multi-frame of gigabytes costs kilobytes that way, and nothing is copied twice.
"""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

Buffer = bytes | bytearray | memoryview
PIECE = 1 << 20  # bytes that are handled at once


class Source(Protocol):
    """Bytes that do not change while they are read."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes:
        """A copy of some bytes; fewer where the source ends."""
        ...

    def chunks(self, start: int, stop: int) -> Iterator[Buffer]:
        """The same bytes piece by piece, not copied where that can be; a piece is valid until the next is asked for."""
        ...


class Memory:
    """A Source in memory: bytes, or a mapping of memory that somebody else filled."""

    __slots__ = ("_data", "_view")

    def __init__(self, data: bytes | memoryview | mmap.mmap) -> None:
        self._data = data
        self._view = memoryview(data)

    @property
    def size(self) -> int:
        return len(self._view)

    def read(self, start: int, stop: int) -> bytes:
        view = self._view[start:stop]
        # Of bytes all is no copy; the view was asked first because it knows whether this is closed.
        return self._data[start:stop] if isinstance(self._data, bytes) else bytes(view)

    def chunks(self, start: int, stop: int) -> Iterator[Buffer]:
        view = self._view[start:stop]
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]

    def close(self) -> None:
        """Give the memory back; who reads from here on gets a ValueError."""
        self._view.release()

    def __reduce__(self) -> tuple[type[Memory], tuple[bytes]]:
        return Memory, (bytes(self._view),)

    def __repr__(self) -> str:
        return f"<Memory {self.size} bytes>"


@dataclass(frozen=True, slots=True, repr=False)
class Slice:
    """Some bytes of a source, by reference."""

    source: Source
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def startswith(self, prefix: bytes, /) -> bool:
        return len(self) >= len(prefix) and self.source.read(self.start, self.start + len(prefix)) == prefix

    def read(self) -> bytes:
        """A copy of all of it."""
        return self.source.read(self.start, self.stop)

    def __repr__(self) -> str:
        return f"<Slice {len(self)} bytes>"


Part = bytes | Slice


class Body:
    """Parts, one behind the other, as one object; a Source itself. Equal to another one of equal bytes."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self._ends = list(accumulate(map(len, self.parts)))
        self._sha256 = ""

    @property
    def size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, stop: int) -> bytes:
        return b"".join(self.chunks(start, stop))

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[Buffer]:
        stop = self.size if stop is None else min(stop, self.size)
        number = bisect_right(self._ends, start)
        while start < stop:
            part, end = self.parts[number], self._ends[number]
            first = start - (end - len(part))
            last = min(stop, end) - (end - len(part))
            if isinstance(part, bytes):
                yield memoryview(part)[first:last]
            else:
                yield from part.source.chunks(part.start + first, part.start + last)
            start, number = end, number + 1

    def slices(self, start: int, stop: int) -> list[Part]:
        """Some bytes of it by reference."""
        found: list[Part] = []
        number = bisect_right(self._ends, start)
        while start < stop:
            part, end = self.parts[number], self._ends[number]
            first, last = start - (end - len(part)), min(stop, end) - (end - len(part))
            if isinstance(part, bytes):
                found.append(part[first:last])
            else:
                found.append(Slice(part.source, part.start + first, part.start + last))
            start, number = end, number + 1
        return found

    def blocks(self, size: int) -> Iterator[Buffer]:
        """All bytes in blocks of `size`, the last one shorter; copied only where a block is made of several pieces."""
        for at in range(0, self.size, size):
            # Each block is asked for by itself, so that the pieces of a source begin where the block does.
            stop = min(at + size, self.size)
            pieces = self.chunks(at, stop)
            first = next(pieces, b"")
            if len(first) == stop - at:
                yield first
                continue
            block = bytearray(first)
            for piece in pieces:
                block += piece
            yield block

    @property
    def sha256(self) -> str:
        """Hash (hex) of all bytes."""
        if not self._sha256:
            engine = hashlib.sha256()
            for chunk in self.chunks():
                engine.update(chunk)
            self._sha256 = engine.hexdigest()
        return self._sha256

    def whole(self) -> bytes:
        """All of it in memory."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], bytes) else self.read(0, self.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.size == other.size and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"<Body {self.size} bytes>"
