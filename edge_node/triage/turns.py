"""Who runs next on a device that several studies want: the most urgent one, at every batch."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count


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
