"""How much an archive may send us at once: pynetdicom keeps a message in memory however long it grows."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

LONGEST_PDU = 1 << 20  # we announce 128 KiB; some send a little more
MOST_ANSWERS = 256 << 20  # of a query


class Meter:
    """Counts what comes on an association; beyond `most` bytes without `taken`, or in too long a PDU, it is cut off."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._came = 0
        self.cut = False

    def taken(self) -> None:
        """An object is whole and is no longer in our way."""
        self._came = 0

    def watch(self, event: Any) -> None:
        """As the connection opens: before each read, not after it, because it is the read that takes the memory."""
        line = event.assoc.dul.socket
        read = line.recv

        def recv(size: int) -> bytearray:
            self._came += size
            if size > LONGEST_PDU or self._came > self._most:
                self.cut = True
                with suppress(OSError):
                    line.socket.shutdown(socket.SHUT_RDWR)
                raise OSError("more than we take")
            return bytearray(read(size))

        line.recv = recv
