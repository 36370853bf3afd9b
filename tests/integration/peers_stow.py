"""A STOW-RS server over real sockets that misbehaves as it is told, one scripted step per request."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SOP_UID = re.compile(rb"\x08\x00\x18\x00UI..([0-9.]+)", re.DOTALL)


@dataclass
class Request:
    """One upload as it arrived: SOP Instance UIDs in order, and what the request said."""

    uids: list[str]
    parts: list[bytes] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    length: int = 0


Step = Callable[["StowHandler", Request], None]


class StowServer:
    """`with StowServer(steps) as trainer:`: `steps` answer the first uploads, `store` every later one.

    `held` is sha256 by SOP Instance UID, `changed` counts re-sent instances with other bytes, `requests` is the log.
    """

    def __init__(self, steps: Sequence[Step] = (), *, tls: ssl.SSLContext | None = None, token: str = "") -> None:
        self.steps = list(steps)
        self.token = token
        self.held: dict[str, str] = {}
        self.changed = 0
        self.requests: list[Request] = []
        self.unknown = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), StowHandler)
        self._server.peer = self
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}/studies"

    def __enter__(self) -> StowServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def keep(self, request: Request) -> None:
        """Store every part."""
        with self.lock:
            for uid, part in zip(request.uids, request.parts, strict=True):
                digest = sha256(part).hexdigest()
                self.changed += self.held.get(uid, digest) != digest
                self.held[uid] = digest

    def next_step(self) -> Step:
        with self.lock:
            return self.steps.pop(0) if self.steps else store


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    peer: StowServer

    def handle_error(self, *_: object) -> None:
        """Cut connections are the point."""


class StowHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.answer(200 if self._known() else 401, b"[]")

    def do_POST(self) -> None:
        step = self.server.peer.next_step() if self._known() else unauthorised
        if getattr(step, "before_body", False):
            step(self, Request([], [], dict(self.headers)))
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):
            self.close_connection = True
            return
        boundary = re.search(r"boundary=([^;]+)", self.headers["Content-Type"])
        assert boundary, "no boundary"
        chunks = body.split(b"--" + boundary[1].encode())
        assert chunks[0] == b"", "bytes before the first part"
        assert chunks[-1] == b"--\r\n", "no closing boundary"
        parts = [chunk.split(b"\r\n\r\n", 1)[1][:-2] for chunk in chunks[1:-1]]
        uids = [match[1].decode() for part in parts if (match := _SOP_UID.search(part))]
        request = Request(uids, parts, dict(self.headers), len(body))
        with self.server.peer.lock:
            self.server.peer.requests.append(request)
        step(self, request)

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Cut the connection with a RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _known(self) -> bool:
        token = self.server.peer.token
        if not token or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        self.server.peer.unknown += 1
        return False


def response(stored: Sequence[str], failed: Mapping[str, int | None] | None = None) -> bytes:
    """A Store Instances Response in DICOM JSON."""

    def item(uid: str, reason: int | None = None) -> dict[str, object]:
        plain: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            plain["00081197"] = {"vr": "US", "Value": [reason]}
        return plain

    plain: dict[str, object] = {}
    if stored:
        plain["00081199"] = {"vr": "SQ", "Value": [item(uid) for uid in stored]}
    if failed:
        plain["00081198"] = {"vr": "SQ", "Value": [item(uid, reason) for uid, reason in failed.items()]}
    return json.dumps(plain).encode()


def store(handler: StowHandler, request: Request) -> None:
    """Keep everything and say so."""
    handler.server.peer.keep(request)
    handler.answer(200, response(request.uids))


def status(code: int, headers: Mapping[str, str] | None = None, *, keep: bool = False, body: bytes = b"") -> Step:
    """Answer `code` after reading the request."""

    def step(handler: StowHandler, request: Request) -> None:
        if keep:
            handler.server.peer.keep(request)
        handler.answer(code, body, headers)

    return step


unauthorised = status(401)


def refuse(reasons: Mapping[str, int | None], *, code: int = 202) -> Step:
    """Keep all but the instances of `reasons`, which fail with their reason."""

    def step(handler: StowHandler, request: Request) -> None:
        failed = {uid: reasons[uid] for uid in request.uids if uid in reasons}
        taken = [at for at, uid in enumerate(request.uids) if uid not in failed]
        good = Request([request.uids[at] for at in taken], [request.parts[at] for at in taken], request.headers)
        handler.server.peer.keep(good)
        handler.answer(code, response(good.uids, failed))

    return step


def lie(handler: StowHandler, request: Request) -> None:
    """Answer 200 but neither keep nor mention the last instance."""
    told = Request(request.uids[:-1], request.parts[:-1], request.headers)
    handler.server.peer.keep(told)
    handler.answer(200, response(told.uids))


def truncate(handler: StowHandler, request: Request) -> None:
    """Keep everything and answer 200 with half a JSON body."""
    handler.server.peer.keep(request)
    body = response(request.uids)
    handler.answer(200, body[: len(body) // 2])


def cut_reply(handler: StowHandler, request: Request) -> None:
    """Keep everything, then cut the line instead of answering."""
    handler.server.peer.keep(request)
    handler.reset()


def endless(handler: StowHandler, request: Request) -> None:
    """An answer that never ends."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(400):
        handler.wfile.write(b" " * 65536)
    handler.close_connection = True


def silent(handler: StowHandler, request: Request) -> None:
    """Never answer."""
    time.sleep(5)
    handler.close_connection = True


def too_large_for(most: int) -> Step:
    """Say 413 before the body is read when it is larger than `most` bytes, and hang up."""

    def step(handler: StowHandler, request: Request) -> None:
        length = int(handler.headers["Content-Length"])
        if length > most:
            handler.answer(413, b"", {"Connection": "close"})
            handler.close_connection = True
            handler.rfile.read(length)  # drain, so that the answer is not lost to a RST
        else:
            body_step(handler)

    def body_step(handler: StowHandler) -> None:
        handler.server.peer.steps.insert(0, store)
        handler.do_POST()

    step.before_body = True  # type: ignore[attr-defined]
    return step


def cut_mid_body(after: int) -> Step:
    """Cut the line after reading `after` bytes of the body."""

    def step(handler: StowHandler, request: Request) -> None:
        handler.rfile.read(after)
        handler.reset()

    step.before_body = True  # type: ignore[attr-defined]
    return step
