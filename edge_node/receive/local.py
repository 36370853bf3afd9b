"""The local door: other processes of this machine hand instances to the running receiver, and hear its receipt.

A socket in the data folder, for the node's own user and root. An association over loopback would say less (a C-STORE
status does not tell stored from quarantined) and would need an AE title, a certificate and a place of its own among
the senders. The bytes come as sealed memory without a name: nothing is copied to a disk, and nobody can change them
while a worker reads.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.receive.landing import Arrival
from edge_node.store.receipt import Receipt, Received

log = structlog.get_logger()

Accept = Callable[[Arrival], Receipt]
Tell = Callable[[str, dict[str, Any]], None]

SOCKET = "receive.socket"
MOST_CALLERS = 64
LONGEST_MESSAGE = 8192
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_WORDS = ("transfer_syntax", "sop_class", "sop_instance", "calling_ae", "called_ae", "peer")


@dataclass(frozen=True, slots=True, repr=False)
class Offer:
    """One instance to hand in: what a C-STORE request would say of it, and the handle of its data set's bytes."""

    transfer_syntax: str
    sop_class: str
    sop_instance: str
    calling_ae: str
    called_ae: str
    peer: str
    memory: int

    def __repr__(self) -> str:
        return "<Offer>"


@contextmanager
def nameless_memory() -> Iterator[int]:
    """The handle of memory to write a data set to; it is gone with the handle."""
    memory = os.memfd_create("offer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        yield memory
    finally:
        os.close(memory)


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """The socket's name by a handle of its folder: a path of a socket may have 107 bytes, a data folder more."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)


class LocalDoor:
    """Serves the socket in `folder`. `accept` makes an instance durable or raises; `has_room` guards the reserve.

    `largest` is the most bytes an instance may have; `tell(about, facts)` hears what callers say of themselves.
    """

    def __init__(self, folder: Path, accept: Accept, *, has_room: Callable[[], bool], largest: int, tell: Tell) -> None:
        self._folder = folder
        self._accept = accept
        self._has_room = has_room
        self._largest = largest
        self._tell = tell
        self._callers: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._busy = 0
        self._idle = threading.Condition()
        self._draining = False

    def start(self) -> None:
        """Listen; a socket that a predecessor left is replaced. Raises OSError."""
        with suppress(FileNotFoundError):
            (self._folder / SOCKET).unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _address(self._folder) as name:
            self._listener.bind(name)
            os.chmod(name, 0o600)  # noqa: PTH101  before listen: nobody can be waiting yet
        self._listener.listen(MOST_CALLERS)
        threading.Thread(target=self._accept_all, args=(self._listener,), name="local-door", daemon=True).start()

    def stop(self, drain_s: float) -> None:
        """Take nothing new, and let what is under way finish for up to `drain_s` seconds."""
        with self._idle:
            self._draining = True
            self._idle.wait_for(lambda: not self._busy, drain_s)
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            (self._folder / SOCKET).unlink(missing_ok=True)
        with self._idle:
            for caller in self._callers:
                with suppress(OSError):
                    caller.shutdown(socket.SHUT_RDWR)

    def _accept_all(self, listener: socket.socket) -> None:
        while not self._draining:
            try:
                caller, _ = listener.accept()
            except OSError:
                time.sleep(0.05)  # out of handles, or closing: do not spin
                continue
            _, user, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            with self._idle:
                welcome = user in (0, os.geteuid()) and len(self._callers) < MOST_CALLERS
                if welcome:
                    self._callers.add(caller)
            if not welcome:
                caller.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(caller,), name="local-caller", daemon=True).start()
            except RuntimeError:  # no memory for a thread, or too many: the caller comes again
                log.warning("local-door.no-thread")
                with self._idle:
                    self._callers.discard(caller)
                caller.close()

    def _serve(self, caller: socket.socket) -> None:
        try:
            with caller:
                while True:
                    message, handles, _, _ = socket.recv_fds(caller, LONGEST_MESSAGE, 1)
                    try:
                        if not message:
                            return
                        caller.send(json.dumps(self._answer(json.loads(message), handles)).encode())
                    finally:
                        for handle in handles:
                            os.close(handle)
        except (OSError, ValueError, LookupError, TypeError):
            log.warning("local-door.broken-call")
        finally:
            with self._idle:
                self._callers.discard(caller)

    def _answer(self, message: dict[str, Any], handles: list[int]) -> list[str]:
        if "about" in message:
            self._tell(str(message["about"]), dict(message["facts"]))
            return ["told"]
        try:
            receipt = self._counted(message, handles)
        except EdgeNodeError as error:
            kind = "retry" if isinstance(error, Retry) else "error"
            return [kind, error.code, error.message, error.hint]
        return ["receipt", str(receipt.received), receipt.study_key, receipt.code]

    def _counted(self, message: dict[str, Any], handles: list[int]) -> Receipt:
        with self._idle:
            if self._draining:
                raise Retry("receive.stopping", "the receiver is stopping", hint="it starts again by itself")
            self._busy += 1
        try:
            return self._take(message, handles[0])
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _take(self, message: dict[str, Any], memory: int) -> Receipt:
        size = os.fstat(memory).st_size
        if fcntl.fcntl(memory, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("the memory could still change")
        if size > self._largest:
            raise EdgeNodeError(
                "receive.too-large",
                "the object is larger than [receive] max_object_mb",
                hint="raise receive.max_object_mb",
            )
        if not self._has_room():
            raise Retry(
                "receive.no-room",
                "less disk is free than [storage] reserve_mb",
                hint="free space; the receiver goes on by itself",
            )
        head: dict[str, Any] = {word: str(message[word]) for word in _WORDS}
        return self._accept(Arrival(**head, received_at=time.time(), in_memory=size, memory=memory))


class LocalSender:
    """Hands instances to the receiver whose data folder is `folder`; one caller at a time. Connects when needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._line: socket.socket | None = None

    def give(self, offer: Offer) -> Receipt:
        """Block until the instance is durable. Raises what the receiver raised, Retry("receive.not-running")."""
        fcntl.fcntl(offer.memory, fcntl.F_ADD_SEALS, _SEALS)
        kind, *words = self._call({word: getattr(offer, word) for word in _WORDS}, [offer.memory])
        if kind == "receipt":
            return Receipt(Received(words[0]), words[1], words[2])
        raise (Retry if kind == "retry" else EdgeNodeError)(words[0], words[1], hint=words[2])

    def tell(self, about: str, facts: dict[str, Any]) -> None:
        """Facts for `edge-node status`, no PHI. Raises Retry("receive.not-running")."""
        self._call({"about": about, "facts": facts}, [])

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _call(self, message: dict[str, Any], handles: list[int]) -> list[str]:
        try:
            if self._line is None:
                self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with _address(self._folder) as name:
                    self._line.connect(name)
            socket.send_fds(self._line, [json.dumps(message).encode()], handles)
            answer = self._line.recv(LONGEST_MESSAGE)
            if not answer:
                raise ConnectionResetError
            return list(json.loads(answer))
        except PermissionError:
            self.close()
            raise EdgeNodeError(
                "receive.not-permitted",
                "the receiver takes files from the node's own user only",
                hint="runuser -u edge-node -- edge-node import DIR",
            ) from None
        except OSError:
            self.close()
            raise Retry(
                "receive.not-running",
                "the receiver of this node is not running",
                hint="edge-node run, or systemctl start edge-node-dicom; then the same command again",
            ) from None
