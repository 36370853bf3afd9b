"""Who runs next on a device that several studies want, and who goes on meanwhile: the most urgent one."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final, TypeVar


class Turns:
    """A lock that goes to the most urgent waiter (smallest number), among equals to the one who came first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._order = count()

    @contextmanager
    def take(self, urgency: float, limit_s: float | None = None) -> Iterator[float]:
        """Hold the turn; yields the seconds left of `limit_s`. Raises TimeoutError when it does not come in that time;
        None waits for ever."""
        end = time.monotonic() + (limit_s or 0.0)
        mine = (urgency, next(self._order), threading.Event())
        with self._lock:
            if self._taken:
                heapq.heappush(self._waiting, mine)
            else:
                self._taken = True
                mine[2].set()
        if not mine[2].wait(limit_s if limit_s is None else max(0.0, limit_s)):
            with self._lock:
                if not mine[2].is_set():
                    self._waiting.remove(mine)
                    heapq.heapify(self._waiting)
                    raise TimeoutError
        try:
            yield end - time.monotonic()
        finally:
            with self._lock:
                if self._waiting:
                    heapq.heappop(self._waiting)[2].set()
                else:
                    self._taken = False


Item = TypeVar("Item")
GIVEN_WAY_S: Final = 10.0  # of one study, for all more urgent ones together


class _Mine(threading.local):
    """Of one thread: the blocks it is in, and the study it may not begin with yet: its urgency, since when."""

    def __init__(self) -> None:
        self.blocks: dict[float, Callable[[], None]] = {}
        self.waits: tuple[float, float] | None = None


class Precedence:
    """Studies that are judged at once share the processors: while a more urgent one is under way, the others wait where
    they can, but never for long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: list[float] = []
        self._mine = _Mine()

    def may_begin(self, urgency: float | None) -> bool:
        """Whether the thread that asks may begin with a study of this urgency: when nothing more urgent is under way,
        or it has not been allowed to for long. What it waited its study need not wait again, and more urgent ones it
        judged meanwhile do not make the time start anew. None: there is no study."""
        if urgency is None:
            self._mine.waits = None
            return False
        if urgency <= min(self._under_way, default=urgency):
            return True
        if self._mine.waits is None:
            self._mine.waits = (urgency, time.monotonic())
        return self._waited() >= GIVEN_WAY_S

    def _waited(self) -> float:
        return 0.0 if self._mine.waits is None else time.monotonic() - self._mine.waits[1]

    @contextmanager
    def judging(self, urgency: float) -> Iterator[Callable[[], None]]:
        """A study is under way until the end of the block; what is yielded is to be called where it can wait. A block
        within another of the same thread and urgency is about the same study."""
        outer = self._mine.blocks
        if urgency in outer:
            yield outer[urgency]
            return
        with self._another(urgency) as give_way:
            self._mine.blocks = {**outer, urgency: give_way}
            try:
                yield give_way
            finally:
                self._mine.blocks = outer

    @contextmanager
    def _another(self, urgency: float) -> Iterator[Callable[[], None]]:
        left = GIVEN_WAY_S
        if self._mine.waits is not None and urgency >= self._mine.waits[0]:  # this one has waited, no other
            left -= self._waited()
            self._mine.waits = None

        def give_way() -> None:
            nonlocal left
            if urgency <= min(self._under_way):  # the usual case, without the lock
                return
            began = time.monotonic()
            with self._changed:
                self._changed.wait_for(lambda: urgency <= min(self._under_way), max(0.0, left))
            left -= time.monotonic() - began

        with self._changed:
            self._under_way = [*self._under_way, urgency]
        try:
            yield give_way
        finally:
            with self._changed:
                others = list(self._under_way)
                others.remove(urgency)
                self._under_way = others
                self._changed.notify_all()


def politely(items: Iterable[Item], give_way: Callable[[], None]) -> Iterator[Item]:
    """The items, each when nothing more urgent is under way."""
    for item in items:
        give_way()
        yield item
