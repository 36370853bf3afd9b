"""Where the bytes of an object land while they arrive: memory only, and little of it.

Memory without a name (memfd) takes the bytes from the socket in one copy; a worker process reads them where they are.
It grows with its object. When it is full its oldest window is spilled to a file without a name, sealed under a key
that lives in this process and the worker's, and what comes next lands in its place: identity is never on the disk in
the clear, an object that never ends costs no more memory, and of one that is a little too large little is spilled.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_node.domain.announcement import Command, IdentifiedSignal
from edge_node.domain.body import Body, Memory, Slice, Source
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive.spill import Spill, context
from edge_node.store.seal import new_key, seal_chunks

FIRST_WINDOW = 1 << 20
USUAL = 16 << 20  # memory that an object may have as long as there is some
MOST = 64 << 20  # and what it may have as long as a quarter of all stays free
WINDOW = 4 << 20  # what is spilled at once; memory above it is a whole number of these
MAPPED = 1 << 20  # bytes above which a worker maps what came; to copy less is cheaper than to map it


class Budget:
    """Bytes of memory that all landing places together may have above their first megabyte."""

    def __init__(self, size: int) -> None:
        self._kept = size // 4
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int, *, unusual: bool = False) -> bool:
        """Whether `size` bytes were there to be had; a quarter of all is kept for objects of usual size."""
        with self._lock:
            if size > self._left - (self._kept if unusual else 0):
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


@dataclass(frozen=True, slots=True, repr=False)
class Spilled:
    """The sealed windows of a large object: key and plain length of each; they lie one behind the other.

    What comes behind them begins in memory at `begin`, and goes on at 0 where memory ends, at `end`.
    """

    key: bytes = field(repr=False)
    windows: tuple[int, ...]
    begin: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Arrival:
    """One object that came whole, as it is handed to a worker: what is said of it, and the handles of its bytes.

    `memory` holds the last `in_memory` bytes; what came before them is spilled in `file`, and says where they begin.
    """

    transfer_syntax: str
    sop_class: str
    sop_instance: str
    calling_ae: str
    called_ae: str
    peer: str
    received_at: float
    in_memory: int
    memory: int
    file: int = -1
    spilled: Spilled | None = None
    command: str = ""  # the DIMSE-N command of an announcement; "" for an object
    again: bool = False  # a worker died on it before

    @property
    def size(self) -> int:
        return self.in_memory + sum(self.spilled.windows if self.spilled else ())

    @contextmanager
    def opened(self) -> Iterator[IdentifiedInstance]:
        """The object with its bytes where they are; they can be read until the end of the block."""
        mapping, spilled = None, self.spilled
        begin, end = (spilled.begin, spilled.end) if spilled and spilled.begin else (0, self.in_memory)
        if self.in_memory > MAPPED:
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            mapping = mmap.mmap(self.memory, end, flags, mmap.PROT_READ)
        memory = Memory(mapping if mapping is not None else os.pread(self.memory, end, 0))
        try:
            source: Source = memory
            if spilled is not None:
                turned = max(0, begin + self.in_memory - end)
                rest = Body([Slice(memory, begin, begin + self.in_memory - turned), Slice(memory, 0, turned)])
                source = Spill(self.file, spilled.key, spilled.windows, rest)
            yield IdentifiedInstance(
                source,
                self.transfer_syntax,
                self.sop_class,
                self.sop_instance,
                self.calling_ae,
                self.called_ae,
                self.peer,
                self.received_at,
            )
        finally:
            # Closed, not only forgotten: the next object lands in the same memory, and nobody may read it as this one.
            with suppress(BufferError):  # a piece of it is in use by an error under way; it goes with that
                memory.close()
                if mapping is not None:
                    mapping.close()

    def signal(self) -> IdentifiedSignal:
        """The announcement with its attribute list."""
        with self.opened() as whole:
            attributes = whole.dataset
        return IdentifiedSignal(
            Command(self.command),
            attributes,
            self.transfer_syntax,
            self.sop_class,
            self.sop_instance,
            self.calling_ae,
            self.received_at,
            self.again,
        )

    def __repr__(self) -> str:
        return f"<Arrival {self.size} bytes>"


class Landing:
    """The landing place of one association: one object at a time, the memory used again for the next.

    The memory is a ring of windows: `begin` is where its oldest byte lies, and it only moves when a window is spilled.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._folder = folder
        self._budget = budget
        self._memory = -1
        self._map: mmap.mmap | None = None
        self._capacity = 0
        self._begin = 0
        self._used = 0
        self._file = -1
        self._key = b""
        self._windows: list[int] = []
        self._spilled = 0

    @property
    def size(self) -> int:
        """Bytes of the present object so far."""
        return self._spilled + self._used

    def room(self, wanted: int) -> memoryview:
        """Memory for the next bytes, at least one and at most `wanted`; `took` says how many were written.

        To be released before anything else is asked of this place.
        Raises OSError when there is no memory for the first window, or a window cannot be spilled.
        """
        self._ready()
        # A ring grows only where its end is the end of what it holds.
        while self._capacity - self._used < wanted and self._capacity < MOST and not self._begin:
            if not self._grows():
                break
        if self._used == self._capacity:
            self._spill()
        assert self._map is not None
        at = (self._begin + self._used) % self._capacity
        end = self._capacity if at >= self._begin else self._begin
        return memoryview(self._map)[at : min(end, at + wanted)]

    def took(self, count: int) -> None:
        """`count` bytes of the room are written."""
        self._used += count

    def handles(self) -> tuple[int, int, int, Spilled | None]:
        """`in_memory`, `memory`, `file`, `spilled` of an `Arrival`; valid until `clear`."""
        self._ready()
        spilled = Spilled(self._key, tuple(self._windows), self._begin, self._capacity) if self._windows else None
        return self._used, self._memory, self._file, spilled

    def clear(self) -> None:
        """Forget the present object; the memory stays for the next."""
        self._begin = self._used = self._spilled = 0
        self._windows, self._key = [], b""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def shrink(self) -> None:
        """Give memory above the first window back; called when nothing has come for a while and nothing is held."""
        above = self._capacity - FIRST_WINDOW
        if self._used == 0 and above > 0:
            with suppress(OSError):  # no memory for the smaller map beside the larger one: later
                self._resize(FIRST_WINDOW)
                self._budget.give_back(above)

    def close(self) -> None:
        """Give everything back."""
        self.clear()
        if self._map is not None:
            self._budget.give_back(self._capacity - FIRST_WINDOW)
            with suppress(BufferError):  # a view is still held by an error under way; it goes with that
                self._map.close()
            self._map = None
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _ready(self) -> None:
        if self._memory < 0:
            self._memory = os.memfd_create("arrival", os.MFD_CLOEXEC)
        if self._map is None:
            self._resize(FIRST_WINDOW)

    def _grows(self) -> bool:
        """Twice the memory, where budget and system allow it; else something is spilled."""
        more = self._capacity
        if not self._budget.take(more, unusual=self._capacity >= USUAL):
            return False
        try:
            self._resize(self._capacity + more)
        except OSError:
            self._budget.give_back(more)
            return False
        return True

    def _resize(self, capacity: int) -> None:
        """Raises OSError; the old memory is still there then, and whole: to touch a map beyond its file is death."""
        if capacity > self._capacity:
            os.ftruncate(self._memory, capacity)
        fresh = mmap.mmap(self._memory, capacity)
        if self._map is not None:
            self._map.close()
        if capacity < self._capacity:
            os.ftruncate(self._memory, capacity)
        self._map, self._capacity = fresh, capacity

    def _spill(self) -> None:
        """The oldest window of memory that is full. Raises OSError."""
        if self._file < 0:
            self._file, self._key = _nameless(self._folder), new_key()
        assert self._map is not None
        size = min(WINDOW, self._capacity)
        with memoryview(self._map) as whole, whole[self._begin : self._begin + size] as plain:
            for chunk in seal_chunks(self._key, plain, context(len(self._windows))):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(self._file, view) :]
        self._windows.append(size)
        self._spilled += size
        self._used -= size
        self._begin = (self._begin + size) % self._capacity


def _nameless(folder: Path) -> int:
    """A file that is gone when its last handle is."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system without O_TMPFILE
        handle, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        return handle
