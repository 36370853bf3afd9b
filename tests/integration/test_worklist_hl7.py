"""The result as an HL7 message against a real MLLP listener, well-behaved and otherwise."""

from __future__ import annotations

import logging
import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from edge_node.config.destinations import Hl7
from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.finding import Code, TriageOutcome, TriageResult, Verdict
from edge_node.worklist.header import report_reference
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.oru import message
from edge_node.worklist.writer import Site, WorklistWriter
from edge_node.worklist.writers import WRITERS
from tests.integration.peers_mllp import (
    NOT_TAKEN,
    Behaviour,
    MllpListener,
    acknowledgement,
    answer,
    in_pieces,
    say,
)
from tests.integration.peers_orthanc import free_port
from tests.results_back import (
    JAPANESE,
    KEY,
    MODEL,
    PATIENT,
    STUDY_UID,
    envelopes,
    finding,
    identity,
    priority,
    result,
    write_back,
)


def writer_to(port: int, *, timeout_s: float = 5, **options: Any) -> WorklistWriter:
    return WRITERS["hl7"](Site(None, None, "EDGENODE", timeout_s, hl7=Hl7(host="127.0.0.1", port=port, **options)))


def item(**values: str) -> list[Dataset]:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return [made]


def test_a_message_carries_patient_order_priority_and_result_and_is_never_final() -> None:
    with MllpListener() as listener:
        report = writer_to(listener.port).write(write_back())
        rows = listener.rows()
    assert (report.outcome, report.destination) == ("accepted", f"127.0.0.1:{listener.port}")
    header = rows["MSH"][0]
    assert (header[8], header[11], header[17]) == ("ORU^R01^ORU_R01", "2.5.1", "UNICODE UTF-8")
    assert report.objects == (("hl7", header[9]),)
    assert 0 < len(header[9]) <= 20
    patient, request = rows["PID"][0], rows["OBR"][0]
    assert patient[3] == "MRN-77310^^^HOSPITAL-A^PI"
    assert patient[5] == "Żółć^Łucja^^^^^L^A"
    assert patient[7:9] == ["19570313", "F"]
    assert request[2:4] == rows["ORC"][0][2:4] == ["PLACER-3", "FILLER-4"]
    assert (request[18], request[25], request[5]) == ("ACC-551", "R", "")
    assert rows["TQ1"][0][9] == "S^Stat^HL70485"
    assert rows["PV1"][0][19] == "VISIT-9^^^^VN"
    told = {(row[3].split("^")[0], row[4]): row for row in rows["OBX"]}
    assert told["TRIAGE_VERDICT", "1386000"][5].startswith("FLAGGED^")
    assert told["122157", "1386000"][5] == "0.9300"
    assert told["TRIAGE_LEVEL", ""][5].startswith("HIGH^")
    assert told["110180", ""][5] == f"^{STUDY_UID}^ISO"
    assert told["SR_INSTANCE_UID", ""][5] == f"^{report_reference(KEY, STUDY_UID, 1).sop_uid}^ISO"
    assert [row[1] for row in rows["OBX"]] == [str(n) for n in range(1, len(rows["OBX"]) + 1)]
    assert {row[11] for row in rows["OBX"]} == {"R"}
    first = rows["OBX"][0]
    assert first[2] == "TX"
    assert "AI output, not a diagnosis" in first[5]
    assert any("Priority: Intracranial hemorrhage 0.93" in row[5] for row in rows["OBX"])


def test_every_spelling_of_a_name_and_every_number_with_an_issuer_is_sent() -> None:
    others = [
        *item(PatientID="NHS-1", IssuerOfPatientID="NHS"),
        *item(PatientID="WHOSE"),
    ]
    others[0].IssuerOfPatientIDQualifiersSequence = item(UniversalEntityID="2.16.840.1", UniversalEntityIDType="ISO")
    with MllpListener() as listener:
        writer_to(listener.port).write(
            write_back(identity=identity(PatientName=JAPANESE, OtherPatientIDsSequence=others))
        )
        patient = listener.rows()["PID"][0]
    assert patient[5] == "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"
    assert patient[3] == "MRN-77310^^^HOSPITAL-A^PI~NHS-1^^^NHS&2.16.840.1&ISO^PI"


def test_prefix_and_suffix_change_places_and_a_missing_name_deletes_none() -> None:
    with MllpListener() as listener:
        writer = writer_to(listener.port)
        writer.write(write_back(identity=identity(PatientName="O'Neil^Ann^B^Dr^MD")))
        writer.write(write_back(identity=identity(PatientName=None)))
        names = [listener.rows(number)["PID"][0][5] for number in (0, 1)]
    assert names == ["O'Neil^Ann^B^MD^Dr^^L^A", "^^^^^^U"]


