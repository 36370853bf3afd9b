"""The reading list against a real UPS SCP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import UnifiedProcedureStepPull, UnifiedProcedureStepPush, Verification

from edge_node.demo.pacs import ToyPacs
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.finding import TriageOutcome, TriageResult, Verdict
from edge_node.domain.worklist import Peer
from edge_node.worklist.header import report_reference
from edge_node.worklist.writer import Site, WorklistWriter
from edge_node.worklist.writers import WRITERS
from tests.integration.peers_orthanc import free_port
from tests.results_back import (
    JAPANESE,
    KEY,
    MADE_AT,
    PATIENT,
    SERIES_UID,
    STUDY_UID,
    finding,
    identity,
    original_uid,
    priority,
    result,
    write_back,
)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[ToyPacs]:
    with ToyPacs(store=tmp_path) as running:
        yield running


@pytest.fixture
def writer(pacs: ToyPacs) -> WorklistWriter:
    peer = Peer("DEMOPACS", "127.0.0.1", pacs.port)
    return WRITERS["ups"](Site(peer, peer, "EDGENODE", 10))


def act(pacs: ToyPacs, uid: str, state: str, transaction: str) -> None:
    """A reader's workstation changes the state of a workitem."""
    station = AE("STATION")
    station.add_requested_context(UnifiedProcedureStepPull)
    line = station.associate("127.0.0.1", pacs.port, ae_title="DEMOPACS")
    information = Dataset()
    information.ProcedureStepState, information.TransactionUID = state, transaction
    answer, _ = line.send_n_action(information, 1, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
    line.release()
    assert answer.Status == 0


def test_a_workitem_carries_patient_order_images_report_priority_and_reason(
    pacs: ToyPacs, writer: WorklistWriter
) -> None:
    order = write_back(identity=identity(PatientName=JAPANESE))
    report = writer.write(order)
    assert (report.outcome, report.destination) == ("created", "DEMOPACS")
    (item,) = pacs.workitems
    assert (str(item.PatientName), item.PatientID) == (JAPANESE, PATIENT["PatientID"])
    assert item.IssuerOfPatientID == PATIENT["IssuerOfPatientID"]
    assert item.ScheduledProcedureStepPriority == "HIGH"
    assert item.ProcedureStepLabel == "Read CT HEAD WO"
    assert order.priority.reason in item.CommentsOnTheScheduledProcedureStep
    assert "ADVISORY" in item.CommentsOnTheScheduledProcedureStep
    assert item.ScheduledProcedureStepStartDateTime == MADE_AT.astimezone().strftime("%Y%m%d%H%M%S%z")
    requested = item.ReferencedRequestSequence[0]
    assert (requested.StudyInstanceUID, requested.AccessionNumber) == (STUDY_UID, "ACC-551")
    made = report_reference(KEY, STUDY_UID, 1)
    inputs = {one.SeriesInstanceUID: one for one in item.InputInformationSequence}
    assert set(inputs) == {SERIES_UID, made.series_uid}
    images = [one.ReferencedSOPInstanceUID for one in inputs[SERIES_UID].ReferencedSOPSequence]
    assert images == [original_uid(number) for number in (1, 2, 3)]
    assert inputs[made.series_uid].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == made.sop_uid
    assert inputs[SERIES_UID].DICOMRetrievalSequence[0].RetrieveAETitle == "DEMOPACS"


def test_pushing_again_is_no_second_workitem_and_changes_nothing(pacs: ToyPacs, writer: WorklistWriter) -> None:
    first, again = writer.write(write_back()), writer.write(write_back())
    assert (first.outcome, again.outcome) == ("created", "already-there")
    assert first.objects == again.objects
    assert len(pacs.workitems) == 1
    assert "N-SET" not in [entry["operation"] for entry in pacs.log]


def test_a_later_finding_raises_the_workitem(pacs: ToyPacs, writer: WorklistWriter) -> None:
    writer.write(write_back(priority=priority(), result=result(finding(Verdict.NOT_FLAGGED))))
    assert pacs.workitems[0].ScheduledProcedureStepPriority == "LOW"
    raised = writer.write(write_back(revision=2, replaces=1))
    assert raised.outcome == "raised"
    (item,) = pacs.workitems
    assert item.ScheduledProcedureStepPriority == "HIGH"
    assert "0.93" in item.CommentsOnTheScheduledProcedureStep


def test_an_earlier_deadline_at_the_same_priority_raises_too(pacs: ToyPacs, writer: WorklistWriter) -> None:
    flagged = write_back()
    writer.write(flagged)
    before = pacs.workitems[0].ExpectedCompletionDateTime
    sooner = replace(flagged.priority, due=flagged.priority.due - 300)
    assert writer.write(write_back(revision=2, priority=sooner)).outcome == "raised"
    assert pacs.workitems[0].ExpectedCompletionDateTime < before


def test_a_workitem_is_never_lowered(pacs: ToyPacs, writer: WorklistWriter) -> None:
    writer.write(write_back())
    before = pacs.workitems
    later = replace(write_back().priority, due=write_back().priority.due + 3600)
    assert writer.write(write_back(revision=2, priority=priority())).outcome == "already-there"
    assert writer.write(write_back(revision=3, priority=later)).outcome == "already-there"
    assert pacs.workitems == before


@pytest.mark.parametrize("state", ["IN PROGRESS", "CANCELED"])
def test_a_study_a_human_has_taken_is_left_alone(pacs: ToyPacs, writer: WorklistWriter, state: str) -> None:
    report = writer.write(write_back(priority=priority()))
    act(pacs, report.objects[0][1], "IN PROGRESS", "2.25.77")
    if state != "IN PROGRESS":
        act(pacs, report.objects[0][1], state, "2.25.77")
    before = pacs.workitems
    assert writer.write(write_back(revision=2)).outcome == "being-read"
    assert pacs.workitems == before


def test_a_study_claimed_while_we_look_is_left_alone(pacs: ToyPacs, writer: WorklistWriter) -> None:
    writer.write(write_back(priority=priority()))
    look = pacs.worklist.get

    def look_and_claim(uid: str) -> Dataset | None:
        seen = look(uid)
        act(pacs, uid, "IN PROGRESS", "2.25.77")
        return seen

    pacs.worklist.get = look_and_claim  # type: ignore[method-assign]
    assert writer.write(write_back(revision=2)).outcome == "being-read"
    assert "N-SET" in [entry["operation"] for entry in pacs.log]
    assert pacs.workitems[0].ScheduledProcedureStepPriority == "LOW"


def test_a_study_without_a_finding_still_has_its_place_in_the_list(pacs: ToyPacs, writer: WorklistWriter) -> None:
    skipped = TriageResult(TriageOutcome.NOT_APPLICABLE, "no model applies")
    writer.write(write_back(result=skipped, priority=priority("URGENT"), identity=identity(StudyDescription=None)))
    (item,) = pacs.workitems
    assert [one.SeriesInstanceUID for one in item.InputInformationSequence] == [SERIES_UID]
    assert (item.ScheduledProcedureStepPriority, item.ProcedureStepLabel) == ("MEDIUM", "Read study")


def test_flagged_studies_are_read_first(pacs: ToyPacs, writer: WorklistWriter) -> None:
    for number, flagged in enumerate([False, False, True, False]):
        found = finding() if flagged else finding(Verdict.NOT_FLAGGED)
        writer.write(
            write_back(
                identity=identity(StudyInstanceUID=f"{STUDY_UID}.{number}", PatientID=f"P{number}"),
                result=result(found),
                priority=priority(found=found),
                ready_at=MADE_AT + timedelta(minutes=number),
            )
        )
    assert [item.PatientID for item in pacs.workitems] == ["P2", "P0", "P1", "P3"]


def test_a_worklist_that_is_not_there_is_tried_again() -> None:
    away = Peer("UPS", "127.0.0.1", free_port())
    with pytest.raises(Retry) as raised:
        WRITERS["ups"](Site(away, away, "EDGENODE", 2)).write(write_back())
    assert raised.value.code == "worklist.ups-unavailable"


def test_a_peer_without_a_worklist_is_quarantined() -> None:
    archive = AE("ARCHIVE")
    archive.add_supported_context(Verification)
    server = archive.start_server(("127.0.0.1", 0), block=False)
    try:
        peer = Peer("ARCHIVE", "127.0.0.1", server.server_address[1])
        with pytest.raises(Quarantine) as raised:
            WRITERS["ups"](Site(peer, peer, "EDGENODE", 5)).write(write_back())
    finally:
        server.shutdown()
    assert raised.value.code == "worklist.ups-refused"


def test_pushing_logs_nothing_about_the_patient(writer: WorklistWriter, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        writer.write(write_back(priority=priority()))
        writer.write(write_back(revision=2))
    assert not [value for value in PATIENT.values() if value in caplog.text and len(value) > 1]
