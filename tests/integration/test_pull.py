"""Studies that the node asks a PACS for: a real Orthanc by C-MOVE, C-GET and DICOMweb, and DCMTK's dcmqrscp."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from edge_node.domain.errors import Retry
from edge_node.domain.pull import Kind, Wanted
from edge_node.domain.status import Status
from edge_node.service.pulling import Puller
from edge_node.store import pulls
from tests.integration.needed_tools import need
from tests.integration.peers_dcmtk import dcmqrscp
from tests.integration.peers_orthanc import Orthanc, free_port
from tests.integration.puller import PullingNode, fill, part10, uid
from tests.unit.service.site import Site, image, needles_in, site

__all__ = ["site"]
PATIENT = Wanted(Kind.PRIORS, "PAT-420042")
JPEG = Path(str(get_testdata_file("JPEG2000.dcm")))
METHODS = ("move", "get", "web")


def study(number: int) -> Wanted:
    return Wanted(Kind.STUDY, uid(number))


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    """Three studies of one patient on two days, one of another; a compressed one besides."""
    folder = tmp_path_factory.mktemp("orthanc")
    modalities = {"node": {"AET": "EDGENODE", "Host": "127.0.0.1", "Port": port, "Manufacturer": "Generic"}}
    extra = {"DicomAlwaysAllowGet": True, "DicomCheckModalityHost": False}
    with Orthanc(folder, ae_title="PACS", modalities=modalities, extra=extra) as peer:
        files = fill(folder, {1: 3, 2: 2}) + fill(folder, {3: 1}, StudyDate="20240102")
        files += fill(folder, {4: 2}, PatientID="OTHER-1", StudyDate="20240103")
        files.append(JPEG)
        for path in files:
            peer.request("/instances", method="POST", body=path.read_bytes())
        yield peer


@pytest.fixture
def node(site: Site, port: int) -> Iterator[PullingNode]:
    one = PullingNode(site, port=port)
    yield one
    one.close()


def asking(node: PullingNode, orthanc: Orthanc, method: str, **options: Any) -> Puller:
    return node.asking(orthanc.dicom_port, web=f"{orthanc.url}/dicom-web", method=method, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_list_of_studies_and_accession_numbers_comes_in_whole(
    node: PullingNode, orthanc: Orthanc, method: str
) -> None:
    told = node.pull(asking(node, orthanc, method), study(1), Wanted(Kind.ACCESSION, "ACC2"))
    assert (told["state"], told["done"], told["failed"], told["instances"]) == ("DONE", 3, 0, 5)
    assert sorted(node.studies().values()) == [2, 3]
    whence = {"move": "PACS", "get": "PACS", "web": "PULL"}[method]
    assert {one[0] for one in node.received} == {whence}


@pytest.mark.parametrize("method", METHODS)
def test_priors_are_those_of_the_patient_and_of_nobody_else(node: PullingNode, orthanc: Orthanc, method: str) -> None:
    told = node.pull(asking(node, orthanc, method), PATIENT)
    assert (told["studies"], told["instances"]) == (3, 6)
    assert {str(row["study_key"]) for row in node.site.rows("prior")} == set(node.studies())
    assert len(node.site.audited("study.prior")) == 3


def test_studies_of_a_list_are_no_priors_nor_is_what_an_archive_has_of_today(
    node: PullingNode, orthanc: Orthanc, tmp_path: Path
) -> None:
    today = fill(tmp_path, {8: 1}, StudyDate=f"{datetime.now():%Y%m%d}", PatientID="TODAY-1")
    orthanc.request("/instances", method="POST", body=today[0].read_bytes())
    puller = asking(node, orthanc, "get")
    node.pull(puller, study(3))
    assert node.pull(puller, Wanted(Kind.PRIORS, "TODAY-1"))["studies"] == 1
    assert len(node.studies()) == 2
    assert node.site.rows("prior") == []


@pytest.mark.parametrize("method", METHODS)
def test_a_day_brings_what_was_made_on_it_and_a_modality_narrows_it(
    node: PullingNode, orthanc: Orthanc, method: str
) -> None:
    puller = asking(node, orthanc, method)
    assert node.pull(puller, Wanted(Kind.DAY, "20240102"), Wanted(Kind.DAY, "20240103"))["instances"] == 3
    assert node.pull(puller, Wanted(Kind.DAY, "20240102", modality="MR"))["studies"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_compressed_objects_come_as_the_archive_keeps_them(node: PullingNode, orthanc: Orthanc, method: str) -> None:
    told = node.pull(asking(node, orthanc, method), Wanted(Kind.STUDY, str(dcmread(JPEG).StudyInstanceUID)))
    assert told["done"] == 1
    assert [one[1] for one in node.received] == ["1.2.840.10008.1.2.4.91"]


@pytest.mark.parametrize("method", METHODS)
def test_what_the_archive_does_not_have_is_said_and_stops_nothing(
    node: PullingNode, orthanc: Orthanc, method: str
) -> None:
    told = node.pull(
        asking(node, orthanc, method),
        study(77),
        Wanted(Kind.ACCESSION, "NOBODY"),
        Wanted(Kind.PRIORS, "NOBODY"),
        study(3),
    )
    assert (told["done"], told["failed"]) == (2, 2)
    assert {(one["number"], one["code"]) for one in told["told"]} == {(1, "pull.not-found"), (2, "pull.not-found")}
    assert list(node.studies().values()) == [1]


def test_what_is_here_already_is_not_asked_for_again_unless_that_is_wanted(node: PullingNode, orthanc: Orthanc) -> None:
    puller = asking(node, orthanc, "get")
    node.pull(puller, study(1))
    assert len(node.received) == 3
    assert node.pull(puller, study(1), study(1))["done"] == 1
    assert len(node.received) == 3
    node.pull(puller, study(1), again=True)
    assert len(node.received) == 6
    assert list(node.studies().values()) == [3]


def test_nothing_of_what_was_asked_for_stands_in_the_clear_and_its_key_goes_with_the_job(
    node: PullingNode, orthanc: Orthanc
) -> None:
    puller = asking(node, orthanc, "get")
    name = node.ask(puller, PATIENT, Wanted(Kind.ACCESSION, "ACC-774411"), study(3))
    assert needles_in(node.config.node.data_dir) == []
    assert [row["owner"] for row in node.site.rows("data_key")] == [name]
    node.start(puller)
    node.until(lambda: node.job(name)["state"] == "DONE")
    assert needles_in(node.config.node.data_dir) == []
    assert name not in {row["owner"] for row in node.site.rows("data_key")}
    assert {row["sealed"] for row in node.site.rows("pull_item")} == {b""}
    assert [entry.detail["done"] for entry in node.site.audited("pull.ended")] == [4]


def test_a_killed_puller_goes_on_where_it_was(node: PullingNode, orthanc: Orthanc) -> None:
    first = asking(node, orthanc, "move")
    name = node.ask(first, *(study(number) for number in (1, 2, 3, 4)))
    for _ in range(2):
        assert first.queue.claim() is not None  # and then it was killed
    second = asking(node, orthanc, "move")
    assert second.queue.take_over(8) == 2
    node.start(second)
    node.until(lambda: node.job(name)["state"] == "DONE")
    assert sorted(node.studies().values()) == [1, 2, 2, 3]
    assert sorted(row["attempts"] for row in node.site.rows("pull_item")) == [1, 1, 2, 2]


def test_an_archive_that_does_not_know_us_is_named_and_asked_again(node: PullingNode, orthanc: Orthanc) -> None:
    puller = asking(node, orthanc, "move", destination="STRANGER")
    name = node.ask(puller, study(1))
    node.start(puller)
    node.until(lambda: bool(node.job(name)["told"]))
    [told] = node.job(name)["told"]
    assert (told["state"], told["code"]) in (
        ("WAITING", "pull.destination-unknown"),
        ("WAITING", "pull.retrieve-failed"),
    )
    assert puller.gate.closed() in ("pull.unavailable", "")


def test_nobody_there_costs_no_tries_and_is_asked_again_later(node: PullingNode) -> None:
    for method, web in (("move", ""), ("web", f"http://127.0.0.1:{free_port()}/dicom-web")):
        puller = node.asking(free_port(), method=method, web=web)
        name = node.ask(puller, study(1))
        item = puller.queue.claim()
        assert item is not None
        puller.one(item, node.stop)
        [told] = node.job(name)["told"]
        assert (told["state"], told["code"]) == ("WAITING", "pull.unavailable")
        assert puller.gate.closed() == "pull.unavailable"
        with node.node.database.write() as connection:
            assert pulls.cancel(connection, name, "test") == 1
        assert node.job(name)["state"] == "CANCELLED"
        assert {row["attempts"] for row in node.site.rows("pull_item")} == {0}


@pytest.mark.parametrize("method", METHODS)
def test_what_the_receiver_refuses_is_asked_for_again_and_then_waits_for_a_human(
    node: PullingNode, orthanc: Orthanc, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "BACKOFF_FIRST_S", 0.05)
    monkeypatch.setattr("edge_node.service.pulling.ARRIVAL_S", 0.1)
    node.refuse = Retry("spool.disk-full", "no room")
    puller = asking(node, orthanc, method, tries=2)
    told = node.pull(puller, study(3))
    assert (told["state"], told["failed"]) == ("DONE", 1)
    assert told["told"][0]["code"] in ("pull.incomplete", "pull.retrieve-failed")
    node.refuse = None
    assert node.pull(puller, study(3))["done"] == 1


def test_a_job_that_is_given_up_stops_in_the_middle(node: PullingNode, orthanc: Orthanc) -> None:
    puller = asking(node, orthanc, "move", studies_per_minute=60.0)
    name = node.ask(puller, *(study(number) for number in (1, 2, 3, 4)))
    node.start(puller)
    node.until(lambda: node.job(name)["done"] >= 1)
    with node.node.database.write() as connection:
        pulls.cancel(connection, name, "test")
    here = node.job(name)["done"]
    time.sleep(1.5)
    told = node.job(name)
    assert (told["state"], told["done"], told["waiting"], told["running"]) == ("CANCELLED", here, 0, 0)
    assert len(node.studies()) < 4


def test_pulling_yields_to_those_who_send_and_goes_on_after_them(node: PullingNode, orthanc: Orthanc) -> None:
    puller = asking(node, orthanc, "get", yield_s=1.5)
    node.site.take(image(1, study=9))  # received long ago, by its time
    name = node.ask(puller, study(1))
    with node.node.database.write() as connection:
        connection.exec_driver_sql("UPDATE study SET last_received_at = ?", (time.time(),))
    begun = time.monotonic()
    node.start(puller)
    node.until(lambda: puller.state == "live-receiving")
    assert node.job(name)["waiting"] == 1
    node.until(lambda: node.job(name)["state"] == "DONE")
    assert time.monotonic() - begun >= 1.0


def test_dcmtks_archive_is_asked_the_same_way(node: PullingNode, tmp_path: Path) -> None:
    port = free_port()
    with dcmqrscp(tmp_path, fill(tmp_path, {1: 3, 2: 1}), port=port, node_port=node.port):
        for method, wanted in (("move", study(1)), ("get", study(2))):
            told = node.pull(node.asking(port, method=method), wanted)
            assert (told["done"], told["failed"]) == (1, 0), told
        node.rest()
        stranger = node.asking(port, destination="STRANGER")
        name = node.ask(stranger, study(1), again=True)
        item = stranger.queue.claim()
        assert item is not None
        stranger.one(item, node.stop)
        assert [one["code"] for one in node.job(name)["told"]] == ["pull.destination-unknown"]
    assert sorted(node.studies().values()) == [1, 3]


class LyingPacs:
    """Finds what it is asked for and says that it sent it."""

    def __init__(self) -> None:
        entity = AE("PACS")
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_MOVE, self.move)]
        self.elsewhere = AE("THEIRS")
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.server_address[1]
        self.matches: list[Any] = []

    def find(self, event: Any) -> Iterator[tuple[int, Any]]:
        for match in self.matches or [event.identifier]:
            yield Status.PENDING, match

    def move(self, _event: Any) -> Iterator[Any]:
        yield None, None


def test_a_match_that_is_another_patients_is_left_alone(node: PullingNode) -> None:
    pacs = LyingPacs()
    try:
        for other in ("PAT-42004", "PAT-420042X", ""):
            pacs.matches = [image(1)]
            pacs.matches[0].PatientID = other
            del pacs.matches[0].PixelData
            puller = node.asking(pacs.port)
            assert node.pull(puller, PATIENT)["studies"] == 0
    finally:
        pacs.server.shutdown()


def test_an_archive_that_has_another_address_for_us_is_found_out(
    node: PullingNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.service.pulling.ARRIVAL_S", 0.3)
    elsewhere, sink = free_port(), tmp_path / "sink"
    sink.mkdir()
    server = subprocess.Popen(
        [need("storescp"), "-od", str(sink), str(elsewhere)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        modalities = {"node": {"AET": "EDGENODE", "Host": "127.0.0.1", "Port": elsewhere, "Manufacturer": "Generic"}}
        with Orthanc(tmp_path, ae_title="PACS", modalities=modalities) as peer:
            peer.request("/instances", method="POST", body=part10(image(1), tmp_path).read_bytes())
            told = node.pull(node.asking(peer.dicom_port), study(1))
    finally:
        server.terminate()
        server.wait(10)
    assert [one["code"] for one in told["told"]] == ["pull.went-elsewhere"]


def test_a_request_that_is_cancelled_while_it_is_taken_ends_and_stops_nobody(
    node: PullingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    puller = node.asking(free_port())
    name = node.ask(puller, study(1), study(2))
    opened = node.node.keyring.open

    def cancelled_meanwhile(*words: Any) -> Any:
        with node.node.database.write() as connection:
            pulls.cancel(connection, name, "test")
        node.node.keyring.forget(words[0])
        return opened(*words)

    monkeypatch.setattr(node.node.keyring, "open", cancelled_meanwhile)
    assert puller.queue.claim() is None
    assert (node.job(name)["state"], node.job(name)["cancelled"]) == ("CANCELLED", 2)


def test_a_study_that_cannot_be_had_now_lets_the_others_go_first(node: PullingNode) -> None:
    puller = node.asking(free_port())
    node.ask(puller, study(1), study(2))
    first = puller.queue.claim()
    assert first is not None
    puller.one(first, node.stop)
    second = puller.queue.claim()
    assert second is not None
    assert second.number != first.number


def test_letters_that_are_not_ascii_never_become_a_wildcard(node: PullingNode, orthanc: Orthanc) -> None:
    for method in ("move", "web"):
        puller = asking(node, orthanc, method)
        assert node.pull(puller, Wanted(Kind.PRIORS, "PAT-42004\u00e4"))["studies"] == 0


class CutOff(BaseHTTPRequestHandler):
    """Finds one study and breaks off in the middle of its second object."""

    def do_GET(self) -> None:
        if "?" in self.path:
            body = b'[{"0020000D":{"vr":"UI","Value":["' + uid(1).encode() + b'"]}}]'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=b')
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        whole = self.server.object  # type: ignore[attr-defined]
        self.wfile.write(b"--b\r\n\r\n" + whole + b"\r\n--b\r\n\r\n" + whole[:400])

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_download_that_breaks_off_keeps_what_came_and_costs_a_try(node: PullingNode, tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), CutOff)
    server.object = part10(image(1), tmp_path).read_bytes()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        puller = node.asking(1, method="web", web=f"http://127.0.0.1:{server.server_port}")
        name = node.ask(puller, study(1))
        item = puller.queue.claim()
        assert item is not None
        puller.one(item, node.stop)
    finally:
        server.shutdown()
        server.server_close()
    [told] = node.job(name)["told"]
    assert (told["state"], told["code"]) == ("WAITING", "pull.retrieve-failed")
    assert list(node.studies().values()) == [1]
    assert [row["attempts"] for row in node.site.rows("pull_item")] == [1]
    assert puller.gate.closed() == ""


def test_a_long_list_is_taken_in_portions_and_each_request_once(
    node: PullingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "PORTION", 7)
    puller = node.asking(free_port())
    name = node.ask(puller, *(study(number) for number in (*range(1, 31), *range(1, 31))))
    assert [row["number"] for row in node.site.rows("pull_item")] == list(range(1, 31))
    assert (node.job(name)["state"], node.job(name)["waiting"]) == ("ACTIVE", 30)
