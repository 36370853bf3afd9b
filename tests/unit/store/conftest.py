"""A real ledger, spool and keys in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_node.domain.body import Body, Memory
from edge_node.domain.study import Deidentified, DeidentifiedInstance, IdentifiedInstance, IdentityEnvelope, RecipeId
from edge_node.store.database import Database
from edge_node.store.intake import IntakeStore
from edge_node.store.keyring import Keyring
from edge_node.store.spool import SpoolReader, SpoolWriter
from edge_node.store.studies import CleanObjects, Vault
from edge_node.store.tasks import Tasks

KEYS = {"clean": b"c" * 32, "vault": b"v" * 32, "quarantine": b"q" * 32}


@dataclass
class Store:
    """Everything the store room offers, on one folder."""

    folder: Path
    database: Database
    keyring: Keyring
    spool: SpoolWriter
    intake: IntakeStore
    clean: CleanObjects
    vault: Vault
    tasks: Tasks


@pytest.fixture
def store(tmp_path: Path) -> Store:
    spool_folder = tmp_path / "spool"
    spool_folder.mkdir()
    database = Database(tmp_path / "ledger.sqlite3")
    database.migrate()
    keyring = Keyring(database, KEYS)
    spool = SpoolWriter(spool_folder, segment_bytes=1 << 20, large_bytes=1 << 19)
    return Store(
        tmp_path,
        database,
        keyring,
        spool,
        IntakeStore(database, keyring, spool, actor="test/dicom", quarantine_s=3600.0, envelope_s=7200.0),
        CleanObjects(database, keyring, SpoolReader(spool_folder)),
        Vault(database, keyring),
        Tasks(database, "test/compute"),
    )


@pytest.fixture
def clean_instance() -> Callable[..., Deidentified]:
    def make(
        number: int = 1, *, study: str = "STUDYKEY0001", content: bytes = b"clean bytes", digest: str = ""
    ) -> Deidentified:
        body = content + b" %d" % number
        instance = DeidentifiedInstance(
            body=Body([body]),
            study_key=study,
            study_uid="2.25.1",
            series_uid="2.25.2",
            sop_uid=f"2.25.{study}.{number}".replace("STUDYKEY", "9"),
            sop_class="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax="1.2.840.10008.1.2.1",
            modality="CT",
            body_part="HEAD",
            pixel_risk="",
            patient_key="PATIENTKEY",
            order_priority="",
            recipe=RecipeId("basic", "0" * 64),
        )
        identity = IdentityEnvelope('{"PatientName": "ZZSECRET^ANNA"}', '{"SOPInstanceUID": "1.2.3.ZZORIGINAL"}')
        return Deidentified(instance, identity, digest or f"digest-{study}-{number}")

    return make


@pytest.fixture
def received() -> IdentifiedInstance:
    return IdentifiedInstance(
        source=Memory(b"ZZSECRET^ANNA not parseable"),
        transfer_syntax="1.2.840.10008.1.2.1",
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        sop_instance="1.2.3.ZZORIGINAL",
        calling_ae="MODALITY",
        called_ae="EDGENODE",
        peer="127.0.0.1",
        received_at=1000.0,
    )
