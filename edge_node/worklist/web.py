"""One request to a web server of the hospital and its answer: the only importer of httpx in this room.

No patient data stands in an address of a write-back: what it is about stands in its body, and in the address at most a
UID of our own, a keyed hash. A search in the hospital's own archive (PS3.18 10.6) can only be asked in the address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from edge_node.config.addresses import address_fault
from edge_node.config.client_tls import section_context
from edge_node.config.credentials import Credentials
from edge_node.config.destinations import WebPeer
from edge_node.domain.errors import Retry, Stop

MOST = 8 << 20  # bytes of an answer
WAIT_S, WAIT_MOST_S = 30.0, 3600.0
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What the server said: HTTP status, the Location header ("" without one), the JSON of the body (None without)."""

    status: int
    location: str
    content: Any

    @property
    def success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def name(self) -> str:
        """The status for messages: ``409 conflict``."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase.lower()}"
        except ValueError:
            return str(self.status)


class Stream:
    """A large answer: HTTP status, Content-Type, and its body as something to `read` from."""

    def __init__(self, status: int, content_type: str, chunks: Iterator[bytes]) -> None:
        self.status = status
        self.content_type = content_type
        self._chunks = chunks
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, b"" at the end."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = chunk
        piece, self._left = self._left[:size], self._left[size:]
        return piece


class WebServer:
    """A web server after a section of the configuration: HTTP/1.1, TLS 1.2 or later, no proxy from the environment.

    `service` ("fhir") begins the error codes. The connection is opened with the first request of each `ask`.
    """

    def __init__(self, section: str, options: WebPeer, service: str, timeout_s: float) -> None:
        """Raise Stop ``worklist.url`` for an address that cannot be used, ``fhir.tls`` and the like for TLS files."""
        if fault := address_fault(options.url):
            raise Stop("worklist.url", f"the option {section}.url {fault}", hint="edge-node config check")
        self._base = httpx.URL(options.url.rstrip("/"))
        self._service = service
        self._section = section
        self._timeout = timeout_s
        self._credentials = Credentials(options)
        self._tls = section_context(section, options.ca_file, options.client_cert, options.client_key)

    def __str__(self) -> str:
        return f"{self._base.host}:{self._base.port or (443 if self._base.scheme == 'https' else 80)}"

    def ask(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | str = "",
        body: object = None,
        media_type: str,
    ) -> Answer:
        """The answer to one request; `path` (with its slash) and `query` follow the configured address.

        Returns every answer that is about the request. Raises Retry ``worklist.SERVICE-unavailable`` for what is not:
        nobody there, credentials refused, busy, a fault of the server, a redirect, no answer in time.
        """
        headers = {"Accept": media_type, "Accept-Encoding": "identity", "User-Agent": "edge-node"}
        content = None if body is None else json.dumps(body, ensure_ascii=True, allow_nan=False).encode()
        if content is not None:
            headers["Content-Type"] = media_type
        # A path of ours never needs escaping, and a plain query (a UID) has no name.
        text = query if isinstance(query, str) else str(httpx.QueryParams(dict(query)))
        url = self._base.copy_with(raw_path=f"{self._base.path.rstrip('/')}{path}{'?' + text if text else ''}".encode())
        try:
            # A write-back comes once in minutes: an idle connection would be cut by then, and its break cost a try.
            with httpx.Client(
                verify=self._tls, trust_env=False, http2=False, follow_redirects=False, timeout=self._timeout
            ) as client:
                login = self._credentials.header()
                answer = self._once(client, method, url, headers | login, content)
                if answer.status == HTTPStatus.UNAUTHORIZED:
                    login = self._credentials.refresh(login)
                    answer = self._once(client, method, url, headers | login, content)
        except httpx.TimeoutException:
            raise self._unavailable(f"does not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, OSError):
            raise self._unavailable("does not answer, or we do not agree on TLS") from None
        return answer

    def _once(
        self, client: httpx.Client, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes | None
    ) -> Answer:
        deadline = time.monotonic() + self._timeout
        with client.stream(method, url, headers=headers, content=content) as response:
            status = response.status_code
            if status in _BUSY:
                told = response.headers.get("Retry-After", "")
                wait = min(float(told), WAIT_MOST_S) if told.isascii() and told.isdigit() else WAIT_S
                raise self._unavailable(f"asks us to come back in {wait:.0f} s", after=wait, counts=False)
            if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.has_redirect_location:
                raise self._unavailable(f"answers {Answer(status, '', None).name}")
            if status == HTTPStatus.FORBIDDEN:
                raise self._unavailable("does not accept our credentials")
            received = b""
            for chunk in response.iter_raw():
                received += chunk
                if len(received) > MOST or time.monotonic() > deadline:
                    raise self._unavailable("answers without end")
        try:
            said = json.loads(received) if received else None
        except ValueError:
            said = None
        return Answer(status, response.headers.get("Location", ""), said)

    @contextmanager
    def fetch(self, path: str, media_type: str) -> Iterator[Stream]:
        """A large answer piece by piece. Errors as `ask`; Retry too when the connection breaks while it is read."""
        headers = {"Accept": media_type, "Accept-Encoding": "identity", "User-Agent": "edge-node"}
        url = self._base.copy_with(raw_path=f"{self._base.path.rstrip('/')}{path}".encode())
        try:
            with httpx.Client(
                verify=self._tls, trust_env=False, http2=False, follow_redirects=False, timeout=self._timeout
            ) as client:
                login = self._credentials.header()
                for again in (True, False):
                    with client.stream("GET", url, headers=headers | login) as response:
                        status = response.status_code
                        if status == HTTPStatus.UNAUTHORIZED and again:
                            login = self._credentials.refresh(login)
                            continue
                        if status in _BUSY | _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                            raise self._unavailable(f"answers {Answer(status, '', None).name}", counts=False)
                        yield Stream(status, response.headers.get("Content-Type", ""), response.iter_raw())
                        return
        except httpx.TimeoutException:
            raise self._unavailable(f"does not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, OSError):
            raise self._unavailable("does not answer, or breaks off") from None

    def _unavailable(self, why: str, *, after: float | None = None, counts: bool = True) -> Retry:
        return Retry(
            f"worklist.{self._service}-unavailable",
            f"the server of [{self._section}] at {self} {why}",
            hint="edge-node doctor",
            after=after,
            counts=counts,
        )
