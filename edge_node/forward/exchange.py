"""One request to the trainer and what came of it. The only importer of httpx."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock

import httpx

from edge_node.config.addresses import is_loopback
from edge_node.config.client_tls import section_context
from edge_node.config.credentials import Credentials
from edge_node.config.schema import Forward
from edge_node.domain.errors import Retry, Stop
from edge_node.domain.study import CleanObject
from edge_node.forward.answer import Account, UnreadableAnswer, read_answer
from edge_node.forward.body import NotSent, StowBody

_ANSWER_MOST = 8 << 20  # bytes; a full answer for 256 instances is under 200 KB
_WAIT_DEFAULT, _WAIT_MOST = 30.0, 3600.0  # seconds
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_WRONG_DOOR = frozenset(
    {
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    }
)
_CONFIG = "see [forward] in edge-node config show"


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request led to; exactly one of these is set.

    `accounts`: the trainer's word on every instance sent. `not_sent`: (SOP Instance UID, code) of an object that must
    not leave; the others of the request are as before. `too_large`: HTTP 413. `broken`: code of a request without a
    usable answer. `end`: nothing more should be tried now.
    """

    accounts: Mapping[str, Account] = field(default_factory=dict)
    not_sent: tuple[str, str] | None = None
    too_large: bool = False
    broken: str = ""
    end: Retry | None = None


