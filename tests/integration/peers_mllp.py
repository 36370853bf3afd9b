"""An HL7 listener on loopback that acknowledges, refuses, stays silent or breaks off, message by message."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

Behaviour = Callable[[socket.socket, bytes], None]
FRAME = b"\x0b%b\x1c\r"


def acknowledgement(message: bytes, code: str, control_id: str | None = None, *, by: str = "|") -> bytes:
    """An ACK of `message` in its MLLP frame; `by` is the field separator it uses."""
    ours = message.decode().split("\r")[0].split("|")[9]
    header = by.join(["MSH", "^~\\&", "RIS", "H", "EDGE-NODE", "", "20261121103108+0000", "", "ACK^R01^ACK", "A1", "P"])
    rows = [header, by.join(["MSA", code, ours if control_id is None else control_id])]
    if code[1] != "A":
        rows.append(by.join(["ERR", "", "", "204^Unknown key identifier^HL70357", "E", "", "", "", "no such patient"]))
    return FRAME % ("\r".join(rows) + "\r").encode()


def answer(code: str, **change: str) -> Behaviour:
    """Acknowledge with `code`."""
    return lambda line, message: line.sendall(acknowledgement(message, code, **change))


def say(*pieces: bytes, pause: float = 0.0) -> Behaviour:
    """Send some bytes, whatever came in."""

    def act(line: socket.socket, _message: bytes) -> None:
        for piece in pieces:
            line.sendall(piece)
            time.sleep(pause)

    return act


def in_pieces(line: socket.socket, message: bytes) -> None:
    """Acknowledge a few bytes at a time."""
    whole = acknowledgement(message, "AA")
    for start in range(0, len(whole), 5):
        line.sendall(whole[start : start + 5])
        time.sleep(0.002)


def break_off(line: socket.socket, _message: bytes) -> None:
    """Close without a word."""
    line.close()


def stay_silent(_line: socket.socket, _message: bytes) -> None:
    """Say nothing and keep the connection."""


# What a listener may do instead of taking a message, and what the sender calls it.
NOT_TAKEN: dict[str, tuple[Behaviour, str]] = {
    "AE": (answer("AE"), "worklist.hl7-error"),
    "CE": (answer("CE"), "worklist.hl7-error"),
    "close": (break_off, "worklist.hl7-unavailable"),
    "silent": (stay_silent, "worklist.hl7-unavailable"),
    "garbage": (say(FRAME % b"hello"), "worklist.hl7-unavailable"),
    "unknown-code": (say(FRAME % b"MSH|^~\\&|RIS\rMSA|ZZ|1\r"), "worklist.hl7-unavailable"),
    "http": (say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "worklist.hl7-unavailable"),
    "wrong-id": (answer("AA", control_id="SOMEBODY"), "worklist.hl7-unavailable"),
}


class MllpListener:
    """Takes messages; the behaviours are used one a message, and the last one for all that follow."""

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self._behaviours = list(behaviours) or [answer("AA")]
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.messages: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> MllpListener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def rows(self, number: int = 0) -> dict[str, list[list[str]]]:
        """Fields of a message by segment name; field n of every segment but MSH is at n."""
        found: dict[str, list[list[str]]] = {}
        for row in self.messages[number].decode().rstrip("\r").split("\r"):
            fields = row.split("|")
            found.setdefault(fields[0], []).append(fields)
        return found

    def control_ids(self) -> Sequence[str]:
        return [self.rows(number)["MSH"][0][9] for number in range(len(self.messages))]

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        try:
            if self._tls is not None:
                line = self._tls.wrap_socket(line, server_side=True)
            buffer = b""
            while received := line.recv(65536):
                buffer += received
                while b"\x1c\r" in buffer:
                    block, buffer = buffer.split(b"\x1c\r", 1)
                    self.messages.append(block.removeprefix(b"\x0b"))
                    act = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
                    act(line, self.messages[-1])
        except OSError:
            return
