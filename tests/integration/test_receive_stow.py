"""STOW-RS as a server: Orthanc and httpx as senders, and senders who mean no good."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from edge_node.config.load import load
from edge_node.domain.body import Memory
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive import http_line
from edge_node.receive import stow as module
from edge_node.receive.landing import Arrival
from edge_node.receive.local import LocalDoor
from edge_node.receive.stow import StowServer
from edge_node.service.stow_door import Door, stow_server
from edge_node.store.receipt import Receipt, Received
from tests.integration.no_thread import no_thread_for
from tests.integration.peers_orthanc import Orthanc, free_port
from tests.integration.pki import Pki

CT_PATH = Path(str(get_testdata_file("CT_small.dcm")))
CT = CT_PATH.read_bytes()
MR = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()
STUDY = str(dcmread(CT_PATH).StudyInstanceUID)
REFERENCED, FAILED, OTHER = "00081199", "00081198", "0008119A"


class Stow:
    def __init__(self, folder: Path, **options: object) -> None:
        folder.mkdir()
        (folder / "spool").mkdir()
        self.port = free_port()
        flags = {"node.data_dir": str(folder), "storage.reserve_mb": 16, "stow.port": self.port}
        self.config = load(environ={}, flags={**flags, **{k.replace("__", "."): v for k, v in options.items()}}).config
        self.received: list[IdentifiedInstance] = []
        self.room = True
        self.accept: Callable[[IdentifiedInstance], Receipt] = lambda _one: Receipt(Received.STORED, "S")
        self.local = LocalDoor(
            folder, self._accept, has_room=lambda: self.room, largest=50_000_000, tell=lambda _about, _facts: None
        )
        self.local.start()
        self.door = Door(self.config)
        self.server: StowServer = stow_server(self.config, self.door)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.server.serve, args=(self._stop,))
        self._thread.start()
        self.scheme = "https" if self.config.stow.cert else "http"
        self.url = f"{self.scheme}://127.0.0.1:{self.port}/studies"

    def _accept(self, arrival: Arrival) -> Receipt:
        with arrival.opened() as landed:
            instance = replace(landed, source=Memory(landed.dataset))
        self.received.append(instance)
        return self.accept(instance)

    def post(self, *parts: bytes, url: str = "", verify: Any = True, **headers: str) -> httpx.Response:
        body, kind = multipart(*parts)
        told = {"Content-Type": kind, "Accept": "application/dicom+json"}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(url or self.url, content=body, headers=told, timeout=20, verify=verify, trust_env=False)

    def raw(self, data: bytes, *, half: bool = False, wait_s: float = 10) -> bytes:
        """What comes back for `data` on a new connection; `half` leaves our side open."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as caller:
            answer = b""
            try:
                caller.sendall(data)
                if not half:
                    caller.shutdown(socket.SHUT_WR)
                while piece := caller.recv(65536):
                    answer += piece
            except OSError:  # cut off in the middle
                pass
            return answer

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.local.stop(1.0)


