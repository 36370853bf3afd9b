"""The socket of one association: read ahead in one buffer, deadlines for every PDU, acknowledged at once.

pynetdicom's own socket waits with `select` (which drops handles above 1,023), reads 4 KiB at a time and believes any
length it is told. This one blocks in the kernel, wakes once a second for the timers, and fills the caller's memory.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from typing import Any

from pynetdicom.transport import AssociationSocket

READ_AHEAD = 16_384
_ARM = getattr(socket, "TCP_QUICKACK", None)


class Closed(Exception):
    """The peer closed the connection."""


class TooSlow(Exception):
    """The peer began a PDU and did not end it in time."""


class Wire(AssociationSocket):  # type: ignore[misc]  # pynetdicom has no types
    """`tick_s` is how often `wait` comes back without a byte.

    Senders with Nagle's algorithm on (Debian's DCMTK, pynetdicom) wait for our delayed ACK after every PDU: QUICKACK
    must be armed again before each read because the kernel disarms it.
    """

    def __init__(self, assoc: Any, connection: socket.socket, tick_s: float) -> None:
        super().__init__(assoc, client_socket=connection)
        self._connection = connection
        self._ahead = memoryview(bytearray(READ_AHEAD))
        self._start = self._end = 0
        self.last_byte = time.monotonic()
        whole, part = divmod(tick_s, 1)
        # OpenSSL would read on after the kernel's time-out; Python's own ends its calls
        self._plain = not isinstance(connection, ssl.SSLSocket)
        connection.settimeout(None if self._plain else tick_s)
        interval = struct.pack("ll", int(whole), int(part * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _receive(self, *views: memoryview) -> int:
        """Bytes read, 0 after a tick without any. Raises Closed."""
        try:
            if _ARM is not None:
                self._connection.setsockopt(socket.IPPROTO_TCP, _ARM, 1)
            count = self._connection.recvmsg_into(views)[0] if len(views) > 1 else self._connection.recv_into(views[0])
        except (BlockingIOError, TimeoutError):
            return 0
        except OSError:
            raise Closed from None
        if not count:
            raise Closed
        self.last_byte = time.monotonic()
        return count

    def wait(self) -> bool:
        """Whether a byte is there; comes back after a tick. Raises Closed."""
        if self._start < self._end:
            return True
        self._start, self._end = 0, self._receive(self._ahead)
        return self._end > 0

    def read(self, count: int, deadline: float) -> bytes:
        """Exactly `count` bytes. Raises Closed, TooSlow."""
        if self._end - self._start >= count:
            self._start += count
            return bytes(self._ahead[self._start - count : self._start])
        data = bytearray(count)
        with memoryview(data) as view:
            if count >= READ_AHEAD:
                self.read_into(view, deadline)
            else:
                done = 0
                while done < count:
                    self._fill(deadline)
                    done += self._from_ahead(view[done:])
        return bytes(data)

    def _fill(self, deadline: float) -> None:
        while True:
            there = self.wait()
            if time.monotonic() > deadline:
                raise TooSlow
            if there:
                return

    @property
    def is_ahead(self) -> bool:
        """Whether bytes are here that nobody asked for yet."""
        return self._start < self._end

    def read_into(self, view: memoryview, deadline: float) -> None:
        """Fill `view`, straight from the socket but for what was read ahead. Raises Closed, TooSlow.

        What lies behind it on the wire, the head of the next PDU, is read ahead in the same call: each call gives the
        interpreter lock away, and to get it back among many associations costs more than the call.
        """
        done = self._from_ahead(view)
        while done < len(view):
            left = view[done:]
            count = self._receive(left, self._ahead) if self._plain else self._receive(left)
            if time.monotonic() > deadline:
                raise TooSlow
            if count > len(left):
                self._start, self._end = 0, count - len(left)
                count = len(left)
            done += count

    def _from_ahead(self, view: memoryview) -> int:
        """Fill `view` as far as what was read ahead goes; the number of bytes."""
        count = min(len(view), self._end - self._start)
        view[:count] = self._ahead[self._start : self._start + count]
        self._start += count
        return count

    def drop(self) -> int:
        """Forget what was read ahead; gives the number of bytes."""
        count = self._end - self._start
        self._start = self._end = 0
        return count

    def send(self, bytestream: bytes) -> None:
        """Send all of it; a peer that does not read for as long as the network time-out has closed."""
        deadline = time.monotonic() + (self.assoc.network_timeout or 60.0)
        view = memoryview(bytestream)
        while view:
            try:
                view = view[self._connection.send(view) :]
            except (BlockingIOError, TimeoutError):
                if time.monotonic() > deadline:
                    self.hang_up()
                    break
            except OSError:
                break
        if view:
            self.event_queue.put("Evt17")

    def say_goodbye(self) -> None:
        """Nothing more will be sent; the peer reads our last PDU and then the end."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def hang_up(self) -> None:
        """End the connection from any thread; whoever reads sees its end."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def finish(self) -> None:
        """Close the socket for good; nothing that was read ahead stays in memory."""
        self.hang_up()
        self._connection.close()
        self._ahead[:] = bytes(READ_AHEAD)
        self._is_connected = False
