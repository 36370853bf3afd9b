"""Identity that went with the memory of the node, asked of Orthanc, of DCMTK's dcmqrscp, and of archives that lie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from edge_node.config.schema import Receive
from edge_node.domain.errors import Quarantine
from edge_node.domain.status import Status
from edge_node.service import recovering, roles
from tests.integration.memory_node import TODAY, MemoryNode, today
from tests.integration.peers_dcmtk import dcmqrscp
from tests.integration.peers_orthanc import Orthanc, free_port
from tests.integration.puller import part10
from tests.unit.service.site import needles_in


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    modalities = {"node": {"AET": "EDGENODE", "Host": "127.0.0.1", "Port": port, "Manufacturer": "Generic"}}
    extra = {"DicomAlwaysAllowGet": True, "DicomCheckModalityHost": False}
    with Orthanc(tmp_path_factory.mktemp("orthanc"), ae_title="PACS", modalities=modalities, extra=extra) as peer:
        yield peer


@pytest.fixture
def archive(orthanc: Orthanc) -> Orthanc:
    """The archive, empty."""
    orthanc.clear()
    return orthanc


@pytest.fixture
def node(tmp_path: Path, port: int, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryNode]:
    monkeypatch.setattr(roles, "harden", lambda: None)
    monkeypatch.setattr(roles.logs, "configure", lambda *_args, **_named: None)
    monkeypatch.setattr(recovering, "ARRIVAL_S", 1.0)
    one = MemoryNode(tmp_path, port=port)
    one.archive_port, one.web = orthanc.dicom_port, f"{orthanc.url}/dicom-web"
    yield one
    if one.running is not None:
        one.crash()


def keep(archive: Orthanc, folder: Path, *objects: Dataset) -> None:
    """What the archive holds."""
    for one in objects:
        archive.request("/instances", method="POST", body=part10(one, folder).read_bytes())


@pytest.mark.parametrize("method", ["move", "get", "web"])
def test_by_every_way_of_asking_the_identity_comes_back_under_a_new_key(
    node: MemoryNode, archive: Orthanc, tmp_path: Path, method: str
) -> None:
    keep(archive, tmp_path, *(today(number) for number in (1, 2, 3)), today(1, study=2, PatientID="OTHER-1"))
    node.method = method
    node.start()
    key = node.take(*(today(number) for number in (1, 2, 3)))
    before = node.identity(key)
    node.restart()
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        node.identity(key)
    assert node.code(key) == "identity.asking"
    node.look()
    assert node.code(key) == ""
    after = node.identity(key)
    assert after.text("PatientID") == before.text("PatientID") == "PAT-420042"
    assert {one.sop_uid for images in after.series().values() for one in images} == {
        today(number).SOPInstanceUID for number in (1, 2, 3)
    }
    assert len(node.rows("study")) == 1
    assert node.rows("quarantine") == []
    assert needles_in(node.folder) == []


@pytest.mark.parametrize("method", ["move", "get"])
def test_dcmqrscp_gives_an_identity_back(node: MemoryNode, tmp_path: Path, method: str) -> None:
    node.archive_port, node.method = free_port(), method
    files = [part10(today(number), tmp_path) for number in (1, 2)]
    with dcmqrscp(tmp_path, files, port=node.archive_port, node_port=node.port):
        node.start()
        key = node.take(today(1), today(2))
        node.restart()
        node.until_recovered(key)
        assert node.identity(key).text("AccessionNumber") == "ACC-774411"


def test_a_study_that_the_archive_gets_later_is_found_then(node: MemoryNode, archive: Orthanc, tmp_path: Path) -> None:
    keep(archive, tmp_path, today(1, study=2))
    node.start()
    key = node.take(today(1))
    node.restart()
    node.look()
    assert node.code(key) == "identity.not-found"
    keep(archive, tmp_path, today(1))
    node.look()
    assert node.code(key) == ""
    assert node.identity(key).study_uid == today(1).StudyInstanceUID


def test_a_study_of_another_day_is_found_by_looking_further(node: MemoryNode, archive: Orthanc, tmp_path: Path) -> None:
    received = time.strftime("%Y%m%d", time.localtime(time.time() - 20 * 86400))
    keep(archive, tmp_path, today(1, StudyDate=received))
    node.start()
    key = node.take(today(1, StudyDate=received))
    node.restart()
    node.look()
    assert node.code(key) == "identity.not-found"
    node.look()
    assert node.code(key) == ""


def test_an_archive_that_is_down_is_asked_until_it_answers(node: MemoryNode, archive: Orthanc, tmp_path: Path) -> None:
    keep(archive, tmp_path, today(1))
    node.archive_port = free_port()
    node.start()
    key = node.take(today(1))
    node.restart()
    node.look()
    assert node.code(key) == "identity.unanswered"
    [row] = node.rows("lost_identity")
    assert row["looks"] == 0, "nobody answered: where to look is not widened"
    node.archive_port = archive.dicom_port
    node.restart()
    node.look()
    assert node.code(key) == ""


def test_the_same_study_under_another_patient_is_nobodys_identity(
    node: MemoryNode, archive: Orthanc, tmp_path: Path
) -> None:
    keep(archive, tmp_path, *(today(number, PatientID="OTHER-1", PatientName="Dent^Arthur") for number in (1, 2)))
    node.start()
    key = node.take(today(1), today(2))
    node.restart()
    for _ in range(4):
        node.look()
    assert node.code(key) == "identity.other-patient"
    assert node.rows("envelope") == []
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        node.identity(key)
    assert [row["code"] for row in node.rows("quarantine")] == ["receive.conflicting-duplicate"] * 2


def test_what_the_archive_keeps_in_another_encoding_is_the_same_patients(
    node: MemoryNode, archive: Orthanc, tmp_path: Path
) -> None:
    for number in (1, 2):
        ds = dcmread(BytesIO(part10(today(number), tmp_path).read_bytes()))
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.InstitutionName = "Coerced"
        ds.save_as(tmp_path / "implicit.dcm", implicit_vr=True, little_endian=True)
        archive.request("/instances", method="POST", body=(tmp_path / "implicit.dcm").read_bytes())
    node.start()
    key = node.take(today(1), today(2))
    node.restart()
    node.look()
    assert node.code(key) == ""
    assert node.identity(key).text("PatientID") == "PAT-420042"
    assert node.rows("quarantine") == []


def test_without_a_patient_id_only_the_same_bytes_are_the_same_patients(
    node: MemoryNode, archive: Orthanc, tmp_path: Path
) -> None:
    keep(archive, tmp_path, today(1, PatientID="", PatientName="Dent^Arthur"))
    node.start()
    key = node.take(today(1, PatientID=""))
    node.restart()
    node.look()
    assert node.code(key) == "identity.other-patient"
    archive.clear()
    keep(archive, tmp_path, today(1, PatientID=""))
    node.look()
    assert node.code(key) == ""
    assert node.identity(key).text("PatientName") == "Beeblebrox^Zaphod"


def test_a_late_image_of_somebody_else_does_not_name_a_study_that_waits(node: MemoryNode, archive: Orthanc) -> None:
    node.start()
    key = node.take(today(1))
    node.restart()
    node.take(today(2, PatientID="OTHER-1", PatientName="Dent^Arthur"))
    assert [row["sop_uid"] for row in node.rows("envelope")] != []
    assert all(row["sop_uid"] for row in node.rows("envelope")), "the study's own envelope is not sealed"
    node.look()
    assert node.code(key) == "identity.not-found"


def test_what_the_archive_still_has_of_a_study_is_enough_in_the_end(
    node: MemoryNode, archive: Orthanc, tmp_path: Path
) -> None:
    keep(archive, tmp_path, today(1))
    node.start()
    key = node.take(today(1), today(2))
    node.restart()
    node.look()
    assert node.code(key) == "identity.incomplete"
    node.look()
    node.look()
    assert node.code(key) == ""
    assert node.identity(key).first.sop_uid == today(1).SOPInstanceUID


class Liar:
    """Answers every query with the studies that it has, and every retrieval with another object, or a failure."""

    def __init__(self, said: list[Dataset], sent: dict[str, Dataset]) -> None:
        ae = AE("PACS")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        ae.add_supported_context(CTImageStorage, scp_role=True, scu_role=True)
        self._said, self._sent = said, sent
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for said in self._said if event.identifier.get("StudyDate") == TODAY else ():
            answer = Dataset()
            answer.QueryRetrieveLevel = "STUDY"
            answer.StudyInstanceUID, answer.StudyDate = said.StudyInstanceUID, TODAY
            answer.PatientID, answer.NumberOfStudyRelatedInstances = said.PatientID, "1"
            yield Status.PENDING, answer

    def _get(self, event: Any) -> Iterator[Any]:
        sent = self._sent.get(str(event.identifier.StudyInstanceUID))
        if sent is None:
            event.assoc.abort()
            yield 1
            return
        yield 1
        yield Status.PENDING, sent

    def close(self) -> None:
        self._server.shutdown()


@pytest.mark.parametrize("study", [1, 2])
def test_an_archive_that_says_one_study_and_sends_another_gives_no_identity(
    node: MemoryNode, tmp_path: Path, study: int
) -> None:
    other = dcmread(part10(today(7, study=study, PatientID="OTHER-1", PatientName="Dent^Arthur"), tmp_path))
    liar = Liar([today(1)], {today(1).StudyInstanceUID: other})
    try:
        node.method, node.archive_port = "get", liar.port
        node.start()
        key = node.take(today(1))
        node.restart()
        node.look()
        assert node.code(key) == "identity.incomplete"
        own = [row for row in node.rows("envelope") if row["study_key"] == key and not row["sop_uid"]]
        assert own == []
    finally:
        liar.close()


def test_a_study_that_the_archive_cannot_send_keeps_no_other_waiting(node: MemoryNode, tmp_path: Path) -> None:
    liar = Liar(
        [today(1), today(1, study=2)],
        {today(1, study=2).StudyInstanceUID: dcmread(part10(today(1, study=2), tmp_path))},
    )
    try:
        node.method, node.archive_port = "get", liar.port
        node.start()
        stuck, well = node.take(today(1)), node.take(today(1, study=2))
        node.restart()
        node.look()
        assert node.code(stuck) == "identity.unanswered"
        assert node.code(well) == ""
    finally:
        liar.close()


def test_a_study_that_we_cannot_take_keeps_no_other_waiting_either(tmp_path: Path, node: MemoryNode) -> None:
    large = today(1, Rows=1200, Columns=1200)
    large.PixelData = bytes(2 * 1200 * 1200)
    sent = {one.StudyInstanceUID: dcmread(part10(one, tmp_path)) for one in (large, today(1, study=2))}
    liar = Liar([large, today(1, study=2)], sent)
    try:
        node.further = {"receive": Receive(max_object_mb=1)}
        node.method, node.archive_port = "get", liar.port
        node.start()
        stuck, well = node.take(large), node.take(today(1, study=2))
        node.restart()
        node.look()
        [row] = node.rows("lost_identity")
        assert (row["study_key"], row["code"], row["looks"]) == (stuck, "identity.unanswered", 1)
        assert "pull.object-too-large" in row["message"]
        assert node.code(well) == ""
    finally:
        liar.close()


def test_a_study_that_kills_the_process_was_counted_before_and_lets_others_go_first(
    node: MemoryNode, archive: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(archive, tmp_path, today(1))
    node.start()
    key = node.take(today(1))
    node.restart()

    def killed(*_words: object) -> None:
        raise SystemExit

    monkeypatch.setattr(node.recovery._archive, "retrieve", killed)
    with pytest.raises(SystemExit):
        node.look()
    [row] = node.rows("lost_identity")
    assert (row["study_key"], row["looks"]) == (key, 1)
    assert row["not_before"] > time.time()