def multipart(*parts: bytes, kind: str = "application/dicom", boundary: str = "edge") -> tuple[bytes, str]:
    pieces = [f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n" for part in parts]
    body = b"".join([*pieces, f"--{boundary}--\r\n".encode()])
    return body, f'multipart/related; type="{kind}"; boundary={boundary}'


def request(body: bytes, kind: str, *more: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = ["POST /studies HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {size}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def stow(tmp_path: Path) -> Iterator[Callable[..., Stow]]:
    made: list[Stow] = []

    def make(**options: object) -> Stow:
        made.append(Stow(tmp_path / f"node{len(made)}", **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def failures(answer: httpx.Response, sequence: str) -> list[str]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [f"{item['00081197']['Value'][0]:04X}" for item in items]


def test_instances_arrive_byte_for_byte_and_are_answered_by_name(stow: Callable[..., Stow]) -> None:
    one = stow()
    answer = one.post(CT, MR)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    named = [item["00081155"]["Value"][0] for item in answer.json()[REFERENCED]["Value"]]
    assert named == [str(dcmread(path).SOPInstanceUID) for path in (CT_PATH, get_testdata_file("MR_small.dcm"))]
    assert CT.endswith(one.received[0].dataset)
    assert MR.endswith(one.received[1].dataset)
    assert {(i.calling_ae, i.peer) for i in one.received} == {("STOW", "127.0.0.1")}


def test_orthanc_pushes_a_study_over_dicomweb(stow: Callable[..., Stow], tmp_path: Path) -> None:
    one = stow()
    servers = {"Enable": True, "Root": "/dicom-web/", "Servers": {"edge": [f"http://127.0.0.1:{one.port}/dicom-web/"]}}
    (tmp_path / "orthanc").mkdir()
    with Orthanc(tmp_path / "orthanc", extra={"DicomWeb": servers}) as orthanc:
        stored = [json.loads(orthanc.request("/instances", method="POST", body=part))["ID"] for part in (CT, MR)]
        order = json.dumps({"Resources": stored, "Synchronous": True}).encode()
        orthanc.request("/dicom-web/servers/edge/stow", method="POST", body=order)
    assert len(one.received) == 2
    assert one.door.counts == {"stored": 2}


def test_what_is_stored_in_part_is_answered_in_part(stow: Callable[..., Stow]) -> None:
    one = stow()
    answer = one.post(CT, b"no image", MR)
    assert (answer.status_code, len(answer.json()[REFERENCED]["Value"])) == (202, 2)
    assert failures(answer, OTHER) == ["C000"]
    none = one.post(b"no image", b"", CT[:300])
    assert (none.status_code, failures(none, OTHER)) == (409, ["C000"] * 3)


def test_an_instance_of_another_study_is_not_taken_under_this_one(stow: Callable[..., Stow]) -> None:
    one = stow()
    answer = one.post(CT, MR, url=f"{one.url}/{STUDY}")
    assert (answer.status_code, failures(answer, FAILED)) == (202, ["A900"])
    assert len(one.received) == 1


def test_a_full_disk_and_a_busy_node_ask_for_patience(stow: Callable[..., Stow]) -> None:
    one = stow()
    one.room = False
    answer = one.post(CT)
    assert (answer.status_code, failures(answer, FAILED)) == (503, ["A700"])
    assert int(answer.headers["retry-after"]) > 0

    def busy(_one: IdentifiedInstance) -> Receipt:
        raise Retry("receive.busy", "busy")

    one.room, one.accept = True, busy
    assert one.post(CT).status_code == 503
    one.accept = lambda _one: (_ for _ in ()).throw(EdgeNodeError("store.key-churn", "churned"))
    answer = one.post(CT)
    assert (answer.status_code, failures(answer, FAILED)) == (409, ["0110"])
    full = stow(storage__reserve_mb=2_000_000_000)
    answer = full.post(CT)
    assert (answer.status_code, answer.headers["retry-after"], full.received) == (503, "30", [])


def test_nothing_is_answered_as_stored_before_the_receipt(stow: Callable[..., Stow]) -> None:
    one, gate = stow(), threading.Event()

    def wait(_one: IdentifiedInstance) -> Receipt:
        gate.wait(10)
        return Receipt(Received.STORED, "S")

    one.accept = wait
    answers: list[httpx.Response] = []
    sender = threading.Thread(target=lambda: answers.append(one.post(CT)))
    sender.start()
    time.sleep(0.3)
    assert not answers
    gate.set()
    sender.join(10)
    assert answers[0].status_code == 200


def test_what_is_not_stow_is_refused_by_its_own_status(stow: Callable[..., Stow]) -> None:
    one = stow()
    body, kind = multipart(CT)
    cases = [
        (httpx.get(one.url, trust_env=False), 405),
        (httpx.post(f"http://127.0.0.1:{one.port}/patients", content=body, headers={"Content-Type": kind}), 404),
        (httpx.post(f"http://127.0.0.1:{one.port}/../studies/../x", content=body), 404),
        (httpx.post(one.url, content=b"{}", headers={"Content-Type": "application/json"}), 415),
        (one.post(CT, Content_Type='multipart/related; type="application/dicom+json"; boundary=edge'), 415),
        (one.post(CT, Content_Encoding="gzip"), 415),
        (one.post(CT, Accept="application/dicom+xml"), 406),
        (one.post(CT, Content_Type="multipart/related; type=application/dicom"), 400),
        (one.post(CT, Content_Type=f"multipart/related; boundary={'b' * 201}"), 400),
        (one.post(CT, Content_Type="multipart/related; boundary=wrong"), 400),
        (one.post(), 400),
    ]
    assert [answer.status_code for answer, _ in cases] == [status for _, status in cases]
    assert one.received == []
    mixed = b"--edge\r\nContent-Type: text/plain\r\n\r\nx\r\n--edge--\r\n"
    assert httpx.post(one.url, content=mixed, headers={"Content-Type": kind}).status_code == 415


def test_chunked_bodies_and_kept_connections_work(stow: Callable[..., Stow]) -> None:
    one = stow()
    body, kind = multipart(CT, MR)
    with httpx.Client(trust_env=False) as client:
        for _ in range(3):
            pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
            assert client.post(one.url, content=pieces, headers={"Content-Type": kind}).status_code == 200
            assert client.post(one.url, content=body, headers={"Content-Type": kind}).status_code == 200
    assert len(one.received) == 12


def test_a_sender_that_waits_for_100_continue_gets_it_or_the_refusal(stow: Callable[..., Stow]) -> None:
    one = stow()
    body, kind = multipart(CT)
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as caller:
        caller.sendall(request(b"", kind, "Expect: 100-continue", length=len(body)))
        assert caller.recv(100).startswith(b"HTTP/1.1 100 ")
        caller.sendall(body)
        assert caller.recv(100).startswith(b"HTTP/1.1 200 ")
    refused = one.raw(request(b"", "text/plain", "Expect: 100-continue", length=5))
    assert refused.startswith(b"HTTP/1.1 415 ")


@pytest.mark.parametrize("secret", ["token", "basic"])
def test_who_does_not_know_the_secret_is_not_listened_to(
    stow: Callable[..., Stow], tmp_path: Path, secret: str
) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    file.chmod(0o400)
    one = stow(
        **(
            {"stow__token_file": str(file)}
            if secret == "token"
            else {"stow__user": "p", "stow__password_file": str(file)}
        )
    )
    good = "Bearer s3cret" if secret == "token" else "Basic cDpzM2NyZXQ="
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": good + "x"}):
        answer = one.post(CT, **wrong)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer" if secret == "token" else "Basic")
    assert one.received == []
    assert one.post(CT, Authorization=good).status_code == 200


def test_over_tls_a_sender_shows_its_certificate(stow: Callable[..., Stow], tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    pki = Pki(tmp_path / "pki")
    paths = {"cert": pki.cert("server"), "key": pki.key("server"), "client_ca": pki.cert("ca")}
    one = stow(**{f"stow__{key}": str(path) for key, path in paths.items()})
    ours = ssl.create_default_context(cafile=str(pki.cert("ca")))
    with pytest.raises(httpx.TransportError):
        one.post(CT, verify=ours)
    ours.load_cert_chain(pki.cert("client"), pki.key("client"))
    assert one.post(CT, verify=ours).status_code == 200
    silent = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(5)]
    assert one.post(CT, verify=ours).status_code == 200
    for caller in silent:
        caller.close()
    assert one.raw(b"GET / HTTP/1.1\r\n\r\n") == b"" or b"HTTP" not in one.raw(b"GET / HTTP/1.1\r\n\r\n")


def test_half_sent_bodies_leave_nothing_behind(stow: Callable[..., Stow]) -> None:
    one = stow()
    body, kind = multipart(CT, MR)
    for cut in (1, 50, 5000, len(CT) + 200, len(body) - 3):
        answer = one.raw(request(body[:cut], kind, length=len(body)))
        assert answer.startswith(b"HTTP/1.1 400 "), (cut, answer[:100])
    assert all(CT.endswith(i.dataset) or MR.endswith(i.dataset) for i in one.received)  # whole ones, or none
    assert one.door._memory.left == one.config.stow.memory_mb << 20
    assert one.post(CT).status_code == 200


def test_ambiguous_lengths_are_refused(stow: Callable[..., Stow]) -> None:
    one = stow()
    body, kind = multipart(CT)
    assert b" 400 " in one.raw(request(body, kind, "Transfer-Encoding: chunked"))[:20]
    assert b" 400 " in one.raw(request(body, kind, "Content-Length: 5"))[:20]
    for length in ("-1", "+5", "1_0", "0x10"):
        head = request(b"", kind).replace(b"Content-Length: 0", f"Content-Length: {length}".encode())
        assert b" 400 " in one.raw(head + body)[:20]
    assert b" 411 " in one.raw(request(b"", kind).replace(b"Content-Length: 0\r\n", b""))[:20]
    for size in (b"-5", b"0x5", b"1_0", b"f" * 40, b""):
        head = request(b"", kind, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        assert b" 400 " in one.raw(head + size + b"\r\n" + body)[:20]
    assert one.received == []


def test_what_is_too_large_is_refused_without_being_read(stow: Callable[..., Stow], tmp_path: Path) -> None:
    one = stow(stow__max_request_mb=1, receive__max_object_mb=1)
    body, kind = multipart(CT)
    assert one.raw(request(body, kind, length=10**9)).startswith(b"HTTP/1.1 413 ")
    endless = (b"x" * 65536 for _ in range(100))
    with_boundary = {"Content-Type": kind}
    try:
        status = httpx.post(one.url, content=endless, headers=with_boundary, timeout=20).status_code
    except httpx.TransportError:  # cut off while it was still sending
        status = 413
    assert status == 413
    small = stow(stow__memory_mb=1)
    answer = small.post(CT + bytes(2_000_000), MR)
    assert (answer.status_code, failures(answer, FAILED)) == (202, ["A700"])
    assert small.door._memory.left == 1 << 20


def test_of_large_objects_that_come_at_once_one_always_comes_through(stow: Callable[..., Stow]) -> None:
    one = stow(stow__memory_mb=10)
    large = CT + bytes(8_000_000)
    answers: list[int] = []
    senders = [threading.Thread(target=lambda: answers.append(one.post(large).status_code)) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(30)
    assert set(answers) <= {200, 503}
    assert answers.count(200) >= 1
    assert one.door._memory.left == 10 << 20


def test_a_hundred_thousand_parts_end_at_the_limit(stow: Callable[..., Stow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 500)
    one = stow()
    body, kind = multipart(*[b""] * 20_000)
    answer = one.raw(request(body, kind))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert one.post(CT).status_code == 200


def test_huge_headers_are_refused(stow: Callable[..., Stow]) -> None:
    one = stow()
    _, kind = multipart(CT)
    for head in (
        b"POST /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        request(b"", kind, "X: " + "a" * 200_000),
        request(b"", kind, *[f"X{n}: {'a' * 1000}" for n in range(500)]),
    ):
        answer = one.raw(head)
        assert answer == b"" or answer[9:12] in (b"400", b"414", b"431")
    for block in (b"X: " + b"a" * 100_000, b"\r\n".join([b"X%d: y" % n for n in range(1000)]), b"no colon"):
        part = b"--edge\r\n" + block + b"\r\n\r\nx\r\n--edge--\r\n"
        assert one.raw(request(part, kind)).startswith(b"HTTP/1.1 400 ")
    assert one.post(CT).status_code == 200


def test_slow_senders_are_cut_off_and_hold_nobody_up(
    stow: Callable[..., Stow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_line, "HEADER_S", 1.0)
    monkeypatch.setattr(http_line, "GRACE_S", 1.0)
    one = stow(stow__timeout_s=1)
    body, kind = multipart(CT)
    assert one.raw(b"", half=True) == b""  # says nothing
    assert one.raw(b"POST /studies HTTP/1.1\r\nX", half=True) == b""  # stops in its headers
    assert one.raw(request(body[:100], kind, length=len(body)), half=True).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", one.port), timeout=20) as drip:
        drip.sendall(request(body[:100], kind, length=len(body)))
        started, answer = time.monotonic(), b""
        drip.settimeout(0.1)
        while not answer and time.monotonic() - started < 10:
            try:
                drip.sendall(b"x")
                answer = drip.recv(100)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert one.post(CT).status_code == 200


def test_a_connection_too_many_is_told_so_and_places_come_back(stow: Callable[..., Stow]) -> None:
    one = stow(stow__connections=3)
    before = threading.active_count()
    held = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(3)]
    time.sleep(0.2)
    assert one.post(CT).status_code == 503
    for caller in held:
        caller.close()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert one.post(CT).status_code == 200


@pytest.mark.parametrize("thread", ["process_request_thread", "local-caller"])
def test_a_moment_without_threads_costs_one_request_and_no_place(
    stow: Callable[..., Stow], monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    one = stow(stow__connections=1)
    left = no_thread_for(monkeypatch, thread)
    body, kind = multipart(CT)
    assert b" 200 " not in one.raw(request(body, kind))[:20]
    assert not left
    end = time.monotonic() + 5
    while one.post(CT).status_code != 200:
        assert time.monotonic() < end, "it takes nothing more"


def test_noise_never_brings_it_down(stow: Callable[..., Stow]) -> None:
    one = stow(stow__timeout_s=1)
    _, kind = multipart(CT)
    for _ in range(30):
        one.raw(os.urandom(500), wait_s=3)
        one.raw(request(os.urandom(2000), kind), wait_s=3)
        one.raw(request(b"--edge\r\n\r\n" + bytes(128) + b"DICM" + os.urandom(2000) + b"\r\n--edge--", kind), wait_s=3)
    assert one.post(CT).status_code == 200
    assert one.door._memory.left == one.config.stow.memory_mb << 20


def test_a_host_that_may_not_send_dicom_may_not_send_this_either(stow: Callable[..., Stow]) -> None:
    one = stow(receive__allowed_addresses="192.0.2.0/24")
    with pytest.raises(httpx.TransportError):
        one.post(CT)
