"""One message to an HL7 listener over MLLP (release 1), in the clear or in TLS, and its acknowledgement."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_node.domain.errors import Quarantine, Retry
from edge_node.worklist.hl7 import Acknowledgement, read_acknowledgement

START, END = b"\x0b", b"\x1c\r"
MOST = 1 << 20  # bytes of an answer; a full one has some hundred
HINT = "edge-node doctor"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the HL7 listener is; `tls` is None for a connection in the clear."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    timeout_s: float

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def deliver(message: bytes, control_id: str, listener: Listener) -> Acknowledgement:
    """Send `message` and wait for the acknowledgement that names `control_id`; what is returned accepts it (AA or CA).

    `timeout_s` of the listener bounds all of it. Raises Retry ``worklist.hl7-unavailable`` (nobody there, connection
    broken, no acknowledgement of this message), Retry ``worklist.hl7-error`` for AE and CE, and Quarantine
    ``worklist.hl7-refused`` for AR and CR. Sending the same message again is harmless: its control ID is the same.
    """
    deadline = time.monotonic() + listener.timeout_s
    with _connection(listener) as line:
        try:
            line.sendall(START + message + END)
            answer = _acknowledgement(line, control_id, deadline, listener)
        except TimeoutError:
            raise _unavailable(listener, f"does not acknowledge within {listener.timeout_s:g} s") from None
        except OSError:
            raise _unavailable(listener, "broke the connection before it acknowledged") from None
    return _accepted(answer, listener)


def reach(listener: Listener) -> None:
    """Connect (and agree on TLS) without sending anything. Raises Retry ``worklist.hl7-unavailable``."""
    with _connection(listener):
        pass


@contextmanager
def _connection(listener: Listener) -> Iterator[socket.socket]:
    try:
        line = socket.create_connection((listener.host, listener.port), listener.timeout_s)
    except (OSError, UnicodeError):  # an unusable host name is a UnicodeError
        raise _unavailable(listener, "does not answer") from None
    with line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if listener.tls is None:
            yield line
            return
        try:
            secured = listener.tls.wrap_socket(line, server_hostname=listener.host)
        except (OSError, ValueError):
            raise _unavailable(listener, "and we do not agree on TLS") from None
        with secured:
            yield secured


def _acknowledgement(line: socket.socket, control_id: str, deadline: float, listener: Listener) -> Acknowledgement:
    """The first acknowledgement of our message; one of another message is passed over (MSA-2 alone decides)."""
    buffer = b""
    while True:
        while END[:1] in buffer:  # some leave out the CR
            block, buffer = buffer.split(END[:1], 1)
            answer = read_acknowledgement(block[block.rfind(START) + 1 :])
            if answer is None:
                raise _unavailable(listener, "answers with something that is no HL7 acknowledgement")
            if answer.control_id == control_id:
                return answer
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        line.settimeout(left)
        received = line.recv(65536)
        if not received:
            raise _unavailable(listener, "closed the connection before it acknowledged")
        buffer += received
        if len(buffer) > MOST:
            raise _unavailable(listener, "answers without end")


def _accepted(answer: Acknowledgement, listener: Listener) -> Acknowledgement:
    if answer.code in ("AA", "CA"):
        return answer
    error = f", error {answer.error} of HL7 table 0357" if answer.error else ""
    said = f"the HL7 listener at {listener} answers {answer.code}{error}"
    if answer.code in ("AE", "CE"):
        raise Retry("worklist.hl7-error", said, hint="ask its administrator with the time of this message")
    raise Quarantine("worklist.hl7-refused", said, hint="edge-node worklist show STUDY")


def _unavailable(listener: Listener, why: str) -> Retry:
    return Retry("worklist.hl7-unavailable", f"the HL7 listener at {listener} {why}", hint=HINT)
