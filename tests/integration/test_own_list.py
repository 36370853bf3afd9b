"""The node's own reading list, asked over real associations by pynetdicom's SCU and by DCMTK's findscu."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, UnifiedProcedureStepPull, UnifiedProcedureStepPush

from edge_node.config.schema import PeerEntry, Worklist
from edge_node.domain.status import Status
from edge_node.service.list_actions import GLOBAL
from edge_node.service.snapshot import reading_list
from edge_node.store import retention
from edge_node.store.own_list import ListedIdentity
from edge_node.worklist.ups import PATIENT
from tests.integration.list_node import ListNode, Watcher, asked
from tests.integration.needed_tools import need
from tests.results_back import finding
from tests.unit.service.site import Site, needles_in, site

__all__ = ["site"]
ORDER = {"ScheduledProcedureStepPriority": "", "SOPInstanceUID": "", "CommentsOnTheScheduledProcedureStep": ""}


@pytest.fixture
def node(site: Site) -> Iterator[ListNode]:
    one = ListNode(site)
    yield one
    one.close()


@pytest.fixture
def three(node: ListNode) -> list[str]:
    """A routine study, an urgent one, and a routine one that was flagged; their study keys."""
    return [
        node.triage(1),
        node.triage(2, order="URGENT", PatientID="PAT-2", StudyDate="20240305"),
        node.triage(3, found=finding()),
    ]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The study keys whose envelope was opened."""
    seen: list[str] = []
    real = ListedIdentity.study

    def noting(self: ListedIdentity, study_key: str) -> str:
        seen.append(study_key)
        return real(self, study_key)

    monkeypatch.setattr(ListedIdentity, "study", noting)
    return seen


def test_the_list_comes_in_reading_order_and_says_why_and_by_whom(node: ListNode, three: list[str]) -> None:
    found = node.find(**ORDER, ExpectedCompletionDateTime="", ScheduledHumanPerformersSequence=[])
    assert [one.ScheduledProcedureStepPriority for one in found] == ["HIGH", "MEDIUM", "LOW"]
    assert "0.93" in found[0].CommentsOnTheScheduledProcedureStep
    assert "category 1" in found[0].CommentsOnTheScheduledProcedureStep
    assert "ADVISORY" in found[0].CommentsOnTheScheduledProcedureStep
    assert found[0].ExpectedCompletionDateTime < found[1].ExpectedCompletionDateTime
    readers = [one.ScheduledHumanPerformersSequence[0] for one in found]
    assert [one.HumanPerformerCodeSequence[0].CodeValue for one in readers] == ["STROKE", "CT", "CT"]
    assert readers[0].HumanPerformerName == "Neuro on call"


def test_a_model_in_shadow_leads_no_study_to_another_reader(site: Site) -> None:
    silent = Worklist(mode="live", model_modes={finding().model.name: "shadow"})
    node = ListNode(site, worklist=silent)
    try:
        node.triage(1, found=finding())
        [found] = node.find(ScheduledHumanPerformersSequence=[])
    finally:
        node.close()
    assert found.ScheduledHumanPerformersSequence[0].HumanPerformerCodeSequence[0].CodeValue == "CT"


def test_a_query_for_nothing_of_identity_opens_no_envelope(node: ListNode, three: list[str], opened: list[str]) -> None:
    assert len(node.find(**ORDER, ProcedureStepState="SCHEDULED")) == 3
    assert opened == []


def test_a_query_by_number_opens_once_to_index_and_then_what_it_shows(
    node: ListNode, three: list[str], opened: list[str]
) -> None:
    request = asked(AccessionNumber="ACC2", StudyInstanceUID="")
    for _ in range(2):
        opened.clear()
        [found] = node.find(PatientID="", PatientName="", ReferencedRequestSequence=[request])
    assert found.PatientID == "PAT-2"
    assert found.ReferencedRequestSequence[0].AccessionNumber == "ACC2"
    assert found.ReferencedRequestSequence[0].StudyInstanceUID == "1.2.826.0.1.3680043.8.498.2"
    assert opened == [three[1]]


