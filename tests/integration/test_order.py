"""The order behind a study, asked for at a real modality worklist: DCMTK's wlmscpfs."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from edge_node import pipeline
from edge_node.config.order import Order
from edge_node.config.schema import PeerEntry
from edge_node.domain.finding import TriageOutcome, TriageResult
from edge_node.domain.study import Role, StudyState
from edge_node.domain.worklist import Peer, Priority
from edge_node.service.dicom_steps import ORDER
from edge_node.service.node import open_node
from edge_node.service.order_steps import order_work
from edge_node.service.roles import bench
from edge_node.store import audit, retention, studies, tables
from edge_node.store.tables import reading
from edge_node.store.tasks import Task, enqueue
from tests.integration.needed_tools import need
from tests.integration.peers_orthanc import free_port
from tests.integration.results_node import ResultsNode, results_node
from tests.unit.deid.objects import ct

UNJUDGED = TriageResult(TriageOutcome.SKIPPED, "triage.disabled")


def entry(folder: Path, name: str, **values: Any) -> None:
    """One order as wlmscpfs wants it."""
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "CT", "CT1"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20240229", "101500"
    step.ScheduledProcedureStepID, step.ScheduledProcedureStepDescription = "S1", "Head"
    order = Dataset()
    order.SpecificCharacterSet = "ISO_IR 192"
    order.AccessionNumber, order.PatientName, order.PatientID = "ACC-774411", "Beeblebrox^Zaphod", "PAT-420042"
    order.StudyInstanceUID, order.RequestedProcedureID = "1.2.826.0.1.3680043.8.498.77", "R1"
    order.RequestedProcedureDescription = "CT head"
    order.ScheduledProcedureStepSequence = [step]
    for keyword, value in values.items():
        setattr(order, keyword, value)
    order.file_meta = FileMetaDataset()
    order.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    order.file_meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
    order.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    order.save_as(folder / "RIS" / f"{name}.wl", enforce_file_format=True)


@pytest.fixture
def ris(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder of orders, and the port it is served at."""
    (tmp_path / "orders" / "RIS").mkdir(parents=True)
    (tmp_path / "orders" / "RIS" / "lockfile").touch()
    port = free_port()
    command = [need("wlmscpfs"), "-dfp", str(tmp_path / "orders"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield tmp_path / "orders", port
        server.terminate()


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., ResultsNode]:
    """A node that has received one study and asks the RIS at a port."""

    def make(port: int, study: Dataset | None = None, **options: Any) -> ResultsNode:
        made = results_node(tmp_path, Peer("PACS", "127.0.0.1", 1))
        peers = {**made.node.config.peers, "ris": PeerEntry(ae_title="RIS", host="127.0.0.1", port=port)}
        order = Order(**{"peer": "ris", "wait_s": 2.0, **options})
        config = made.node.config.model_copy(update={"peers": peers, "order": order})
        made.node.database.close()
        node = ResultsNode(open_node(config, Role.DICOM))
        node.take(study if study is not None else ct())
        with node.node.database.write() as connection:
            enqueue(connection, node.study_key, 1, ORDER)
        return node

    return make


def asked(site: ResultsNode) -> tuple[str, str, str]:
    """Work the step once: its code, and what the ledger knows of the order."""
    claimed = site.node.tasks.claim(ORDER, "", pipeline.LEASE_S)
    assert isinstance(claimed, Task)
    bench(site.node, ORDER, order_work(site.node), max_age_s=60.0).one(claimed)
    with site.node.database.read() as connection:
        row = studies.get(connection, site.study_key)._mapping
    return site.row("")["code"], str(row["order_priority"]), str(row["patient_class"])


def place_of(site: ResultsNode) -> Priority:
    with site.node.database.read() as connection:
        place = studies.get_reading(connection, site.study_key)
    assert place is not None
    return place


def test_the_worklist_says_how_urgent_a_study_was_ordered(
    ris: tuple[Path, int], site: Callable[..., ResultsNode]
) -> None:
    folder, port = ris
    entry(folder, "one", RequestedProcedurePriority="STAT", RequestingService="ED North")
    node = site(port)
    assert asked(node) == ("order.by-worklist", "STAT", "E")
    [told] = [one for one in audited(node) if one.get("code") == "order.by-worklist"]
    assert (told["priority"], told["patient_class"]) == ("STAT", "E")


def audited(site: ResultsNode) -> list[dict[str, Any]]:
    with site.node.database.read() as connection:
        return [dict(one.detail) for one in audit.entries(connection)]


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "SOMEBODY"},
        {"PatientID": "SOMEBODY", "AccessionNumber": "OTHER"},
        {"AccessionNumber": "ACC-7744110", "StudyInstanceUID": "1.2.3"},
    ],
)
def test_an_order_of_somebody_else_says_nothing(
    ris: tuple[Path, int], site: Callable[..., ResultsNode], other: dict[str, str]
) -> None:
    folder, port = ris
    entry(folder, "other", RequestedProcedurePriority="STAT", **other)
    assert asked(site(port)) == ("order.not-there", "", "")