def test_delimiters_in_a_value_stay_inside_it() -> None:
    with MllpListener() as listener:
        writer_to(listener.port).write(
            write_back(identity=identity(PatientName="A|B&C~D^F", AccessionNumber="A|1&2^3~4"))
        )
        rows = listener.rows()
    assert rows["PID"][0][5] == "A\\F\\B\\T\\C\\R\\D^F^^^^^L^A"
    assert rows["OBR"][0][18] == "A\\F\\1\\T\\2\\S\\3\\R\\4"
    assert rows["OBR"][0][25] == "R"


def test_no_text_is_longer_than_strict_parsers_take() -> None:
    long = finding(reason="", quality=tuple(f"warning|{n}" * 9 for n in range(20)))
    with MllpListener() as listener:
        writer_to(listener.port).write(write_back(result=result(long)))
        assert max(len(row[5]) for row in listener.rows()["OBX"]) <= 199


@pytest.mark.parametrize("code", ["AA", "CA"])
@pytest.mark.parametrize("mode", ["original", "enhanced"])
def test_either_acknowledgement_that_takes_responsibility_is_enough(code: str, mode: str) -> None:
    with MllpListener(answer(code)) as listener:
        writer_to(listener.port, acknowledgement=mode).write(write_back())
        assert listener.rows()["MSH"][0][14:16] == (["AL", "NE"] if mode == "enhanced" else ["", ""])


