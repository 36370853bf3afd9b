"""The result as FHIR resources against a real HTTP server, well-behaved and otherwise."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from edge_node.config.destinations import Fhir
from edge_node.config.schema import Config
from edge_node.config.write_back import Worklist
from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.finding import Code, TriageOutcome, TriageResult, Verdict
from edge_node.service.writer_checks import writers
from edge_node.worklist.header import report_reference
from edge_node.worklist.writer import Site, WorklistWriter
from edge_node.worklist.writers import WRITERS
from tests.integration.peers_fhir import FhirServer
from tests.integration.peers_orthanc import free_port
from tests.results_back import KEY, MODEL, PATIENT, STUDY_UID, finding, identity, priority, result, write_back

SYSTEMS = {"HOSPITAL-A": "urn:oid:1.2.3.4"}


def writer_to(url: str, *, timeout_s: float = 5, **options: Any) -> WorklistWriter:
    chosen = Fhir(url=url, **{"patient_systems": SYSTEMS, **options})
    return WRITERS["fhir"](Site(None, None, "EDGENODE", timeout_s, fhir=chosen))


@pytest.fixture
def server() -> Iterator[FhirServer]:
    with FhirServer() as running:
        yield running


def test_a_result_is_preliminary_says_so_and_names_patient_order_and_study(server: FhirServer) -> None:
    report = writer_to(server.url, accession_system="urn:oid:1.2.3.5").write(write_back())
    assert report.outcome == "written"
    (made,), (seen,), (task,), (device,) = (
        server.of(kind) for kind in ("DiagnosticReport", "Observation", "Task", "Device")
    )
    assert report.objects == (("fhir", made["identifier"][0]["value"].removeprefix("urn:oid:")),)
    sent = {entry["resource"]["resourceType"]: entry for entry in server.requests[0][2]["entry"]}
    for one in (made, seen):
        assert one["status"] == "preliminary"
        assert one["subject"]["identifier"] == {"system": "urn:oid:1.2.3.4", "value": PATIENT["PatientID"]}
        order = one["basedOn"][0]["identifier"]
        assert (order["system"], order["value"]) == ("urn:oid:1.2.3.5", "ACC-551")
        assert sent[one["resourceType"]]["resource"]["meta"]["security"][0]["code"] == "AIAST"
    assert made["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY_UID}"
    assert made["identifier"][1]["value"] == f"urn:oid:{report_reference(KEY, STUDY_UID, 1).sop_uid}"
    assert "AI output, not a diagnosis" in made["conclusion"]
    assert "due" in made["conclusion"]
    assert made["result"] == [{"reference": sent["Observation"]["fullUrl"]}]
    assert seen["device"] == {"reference": sent["Device"]["fullUrl"]}
    assert seen["valueCodeableConcept"]["coding"][0]["code"] == "FLAGGED"
    assert seen["component"][1]["valueQuantity"]["value"] == 0.93
    assert (task["priority"], task["status"], task["intent"]) == ("stat", "requested", "proposal")
    assert device["deviceName"][0]["name"] == "ref-ct-head-hyperdensity"
    assert all("ifNoneExist" in entry["request"] for entry in sent.values())
    assert not server.of("Patient")
    assert not server.of("ServiceRequest")


def test_nothing_of_the_patient_stands_in_an_address_or_a_condition(server: FhirServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back())
    writer.write(write_back(revision=2, replaces=1, earlier=result()))
    shown = json.dumps([[method, path] for method, path, _, _ in server.requests])
    shown += json.dumps([entry["request"] for _, _, body, _ in server.requests if body for entry in body["entry"]])
    assert not [value for value in PATIENT.values() if value in shown and len(value) > 1]


def test_sending_again_makes_nothing_twice_even_when_the_answer_was_lost(server: FhirServer) -> None:
    writer = writer_to(server.url)
    server.deaf = True
    with pytest.raises(Retry) as raised:
        writer.write(write_back())
    assert raised.value.code == "worklist.fhir-unavailable"
    once = server.resources.copy()
    writer.write(write_back())
    assert server.resources == once
    assert len(once) == 4


def test_a_later_revision_updates_the_same_resources_and_raises_the_task(server: FhirServer) -> None:
    writer = writer_to(server.url)
    calm = write_back(priority=priority(), result=result(finding(Verdict.NOT_FLAGGED)))
    writer.write(calm)
    assert server.of("Task")[0]["priority"] == "routine"
    server.of("Task")[0]["owner"] = {"display": "team"}
    writer.write(write_back(revision=2, replaces=1, earlier=calm.result))
    assert len(server.resources) == 4
    (task,), (seen,) = server.of("Task"), server.of("Observation")
    assert (task["priority"], task["owner"]) == ("stat", {"display": "team"})
    assert seen["valueCodeableConcept"]["coding"][0]["code"] == "FLAGGED"


def test_a_revision_whose_predecessor_was_never_acknowledged_still_replaces_it(server: FhirServer) -> None:
    writer = writer_to(server.url)
    server.deaf = True
    with pytest.raises(Retry):
        writer.write(write_back(priority=priority(), result=result(finding(Verdict.NOT_FLAGGED))))
    writer.write(write_back(revision=2))
    assert server.of("Observation")[0]["valueCodeableConcept"]["coding"][0]["code"] == "FLAGGED"
    assert server.of("Task")[0]["priority"] == "stat"
    assert len(server.resources) == 4


def test_a_task_is_never_lowered(server: FhirServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back())
    before = server.of("Task")
    writer.write(write_back(revision=2, replaces=1, priority=priority(), result=result(finding(Verdict.NOT_FLAGGED))))
    assert server.of("Task") == before


@pytest.mark.parametrize("status", ["accepted", "in-progress", "completed"])
def test_a_result_that_comes_when_somebody_reads_says_so_and_leaves_the_task_alone(
    server: FhirServer, status: str
) -> None:
    writer = writer_to(server.url)
    writer.write(write_back(priority=priority(), result=result(finding(Verdict.NOT_FLAGGED))))
    server.of("Task")[0]["status"] = status
    before = server.of("Task")
    assert writer.write(write_back(revision=2, replaces=1)).outcome == "late"
    assert server.of("Task") == before
    assert "LATE" in server.of("DiagnosticReport")[0]["conclusion"]


def test_a_task_that_changed_while_we_looked_is_looked_at_again(server: FhirServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back(priority=priority(), result=result(finding(Verdict.NOT_FLAGGED))))
    stale = json.dumps({"resourceType": "Bundle", "entry": [{"resource": server.of("Task")[0]}]}).encode()
    server.of("Task")[0]["meta"] = {"versionId": "7"}
    server.faults.append((200, {}, stale))
    with pytest.raises(Retry) as raised:
        writer.write(write_back(revision=2, replaces=1))
    assert raised.value.code == "worklist.fhir-unavailable"
    assert server.of("Observation")[0]["valueCodeableConcept"]["coding"][0]["code"] == "NOT_FLAGGED"
    assert writer.write(write_back(revision=2, replaces=1)).outcome == "written"
    assert server.of("Task")[0]["priority"] == "stat"


def test_what_no_longer_stands_is_cancelled(server: FhirServer) -> None:
    writer = writer_to(server.url)
    writer.write(write_back())
    skipped = TriageResult(TriageOutcome.NOT_APPLICABLE, "no model applies")
    writer.write(write_back(revision=2, replaces=1, earlier=result(), result=skipped, priority=priority()))
    assert [one["status"] for one in server.of("Observation") + server.of("DiagnosticReport")] == ["cancelled"] * 2
    assert "Withdrawn" in server.of("DiagnosticReport")[0]["conclusion"]


def test_what_a_model_said_that_cannot_judge_now_stays_as_it_is(server: FhirServer) -> None:
    pneumothorax = finding(model=replace(MODEL, name="chest"), code=Code("36118008", "SCT", "Pneumothorax"), category=2)
    writer = writer_to(server.url)
    writer.write(write_back(result=result(finding(), pneumothorax)))
    before = server.of("Observation")
    now = replace(result(finding()), unavailable=("chest 1.0.0: triage.gpu-memory",))
    writer.write(write_back(revision=2, replaces=1, earlier=result(finding(), pneumothorax), result=now))
    assert {one["status"] for one in server.of("Observation")} == {one["status"] for one in before} == {"preliminary"}
    [report] = server.of("DiagnosticReport")
    assert "Not judged again, what was said of Pneumothorax stands." in report["conclusion"]


def test_a_study_nothing_was_said_of_needs_no_resource() -> None:
    skipped = TriageResult(TriageOutcome.NOT_APPLICABLE, "no model applies")
    report = writer_to(f"http://127.0.0.1:{free_port()}").write(write_back(result=skipped))
    assert report.outcome == "nothing-to-say"


@pytest.mark.parametrize(
    ("missing", "systems"),
    [
        ({"PatientID": None}, SYSTEMS),
        ({"AccessionNumber": None}, SYSTEMS),
        ({"IssuerOfPatientID": None}, SYSTEMS),
        ({}, {"HOSPITAL-B": "urn:oid:1.2.3.9"}),
    ],
    ids=["patient", "accession", "issuer", "unknown-issuer"],
)
def test_what_could_be_filed_under_the_wrong_patient_or_order_is_not_sent(
    server: FhirServer, missing: dict[str, Any], systems: dict[str, str]
) -> None:
    with pytest.raises(Quarantine) as raised:
        writer_to(server.url, patient_systems=systems).write(write_back(identity=identity(**missing)))
    assert raised.value.code == "worklist.identity-incomplete"
    assert not server.requests
    assert "HOSPITAL" not in raised.value.message


def test_the_system_of_a_patient_id_comes_from_the_site_or_the_issuer_itself(server: FhirServer) -> None:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = "2.16.840.9", "ISO"
    writer = writer_to(server.url, patient_system="https://site.example/mrn", patient_systems={})
    writer.write(write_back(identity=identity(IssuerOfPatientIDQualifiersSequence=[item])))
    writer.write(write_back(identity=identity(IssuerOfPatientID=None, StudyInstanceUID=f"{STUDY_UID}.2")))
    systems = [one["subject"]["identifier"]["system"] for one in server.of("DiagnosticReport")]
    assert systems == ["urn:oid:2.16.840.9", "https://site.example/mrn"]


OUTCOME = json.dumps(
    {"resourceType": "OperationOutcome", "issue": [{"code": "invalid", "diagnostics": "Kowalska is unknown"}]}
).encode()


@pytest.mark.parametrize("status", [400, 410, 422])
def test_a_refusal_waits_for_a_human_and_repeats_nothing_the_server_said(server: FhirServer, status: int) -> None:
    server.faults.append((status, {}, OUTCOME))
    with pytest.raises(Quarantine) as raised:
        writer_to(server.url).write(write_back())
    assert raised.value.code == "worklist.fhir-refused"
    assert str(status) in raised.value.message
    assert "(invalid)" in raised.value.message
    assert "Kowalska" not in repr(raised.value)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {}, b""),
        (404, {}, b""),
        (403, {}, b""),
        (409, {}, OUTCOME),
        (302, {"Location": "http://127.0.0.1/elsewhere"}, b""),
        (200, {}, b"<html>sign in</html>"),
        (200, {}, b'{"resourceType": "Bundle", "type": "transaction-response", "entry": []}'),
        (200, {}, b'{"resourceType": "Bundle", "type": "transaction-response", "entry": [1, 2, 3, 4]}'),
        (200, {}, b'["' + b"x" * (9 << 20) + b'"]'),
    ],
    ids=["500", "404", "403", "409", "redirect", "html", "too-few", "numbers", "endless"],
)
def test_anything_but_a_clear_word_is_tried_again(
    server: FhirServer, status: int, headers: dict[str, str], body: bytes
) -> None:
    server.faults.append((status, headers, body))
    writer = writer_to(server.url)
    with pytest.raises(Retry) as raised:
        writer.write(write_back())
    assert raised.value.code == "worklist.fhir-unavailable"
    assert raised.value.counts
    writer.write(write_back())
    assert len(server.resources) == 4


def test_an_entry_that_failed_is_a_refusal_though_the_whole_was_answered_with_200(server: FhirServer) -> None:
    answers = [{"response": {"status": status}} for status in ("201", "201", "422", "201")]
    body = json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": answers}).encode()
    server.faults.append((200, {}, body))
    with pytest.raises(Quarantine):
        writer_to(server.url).write(write_back())


def test_a_busy_server_says_when_to_come_back_and_that_does_not_count(server: FhirServer) -> None:
    server.faults.append((503, {"Retry-After": "7"}, b""))
    with pytest.raises(Retry) as raised:
        writer_to(server.url).write(write_back())
    assert (raised.value.after, raised.value.counts) == (7.0, False)


def test_a_renewed_token_is_read_when_the_old_one_is_refused(server: FhirServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o400)
    writer = writer_to(server.url, token_file=token)
    writer.write(write_back())
    token.chmod(0o600)
    token.write_text("new")
    token.chmod(0o400)
    server.faults.append((401, {}, b""))
    writer.write(write_back())
    assert [headers["Authorization"] for *_, headers in server.requests] == ["Bearer old", "Bearer old", "Bearer new"]
    server.faults += [(401, {}, b""), (401, {}, b"")]
    with pytest.raises(Retry) as raised:
        writer.write(write_back())
    assert "credentials" in raised.value.message


def test_a_password_is_sent_as_basic_authentication(server: FhirServer, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret")
    secret.chmod(0o400)
    writer_to(server.url, user="edge", password_file=secret).write(write_back())
    assert server.requests[0][3]["Authorization"] == "Basic " + base64.b64encode(b"edge:s3cret").decode()


def test_a_server_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(Retry) as raised:
        writer_to(f"http://127.0.0.1:{free_port()}/fhir", timeout_s=1).write(write_back())
    assert raised.value.code == "worklist.fhir-unavailable"


@pytest.mark.parametrize("url", ["http://ehr.example/fhir", "https://user:word@ehr.example", "ftp://ehr", "https://"])
def test_an_address_that_is_not_safe_stops_the_writer_and_is_not_repeated(url: str) -> None:
    with pytest.raises(Stop) as raised:
        writer_to(url)
    assert raised.value.code == "worklist.url"
    assert "example" not in str(raised.value)
    assert "word@" not in str(raised.value)


def test_sending_logs_nothing_about_the_patient(server: FhirServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        writer_to(server.url).write(write_back())
        writer_to(server.url).write(write_back(revision=2, replaces=1, earlier=result()))
    assert not [value for value in PATIENT.values() if value in caplog.text and len(value) > 1]


def test_the_doctor_knows_a_fhir_r4_server_from_another(server: FhirServer) -> None:
    config = Config(worklist=Worklist(mode="live", writers=["fhir"]), fhir=Fhir(url=server.url))
    (check,) = writers(config)
    assert (check.name, check.result) == ("writer fhir", "ok")
    server.faults.append((200, {}, b'{"resourceType": "CapabilityStatement", "fhirVersion": "3.0.2"}'))
    assert [check.result for check in writers(config)] == ["fail"]
    server.faults.append((404, {}, b""))
    assert [check.result for check in writers(config)] == ["warn"]
    server.faults.append((500, {}, b""))
    assert [check.result for check in writers(config)] == ["fail"]
