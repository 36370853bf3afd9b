"""The TLS door of the receiver: handshakes outside the accept loop, bounded in number and time, and who may pass.

pynetdicom's own listener shakes hands where it accepts, so one silent connection locks everybody out. Here a thread
of its own shakes hands with each caller, and only then the receiver hears of the connection.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edge_node.config.schema import Tls
from edge_node.config.tls import listener_context

Adopt = Callable[[ssl.SSLSocket, Any], None]
Refused = Callable[[str], None]

LISTEN_BACKLOG = 128
MOST_HANDSHAKES = 128  # one more ends the oldest: an honest handshake takes milliseconds, the oldest is a silent one
MOST_OF_ONE_HOST = 32
POLL_S = 0.5


@dataclass(eq=False, slots=True)
class _Caller:
    """A connection that is shaking hands."""

    host: str
    connection: socket.socket
    evicted: bool = False

    def hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Clients:
    """Which client certificates may pass: SHA-256 fingerprints and ``CN=`` names; empty: all that the CA signed."""

    def __init__(self, allowed: list[str]) -> None:
        self._names = frozenset(item.removeprefix("CN=") for item in allowed if item.startswith("CN="))
        self._prints = frozenset(item.replace(":", "").lower() for item in allowed if not item.startswith("CN="))

    def admits(self, certificate: bytes, subject: Mapping[str, str]) -> bool:
        """Whether the holder of the DER `certificate` may connect; `subject` has its commonName."""
        if not self._names and not self._prints:
            return True
        return hashlib.sha256(certificate).hexdigest() in self._prints or subject.get("commonName", "") in self._names


class TlsListener:
    """Listens on `tls.port`, and hands `adopt` each connection that is encrypted and admitted.

    `admits_address` is asked before a handshake is spent; `refused(reason)` hears of everyone who was turned away:
    ``tls-address-not-allowed``, ``tls-too-many-handshakes``, ``tls-too-slow``, ``tls-not-tls``, ``tls-version``,
    ``tls-no-certificate``, ``tls-certificate-not-trusted``, ``tls-certificate-not-allowed``, ``tls-handshake-failed``,
    ``tls-closing``, ``tls-no-thread``.
    """

    def __init__(
        self, host: str, tls: Tls, adopt: Adopt, *, admits_address: Callable[[str], bool], refused: Refused
    ) -> None:
        self._host = host
        self._port = tls.port
        self._limit_s = tls.handshake_s
        self._context = listener_context(tls)
        self._clients = Clients(tls.allowed_clients)
        self._adopt = adopt
        self._admits_address = admits_address
        self._refused = refused
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._shaking: list[_Caller] = []
        self._closing = threading.Event()

    @property
    def port(self) -> int:
        """The port in use."""
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, self._port), family=family, backlog=LISTEN_BACKLOG)
        self._listener.settimeout(POLL_S)
        threading.Thread(target=self._accept_all, name="tls", daemon=True).start()

    def stop(self) -> None:
        """Take no more connections and end handshakes under way; connections handed on are not ours to end."""
        self._closing.set()
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            for caller in self._shaking:
                caller.hang_up()

    def _accept_all(self) -> None:
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                connection, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                self._closing.wait(0.1)  # out of handles, or closing: do not spin
                continue
            if not self._admits_address(str(address[0])):
                connection.close()
                self._refused("tls-address-not-allowed")
                continue
            caller = _Caller(str(address[0]), connection)
            self._make_room(caller.host)
            with self._lock:
                self._shaking.append(caller)
            shaking = threading.Thread(target=self._shake, args=(caller, address), name="tls-handshake", daemon=True)
            try:
                shaking.start()
            except RuntimeError:  # no memory for a thread, or too many: this one may come again, others shall find us
                with self._lock:
                    self._shaking.remove(caller)
                connection.close()
                self._refused("tls-no-thread")

    def _make_room(self, host: str) -> None:
        with self._lock:
            waiting = [caller for caller in self._shaking if not caller.evicted]
            own = [caller for caller in waiting if caller.host == host]
            oldest = own[0] if len(own) >= MOST_OF_ONE_HOST else waiting[0] if len(waiting) >= MOST_HANDSHAKES else None
            if oldest is not None:
                oldest.evicted = True
                oldest.hang_up()

    def _shake(self, caller: _Caller, address: Any) -> None:
        reason = ""
        try:
            caller.connection.settimeout(self._limit_s)  # of the whole handshake, not of each read
            encrypted = self._context.wrap_socket(caller.connection, server_side=True, do_handshake_on_connect=False)
            caller.connection = encrypted
            encrypted.do_handshake()
            if not self._may_pass(encrypted):
                reason = "tls-certificate-not-allowed"
        except TimeoutError:
            reason = "tls-too-slow"
        except OSError as error:
            reason = _reason(error)
        with self._lock:
            self._shaking.remove(caller)
        if caller.evicted:
            reason = "tls-too-many-handshakes"
        if reason or self._closing.is_set():
            caller.connection.close()
            self._refused(reason or "tls-closing")
            return
        try:
            self._adopt(encrypted, address)
        except RuntimeError:
            self._refused("tls-no-thread")

    def _may_pass(self, connection: ssl.SSLSocket) -> bool:
        certificate = connection.getpeercert(binary_form=True) or b""
        names = (connection.getpeercert() or {}).get("subject", ())
        return self._clients.admits(certificate, {pair[0]: pair[1] for part in names for pair in part})


_REASONS = {
    "HTTP_REQUEST": "tls-not-tls",
    "WRONG_VERSION_NUMBER": "tls-not-tls",
    "PACKET_LENGTH_TOO_LONG": "tls-not-tls",
    "RECORD_LAYER_FAILURE": "tls-not-tls",
    "UNSUPPORTED_PROTOCOL": "tls-version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls-no-certificate",
    "CERTIFICATE_VERIFY_FAILED": "tls-certificate-not-trusted",
}


def _reason(error: OSError) -> str:
    """A word for logs and counters; the text of the error may quote what the caller sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls-certificate-not-trusted"
    return _REASONS.get(getattr(error, "reason", None) or "", "tls-handshake-failed")
