"""The toy hospital against peers nobody here wrote: DCMTK, pynetdicom's own SCU, httpx, Orthanc."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from edge_node.demo.orthanc import LocalOrthanc, find_dicomweb, find_orthanc
from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy, make_studies
from edge_node.demo.trainer import FailureReason, ToyTrainer
from edge_node.domain.errors import Retry
from edge_node.domain.status import Status
from edge_node.domain.worklist import Peer
from edge_node.service.dimse import (
    StorageCommitmentPushModel,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)
from edge_node.service.sender import send_study
from tests.integration.needed_tools import missing, need
from tests.unit.demo.workitems import lock, workitem

COMMIT_INSTANCE = "1.2.840.10008.1.20.1.1"


@pytest.fixture
def needs_dcmtk() -> None:
    need("storescu")


@pytest.fixture
def needs_orthanc() -> None:
    need("Orthanc")
    if not (find_orthanc() and find_dicomweb()):
        missing("Orthanc's DICOMweb plugin")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[DemoStudy]:
    return make_studies(tmp_path_factory.mktemp("studies"), 2, slices=4, rows=64)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[ToyPacs]:
    with ToyPacs(store=tmp_path / "pacs") as running:
        yield running


def _peer(pacs: ToyPacs) -> Peer:
    return Peer(pacs.ae_title, "127.0.0.1", pacs.port)


def _dcmtk(tool: str, pacs: ToyPacs, *arguments: str) -> str:
    done = subprocess.run(
        [need(tool), "-v", "-aec", pacs.ae_title, *arguments],
        capture_output=True, timeout=60, env={**os.environ, "TCP_NODELAY": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).decode("utf-8")


@pytest.mark.usefixtures("needs_dcmtk")
def test_dcmtk_echoes_stores_and_finds(pacs: ToyPacs, studies: list[DemoStudy]) -> None:
    address = ("127.0.0.1", str(pacs.port))
    assert "Success" in _dcmtk("echoscu", pacs, *address)
    _dcmtk("storescu", pacs, *address, *(str(path) for path in studies[0].files))
    assert len(pacs.instances) == len(studies[0].files)
    found = _dcmtk(
        "findscu", pacs, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=*zmy?lona*",
        "-k", "StudyDate=20260301-20260401", "-k", "NumberOfStudyRelatedInstances", *address,
    )  # fmt: skip
    assert studies[0].patient.name in found
    assert f"[{len(studies[0].files)}" in found


@pytest.mark.usefixtures("needs_dcmtk")
def test_a_query_level_that_does_not_exist_is_refused_by_name(pacs: ToyPacs) -> None:
    _dcmtk("findscu", pacs, "-S", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID", "127.0.0.1", str(pacs.port))
    assert pacs.log[-1]["status"] == "DATA_SET_MISMATCH"


def test_the_sender_delivers_every_object_byte_for_byte(pacs: ToyPacs, studies: list[DemoStudy]) -> None:
    for study in studies:
        report = send_study(study.files, _peer(pacs), calling_ae=study.calling_ae)
        assert report.by_status == {"SUCCESS": len(study.files)}
    assert len(pacs.instances) == sum(len(study.files) for study in studies)
    broken = next(study for study in studies if study.kind == "malformed").files[0]
    stored = pacs.instances[str(dcmread(broken, stop_before_pixels=True).SOPInstanceUID)]
    assert stored.read_bytes()[-1000:] == broken.read_bytes()[-1000:]


def test_the_sender_tries_again_when_the_peer_is_full(tmp_path: Path, studies: list[DemoStudy]) -> None:
    seen: list[tuple[int, int, str]] = []
    with ToyPacs(store=tmp_path, fail_stores=2) as pacs:
        files = studies[0].files
        report = send_study(files, _peer(pacs), pause_s=0.01, progress=lambda *now: seen.append(now))
    assert report.accepted == len(files)
    assert [result.tries for result in report.results] == [3, 1, 1, 1]
    assert seen[-1] == (len(files), len(files), "SUCCESS")


def test_the_sender_gives_up_by_name(tmp_path: Path, studies: list[DemoStudy]) -> None:
    with ToyPacs(store=tmp_path, fail_stores=1000) as pacs:
        report = send_study(studies[0].files[:1], _peer(pacs), pause_s=0.001, retries=2)
    assert report.by_status == {"OUT_OF_RESOURCES": 1}
    assert report.results[0].tries == 3


def test_a_file_that_is_not_dicom_is_said_to_be_so_and_the_rest_goes(
    tmp_path: Path, pacs: ToyPacs, studies: list[DemoStudy]
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    report = send_study([note, studies[0].files[0]], _peer(pacs))
    assert [result.status for result in report.results] == ["NOT_A_DICOM_FILE", "SUCCESS"]
    assert "note" not in repr(report)


def test_a_peer_that_is_not_there_is_a_retry(studies: list[DemoStudy]) -> None:
    with pytest.raises(Retry) as caught:
        send_study(studies[0].files, Peer("NOBODY", "127.0.0.1", 1), timeout_s=2)
    assert caught.value.code == "send.peer-unreachable"


def test_the_log_of_the_pacs_names_no_patient(pacs: ToyPacs, studies: list[DemoStudy]) -> None:
    send_study(studies[1].files, _peer(pacs))
    assert not any(needle in str(pacs.log) for needle in studies[1].needles)


def _commit(pacs: ToyPacs, references: list[tuple[str, str]], listen: int = 0) -> tuple[int, Dataset, bool]:
    """Ask for commitment as EDGENODE; answers (event type, event information, came on a new association)."""
    got: list[tuple[int, Dataset, bool]] = []
    arrived = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        got.append((event.event_type, event.event_information, event.assoc.is_acceptor))
        arrived.set()
        return Status.SUCCESS, None

    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        request.ReferencedSOPSequence.append(item)
    ae = AE("EDGENODE")
    ae.add_requested_context(StorageCommitmentPushModel)
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    server = ae.start_server(("127.0.0.1", listen), block=False, evt_handlers=handlers) if listen else None
    association = ae.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title, evt_handlers=handlers)
    try:
        answer, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, COMMIT_INSTANCE)
        assert answer.Status == Status.SUCCESS
        assert arrived.wait(10)
    finally:
        association.release()
        if server is not None:
            server.shutdown()
    assert got[0][1].TransactionUID == request.TransactionUID
    return got[0]


def _references(study: DemoStudy) -> list[tuple[str, str]]:
    headers = [dcmread(path, stop_before_pixels=True) for path in study.files]
    return [(str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in headers]


def test_storage_is_committed_on_the_same_association(pacs: ToyPacs, studies: list[DemoStudy]) -> None:
    send_study(studies[0].files, _peer(pacs))
    kind, report, new = _commit(pacs, _references(studies[0]))
    assert (kind, new, len(report.ReferencedSOPSequence)) == (1, False, len(studies[0].files))


def test_storage_is_committed_on_a_new_association_and_what_is_missing_is_named(
    tmp_path: Path, studies: list[DemoStudy], unused_port: int
) -> None:
    with ToyPacs(store=tmp_path, known_peers={"EDGENODE": ("127.0.0.1", unused_port)}) as pacs:
        send_study(studies[0].files[:1], _peer(pacs))
        references = _references(studies[0])
        wrong_class = (references[0][0] + ".9", references[0][1])
        kind, report, new = _commit(pacs, [references[0], references[1], wrong_class], listen=unused_port)
    assert (kind, new) == (2, True)
    assert [str(item.ReferencedSOPInstanceUID) for item in report.ReferencedSOPSequence] == [references[0][1]]
    reasons = [Status(item.FailureReason) for item in report.FailedSOPSequence]
    assert reasons == [Status.NO_SUCH_INSTANCE, Status.CLASS_INSTANCE_CONFLICT]


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ups(pacs: ToyPacs) -> Iterator[Any]:
    ae = AE("EDGENODE")
    for sop_class in (
        UnifiedProcedureStepPush, UnifiedProcedureStepPull, UnifiedProcedureStepQuery, UnifiedProcedureStepWatch,
    ):  # fmt: skip
        ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
    assert association.is_established
    yield association
    association.release()


def test_a_workitem_is_created_raised_taken_and_then_left_alone(pacs: ToyPacs, ups: Any) -> None:
    uid = generate_uid()
    for expected in (Status.SUCCESS, Status.DUPLICATE_SOP_INSTANCE):
        answer, _ = ups.send_n_create(workitem("LOW"), UnifiedProcedureStepPush, uid)
        assert Status(answer.Status) is expected
    change = lock("")
    change.ScheduledProcedureStepPriority = "HIGH"
    refused, _ = ups.send_n_set(change, UnifiedProcedureStepPush, uid)
    assert Status(refused.Status) is Status.UNRECOGNISED_OPERATION
    answer, _ = ups.send_n_set(change, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
    assert Status(answer.Status) is Status.SUCCESS
    assert pacs.workitems[0].ScheduledProcedureStepPriority == "HIGH"
    taken, _ = ups.send_n_action(
        lock("2.25.9", "IN PROGRESS"), 1, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull
    )
    assert Status(taken.Status) is Status.SUCCESS
    answer, _ = ups.send_n_set(change, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
    assert Status(answer.Status) is Status.UPS_WRONG_TRANSACTION_UID


def test_an_incomplete_workitem_is_refused_and_the_log_says_what_is_missing(pacs: ToyPacs, ups: Any) -> None:
    item = workitem()
    del item.ProcedureStepLabel
    answer, _ = ups.send_n_create(item, UnifiedProcedureStepPush, generate_uid())
    assert Status(answer.Status) is Status.MISSING_ATTRIBUTE
    assert pacs.log[-1]["reasons"] == ["ProcedureStepLabel"]
    assert pacs.workitems == []


def test_workitems_are_found_in_reading_order_and_got_without_their_lock(pacs: ToyPacs, ups: Any) -> None:
    for number, priority in enumerate(("LOW", "HIGH", "MEDIUM"), 1):
        ups.send_n_create(workitem(priority), UnifiedProcedureStepPush, f"2.25.{number}")
    query = Dataset()
    query.ProcedureStepState = "SCHEDULED"
    query.PatientName = "żółć*"
    query.SpecificCharacterSet = "ISO_IR 192"
    query.ScheduledProcedureStepPriority = ""
    rows = list(ups.send_c_find(query, UnifiedProcedureStepQuery))
    assert [row.ScheduledProcedureStepPriority for _, row in rows[:-1]] == ["HIGH", "MEDIUM", "LOW"]
    assert Status(rows[-1][0].Status) is Status.SUCCESS
    answer, item = ups.send_n_get([], UnifiedProcedureStepPush, "2.25.2")
    assert Status(answer.Status) is Status.SUCCESS
    assert str(item.PatientName) == "Żółć-Zmyślona^Łucja"
    assert not item.TransactionUID
    answer, _ = ups.send_n_get([], UnifiedProcedureStepPush, "2.25.77")
    assert Status(answer.Status) is Status.UPS_UNKNOWN


def test_a_watcher_subscribes_and_a_scheduled_workitem_can_be_canceled(pacs: ToyPacs, ups: Any) -> None:
    ups.send_n_create(workitem(), UnifiedProcedureStepPush, "2.25.5")
    ask = Dataset()
    ask.ReceivingAE, ask.DeletionLock = "EDGENODE", "FALSE"
    answer, _ = ups.send_n_action(ask, 3, UnifiedProcedureStepPush, "2.25.5", meta_uid=UnifiedProcedureStepWatch)
    assert Status(answer.Status) is Status.SUCCESS
    assert pacs.worklist.subscribers == {"EDGENODE": "2.25.5"}
    answer, _ = ups.send_n_action(ask, 3, UnifiedProcedureStepPush, "2.25.5")
    assert Status(answer.Status) is Status.NO_SUCH_ACTION
    answer, _ = ups.send_n_action(None, 2, UnifiedProcedureStepPush, "2.25.5")
    assert Status(answer.Status) is Status.SUCCESS
    assert pacs.workitems[0].ProcedureStepState == "CANCELED"


def _clean(source: Path, out: Path, removed: str = "YES") -> tuple[str, bytes]:
    """A stripped copy with new UIDs, as a de-identifying node would send it."""
    ds = dcmread(source)
    kept = Dataset()
    kept.file_meta = ds.file_meta
    for keyword in ("SOPClassUID", "Modality", "Rows", "Columns", "BitsAllocated", "PixelRepresentation", "PixelData"):
        if keyword in ds:
            kept[keyword] = ds[keyword]
    kept.SOPInstanceUID, kept.StudyInstanceUID, kept.SeriesInstanceUID = (
        generate_uid(entropy_srcs=[k, str(ds.SOPInstanceUID)]) for k in "abc"
    )
    kept.file_meta.MediaStorageSOPInstanceUID = kept.SOPInstanceUID
    kept.PatientIdentityRemoved = removed
    kept.save_as(out, enforce_file_format=True)
    return str(kept.SOPInstanceUID), out.read_bytes()


def _stow(trainer: ToyTrainer, objects: list[bytes], *, chunked: bool = False, **headers: str) -> httpx.Response:
    body = (
        b"".join(b"--b0\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in objects)
        + b"--b0--\r\n"
    )
    content: Any = (body[i : i + 5000] for i in range(0, len(body), 5000)) if chunked else body
    kind = 'multipart/related; type="application/dicom"; boundary=b0'
    return httpx.post(trainer.url, content=content, headers={"Content-Type": kind, **headers}, trust_env=False)


def _uids(response: httpx.Response, tag: str) -> list[str]:
    return [item["00081155"]["Value"][0] for item in response.json().get(tag, {}).get("Value", [])]


@pytest.mark.parametrize("chunked", [False, True])
def test_clean_objects_are_stored_and_accounted_for(tmp_path: Path, studies: list[DemoStudy], chunked: bool) -> None:
    clean = [_clean(path, tmp_path / f"{i}.dcm") for i, path in enumerate(studies[0].files)]
    needles = [needle for study in studies for needle in study.needles]
    with ToyTrainer(store=tmp_path / "trainer", needles=needles) as trainer:
        response = _stow(trainer, [raw for _, raw in clean], chunked=chunked)
        assert response.status_code == 200
        assert _uids(response, "00081199") == [uid for uid, _ in clean]
        assert trainer.bad == []
        assert {uid: item.path.read_bytes() for uid, item in trainer.received.items()} == dict(clean)
        listed = httpx.get(trainer.url, trust_env=False).json()
        assert len(listed) == len(clean)


def test_an_identified_object_is_refused_and_the_clean_one_beside_it_is_kept(
    tmp_path: Path, studies: list[DemoStudy]
) -> None:
    uid, raw = _clean(studies[0].files[0], tmp_path / "clean.dcm")
    with ToyTrainer(store=tmp_path / "trainer", needles=studies[5].needles) as trainer:
        ds = dcmread(studies[5].files[0])
        ds.PatientIdentityRemoved = "YES"  # says so, but is not
        ds.save_as(tmp_path / "liar.dcm")
        response = _stow(trainer, [studies[5].files[1].read_bytes(), (tmp_path / "liar.dcm").read_bytes(), raw])
        assert response.status_code == 202
        assert _uids(response, "00081199") == [uid]
        reasons = [item["00081197"]["Value"][0] for item in response.json()["00081198"]["Value"]]
        assert reasons == [FailureReason.DATA_SET_MISMATCH] * 2
        assert [bad.needle >= 0 for bad in trainer.bad] == [False, True]
        assert trainer.needles_found == 1
        assert sorted(path.name for path in trainer.store.iterdir()) == [f"{uid}.dcm"]


@pytest.mark.parametrize("study", [1, 3, 5, 6, 7, 8])
def test_needles_are_found_in_every_character_set(tmp_path: Path, studies: list[DemoStudy], study: int) -> None:
    with ToyTrainer(store=tmp_path, needles=[studies[study].patient.name.split("=")[-1]]) as trainer:
        _, raw = _clean(studies[0].files[0], tmp_path / "clean")
        ds = dcmread(tmp_path / "clean")
        ds.SpecificCharacterSet = list(studies[study].patient.charset)
        ds.PatientComments = studies[study].patient.name.split("=")[-1]
        ds.save_as(tmp_path / "leak")
        assert _stow(trainer, [(tmp_path / "leak").read_bytes()]).status_code == 409
        assert trainer.needles_found == 1
        assert _stow(trainer, [raw]).status_code == 200


def test_a_repeated_object_is_noticed_and_a_changed_one_too(tmp_path: Path, studies: list[DemoStudy]) -> None:
    uid, raw = _clean(studies[0].files[0], tmp_path / "clean.dcm")
    with ToyTrainer(store=tmp_path / "trainer", duplicates="refuse") as trainer:
        assert _stow(trainer, [raw]).status_code == 200
        again = _stow(trainer, [raw])
        assert again.status_code == 409
        assert again.json()["00081198"]["Value"][0]["00081197"]["Value"] == [45070]
        assert (trainer.received[uid].count, trainer.received[uid].changed) == (2, False)
        _stow(trainer, [raw[:-2] + b"\x01\x02"])
        assert trainer.received[uid].changed


def test_requests_that_are_no_stow_are_refused_and_the_trainer_lives_on(
    tmp_path: Path, studies: list[DemoStudy]
) -> None:
    _, raw = _clean(studies[0].files[0], tmp_path / "clean.dcm")
    with ToyTrainer(store=tmp_path / "trainer", token="secret") as trainer:
        allowed = {"Authorization": "Bearer secret"}
        assert _stow(trainer, [raw]).status_code == 401
        assert httpx.get(trainer.url, trust_env=False).status_code == 401
        assert _stow(trainer, [raw], **{**allowed, "Content-Encoding": "gzip"}).status_code == 415
        assert _stow(trainer, [raw], **{**allowed, "Content-Type": "text/plain"}).status_code == 400
        assert _stow(trainer, [b"not dicom"], **allowed).status_code == 409
        assert httpx.post(trainer.url.replace("studies", "x"), headers=allowed, trust_env=False).status_code == 404
        assert _stow(trainer, [raw], **allowed).status_code == 200


@pytest.mark.usefixtures("needs_orthanc")
def test_orthanc_plays_the_archive_with_accents_intact(tmp_path: Path, studies: list[DemoStudy]) -> None:
    with LocalOrthanc(tmp_path, modalities={"CT_ROOM1": ("127.0.0.1", 1)}) as orthanc:
        peer = Peer(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)
        assert send_study(studies[0].files, peer, calling_ae="CT_ROOM1").accepted == len(studies[0].files)
        stored = orthanc.instances()
        assert {item.sop_uid for item in stored} == {uid for _, uid in _references(studies[0])}
        assert {item.study_uid for item in stored} == {studies[0].study_uid}
        (tmp_path / "back.dcm").write_bytes(orthanc.part10(stored[0]))
        assert str(dcmread(tmp_path / "back.dcm").PatientName) == studies[0].patient.name
        assert httpx.get(orthanc.stow_url, trust_env=False).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(orthanc.stow_url, trust_env=False)
