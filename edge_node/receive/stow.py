"""STOW-RS as an origin server (PS3.18 10.5): each part is taken in before the answer, one after the other.

Python's own HTTP server with limits put around it, because everything behind it blocks: a thread a connection is all
the concurrency there is, and an asynchronous server would add a loop, two packages and nothing else.
"""

from __future__ import annotations

import hmac
import io
import re
import socket
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import structlog

from edge_node.receive.http_line import HEADER_S, BoundedLine, TooMuch
from edge_node.receive.multipart import Body, ChunkedBody, MultipartError, MultipartReader, SizedBody, boundary_of
from edge_node.receive.stow_answer import Answered, StoreAnswer

log = structlog.get_logger()

Take = Callable[[Iterator[bytes], str, str], Answered]

MOST_PARTS = 10_000
RETRY_AFTER_S = 30
LINGER_S = 2.0
MOST_LINGER_BYTES = 16 << 20
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*?/studies(?:/([0-9.]{1,64}))?/?")
_DICOM = "application/dicom"
_JSON = "application/dicom+json"


@dataclass(frozen=True, slots=True)
class Limits:
    """`login` is the Authorization header that senders must show, "" for none; sizes in bytes, times in seconds."""

    connections: int
    request: int
    idle_s: float
    login: str = field(default="", repr=False)


