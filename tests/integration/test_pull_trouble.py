"""Archives that give up, send too much or answer in small pages, and a node in trouble of its own, while it pulls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from edge_node.domain.errors import Retry, Stop
from edge_node.domain.pull import Kind, Match, Pulled, Retrieved, Wanted
from edge_node.domain.status import Status
from edge_node.service import pulling
from edge_node.service.pulling import Puller
from edge_node.service.stow_door import Memory
from tests.integration.announcing_hospital import encoded
from tests.integration.peers_orthanc import free_port
from tests.integration.puller import PullingNode, part10, uid
from tests.unit.service.site import Site, image, site

__all__ = ["site"]
STUDY = Wanted(Kind.STUDY, uid(1))


@pytest.fixture
def node(site: Site) -> Iterator[PullingNode]:
    one = PullingNode(site)
    yield one
    one.close()


class Pacs:
    """A PACS that has what the test says, and gives up when it says so."""

    def __init__(self) -> None:
        self.objects: list[Dataset] = []
        self.ends_with: int | None = None
        entity = AE("PACS")
        entity.maximum_pdu_size = 0
        for model in (
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelGet,
            StudyRootQueryRetrieveInformationModelMove,
        ):
            entity.add_supported_context(model)
        entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        self.port = free_port()
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_GET, self.get), (evt.EVT_C_MOVE, self.move)]
        self.server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def find(self, event: Any) -> Iterator[tuple[int, Any]]:
        answer = event.identifier
        answer.NumberOfStudyRelatedInstances, answer.SOPClassUID = str(len(self.objects)), CTImageStorage
        yield Status.PENDING, answer

    def get(self, _event: Any) -> Iterator[Any]:
        yield len(self.objects) + (self.ends_with is not None)
        for one in self.objects:
            yield Status.PENDING, one
        if self.ends_with is not None:
            yield self.ends_with, None

    def move(self, _event: Any) -> Iterator[Any]:
        yield "127.0.0.1", free_port()
        yield 1
        yield self.ends_with, None


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    one = Pacs()
    yield one
    one.server.shutdown()


def sized(number: int, side: int) -> Dataset:
    """An image of `side` by `side` pixels of two bytes."""
    one = encoded(image(number))
    one.Rows = one.Columns = side
    one.PixelData = bytes(2 * side * side)
    return one


def worked(node: PullingNode, puller: Puller, wanted: Wanted = STUDY) -> dict[str, Any]:
    """One request after one try."""
    name = node.ask(puller, wanted)
    item = puller.queue.claim()
    assert item is not None
    puller.one(item, node.stop)
    [row] = [row for row in node.site.rows("pull_item") if row["job"] == name]
    return row


def test_a_retrieval_that_the_archive_cancels_by_itself_costs_a_try_and_waits(node: PullingNode, pacs: Pacs) -> None:
    pacs.ends_with, pacs.objects = Status.CANCEL, [encoded(image(1))]
    row = worked(node, node.asking(pacs.port, method="get"))
    assert (row["state"], row["code"], row["attempts"]) == ("WAITING", "pull.retrieve-failed", 1)
    assert float(str(row["not_before"])) > time.time() + 10
    assert "cancelled the retrieval, which nobody" in str(row["message"])


def test_an_object_over_the_limit_is_cut_off_before_it_is_in_memory(
    node: PullingNode, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs.objects = [encoded(image(1)), sized(2, 4096), encoded(image(3))]
    puller = node.asking(pacs.port, method="get")
    puller._archive._largest = 8_000_000  # type: ignore[attr-defined]
    begun = time.monotonic()
    row = worked(node, puller)
    assert time.monotonic() - begun < 15
    assert (row["state"], row["code"]) == ("FAILED", "pull.object-too-large")
    assert "max_object_mb" in str(row["message"])
    assert list(node.studies().values()) == [1]  # what came before it stays


def test_a_claim_of_four_gigabytes_is_not_waited_for(node: PullingNode, pacs: Pacs) -> None:
    def claims(event: Any) -> Iterator[Any]:
        event.assoc.dul.socket.socket.sendall(b"\x04\x00\xff\xff\xff\xf0" + bytes(1000))
        time.sleep(1.0)
        yield 0

    pacs.server.unbind(evt.EVT_C_GET, pacs.get)
    pacs.server.bind(evt.EVT_C_GET, claims)
    begun = time.monotonic()
    row = worked(node, node.asking(pacs.port, method="get"))
    assert time.monotonic() - begun < 10
    assert (row["state"], row["code"]) == ("FAILED", "pull.object-too-large")


def test_objects_that_are_large_together_and_not_alone_all_come(node: PullingNode, pacs: Pacs) -> None:
    pacs.objects = [sized(number, 1024) for number in range(1, 9)]
    puller = node.asking(pacs.port, method="get")
    puller._archive._largest = len(pacs.objects[0].PixelData) + 100_000  # type: ignore[attr-defined]
    assert worked(node, puller)["code"] == "pull.complete"
    assert list(node.studies().values()) == [8]


class OneObject(BaseHTTPRequestHandler):
    """Finds one study, and sends an object; one that never ends, if it shall not end."""

    def do_GET(self) -> None:
        server: Any = self.server
        self.send_response(200)
        if "?" in self.path:
            body = b'[{"0020000D":{"vr":"UI","Value":["' + uid(1).encode() + b'"]}}]'
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=b')
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b"--b\r\n\r\n" + server.object)
            while not server.ends:
                self.wfile.write(bytes(1 << 20))
            self.wfile.write(b"\r\n--b--\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def web_with(one: bytes, *, ends: bool) -> Iterator[str]:
    """The address of a DICOMweb server with one object."""
    server: Any = HTTPServer(("127.0.0.1", 0), OneObject)
    server.object, server.ends = one, ends
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("option", ["max_object_mb", "memory_mb"])
def test_an_object_without_end_is_cut_off_on_the_web_too(node: PullingNode, tmp_path: Path, option: str) -> None:
    with web_with(part10(image(1), tmp_path).read_bytes()[:-2], ends=False) as address:
        puller = node.asking(1, method="web", web=address)
        door: Any = puller._archive._door  # type: ignore[attr-defined]
        if option == "max_object_mb":
            door._largest = 8_000_000
        else:
            door._memory = Memory(8_000_000, 20.0)
        begun = time.monotonic()
        row = worked(node, puller)
        assert time.monotonic() - begun < 15
    assert (row["state"], row["code"]) == ("FAILED", "pull.object-too-large")
    assert f"] {option}" in str(row["message"])


def test_an_object_for_which_others_leave_no_memory_is_asked_for_again(
    node: PullingNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "ARRIVAL_S", 0.1)
    with web_with(part10(sized(1, 512), tmp_path).read_bytes(), ends=True) as address:
        puller = node.asking(1, method="web", web=address)
        memory = Memory(1 << 20, 20.0)
        puller._archive._door._memory = memory  # type: ignore[attr-defined]
        with memory.account(1 << 20) as other:
            other.take(900_000)
            row = worked(node, puller)
        assert (row["state"], row["code"]) == ("WAITING", "pull.incomplete")
        assert worked(node, puller)["code"] == "pull.complete"


class Pages(BaseHTTPRequestHandler):
    """Answers at most three studies at once, whatever is asked for, in the order it has them."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        server: Any = self.server
        server.asked.append(asked)
        first = 0 if server.knows_no_offset else int(asked["offset"][0])
        page = server.uids[first : first + 3]
        items = [
            {
                "0020000D": {"vr": "UI", "Value": [one]},
                "00080020": {"vr": "DA", "Value": ["20240101" if number % 2 else "20240102"]},
            }
            for number, one in enumerate(page)
        ]
        body = json.dumps(items).encode() if items else b""
        self.send_response(200 if items else server.at_the_end)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def pages(count: int, *, knows_no_offset: bool = False, at_the_end: int = 200) -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Pages)
    server.uids, server.asked = [f"1.2.3.{number}" for number in range(count)], []
    server.knows_no_offset, server.at_the_end = knows_no_offset, at_the_end
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


