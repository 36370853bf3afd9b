"""A peer that says exactly the bytes a test wants, in or out of protocol (PS3.8 9.3)."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Self

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ABORT = struct.pack(">BBLBBBB", 7, 0, 4, 0, 0, 0, 0)
RELEASE = struct.pack(">BBLL", 5, 0, 4, 0)
ACCEPTED, REJECTED, DATA, RELEASED, ABORTED = 2, 3, 4, 6, 7


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def request(
    calling: str = "CT1", called: str = "EDGENODE", contexts: dict[int, tuple[str, list[str]]] | None = None
) -> bytes:
    """An A-ASSOCIATE-RQ PDU."""
    proposed = b"".join(
        item(
            0x20, bytes([number, 0, 0, 0]) + item(0x30, name.encode()) + b"".join(item(0x40, s.encode()) for s in ways)
        )
        for number, (name, ways) in (contexts or {1: (CT, [EXPLICIT])}).items()
    )
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + proposed + user
    return struct.pack(">BBL", 1, 0, len(body)) + body


def pdv(control: int, data: bytes, context: int = 1) -> bytes:
    """A P-DATA-TF PDU with one PDV; `control`: 1 command, 2 last."""
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def store(instance: str = "1.2.3.4", *, data_set: bool = True) -> bytes:
    """A C-STORE-RQ, without its data set."""
    body = element(0x02, uid(CT)) + element(0x100, b"\1\0") + element(0x110, b"\7\0") + element(0x700, b"\0\0")
    body += element(0x800, b"\0\0" if data_set else b"\1\1") + element(0x1000, uid(instance))
    return pdv(3, element(0, struct.pack("<L", len(body))) + body)


class RawPeer:
    """One connection; reading stops at the end of the connection or after `patience_s`."""

    def __init__(self, port: int, *, patience_s: float = 8.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *parts: bytes) -> Self:
        """Send; a peer that hung up meanwhile is met when reading."""
        with suppress(OSError):
            self.socket.sendall(b"".join(parts))
        return self

    def hear(self) -> tuple[int, bytes]:
        """The next PDU: type and body; (0, b"") at the end of the connection. Raises TimeoutError."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", head)
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                return data
            data += part
        return data

    def associate(self, **words: object) -> Self:
        kind, _ = self.say(request(**words)).hear()  # type: ignore[arg-type]
        assert kind == ACCEPTED
        return self

    def status(self) -> int:
        """Status of the response that comes next."""
        kind, body = self.hear()
        assert kind == DATA, kind
        at = body.index(struct.pack("<HHL", 0, 0x900, 2)) + 8
        return int(struct.unpack_from("<H", body, at)[0])

    def ending(self) -> list[int]:
        """Types of the PDUs until the peer closes."""
        kinds = []
        while kind := self.hear()[0]:
            kinds.append(kind)
        return kinds