def test_without_an_accession_number_the_study_is_asked_for_by_its_uid(
    ris: tuple[Path, int], site: Callable[..., ResultsNode]
) -> None:
    folder, port = ris
    entry(folder, "one", RequestedProcedurePriority="HIGH", CurrentPatientLocation="WARD 7")
    entry(folder, "two", RequestedProcedurePriority="STAT", StudyInstanceUID="1.2.3.4")
    assert asked(site(port, ct(AccessionNumber=""), inpatient=["ward"])) == ("order.by-worklist", "URGENT", "I")


@pytest.mark.parametrize("accession", ["*", "A?C", "ACC-*"])
def test_a_number_that_is_a_wildcard_asks_for_nobody_elses_order(
    ris: tuple[Path, int], site: Callable[..., ResultsNode], accession: str
) -> None:
    folder, port = ris
    entry(folder, "one", RequestedProcedurePriority="STAT", StudyInstanceUID="1.2.3.4")
    assert asked(site(port, ct(AccessionNumber=accession)))[1] == ""


def test_a_worklist_that_is_silent_costs_a_moment_and_is_then_left_alone(site: Callable[..., ResultsNode]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        node = site(silent.getsockname()[1], ct(RequestingService="ED"), wait_s=0.3)
        work = order_work(node.node)
        claimed = node.node.tasks.claim(ORDER, "", pipeline.LEASE_S)
        assert isinstance(claimed, Task)
        assert work(claimed).code == "order.no-answer"
        silent.settimeout(0.2)
        silent.accept()[0].close()
        done = work(claimed)
        assert (done.code, done.detail["patient_class"]) == ("order.no-answer", "E")
        with pytest.raises(TimeoutError):
            silent.accept()


def test_a_study_that_was_judged_already_comes_forward_and_never_goes_back(
    ris: tuple[Path, int], site: Callable[..., ResultsNode]
) -> None:
    folder, port = ris
    entry(folder, "one", RequestedProcedurePriority="STAT")
    node = site(port)
    node.judged(UNJUDGED)
    before = place_of(node)
    assert asked(node) == ("order.by-worklist", "STAT", "")
    assert place_of(node).due < before.due
    assert place_of(node).reason.startswith("STAT order")

    entry(folder, "one", RequestedProcedurePriority="LOW")
    with node.node.database.write() as connection:
        enqueue(connection, node.study_key, 2, ORDER)
        connection.execute(reading.update().values(revision=2))
        node.node.clean.put_finding(connection, node.study_key, 2, UNJUDGED)
    raised = place_of(node)
    claimed = node.node.tasks.claim(ORDER, "", pipeline.LEASE_S)
    assert isinstance(claimed, Task)
    bench(node.node, ORDER, order_work(node.node), max_age_s=60.0).one(claimed)
    assert place_of(node).due == raised.due


def test_a_study_whose_identity_is_gone_goes_by_its_images(
    ris: tuple[Path, int], site: Callable[..., ResultsNode]
) -> None:
    node = site(ris[1])
    with node.node.database.write() as connection:
        connection.execute(tables.study.update().values(state=StudyState.DELIVERED))
        retention.destroy_identity(connection, node.study_key, 1)
    assert asked(node)[0] == "order.unknown"