class Exchange:
    """Requests to one STOW-RS endpoint: HTTP/1.1, TLS 1.2 or later, no proxy or .netrc from the environment."""

    def __init__(self, config: Forward) -> None:
        """Raise `Stop` when the URL or the TLS files of `config` cannot be used."""
        self._url = _endpoint(config.url)
        self._timeout = config.timeout_s
        self._large = int(config.batch_mb * 1e6)
        self._credentials = Credentials(config)
        self._client = httpx.Client(
            verify=section_context("forward", config.ca_file, config.client_cert, config.client_key),
            trust_env=False,
            http1=True,
            http2=False,
            timeout=config.timeout_s,
            limits=httpx.Limits(max_connections=config.in_flight, max_keepalive_connections=config.in_flight),
            follow_redirects=False,
            # a compressed answer could unpack to any size; ours are small
            headers={"User-Agent": "edge-node", "Accept-Encoding": "identity"},
        )
        self._one_large = Lock()

    @property
    def peer(self) -> str:
        """Host and port of the trainer, for messages."""
        return f"{self._url.host}:{self._url.port or (443 if self._url.scheme == 'https' else 80)}"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def greet(self) -> Retry | None:
        """Ask something cheap before the first upload: a refused token must not cost megabytes.

        Only a 401 is taken from the answer; returns why the pass cannot begin, None when it can.
        """
        self._credentials.forget()
        if not self._credentials.configured:
            return None
        try:
            header = self._credentials.header()
            if self._asked(header) == HTTPStatus.UNAUTHORIZED:
                header = self._credentials.refresh(header)
                if self._asked(header) == HTTPStatus.UNAUTHORIZED:
                    return self._unauthorised()
        except Retry as error:
            return error
        except httpx.ConnectError as failure:
            return self._unreachable(failure)
        except (httpx.HTTPError, OSError):
            return None  # the upload itself will tell
        return None

    def post(self, batch: Sequence[CleanObject]) -> Reply:
        """Send `batch` in one request; on a 401 once more with secrets read anew. Raises only what is a `Stop`."""
        body = StowBody(batch)
        if body.length <= self._large:
            return self._post(batch, body)
        with self._one_large:  # memory holds one object beyond the batch size, however many are in flight
            return self._post(batch, body)

    def _post(self, batch: Sequence[CleanObject], body: StowBody) -> Reply:
        try:
            header = self._credentials.header()
            reply = self._once(batch, body, header)
            if reply is None:
                reply = self._once(batch, body, self._credentials.refresh(header))
        except NotSent as error:
            return Reply(not_sent=(error.sop_uid, error.code))
        except Retry as error:
            return Reply(end=error)
        except (httpx.ConnectError, httpx.ConnectTimeout) as failure:
            return Reply(end=self._unreachable(failure))
        except httpx.TimeoutException:
            return Reply(broken="forward.timeout")
        except httpx.HTTPError:
            return Reply(broken="forward.broken-line")
        except OSError:  # the network's own errors are httpx's: this one is the spool's
            return Reply(end=Retry("forward.spool", "a sealed object cannot be read", hint="edge-node doctor"))
        return reply or Reply(end=self._unauthorised())

    def _once(self, batch: Sequence[CleanObject], body: StowBody, header: Mapping[str, str]) -> Reply | None:
        """One request; None when the trainer does not know us (401)."""
        request = self._client.build_request(
            "POST",
            self._url,
            content=body,
            headers={
                "Content-Type": body.content_type,
                "Content-Length": str(body.length),
                "Accept": "application/dicom+json",
                **header,
            },
        )
        response = self._client.send(request, stream=True)
        try:
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                return None
            return self._turned_away(response) or self._accounted(response, batch)
        finally:
            response.close()

    def _turned_away(self, response: httpx.Response) -> Reply | None:
        """The statuses that speak of the request as a whole; for every other one the body decides."""
        status = response.status_code
        if status in _BUSY:
            wait = _retry_after(response.headers.get("Retry-After", ""))
            message = f"the trainer at {self.peer} asks us to come back in {wait:.0f} s"
            return Reply(end=Retry("forward.busy", message, after=wait, counts=False))
        if status == HTTPStatus.INSUFFICIENT_STORAGE:
            message = f"the trainer at {self.peer} has no room left"
            return Reply(end=Retry("forward.trainer-full", message, hint="ask its administrator", counts=False))
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return Reply(too_large=True)
        if status == HTTPStatus.FORBIDDEN:
            return Reply(end=self._unauthorised())
        if status in _WRONG_DOOR or response.has_redirect_location:
            message = f"no STOW-RS service answers at the configured path of {self.peer} ({_named(status)})"
            return Reply(end=Retry("forward.endpoint", message, hint=_CONFIG))
        return None

    def _accounted(self, response: httpx.Response, batch: Sequence[CleanObject]) -> Reply:
        try:
            accounts = read_answer(self._read(response), [one.sop_uid for one in batch])
        except UnreadableAnswer:
            accounts = {}
        named = {uid: account for uid, account in accounts.items() if account.named}
        if not named and not response.is_success:
            return Reply(broken=f"trainer.http-{_named(response.status_code)}")
        if not accounts:
            return Reply(broken="trainer.unreadable-answer")
        return Reply(accounts=accounts)

    def _read(self, response: httpx.Response) -> bytes:
        """The answer, bounded in size and time: a trainer must not be able to hold us or fill our memory."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UnreadableAnswer("compressed")
        deadline = time.monotonic() + self._timeout
        chunks, size = [], 0
        for chunk in response.iter_raw():
            chunks.append(chunk)
            size += len(chunk)
            if size > _ANSWER_MOST or time.monotonic() > deadline:
                raise UnreadableAnswer("endless")
        return b"".join(chunks)

    def _asked(self, header: Mapping[str, str]) -> int:
        headers = {"Accept": "application/dicom+json", **header}
        with self._client.stream("GET", self._url, params={"limit": "1"}, headers=headers) as response:
            return response.status_code

    def _unreachable(self, failure: BaseException) -> Retry:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                message = f"no trust between us and the trainer at {self.peer}: the TLS handshake failed"
                return Retry("forward.tls-handshake", message, hint="check [forward] ca_file, client_cert, client_key")
            cause = cause.__cause__ or cause.__context__
        return Retry("forward.unreachable", f"no connection to the trainer at {self.peer}", hint="edge-node doctor")

    def _unauthorised(self) -> Retry:
        return Retry(
            "forward.unauthorised", f"the trainer at {self.peer} does not accept our credentials", hint=_CONFIG
        )


def _named(status: int) -> str:
    try:
        return HTTPStatus(status).name.lower().replace("_", "-")
    except ValueError:
        return "unknown-status"


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header (RFC 9110 10.2.3: seconds or a date), within reason."""
    try:
        wait = float(int(value))
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            wait = _WAIT_DEFAULT
    return min(max(wait, 0.0), _WAIT_MOST)


def _endpoint(text: str) -> httpx.URL:
    def wrong(why: str) -> Stop:
        return Stop(
            "forward.url", f"[forward] url cannot be used: {why}", hint="e.g. https://trainer.example/dicom-web/studies"
        )

    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise wrong("it is not a URL") from None
    if url.scheme not in ("https", "http") or not url.host:
        raise wrong("it must begin with https://HOST")
    if url.userinfo:
        raise wrong("credentials do not belong in it; set user and password_file")
    if url.query or url.fragment:
        raise wrong("it must have no query and no fragment")
    if url.scheme == "http" and not is_loopback(url.host):
        raise wrong("plain http is for this machine only; studies leave encrypted")
    return url
