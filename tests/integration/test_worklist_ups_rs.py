"""The reading list over the web against a real UPS-RS server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from edge_node.config.destinations import UpsRs
from edge_node.config.schema import Config
from edge_node.config.write_back import Worklist
from edge_node.demo.pacs import ToyPacs
from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.finding import Verdict
from edge_node.domain.worklist import Peer
from edge_node.service.writer_checks import writers
from edge_node.worklist.writer import Site, WorklistWriter
from edge_node.worklist.writers import WRITERS
from tests.integration.peers_orthanc import free_port
from tests.integration.peers_ups_rs import PRIORITY, UpsRsServer
from tests.results_back import JAPANESE, PATIENT, finding, identity, priority, result, write_back

PACS = Peer("PACS", "127.0.0.1", 1)


def writer_to(url: str, *, timeout_s: float = 5, **options: Any) -> WorklistWriter:
    return WRITERS["ups_rs"](Site(PACS, None, "EDGENODE", timeout_s, ups_rs=UpsRs(url=url, **options)))


@pytest.fixture
def server() -> Iterator[UpsRsServer]:
    with UpsRsServer() as running:
        yield running


def test_the_workitem_is_the_same_as_by_ups_push(server: UpsRsServer, tmp_path: Path) -> None:
    order = write_back(identity=identity(PatientName=JAPANESE))
    report = writer_to(server.url).write(order)
    assert (report.writer, report.outcome) == ("ups_rs", "created")
    ((uid, item),) = server.items.items()
    assert report.objects == (("workitem", uid),)
    with ToyPacs(store=tmp_path) as pacs:
        peer = Peer("DEMOPACS", "127.0.0.1", pacs.port)
        pushed = WRITERS["ups"](Site(peer, peer, "EDGENODE", 10)).write(order)
        (kept,) = pacs.workitems
    assert pushed.objects == report.objects
    made = Dataset.from_json(item)
    assert str(made.PatientName) == JAPANESE
    assert made.ScheduledProcedureStepPriority == kept.ScheduledProcedureStepPriority == "HIGH"
    assert made.ReferencedRequestSequence == kept.ReferencedRequestSequence
    assert [str(tag) for tag in made.keys() - kept.keys()] == []
    assert server.requests[0][1] == f"/dicom-web/workitems?workitem={uid}"


@pytest.mark.parametrize(
    ("parameter", "query"), [("AffectedSOPInstanceUID", "AffectedSOPInstanceUID="), ("none", "")], ids=str
)
def test_a_server_may_want_the_uid_in_its_own_way(server: UpsRsServer, parameter: str, query: str) -> None:
    writer_to(server.url, uid_parameter=parameter).write(write_back())
    (uid,) = server.items
    assert server.requests[0][1] == f"/dicom-web/workitems?{query}{uid}"


def test_pushing_again_is_no_second_workitem_even_when_the_answer_was_lost(server: UpsRsServer) -> None:
    writer = writer_to(server.url)
    server.deaf = True
    with pytest.raises(Retry) as raised:
        writer.write(write_back())
    assert raised.value.code == "worklist.ups-rs-unavailable"
    assert writer.write(write_back()).outcome == "already-there"
    assert len(server.items) == 1
    assert [method for method, *_ in server.requests] == ["POST", "POST", "GET"]


def test_a_later_finding_raises_the_workitem_and_nothing_lowers_it(server: UpsRsServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back(priority=priority(), result=result(finding(Verdict.NOT_FLAGGED))))
    (uid,) = server.items
    assert server.items[uid][PRIORITY]["Value"] == ["LOW"]
    assert writer.write(write_back(revision=2, replaces=1)).outcome == "raised"
    assert server.items[uid][PRIORITY]["Value"] == ["HIGH"]
    assert writer.write(write_back(revision=3, priority=priority())).outcome == "already-there"
    sooner = replace(write_back().priority, due=write_back().priority.due - 300)
    assert writer.write(write_back(revision=4, priority=sooner)).outcome == "raised"
    assert len(server.items) == 1


@pytest.mark.parametrize("state", ["IN PROGRESS", "COMPLETED", "CANCELED"])
def test_a_study_a_human_has_taken_is_left_alone(server: UpsRsServer, state: str) -> None:
    writer = writer_to(server.url)
    writer.write(write_back(priority=priority()))
    server.put_state(state)
    assert writer.write(write_back(revision=2)).outcome == "being-read"
    assert [method for method, *_ in server.requests] == ["POST", "POST", "GET"]


def test_a_study_claimed_while_we_look_is_left_alone(server: UpsRsServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back(priority=priority()))
    server.claim_after_look = True
    assert writer.write(write_back(revision=2)).outcome == "being-read"
    assert server.requests[-1][0] == "GET"


def test_a_server_that_makes_its_own_uids_is_not_asked_twice(server: UpsRsServer) -> None:
    server.own_uids = True
    with pytest.raises(Quarantine) as raised:
        writer_to(server.url).write(write_back())
    assert raised.value.code == "worklist.ups-rs-refused"
    assert "uid_parameter" in raised.value.hint


@pytest.mark.parametrize("status", [400, 415, 410])
def test_a_refusal_waits_for_a_human_and_repeats_nothing_the_server_said(server: UpsRsServer, status: int) -> None:
    server.faults.append((status, {}, b"Kowalska is unknown"))
    with pytest.raises(Quarantine) as raised:
        writer_to(server.url).write(write_back())
    assert raised.value.code == "worklist.ups-rs-refused"
    assert str(status) in raised.value.message
    assert "Kowalska" not in repr(raised.value)


def test_an_update_that_is_refused_though_nobody_reads_is_told(server: UpsRsServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back(priority=priority()))
    (item,) = server.items.values()
    body = json.dumps([item]).encode()
    server.faults += [(409, {}, b""), (200, {}, body), (400, {}, b"")]
    with pytest.raises(Quarantine):
        writer.write(write_back(revision=2))


@pytest.mark.parametrize("status", [500, 502, 404, 405, 403, 302])
def test_what_may_pass_is_tried_again(server: UpsRsServer, status: int) -> None:
    server.faults.append((status, {"Location": "http://127.0.0.1/x"}, b""))
    writer = writer_to(server.url)
    with pytest.raises(Retry) as raised:
        writer.write(write_back())
    assert raised.value.code == "worklist.ups-rs-unavailable"
    assert writer.write(write_back()).outcome == "created"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b"[1]"])
def test_an_existing_workitem_that_cannot_be_read_is_tried_again(server: UpsRsServer, body: bytes) -> None:
    server.faults += [(409, {}, b""), (200, {}, body)]
    with pytest.raises(Retry):
        writer_to(server.url).write(write_back())


def test_a_busy_server_is_left_alone_for_as_long_as_it_says(server: UpsRsServer) -> None:
    server.faults += [(503, {}, b""), (429, {"Retry-After": "90000"}, b"")]
    waits = []
    for _ in range(2):
        with pytest.raises(Retry) as raised:
            writer_to(server.url).write(write_back())
        waits.append((raised.value.after, raised.value.counts))
    assert waits == [(30.0, False), (3600.0, False)]


def test_a_server_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(Retry):
        writer_to(f"http://127.0.0.1:{free_port()}", timeout_s=1).write(write_back())


def test_an_unsafe_address_stops_the_writer() -> None:
    with pytest.raises(Stop) as raised:
        writer_to("http://ris.example/dicom-web")
    assert raised.value.code == "worklist.url"


def test_pushing_logs_nothing_about_the_patient(server: UpsRsServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        writer_to(server.url).write(write_back(priority=priority()))
        writer_to(server.url).write(write_back(revision=2))
    shown = caplog.text + "".join(path for _, path, _ in server.requests)
    assert not [value for value in PATIENT.values() if value in shown and len(value) > 1]


def test_the_doctor_asks_for_a_workitem_that_does_not_exist(server: UpsRsServer) -> None:
    config = Config(worklist=Worklist(mode="live", writers=["ups_rs"]), ups_rs=UpsRs(url=server.url))
    assert [(check.name, check.result) for check in writers(config)] == [("writer ups_rs", "ok")]
    server.faults.append((404, {}, b""))
    assert [check.result for check in writers(config)] == ["warn"]
    server.faults.append((500, {}, b""))
    assert [check.result for check in writers(config)] == ["fail"]
