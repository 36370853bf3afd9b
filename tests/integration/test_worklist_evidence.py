"""Evidence against judges nobody here wrote: dciodvfy, dsrdump, and Orthanc as the archive."""

from __future__ import annotations

import logging
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    MRImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode

from edge_node.demo.pacs import ToyPacs
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.finding import Verdict
from edge_node.domain.worklist import Peer
from edge_node.worklist.association import line_to
from edge_node.worklist.header import REPORTS, SECONDARY_CAPTURE, report_reference
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.pacs import store
from edge_node.worklist.writer import Site, Standing
from edge_node.worklist.writers import WRITERS
from tests.integration.needed_tools import need
from tests.integration.peers_orthanc import Orthanc, free_port
from tests.results_back import (
    JAPANESE,
    KEY,
    MADE_AT,
    PATIENT,
    STUDY_UID,
    build,
    finding,
    identity,
    result,
    things,
    write_back,
)

Files = dict[str, Path]


def saved(folder: Path, who: WriteBackIdentity, verdict: Verdict = Verdict.FLAGGED, **change: Any) -> Files:
    """The objects of a result as files, by modality."""
    options = {"key": KEY, "revision": 1, "made_at": MADE_AT, "node": "edge-1", "version": "0.1.0", **change}
    files = {}
    for one in build(who, result(finding(verdict, reason="too few slices")), **options):
        files[one.Modality] = folder / f"{one.Modality}.dcm"
        one.save_as(files[one.Modality], enforce_file_format=True)
    return files


