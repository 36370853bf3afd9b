"""A whole node in a temporary folder: keys, ledger, spool, and the accepting function of a de-identifying worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from edge_node.config.schema import Config, Deid, Node
from edge_node.domain.study import KeyClass, Role
from edge_node.service import intake_worker, roles
from edge_node.service.node import open_node, spool_path
from edge_node.service.setup import initialise
from edge_node.store import audit, tables
from edge_node.store.database import Database
from edge_node.store.receipt import Receipt
from edge_node.store.seal import new_key_pair, private_key, unseal
from edge_node.store.spool import Place, SpoolReader
from tests.unit.deid.objects import ct, instance_of, received


@dataclass
class Site:
    """`escrow` is the private half of the key pair whose public half the configuration names."""

    config: Config
    escrow: bytes
    pem: bytes

    def take(self, *objects: Dataset) -> list[Receipt]:
        """Receive as a worker does, with keys as they are on the disk now."""
        accept = intake_worker.make_intake(self.config)
        receipts = [answer for one in objects for answer in accept([received(one)])]
        assert all(isinstance(receipt, Receipt) for receipt in receipts), receipts
        return receipts

    def hold(self) -> Receipt:
        """Receive what cannot be de-identified."""
        broken = instance_of(b"\x08\x00broken", "1.2.840.10008.1.2.1", "1.2.3", "1.2.4")
        [receipt] = intake_worker.make_intake(self.config)([broken])
        assert isinstance(receipt, Receipt)
        return receipt

    def without_escrow(self) -> Site:
        return Site(self.config.model_copy(update={"deid": Deid()}), self.escrow, self.pem)

    def opened(self) -> dict[str, bytes]:
        """Open everything that is sealed under a node key, with the keys as they are on the disk now."""
        node = open_node(self.config, Role.DICOM)
        found: dict[str, bytes] = {}
        with node.database.read() as connection:
            studies = connection.execute(select(tables.study.c.study_key)).scalars().all()
            held = connection.execute(select(tables.quarantine)).all()
        for key in studies:
            found |= {one.sop_uid: one.read() for one in node.clean.study(key).objects}
            found[key] = repr(node.vault.open(key)).encode()
        for row in held:
            secret = node.keyring.open(row.key_id, row.item, KeyClass.QUARANTINE).secret
            sealed = SpoolReader(spool_path(self.config)).read(Place(row.segment, row.offset, row.length))
            found[row.item] = unseal(secret, sealed, f"quarantine {row.item}")
        node.database.close()
        return found

    def audited(self, action: str = "") -> list[audit.AuditEntry]:
        with Database(self.config.node.data_dir / "ledger.sqlite3", read_only=True).read() as connection:
            assert audit.verify(connection).intact
            return [entry for entry in audit.entries(connection) if not action or entry.action == action]

    def rows(self, table: str) -> list[dict[str, object]]:
        with Database(self.config.node.data_dir / "ledger.sqlite3", read_only=True).read() as connection:
            return [dict(row._mapping) for row in connection.execute(select(tables.metadata.tables[table]))]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(roles, "harden", lambda: None)
    monkeypatch.setattr(roles.logs, "configure", lambda *_args, **_named: None)
    private, public = new_key_pair()
    path = tmp_path / "escrow-public.pem"
    path.write_bytes(public)
    config = Config(node=Node(data_dir=tmp_path / "data"), deid=Deid(escrow=path))
    initialise(config)
    return Site(config, private_key(private), private)


def image(number: int = 1, *, study: int = 1, **changes: object) -> Dataset:
    """One image of one study of the fictional patient."""
    root = f"1.2.826.0.1.3680043.8.498.{study}"
    return ct(StudyInstanceUID=root, SeriesInstanceUID=f"{root}.9", SOPInstanceUID=f"{root}.9.{number}", **changes)


NEEDLES = (b"Beeblebrox", b"Zaphod", b"PAT-420042", b"ACC-774411", b"19500102", b"1.2.826.0.1.3680043.8.498")


def needles_in(folder: Path) -> list[str]:
    """Files in which a word of identity stands in the clear."""
    return [
        f"{path.name}: {needle.decode()}"
        for path in folder.rglob("*")
        if path.is_file()
        for needle in NEEDLES
        if needle in path.read_bytes()
    ]
