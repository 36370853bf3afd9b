"""What an HTTP sender may cost: time for its headers, a least pace for its body, bytes in all."""

from __future__ import annotations

import io
import socket
import time
from typing import Any

HEADER_S = 10.0
MOST_HEADER_BYTES = 1 << 17  # what is read ahead of the body counts too
GRACE_S = 30.0
LEAST_PACE = 1000.0  # bytes a second, on average after the grace


class TooMuch(Exception):
    """The sender sent more than it may."""


class BoundedLine(io.RawIOBase):
    """Reads a connection within the limits of the present phase. Raises TimeoutError, TooMuch."""

    def __init__(self, connection: socket.socket, idle_s: float) -> None:
        super().__init__()
        self._connection = connection
        self._idle_s = idle_s
        self.begin_headers()

    def begin_headers(self) -> None:
        """The next request: all of its headers within HEADER_S."""
        self._started, self._got = time.monotonic(), 0
        self._left, self._deadline = MOST_HEADER_BYTES, self._started + HEADER_S

    def begin_body(self, limit: int) -> None:
        """At most `limit` bytes, no silence longer than the idle time, and not slower than LEAST_PACE."""
        self._started, self._got = time.monotonic(), 0
        self._left, self._deadline = limit, float("inf")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise TooMuch
        now = time.monotonic()
        slow = now - self._started > GRACE_S and self._got < LEAST_PACE * (now - self._started)
        if now >= self._deadline or (slow and self._deadline == float("inf")):
            raise TimeoutError
        self._connection.settimeout(min(self._idle_s, self._deadline - now))
        count = self._connection.recv_into(buffer)
        self._left -= count
        self._got += count
        return count