def complaints(file: Path) -> list[str]:
    """Lines of dciodvfy that begin with Error."""
    command = [need("dciodvfy"), "-new", str(file)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    lines = (ran.stdout + ran.stderr).splitlines()
    assert lines, "dciodvfy names at least the kind of object it saw"
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize(
    ("image", "study"),
    [
        ({}, {}),
        ({"BodyPartExamined": None}, {}),
        ({"BodyPartExamined": "Head^Angio"}, {}),
        ({"BodyPartExamined": "KNEE", "Laterality": "L", "SOPClassUID": MRImageStorage}, {}),
        ({"BodyPartExamined": "KNEE"}, {}),
        ({"BodyPartExamined": "KNEE", "Laterality": "X"}, {}),
        ({"BodyPartExamined": "CHEST", "ImageLaterality": "U"}, {}),
        (
            {
                "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
                "BodyPartExamined": "BREAST",
                "ImageLaterality": "R",
            },
            {},
        ),
        ({"SOPClassUID": EnhancedCTImageStorage}, {}),
        ({"SOPClassUID": UltrasoundMultiFrameImageStorage, "BodyPartExamined": "HEART"}, {}),
        ({"SOPClassUID": BreastTomosynthesisImageStorage, "BodyPartExamined": "BREAST"}, {}),
        ({}, {"AccessionNumber": None, "RequestAttributesSequence": None, "StudyDescription": None}),
        ({}, {"PatientName": JAPANESE, "TimezoneOffsetFromUTC": "+0900"}),
        ({}, {"PatientBirthDate": None, "PatientSex": None, "IssuerOfPatientID": None, "StudyTime": None}),
    ],
)
def test_the_validator_finds_no_error_whatever_the_source_was(
    tmp_path: Path, image: dict[str, Any], study: dict[str, Any]
) -> None:
    for file in saved(tmp_path, identity(image=image, **study)).values():
        assert complaints(file) == []


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_report_of_every_verdict_is_valid_and_readable(tmp_path: Path, verdict: Verdict) -> None:
    before = (Standing(1, "sr", report_reference(KEY, STUDY_UID, 1).sop_uid),)
    report = saved(tmp_path, identity(), verdict, revision=2, standing=before)["SR"]
    assert complaints(report) == []
    shown = subprocess.run([need("dsrdump"), "+Pl", str(report)], capture_output=True, check=True).stdout.decode()
    assert "ADVISORY ONLY" in shown
    assert "Żółć^Łucja" in shown
    assert "Triage verdict" in shown


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    need("/usr/sbin/Orthanc")
    with Orthanc(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture
def archive(orthanc: Orthanc) -> Orthanc:
    """Orthanc as PACS, empty."""
    orthanc.clear()
    return orthanc


@contextmanager
def scp(entity: AE, *handlers: Any) -> Iterator[Peer]:
    """A peer of another make than the toy PACS, with manners of its own."""
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    try:
        yield Peer(entity.ae_title, "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()


def peer_of(archive: Orthanc) -> Peer:
    return Peer(archive.ae_title, "127.0.0.1", archive.dicom_port)


def objects() -> list[Dataset]:
    """The objects that the evidence writer makes of `write_back()`."""
    return build(identity(), result(), key=KEY, revision=1, made_at=MADE_AT, node="edge-1", version="0.1.0")


@pytest.mark.parametrize("name", ["Żółć^Łucja", JAPANESE])
def test_a_result_arrives_in_the_archive_under_the_right_patient_in_any_script(archive: Orthanc, name: str) -> None:
    writer = WRITERS["evidence"](Site(peer_of(archive), None, "EDGENODE", 10))
    report = writer.write(write_back(identity=identity(PatientName=name)))
    assert (report.destination, report.outcome) == ("ORTHANC", "stored")
    there = {uid: dcmread(BytesIO(file)) for uid, file in archive.instances().items()}
    assert dict(report.objects).keys() == {"sr", "sc"}
    assert set(dict(report.objects).values()) == set(there)
    for one in there.values():
        assert str(one.PatientName) == name
        assert (one.PatientID, one.IssuerOfPatientID) == (PATIENT["PatientID"], PATIENT["IssuerOfPatientID"])
        assert (one.StudyInstanceUID, one.AccessionNumber) == (STUDY_UID, PATIENT["AccessionNumber"])
    (study,) = archive.get("/studies?expand")
    assert study["PatientMainDicomTags"]["PatientName"] == name
    assert len(study["Series"]) == 2


def test_what_comes_back_out_of_the_archive_is_what_went_in_and_a_resend_adds_nothing(
    archive: Orthanc, tmp_path: Path
) -> None:
    writer = WRITERS["evidence"](Site(peer_of(archive), None, "EDGENODE", 10))
    first = writer.write(write_back())
    before = archive.instances()
    again = writer.write(write_back())
    assert first == again
    assert archive.instances() == before
    for uid, file in before.items():
        back = tmp_path / f"{uid}.dcm"
        back.write_bytes(file)
        assert complaints(back) == []
    sent = {one.SOPInstanceUID: encode(one, is_implicit_vr=False, is_little_endian=True) for one in objects()}
    assert sent.keys() == before.keys()
    assert [uid for uid, file in before.items() if not file.endswith(sent[uid] or b"never")] == []


def test_a_later_revision_joins_the_series_of_the_first(archive: Orthanc) -> None:
    writer = WRITERS["evidence"](Site(peer_of(archive), None, "EDGENODE", 10))
    writer.write(write_back())
    writer.write(write_back(revision=2, replaces=1))
    (study,) = archive.get("/studies?expand")
    assert len(study["Series"]) == 2
    assert len(archive.instances()) == 4


def test_a_site_without_key_images_gets_the_report_alone(tmp_path: Path) -> None:
    with ToyPacs(store=tmp_path) as pacs:
        site = Site(Peer("DEMOPACS", "127.0.0.1", pacs.port), None, "EDGENODE", 10, key_image="never")
        report = WRITERS["evidence"](site).write(write_back())
        assert [kind for kind, _ in report.objects] == ["sr"]
        assert len(pacs.instances) == 1


def test_an_archive_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(Retry) as raised:
        store(things(*objects()), Peer("PACS", "127.0.0.1", free_port()), "EDGENODE", 2)
    assert raised.value.code == "worklist.pacs-unavailable"


def test_an_archive_that_is_full_is_tried_again_and_then_has_everything(tmp_path: Path) -> None:
    with ToyPacs(store=tmp_path, fail_stores=1) as pacs:
        peer = Peer("DEMOPACS", "127.0.0.1", pacs.port)
        with pytest.raises(Retry) as raised:
            store(things(*objects()), peer, "EDGENODE", 10)
        assert "OUT_OF_RESOURCES" in raised.value.message
        assert "SUCCESS" in raised.value.message
        assert [one.status for one in store(things(*objects()), peer, "EDGENODE", 10).objects] == ["SUCCESS", "SUCCESS"]
        assert len(pacs.instances) == 2


def test_an_object_the_archive_refuses_for_good_is_quarantined_and_the_other_stored(tmp_path: Path) -> None:
    report, picture = objects()
    with disable_value_validation():
        report.StudyInstanceUID = "not a uid"
    with ToyPacs(store=tmp_path) as pacs:
        with pytest.raises(Quarantine) as raised:
            store(things(report, picture), Peer("DEMOPACS", "127.0.0.1", pacs.port), "EDGENODE", 10)
        assert raised.value.code == "worklist.pacs-refused"
        assert list(pacs.instances) == [picture.SOPInstanceUID]


def test_a_peer_that_takes_no_sop_class_of_ours_is_quarantined(tmp_path: Path) -> None:
    with ToyPacs(store=tmp_path) as pacs, pytest.raises(Quarantine) as raised:
        unknown = "1.2.3.4.5"
        with line_to(
            Peer("DEMOPACS", "127.0.0.1", pacs.port), [unknown], calling_ae="EDGENODE", timeout_s=5, service="pacs"
        ):
            pass
    assert raised.value.code == "worklist.pacs-refused"


def test_an_archive_that_does_not_know_us_is_tried_again_with_its_reason() -> None:
    strict = AE("STRICT")
    strict.require_calling_aet = ["SOMEONE"]
    strict.add_supported_context(SECONDARY_CAPTURE)
    with scp(strict) as peer, pytest.raises(Retry) as raised:
        store(things(*objects()), peer, "EDGENODE", 5)
    assert raised.value.code == "worklist.pacs-rejects-us"
    assert "Calling AE title not recognised" in raised.value.message


def test_an_archive_that_hangs_up_in_mid_study_is_tried_again() -> None:
    rude = AE("RUDE")
    for one in objects():
        rude.add_supported_context(one.SOPClassUID)

    def hang_up(event: Any) -> int:
        event.assoc.abort()
        return 0

    with scp(rude, (evt.EVT_C_STORE, hang_up)) as peer, pytest.raises(Retry) as raised:
        store(things(*objects()), peer, "EDGENODE", 5)
    assert raised.value.code == "worklist.pacs-unavailable"
    assert "NO_ANSWER" in raised.value.message


def test_an_archive_that_never_speaks_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(Retry) as raised:
            store(things(*objects()), Peer("MUTE", "127.0.0.1", mute.getsockname()[1]), "EDGENODE", 1)
    assert raised.value.code == "worklist.pacs-unavailable"
    assert time.monotonic() - began < 10


def test_an_archive_that_takes_only_pictures_gets_the_picture_and_the_report_of_it_says_so() -> None:
    stored = []

    def keep(event: Any) -> int:
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0

    pictures = AE("PICTURES")
    pictures.add_supported_context(SECONDARY_CAPTURE)
    with scp(pictures, (evt.EVT_C_STORE, keep)) as peer:
        report = WRITERS["evidence"](Site(peer, None, "EDGENODE", 5)).write(write_back())
    assert stored == [objects()[1].SOPInstanceUID]
    assert (report.outcome, [kind for kind, _ in report.objects]) == ("stored-less", ["sc"])
    assert report.left_out == tuple(f"{kind}: PRESENTATION_CONTEXT_NOT_ACCEPTED" for kind in REPORTS)


def test_small_packets_leave_at_once(tmp_path: Path) -> None:
    with ToyPacs(store=tmp_path) as pacs:
        peer = Peer("DEMOPACS", "127.0.0.1", pacs.port)
        with line_to(peer, [SECONDARY_CAPTURE], calling_ae="EDGENODE", timeout_s=5, service="pacs") as line:
            assert line.no_delay


def test_storing_logs_nothing_about_the_patient(archive: Orthanc, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        store(things(*objects()), peer_of(archive), "EDGENODE", 10)
        with pytest.raises(Retry):
            store(things(*objects()), Peer("PACS", "127.0.0.1", free_port()), "EDGENODE", 2)
    assert not [value for value in PATIENT.values() if value in caplog.text and len(value) > 1]