@pytest.mark.parametrize(("behaviour", "code"), NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_a_message_that_was_not_taken_is_sent_again_and_is_the_same_one(behaviour: Behaviour, code: str) -> None:
    with MllpListener(behaviour, answer("AA")) as listener:
        writer = writer_to(listener.port, timeout_s=0.5)
        with pytest.raises(Retry) as raised:
            writer.write(write_back())
        assert raised.value.code == code
        writer.write(write_back())
        assert len(listener.messages) == 2
        assert len(set(listener.messages)) == 1


def test_an_answer_in_pieces_late_or_after_somebody_elses_counts() -> None:
    def after_another(line: Any, message: bytes) -> None:
        line.sendall(acknowledgement(message, "AR", "SOMEBODY") + acknowledgement(message, "AA"))

    def without_carriage_return(line: Any, message: bytes) -> None:
        line.sendall(acknowledgement(message, "AA")[:-1])

    for behaviour in (in_pieces, after_another, without_carriage_return, answer("AA", by="#")):
        with MllpListener(behaviour) as listener:
            writer_to(listener.port, timeout_s=2).write(write_back())
            assert len(listener.messages) == 1


@pytest.mark.parametrize("code", ["AR", "CR"])
def test_a_refusal_waits_for_a_human_and_repeats_nothing_the_peer_said(code: str) -> None:
    with MllpListener(answer(code)) as listener, pytest.raises(Quarantine) as raised:
        writer_to(listener.port).write(write_back())
    assert raised.value.code == "worklist.hl7-refused"
    assert f"{code}, error 204 of HL7 table 0357" in raised.value.message
    assert "patient" not in raised.value.message


def test_a_listener_that_drips_forever_does_not_hold_the_writer() -> None:
    def drip(line: Any, _message: bytes) -> None:
        for _ in range(200):
            line.sendall(b"\x0bM")
            time.sleep(0.05)

    with MllpListener(drip) as listener, pytest.raises(Retry):
        writer_to(listener.port, timeout_s=0.4).write(write_back())


def test_an_endless_answer_does_not_fill_the_memory() -> None:
    with MllpListener(say(*[b"x" * 65536] * 64)) as listener, pytest.raises(Retry) as raised:
        writer_to(listener.port).write(write_back())
    assert "without end" in raised.value.message


def test_a_listener_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(Retry) as raised:
        writer_to(free_port(), timeout_s=1).write(write_back())
    assert raised.value.code == "worklist.hl7-unavailable"


def test_a_later_revision_replaces_what_it_says_and_deletes_what_it_does_not() -> None:
    later = result(finding(Verdict.NOT_FLAGGED))
    with MllpListener() as listener:
        writer = writer_to(listener.port)
        writer.write(write_back())
        writer.write(write_back(revision=2, replaces=1, earlier=result(), result=later))
        ids = listener.control_ids()
        first, second = listener.rows(0), listener.rows(1)
    assert ids[0] != ids[1]
    assert first["OBR"][0][2:5] == second["OBR"][0][2:5]
    status = {(row[3].split("^")[0], row[4]): row[11] for row in second["OBX"]}
    assert status["TRIAGE_VERDICT", "1386000"] == "R"
    assert status["TRIAGE_CATEGORY", "1386000"] == "D"
    assert "F" not in status.values()
    assert "C" not in status.values()


def test_a_result_that_no_longer_stands_is_withdrawn() -> None:
    skipped = TriageResult(TriageOutcome.NOT_APPLICABLE, "no model applies")
    with MllpListener() as listener:
        writer_to(listener.port).write(
            write_back(revision=2, replaces=1, earlier=result(), result=skipped, priority=priority())
        )
        rows = listener.rows()
    told = {(row[3].split("^")[0], row[4]): row for row in rows["OBX"]}
    assert told["TRIAGE_VERDICT", "1386000"][11] == told["122157", "1386000"][11] == "D"
    assert ("SR_INSTANCE_UID", "") not in told
    assert any("Withdrawn: what was said of Intracranial hemorrhage." in row[5] for row in rows["OBX"])


def test_what_a_model_said_that_cannot_judge_now_is_neither_deleted_nor_called_withdrawn() -> None:
    other = replace(MODEL, name="chest")
    pneumothorax = finding(model=other, code=Code("36118008", "SCT", "Pneumothorax"), category=2)
    effusion = finding(model=replace(MODEL, name="effusion"), code=Code("60046008", "SCT", "Effusion"), category=3)
    earlier = result(finding(), pneumothorax, effusion)
    now = replace(result(), unavailable=("chest 1.0.0 (int8 on CPU; live): triage.gpu-memory",))
    with MllpListener() as listener:
        writer_to(listener.port).write(write_back(revision=2, replaces=1, earlier=earlier, result=now))
        rows = listener.rows()
    deleted = {row[4] for row in rows["OBX"] if row[11] == "D"}
    assert deleted == {"60046008"}
    said = " ".join(row[5] for row in rows["OBX"] if row[2] == "TX")
    assert "Not judged again, what was said of Pneumothorax stands." in said
    assert "Withdrawn: what was said of Effusion." in said
    assert "was said of Intracranial" not in said


def test_a_result_that_comes_when_somebody_reads_says_so() -> None:
    said = []
    for late in (True, False):
        made = message(write_back(late=late), Hl7(host="127.0.0.1", port=1))
        assert made is not None
        said.append(b"LATE: reading of this study had begun" in made.content)
    assert said == [True, False]


def test_a_study_nothing_was_said_of_needs_no_message() -> None:
    skipped = TriageResult(TriageOutcome.NOT_APPLICABLE, "no model applies")
    assert writer_to(free_port()).write(write_back(result=skipped)).outcome == "nothing-to-say"


@pytest.mark.parametrize(
    "missing",
    [
        {"PatientID": None},
        {"PatientID": ["MRN-1", "MRN-2"]},
        {"PatientID": "MRN\r1"},
        {"IssuerOfPatientID": None},
        {
            "AccessionNumber": None,
            "PlacerOrderNumberImagingServiceRequest": None,
            "FillerOrderNumberImagingServiceRequest": None,
        },
    ],
    ids=["patient", "two-patients", "control-character", "issuer", "order"],
)
def test_what_could_be_filed_under_the_wrong_patient_or_order_is_not_sent(missing: dict[str, Any]) -> None:
    with MllpListener() as listener:
        with pytest.raises(Quarantine) as raised:
            writer_to(listener.port).write(write_back(identity=identity(**missing)))
        assert raised.value.code == "worklist.identity-incomplete"
        assert not listener.messages


def test_the_site_may_name_the_issuer_that_modalities_leave_out() -> None:
    with MllpListener() as listener:
        writer_to(listener.port, assigning_authority="MAIN").write(write_back(identity=identity(IssuerOfPatientID="")))
        assert listener.rows()["PID"][0][3] == "MRN-77310^^^MAIN^PI"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=ris", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_with_a_certificate_we_trust(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with MllpListener(tls=context) as listener:
        writer_to(listener.port, tls=True, ca_file=certificate / "cert.pem").write(write_back())
        assert len(listener.messages) == 1
        with pytest.raises(Retry) as raised:
            writer_to(listener.port, tls=True).write(write_back())
        assert "agree on TLS" in raised.value.message
        assert len(listener.messages) == 1


def test_tls_is_not_spoken_with_a_listener_in_the_clear() -> None:
    with MllpListener() as listener, pytest.raises(Retry):
        writer_to(listener.port, tls=True, timeout_s=0.5).write(write_back())


def test_unusable_tls_files_stop_the_writer_at_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(Stop) as raised:
        writer_to(1, tls=True, ca_file=tmp_path / "ca.pem")
    assert raised.value.code == "hl7.tls"


def test_sending_logs_nothing_about_the_patient(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), MllpListener(answer("AE")) as listener, pytest.raises(Retry) as raised:
        writer_to(listener.port).write(write_back())
    shown = caplog.text + repr(raised.value)
    assert not [value for value in PATIENT.values() if value in shown and len(value) > 1]


def test_a_site_without_structured_reports_is_not_sent_to_one() -> None:
    with MllpListener() as listener:
        options = Hl7(host="127.0.0.1", port=listener.port)
        WRITERS["hl7"](Site(None, None, "EDGENODE", 5, evidence=False, hl7=options)).write(write_back())
        assert "SR_INSTANCE_UID" not in listener.messages[0].decode()


def test_a_text_that_is_no_text_is_not_changed_to_be_sent() -> None:
    study, images = envelopes()
    broken = WriteBackIdentity.from_envelopes(study.replace("MRN-77310", "MRN\\ud800"), images)
    with MllpListener() as listener, pytest.raises(Quarantine) as raised:
        writer_to(listener.port).write(write_back(identity=broken))
    assert raised.value.code == "worklist.cannot-encode"
