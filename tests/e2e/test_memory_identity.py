"""A node whose vault key is in memory: what is on the disk opens for nobody, and the PACS gives the identities back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select

from edge_node.config.load import load
from edge_node.config.secrets import KEY_BYTES
from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import KeyClass
from edge_node.service.node import ledger_path
from edge_node.store import tables
from edge_node.store.database import Database
from edge_node.store.seal import unseal
from tests.e2e.site import Site, free_port
from tests.e2e.test_line import no_identity_on_disk
from tests.integration.peers_orthanc import Orthanc

MakeSite = Callable[..., Site]


class Hospital:
    """An archive that keeps the studies (Orthanc), and a PACS for results that may be down."""

    def __init__(self, folder: Path, site: MakeSite, archive: Orthanc, node_port: int) -> None:
        self.results_port = free_port()
        self.folder = folder
        self.archive = archive
        results = {"ae_title": "DEMOPACS", "host": "127.0.0.1", "port": self.results_port}
        self.node = site(
            node={"identity": "memory"},
            receive={"port": node_port},
            worklist={"mode": "live", "timeout_s": 3},
            pull={"method": "move", "pacs": "archive", "timeout_s": 5},
            **{
                "peers.pacs": results,
                "peers.ups": results,
                "peers.archive": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.dicom_port},
            },
        )
        self.node.port = node_port

    def results(self) -> ToyPacs:
        return ToyPacs(port=self.results_port, store=self.folder / "results")

    def ledger(self) -> Database:
        return Database(ledger_path(load(self.node.config, environ={}).config), read_only=True)

    def keys_on_disk(self) -> dict[str, bytes]:
        found = {path: path.read_bytes() for path in (self.node.folder / "data").rglob("*") if path.is_file()}
        return {path.name: content for path, content in found.items() if len(content) == KEY_BYTES}


@pytest.fixture
def hospital(tmp_path: Path, site: MakeSite) -> Iterator[Hospital]:
    port = free_port()
    modalities = {"node": {"AET": "EDGENODE", "Host": "127.0.0.1", "Port": port, "Manufacturer": "Generic"}}
    folder = tmp_path / "archive"
    folder.mkdir()
    with Orthanc(folder, ae_title="ARCHIVE", modalities=modalities) as archive:
        yield Hospital(tmp_path, site, archive, port)


def of_today(study: DemoStudy, folder: Path) -> list[Path]:
    """The study's files with today's date."""
    folder.mkdir()
    made = []
    for path in study.files:
        ds = dcmread(path)
        ds.StudyDate = datetime.now().astimezone().strftime("%Y%m%d")
        ds.save_as(folder / path.name)
        made.append(folder / path.name)
    return made


def test_after_kill_9_the_archive_gives_the_identity_back_and_the_result_arrives_once(
    hospital: Hospital, studies: dict[int, DemoStudy], tmp_path: Path
) -> None:
    node, study = hospital.node, studies[12]
    files = of_today(study, tmp_path / "today")
    for path in files:
        hospital.archive.request("/instances", method="POST", body=path.read_bytes())
    node.start()
    node.send(study, files)
    node.wait_for_state("TRIAGED")
    [key] = [row["study"] for row in node.ask("study", "list")]
    node.kill()

    sealed = sealed_in(hospital.ledger())
    assert len(sealed["envelope"]) == len(files) + 1
    keys = hospital.keys_on_disk()
    assert set(keys) == {"clean.key", "quarantine.key", "pseudonym.key"}
    assert opened_by(keys.values(), sealed) == 0
    no_identity_on_disk(node, study)

    with hospital.results() as pacs:
        node.start()
        node.wait_for_state("DELIVERED")
        written = [dcmread(path) for path in pacs.instances.values()]
        assert {ds.PatientID for ds in written} == {study.patient.patient_id}
        assert {ds.StudyInstanceUID for ds in written} == {study.study_uid}
        assert len({ds.SOPClassUID for ds in written}) == len(written) == 2
        assert len(pacs.workitems) == 1
        assert node.stop() == 0
    now = sealed_in(hospital.ledger())
    assert not set(sealed["envelope"]) & set(now["envelope"])
    actions = [entry["action"] for entry in node.ask("study", "show", key)["timeline"]]
    assert [one for one in actions if one.startswith("identity.")] == ["identity.lost", "identity.recovered"]
    no_identity_on_disk(node, study)


def sealed_in(database: Database) -> dict[str, list[Any]]:
    """Everything that is sealed under the vault key: envelopes, and the data keys they are sealed with."""
    with database.read() as connection:
        keys = connection.execute(
            select(tables.data_key).where(tables.data_key.c["class"] == str(KeyClass.ENVELOPE))
        ).all()
        envelopes = connection.execute(select(tables.envelope)).all()
    return {
        "key": [(row.wrapped, f"key {row.key_id} {row.owner} {KeyClass.ENVELOPE}") for row in keys],
        "envelope": [(row.sealed, f"envelope {row.study_key} {row.sop_uid}") for row in envelopes],
    }


def opened_by(keys: Any, sealed: dict[str, list[Any]]) -> int:
    """How many of the sealed rows any of the keys opens."""
    count = 0
    for key in keys:
        for text, context in [*sealed["key"], *sealed["envelope"]]:
            try:
                unseal(key, text, context)
            except Quarantine:
                continue
            count += 1
    return count
