"""The toy trainer: a STOW-RS receiver (PS3.18 10.5) on loopback that distrusts what it gets.

It refuses whatever is not marked as de-identified or still contains a given needle, byte for byte, and it notices
when the same object comes a second time with other bytes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkstemp
from types import TracebackType
from typing import Any, Literal, Self

from pydicom import dcmread
from pydicom.uid import UID

from edge_node.receive.multipart import Body, ChunkedBody, MultipartError, MultipartReader, Part, SizedBody, boundary_of
from edge_node.service.dimse import LOOPBACK

_ENCODINGS = ("utf-8", "latin-1", "iso8859-2", "iso8859-5", "iso8859-7", "iso2022_jp", "shift_jis", "euc_kr", "gb18030")
_LEAST_BYTES = 5  # shorter needles turn up in pixels by chance


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) in a STOW response (PS3.18 Table I.2-2, PS3.4 Table GG.4-1)."""

    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    ALREADY_STORED = 0xB00E
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class ReceivedObject:
    """What the trainer knows of one object: `count` deliveries, `changed` if they differed in bytes."""

    sha256: str
    size: int
    study_uid: str
    sop_class: str
    path: Path
    count: int
    changed: bool


@dataclass(frozen=True, slots=True)
class BadObject:
    """A refused object and why; `needle` is its index in the trainer's list, -1 if the reason is another."""

    sop_uid: str
    reason: str
    needle: int = -1


def needle_bytes(needles: Iterable[str]) -> list[tuple[int, bytes]]:
    """(index, bytes) of every needle as written, upper and lower case, in every character set that can write it."""
    found: set[tuple[int, bytes]] = set()
    for index, needle in enumerate(needles):
        for text in {needle, needle.upper(), needle.lower()}:
            for encoding in _ENCODINGS:
                try:
                    raw = text.encode(encoding)
                except UnicodeEncodeError:
                    continue
                if len(raw) >= _LEAST_BYTES:
                    found.add((index, raw))
    return sorted(found)