DAY = Wanted(Kind.DAY, "20240101")


@pytest.mark.parametrize("at_the_end", [200, 204, 404])
def test_a_server_that_answers_in_small_pages_loses_no_study(node: PullingNode, at_the_end: int) -> None:
    with pages(30, at_the_end=at_the_end) as server:
        puller = node.asking(1, method="web", web=f"http://127.0.0.1:{server.server_port}")
        found = puller._archive.find(DAY)
    assert [match.study_uid for match in found] == [f"1.2.3.{number}" for number in range(1, 30, 3)]
    assert "00100021" in server.asked[0]["includefield"][0]


def test_a_server_that_knows_no_offset_is_not_asked_for_ever(node: PullingNode) -> None:
    with pages(30, knows_no_offset=True) as server:
        puller = node.asking(1, method="web", web=f"http://127.0.0.1:{server.server_port}")
        assert [match.study_uid for match in puller._archive.find(DAY)] == ["1.2.3.1"]
        assert len(server.asked) == 2


class Archive:
    """What the test lets it be."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def find(self, _wanted: Wanted) -> list[Match]:
        if self.error is not None:
            raise self.error
        return [Match(uid(1), 0)]

    def retrieve(self, *_: object) -> Retrieved:
        return Retrieved(1)


@pytest.mark.parametrize("outcome", ["done", "failed", "later"])
def test_an_outcome_that_meets_a_busy_ledger_is_written_as_soon_as_it_is_free(
    node: PullingNode, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "IDLE_S", 0.02)
    puller = node.asking(free_port())
    errors = {"failed": Stop("x.y", "z"), "later": Retry("pull.incomplete", "z"), "done": None}
    puller._archive = Archive(errors[outcome])  # type: ignore[assignment]
    if outcome == "failed":
        puller._archive.error = pulling.not_found("")  # type: ignore[attr-defined]
    if outcome == "done":
        monkeypatch.setattr(puller, "_study", lambda *_: Pulled("pull.complete", 1))
    written, busy = getattr(puller.queue, outcome), iter(range(3))

    def refused(*words: Any, **named: Any) -> None:
        if next(busy, None) is not None:
            raise Retry("ledger.busy", "locked")
        written(*words, **named)

    monkeypatch.setattr(puller.queue, outcome, refused)
    row = worked(node, puller)
    assert (row["state"], row["attempts"]) == ({"done": "DONE", "failed": "FAILED", "later": "WAITING"}[outcome], 1)
    done = int(outcome == "done")
    assert puller.counts == {"pulled": done, "failed": int(outcome == "failed"), "instances": done}


def test_a_busy_ledger_in_the_middle_costs_no_try_and_is_not_the_archives_fault(node: PullingNode) -> None:
    puller = node.asking(free_port(), tries=1)
    puller._archive = Archive(Retry("ledger.busy", "locked"))  # type: ignore[assignment]
    row = worked(node, puller)
    assert (row["state"], row["attempts"], row["code"]) == ("WAITING", 0, "ledger.busy")
    assert puller.gate.closed() == ""


def test_what_is_wrong_with_ourselves_is_not_held_against_the_study(node: PullingNode) -> None:
    puller = node.asking(free_port(), tries=1)
    puller._archive = Archive(Stop("tls.unreadable", "a certificate cannot be read"))  # type: ignore[assignment]
    row = worked(node, puller)
    assert (row["state"], row["attempts"], row["code"]) == ("WAITING", 0, "tls.unreadable")
    assert puller.gate.closed() == "tls.unreadable"  # in `pull status` too


def test_the_processes_beside_the_receiver_go_first_when_memory_is_short(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from edge_node.config.load import load\n"
        "from edge_node.service import beside\n"
        f"beside.begin(load(environ={{}}, flags={{'node.data_dir': {str(tmp_path)!r}}}).config)\n"
        "print('begun', os.nice(0), flush=True); time.sleep(60)"
    )
    before = int(Path("/proc/self/oom_score_adj").read_text())
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split() == ["begun", str(min(19, os.nice(0) + 5))]
            assert int(Path(f"/proc/{process.pid}/oom_score_adj").read_text()) == max(500, before)
        finally:
            process.send_signal(signal.SIGKILL)