@pytest.mark.parametrize(
    ("keys", "numbers"),
    [
        ({"PatientID": "PAT-2"}, [2]),
        ({"PatientID": "PAT-9"}, []),
        ({"PatientID": "pat-2"}, []),
        ({"ScheduledProcedureStepPriority": "HIGH"}, [3]),
        ({"ScheduledProcedureStepPriority": ["HIGH", "MEDIUM"]}, [3, 2]),
        ({"ProcedureStepState": "IN PROGRESS"}, []),
        ({"ScheduledProcedureStepStartDateTime": "19990101-19991231"}, []),
        ({"ScheduledProcedureStepStartDateTime": "20200101-"}, [3, 2, 1]),
    ],
)
def test_entries_match_by_patient_priority_state_and_date(
    node: ListNode, three: list[str], keys: dict[str, object], numbers: list[int]
) -> None:
    found = node.find(**{"ReferencedRequestSequence": [], "PatientID": "", **keys})
    assert [int(one.ReferencedRequestSequence[0].AccessionNumber[3:]) for one in found] == numbers


@pytest.mark.parametrize("key", [{"PatientName": "Beeb*"}, {"PatientID": "PAT*"}, {"PatientBirthDate": "19500102"}])
def test_what_only_opened_identity_could_answer_is_refused_until_the_site_allows_it(
    site: Site, node: ListNode, three: list[str], opened: list[str], key: dict[str, str]
) -> None:
    assert node.find_all(**key) == ([], Status.DATA_SET_MISMATCH)
    assert opened == []
    allowing = ListNode(site, search_identity=True)
    try:
        assert len(allowing.find(**key)) == 3
        assert allowing.find(PatientName="Nobody*") == []
    finally:
        allowing.close()


def test_the_modality_worklist_view_says_patient_step_priority_and_reason(node: ListNode, three: list[str]) -> None:
    step = asked(
        Modality="CT",
        ScheduledStationAETitle="READING1",
        ScheduledProcedureStepStartDate=time.strftime("%Y%m%d-"),
        ScheduledProcedureStepStatus="",
        ScheduledProcedureStepID="",
    )
    keys = {"PatientName": "", "PatientID": "", "AccessionNumber": "", "StudyInstanceUID": ""}
    found = node.find(
        worklist=True,
        **keys,
        RequestedProcedurePriority="",
        RequestedProcedureComments="",
        ScheduledProcedureStepSequence=[step],
    )
    assert [one.AccessionNumber for one in found] == ["ACC3", "ACC2", "ACC1"]
    assert [one.RequestedProcedurePriority for one in found] == ["STAT", "HIGH", "ROUTINE"]
    first = found[0].ScheduledProcedureStepSequence[0]
    assert (first.Modality, first.ScheduledStationAETitle) == ("CT", "READING1")
    assert (first.ScheduledProcedureStepStatus, first.ScheduledProcedureStepID) == ("READY", three[2])
    assert "0.93" in found[0].RequestedProcedureComments
    step.Modality = "MR"
    assert node.find(worklist=True, **keys, ScheduledProcedureStepSequence=[step]) == []


def test_dcmtk_reads_the_list_too(node: ListNode, three: list[str], tmp_path: Path) -> None:
    findscu = need("/usr/bin/findscu")
    step = "ScheduledProcedureStepSequence[0]"
    keys = ["PatientID", "AccessionNumber=ACC3", f"{step}.Modality=CT", f"{step}.ScheduledProcedureStepID"]
    command = [findscu, "-W", "-X", "-od", str(tmp_path), "-aec", "EDGELIST", "127.0.0.1", str(node.own.port)]
    subprocess.run(
        [*command, *(part for one in keys for part in ("-k", one))], check=True, timeout=30, capture_output=True
    )
    [path] = tmp_path.glob("rsp*.dcm")
    found = dcmread(path, force=True)
    assert (found.PatientID, found.AccessionNumber) == ("PAT-420042", "ACC3")
    assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID == three[2]