class ToyTrainer:
    """The trainer as a context manager; `url` is the STOW endpoint (…/studies).

    `needles` must not occur in anything received. `duplicates` says how a known object is answered: stored again
    (``accept``) or with Failure Reason 45070 (``refuse``). With `token`, requests need it as bearer token.
    """

    def __init__(
        self,
        *,
        store: Path,
        needles: Iterable[str] = (),
        duplicates: Literal["accept", "refuse"] = "accept",
        token: str = "",
        port: int = 0,
    ) -> None:
        self.store = store
        self.needles = list(needles)
        self.received: dict[str, ReceivedObject] = {}
        self.bad: list[BadObject] = []
        self.requests = 0
        self.duplicates = duplicates
        self.token = token
        self._needles = needle_bytes(self.needles)
        self._lock = threading.Lock()
        self._port = port
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.store.mkdir(parents=True, exist_ok=True)
        handler = type("StowHandler", (_StowHandler,), {"owner": self})
        self._server = ThreadingHTTPServer((LOOPBACK, self._port), handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        """Where to POST: ``http://127.0.0.1:PORT/studies``."""
        return f"http://{LOOPBACK}:{self._port}/studies"

    @property
    def needles_found(self) -> int:
        """How many refused objects still contained an identifier."""
        return sum(item.needle >= 0 for item in self.bad)

    def count_request(self) -> None:
        """One more Store Instances request was answered."""
        with self._lock:
            self.requests += 1

    def take(self, part: Part) -> tuple[dict[str, Any], FailureReason | None]:
        """Spool, check and keep one part; answers its DICOM JSON reference and the reason of failure, if any."""
        handle, name = mkstemp(dir=self.store, suffix=".part")
        path = Path(name)
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file:
            for chunk in part.chunks():
                file.write(chunk)
                digest.update(chunk)
        try:
            header = dcmread(path, stop_before_pixels=True)
            sop_class, sop_uid, study = (
                str(header[k].value) for k in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
            )
            meta_uid = str(header.file_meta.MediaStorageSOPInstanceUID)
            removed = str(header.get("PatientIdentityRemoved", ""))
        except Exception:  # pydicom raises anything on broken input; the trainer refuses and lives on
            path.unlink()
            return self._refuse(reference("", ""), BadObject("", "cannot be parsed"), FailureReason.CANNOT_UNDERSTAND)
        answer = reference(sop_class, sop_uid)
        fault = self._fault(path, sop_uid, meta_uid, removed)
        if fault is not None:
            path.unlink()
            return self._refuse(answer, fault, FailureReason.DATA_SET_MISMATCH)
        return answer, self._keep(path, sop_uid, sop_class, study, digest.hexdigest())

    def _fault(self, path: Path, sop_uid: str, meta_uid: str, removed: str) -> BadObject | None:
        if not UID(sop_uid).is_valid or sop_uid != meta_uid:
            return BadObject(sop_uid, "SOP Instance UID is invalid or differs from the file meta")
        if removed != "YES":
            return BadObject(sop_uid, "PatientIdentityRemoved is not YES")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            for index, needle in self._needles:
                if raw.find(needle) >= 0:
                    return BadObject(sop_uid, "an original identifier is in the bytes", index)
        return None

    def _refuse(
        self, answer: dict[str, Any], bad: BadObject, reason: FailureReason
    ) -> tuple[dict[str, Any], FailureReason]:
        with self._lock:
            self.bad.append(bad)
        return answer, reason

    def _keep(self, path: Path, uid: str, sop_class: str, study: str, sha256: str) -> FailureReason | None:
        with self._lock:
            known = self.received.get(uid)
            if known is None:
                final = self.store / f"{uid}.dcm"
                size = path.stat().st_size
                path.rename(final)
                self.received[uid] = ReceivedObject(sha256, size, study, sop_class, final, 1, changed=False)
                return None
            path.unlink()
            changed = known.changed or known.sha256 != sha256
            self.received[uid] = ReceivedObject(
                known.sha256, known.size, known.study_uid, known.sop_class, known.path, known.count + 1, changed
            )
            return FailureReason.ALREADY_STORED if self.duplicates == "refuse" else None


def reference(sop_class: str, sop_uid: str) -> dict[str, Any]:
    """An item of Referenced or Failed SOP Sequence in DICOM JSON (PS3.18 F.2)."""
    return {
        "00081150": {"vr": "UI", **({"Value": [sop_class]} if sop_class else {})},
        "00081155": {"vr": "UI", **({"Value": [sop_uid]} if sop_uid else {})},
    }


class _StowHandler(BaseHTTPRequestHandler):
    """HTTP around `ToyTrainer.take`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: ToyTrainer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: access logs hold UIDs."""

    def _reply(self, status: HTTPStatus, body: object = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(data)))
        if status >= HTTPStatus.BAD_REQUEST and status != HTTPStatus.CONFLICT:
            self.send_header("Connection", "close")  # the rest of the body was not read
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self) -> bool:
        token = self.owner.token
        return not token or self.headers.get("Authorization") == f"Bearer {token}"

    def do_GET(self) -> None:
        """QIDO-RS, as much as a sender needs to see that it may come in."""
        if not self._allowed():
            self._reply(HTTPStatus.UNAUTHORIZED)
        elif self.path.partition("?")[0] in ("/", "/studies"):
            studies = sorted({item.study_uid for item in self.owner.received.values()})
            self._reply(HTTPStatus.OK, [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in studies])
        else:
            self._reply(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """STOW-RS Store Instances."""
        path = self.path.partition("?")[0].strip("/").split("/")
        if not self._allowed():
            self._reply(HTTPStatus.UNAUTHORIZED)
        elif path[0] != "studies" or len(path) > 2:
            self._reply(HTTPStatus.NOT_FOUND)
        elif self.headers.get("Content-Encoding", "identity") != "identity":
            self._reply(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        else:
            self._store()

    def _body(self) -> Body | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return ChunkedBody(self.rfile)
        length = self.headers.get("Content-Length", "")
        return SizedBody(self.rfile, int(length)) if length.isdigit() else None

    def _store(self) -> None:
        body = self._body()
        if body is None:
            self._reply(HTTPStatus.LENGTH_REQUIRED)
            return
        stored: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        try:
            boundary = boundary_of(self.headers.get("Content-Type", ""))
            for part in MultipartReader(body, boundary):
                answer, reason = self.owner.take(part)
                if reason is None:
                    stored.append({**answer, "00081190": {"vr": "UR", "Value": [self.owner.url]}})
                else:
                    failed.append({**answer, "00081197": {"vr": "US", "Value": [int(reason)]}})
        except MultipartError:
            self._reply(HTTPStatus.BAD_REQUEST)
            return
        self.owner.count_request()
        result: dict[str, Any] = {"00081190": {"vr": "UR", "Value": [self.owner.url]}}
        if stored:
            result["00081199"] = {"vr": "SQ", "Value": stored}
        if failed:
            result["00081198"] = {"vr": "SQ", "Value": failed}
        status = HTTPStatus.OK if not failed else HTTPStatus.ACCEPTED if stored else HTTPStatus.CONFLICT
        self._reply(status, result)