def basic_login(user: str, password: str) -> str:
    """The Authorization header of HTTP basic authentication (RFC 7617)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _Desk:
    """What every connection of a server shares."""

    take: Take
    limits: Limits
    has_room: Callable[[], bool]
    context: ssl.SSLContext | None
    counts: dict[str, int]


class StowServer:
    """Listens on `host` and `port`. `take(chunks, peer, study)` makes one part durable and says what became of it.

    `allowed(address)` is asked for each connection; `has_room` before each request.
    """

    def __init__(
        self,
        host: str,
        port: int,
        take: Take,
        limits: Limits,
        *,
        allowed: Callable[[str], bool],
        has_room: Callable[[], bool],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.counts: dict[str, int] = {}

        class Handler(_Handler):
            pass

        Handler.desk = _Desk(take, limits, has_room, context, self.counts)
        self._server = _Server((host, port), Handler, limits.connections, allowed, self.counts)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_address[1])

    def serve(self, stop: threading.Event) -> None:
        """Serve until told to stop."""
        thread = threading.Thread(target=self._server.serve_forever, name="stow", daemon=True)
        thread.start()
        stop.wait()
        self.close()

    def close(self) -> None:
        """Take no more connections; requests under way go on as long as the process lives."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], handler: Any, most: int, allowed: Callable[[str], bool], counts: dict[str, int]
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)
        self._places = threading.BoundedSemaphore(most)
        self._allowed = allowed
        self._counts = counts

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        return self._allowed(str(client_address[0]))

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no memory for a thread, or too many
                self._places.release()
                raise
            return
        self._counts["too-many-connections"] = self._counts.get("too-many-connections", 0) + 1
        with suppress(OSError):  # one packet into an empty buffer: this cannot block
            request.send(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def server_bind(self) -> None:
        """Without HTTPServer's question to the name server who we are."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a connection that is gone before it began is no failure
            log.exception("stow.failed")


class _Refusal(Exception):
    """The request is answered with this HTTP status, and its connection ends."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "edge-node"
    sys_version = ""
    desk: _Desk

    def handle(self) -> None:
        # the caller's errors end the connection and are not worth a trace
        with suppress(TooMuch, TimeoutError, ConnectionError, ssl.SSLError):
            super().handle()

    def setup(self) -> None:
        if self.desk.context is not None:
            self.request.settimeout(HEADER_S)
            encrypted = self.desk.context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            self.request = encrypted
        self.line = BoundedLine(self.request, self.desk.limits.idle_s)
        super().setup()
        self.rfile = io.BufferedReader(self.line, 1 << 16)

    def handle_one_request(self) -> None:
        if isinstance(self.request, ssl.SSLSocket) and self.request.version() is None:
            self.request.do_handshake()
        self.line.begin_headers()
        super().handle_one_request()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()
        if self.desk.context is not None:  # the server closes the socket that it knows, which is not this one
            with suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)
            self.request.close()

    def handle_expect_100(self) -> bool:
        return True  # said after the headers were judged

    def do_POST(self) -> None:
        answer = StoreAnswer()
        try:
            study, boundary, body = self._judge()
            self._take_parts(MultipartReader(body, boundary), study, answer)
        except _Refusal as error:
            self._refuse(error.status, error.reason, answer)
        except MultipartError:
            self._refuse(HTTPStatus.BAD_REQUEST, "broken-body", answer)
        except TooMuch:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request-too-large", answer)
        except TimeoutError:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too-slow", answer)
        else:
            status = answer.http_status() if answer.parts else HTTPStatus.BAD_REQUEST
            self._say(status, answer.body() if answer.parts else b"")

    def do_GET(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "not-a-store", StoreAnswer())

    def _judge(self) -> tuple[str, str, Body]:
        """Study UID of the path, boundary, and the body; everything that can be refused before the body is read."""
        login = self.desk.limits.login
        if login and not hmac.compare_digest(
            (self.headers.get("Authorization") or "").encode("latin-1"), login.encode()
        ):
            raise _Refusal(HTTPStatus.UNAUTHORIZED, "not-authorized")
        path = _PATH.fullmatch(self.path.partition("?")[0])
        if path is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "no-such-resource")
        kind = Message()
        kind["Content-Type"] = self.headers.get("Content-Type") or ""
        wanted = (str(kind.get_param("type") or _DICOM)).lower()
        if kind.get_content_type() != "multipart/related" or wanted != _DICOM:
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type")
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding")
        accept = self.headers.get("Accept") or "*/*"
        if not any(word in accept for word in ("json", "*/*", "application/*")):
            raise _Refusal(HTTPStatus.NOT_ACCEPTABLE, "only-json")
        boundary = boundary_of(self.headers["Content-Type"])
        body = self._body()
        if not self.desk.has_room():
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no-room")
        if (self.headers.get("Expect") or "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        self.line.begin_body(self.desk.limits.request)
        return path[1] or "", boundary, body

    def _body(self) -> Body:
        coding, sizes = self.headers.get_all("Transfer-Encoding") or [], self.headers.get_all("Content-Length") or []
        if (coding and sizes) or len(coding) > 1 or len(sizes) > 1:  # two who read it could disagree where it ends
            raise _Refusal(HTTPStatus.BAD_REQUEST, "ambiguous-length")
        if coding:
            if coding[0].strip().lower() != "chunked":
                raise _Refusal(HTTPStatus.NOT_IMPLEMENTED, "transfer-encoding")
            return ChunkedBody(self.rfile)
        if not sizes:
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "no-length")
        if not re.fullmatch(r"[0-9]{1,15}", sizes[0].strip()):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "bad-length")
        if int(sizes[0]) > self.desk.limits.request:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request-too-large")
        return SizedBody(self.rfile, int(sizes[0]))

    def _take_parts(self, reader: MultipartReader, study: str, answer: StoreAnswer) -> None:
        for part in reader:
            if len(answer.parts) == MOST_PARTS:
                raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-many-parts")
            kind = part.headers.get("content-type", _DICOM).partition(";")[0].strip().lower()
            if kind != _DICOM:
                raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type-of-part")
            answer.parts.append(self.desk.take(part.chunks(), str(self.client_address[0]), study))

    def _refuse(self, status: HTTPStatus, reason: str, answer: StoreAnswer) -> None:
        self.close_connection = True  # what is left of the body would be read as the next request
        self.desk.counts[reason] = self.desk.counts.get(reason, 0) + 1
        if self.desk.counts[reason] <= 10 or self.desk.counts[reason] % 100 == 0:
            log.warning("stow.refused", reason=reason, http_status=int(status), count=self.desk.counts[reason])
        self._say(status, answer.body() if answer.parts else b"")
        self._linger()

    def _linger(self) -> None:
        """Read on for a moment: closing on unread bytes would take the answer from a sender that is still sending."""
        with suppress(OSError, TooMuch):
            self.request.settimeout(LINGER_S)
            self.wfile.flush()
            if not isinstance(self.request, ssl.SSLSocket):
                self.request.shutdown(socket.SHUT_WR)
            left, end = MOST_LINGER_BYTES, time.monotonic() + LINGER_S
            while left > 0 and time.monotonic() < end and (data := self.request.recv(1 << 16)):
                left -= len(data)

    def _say(self, status: HTTPStatus, body: bytes) -> None:
        self.request.settimeout(self.desk.limits.idle_s)
        self.send_response(status)
        if body:
            self.send_header("Content-Type", _JSON)
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", str(RETRY_AFTER_S))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", self.desk.limits.login.partition(" ")[0] + ' realm="edge-node"')
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Access lines would name original UIDs."""