def test_n_get_gives_a_whole_workitem_with_images_and_where_they_are(node: ListNode, three: list[str]) -> None:
    uid = node.find(**ORDER)[0].SOPInstanceUID
    with node.asking() as line:
        status, whole = line.send_n_get([], UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
        assert status.Status == 0
        _, some = line.send_n_get(
            [0x00741200, 0x00741000], UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull
        )
        gone, _ = line.send_n_get([], UnifiedProcedureStepPush, "2.25.1", meta_uid=UnifiedProcedureStepPull)
    assert {one.keyword for one in some} == {
        "SpecificCharacterSet",
        "ScheduledProcedureStepPriority",
        "ProcedureStepState",
    }
    assert gone.Status == Status.UPS_UNKNOWN
    assert all(keyword in whole for keyword in PATIENT)
    assert str(whole.PatientName) == "Beeblebrox^Zaphod"
    [images] = whole.InputInformationSequence
    assert images.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.8.498.3.9.1"
    assert images.DICOMRetrievalSequence[0].RetrieveAETitle == "ARCHIVE"


def test_one_reader_claims_a_study_and_finishes_it(node: ListNode, three: list[str]) -> None:
    uid = node.find(**ORDER)[0].SOPInstanceUID
    assert node.claim(uid, "COMPLETED")[0] == Status.UPS_NOT_IN_PROGRESS
    status, mine = node.claim(uid)
    assert status == 0
    assert node.claim(uid)[0] == Status.UPS_ALREADY_IN_PROGRESS
    assert node.claim(uid, "COMPLETED")[0] == Status.UPS_WRONG_TRANSACTION_UID
    [taken] = node.find(ProcedureStepState="IN PROGRESS", SOPInstanceUID="", TransactionUID="")
    assert taken.SOPInstanceUID == uid
    assert not taken.TransactionUID
    with node.asking() as line:
        for transaction, expected in ((mine, Status.WARNING_ATTRIBUTES), ("2.25.9", Status.UPS_WRONG_TRANSACTION_UID)):
            changes = asked(TransactionUID=transaction, ProcedureStepProgressInformationSequence=[])
            answer, _ = line.send_n_set(changes, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
            assert answer.Status == expected
    assert node.claim(uid, "COMPLETED", mine)[0] == 0
    assert len(node.find(**ORDER)) == 2
    assert node.claim(uid)[0] == Status.UPS_NO_LONGER_UPDATABLE
    assert node.claim(uid, "COMPLETED", mine)[0] == Status.UPS_ALREADY_COMPLETED
    told = node.site.audited("list.state")
    assert [one.detail["state"] for one in told] == ["IN PROGRESS", "COMPLETED"]
    with node.node.database.read() as connection:
        assert [one["read"] for one in reading_list(connection, since=0.0)] == ["COMPLETED", "SCHEDULED", "SCHEDULED"]


def test_images_after_a_reader_had_finished_bring_the_study_back_as_another_entry(
    node: ListNode, three: list[str]
) -> None:
    uid = node.find(**ORDER)[0].SOPInstanceUID
    _, mine = node.claim(uid)
    node.triage(3, found=finding(), SOPInstanceUID="1.2.826.0.1.3680043.8.498.3.9.2")
    assert [one.SOPInstanceUID for one in node.find(**ORDER, ProcedureStepState="IN PROGRESS")] == [uid]
    node.claim(uid, "COMPLETED", mine)
    assert len(node.find(**ORDER)) == 2
    node.triage(3, found=finding(), SOPInstanceUID="1.2.826.0.1.3680043.8.498.3.9.3")
    back = node.find(**ORDER, ProcedureStepState="SCHEDULED")
    assert len(back) == 3
    assert uid not in [one.SOPInstanceUID for one in back]
    again, own = node.claim(back[0].SOPInstanceUID)
    assert again == 0
    assert node.claim(back[0].SOPInstanceUID, "COMPLETED", mine)[0] == Status.UPS_WRONG_TRANSACTION_UID
    assert node.claim(back[0].SOPInstanceUID, "COMPLETED", own)[0] == 0
    assert len(node.find(**ORDER)) == 2


def test_nobody_takes_a_study_off_the_list_unread(node: ListNode, three: list[str]) -> None:
    uid = node.find(**ORDER)[0].SOPInstanceUID
    assert node.act(2, uid, ReasonForCancellation="read elsewhere") == Status.UPS_PERFORMER_UNREACHABLE
    assert len(node.find(**ORDER)) == 3


def test_subscribers_hear_how_things_stand_and_what_changes(site: Site) -> None:
    watcher = Watcher()
    node = ListNode(site, peers={"watcher": watcher.peer})
    try:
        node.triage(1)
        first = node.find(**ORDER)[0].SOPInstanceUID
        assert node.act(3, GLOBAL, ReceivingAE="STRANGER", DeletionLock="FALSE") == Status.UPS_UNKNOWN_RECEIVER
        assert node.act(3, "2.25.7", ReceivingAE="WATCHER", DeletionLock="FALSE") == Status.UPS_UNKNOWN
        assert node.act(3, GLOBAL, ReceivingAE="WATCHER", DeletionLock="FALSE") == 0
        assert watcher.until(1) == [(first, "SCHEDULED")]
        node.triage(2, order="STAT")
        second = node.find(**ORDER)[0].SOPInstanceUID
        assert watcher.until(2)[1] == (second, "SCHEDULED")
        node.claim(first)
        assert watcher.until(3)[2] == (first, "IN PROGRESS")
        assert node.act(4, GLOBAL, ReceivingAE="WATCHER") == 0
        assert node.act(3, second, ReceivingAE="WATCHER", DeletionLock="FALSE") == 0
        assert watcher.until(4)[3] == (second, "SCHEDULED")
        node.triage(3)
        node.claim(second)
        assert watcher.until(5)[4:] == [(second, "IN PROGRESS")]
    finally:
        node.close()
        watcher.close()


def test_a_subscriber_that_cannot_be_told_for_our_own_fault_silences_no_other(site: Site, tmp_path: Path) -> None:
    watcher, authority = Watcher(), tmp_path / "ca.pem"
    broken = PeerEntry(ae_title="BROKEN", host="127.0.0.1", port=1, tls=True, ca_file=authority)
    node = ListNode(site, peers={"broken": broken, "watcher": watcher.peer})
    try:
        for name in ("BROKEN", "WATCHER"):
            assert node.act(3, GLOBAL, ReceivingAE=name, DeletionLock="FALSE") == 0
        for number in (1, 2):
            node.triage(number)
            watcher.until(number)
        assert node.telling.is_alive()
    finally:
        node.close()
        watcher.close()


def test_a_study_whose_identity_was_destroyed_leaves_the_list_and_keeps_its_place_without_a_name(
    node: ListNode, three: list[str]
) -> None:
    with node.node.database.write() as connection:
        retention.destroy_identity(connection, three[2], 1)
    assert [one.PatientID for one in node.find(PatientID="", ScheduledProcedureStepPriority="")] == [
        "PAT-2",
        "PAT-420042",
    ]
    with node.node.database.read() as connection:
        assert [one["study"] for one in reading_list(connection, since=0.0)] == [three[2], three[1], three[0]]


def test_only_those_on_the_list_of_callers_may_ask_and_nobody_may_store(site: Site) -> None:
    node = ListNode(site, calling_ae_titles=["VIEWER"])
    try:
        stranger = AE(ae_title="STRANGER")
        stranger.add_requested_context(UnifiedProcedureStepPull)
        assert not stranger.associate("127.0.0.1", node.own.port, ae_title="EDGELIST").is_established
        viewer = AE(ae_title="VIEWER")
        viewer.add_requested_context(UnifiedProcedureStepPull)
        assert not viewer.associate("127.0.0.1", node.own.port, ae_title="OTHER").is_established
        viewer.add_requested_context(CTImageStorage)
        line = viewer.associate("127.0.0.1", node.own.port, ae_title="EDGELIST")
        assert [str(one.abstract_syntax) for one in line.accepted_contexts] == [str(UnifiedProcedureStepPull)]
        line.release()
    finally:
        node.close()


def test_a_hostile_query_gets_an_answer_and_stops_nobody(node: ListNode, three: list[str]) -> None:
    nested = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedRequestSequence = [nested]
        nested = outer
    assert node.find_all(ReferencedRequestSequence=[nested])[0] == []
    assert node.find(ScheduledProcedureStepStartDateTime="not-a-date") == []
    assert len(node.find(**ORDER)) == 3


def test_asking_leaves_no_identity_on_the_disk(node: ListNode, three: list[str]) -> None:
    node.find(worklist=True, PatientName="", PatientID="PAT-420042", AccessionNumber="")
    uid = node.find(**ORDER)[0].SOPInstanceUID
    node.claim(uid)
    assert needles_in(node.config.node.data_dir) == []
