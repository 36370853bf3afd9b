"""A node whose vault key is in memory, in this process: it receives, loses its memory, and asks an archive."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import select

from edge_node.config.retrieval import Pull, PullWeb
from edge_node.config.schema import Config, Node, PeerEntry, Worklist
from edge_node.service import memory_identity
from edge_node.service.pulling import archive_of
from edge_node.service.recovering import Recovery
from edge_node.service.setup import initialise
from edge_node.store import lost, tables
from edge_node.store.database import Database
from edge_node.store.receipt import Receipt
from edge_node.worklist.identity import WriteBackIdentity
from tests.integration.peers_orthanc import free_port
from tests.integration.puller import PullingNode
from tests.unit.deid.objects import received
from tests.unit.service.site import Site, image

PATIENCE_S = 30.0
TODAY = datetime.now().astimezone().strftime("%Y%m%d")


def today(number: int = 1, *, study: int = 1, **changes: object) -> Dataset:
    """An image of a study of today."""
    return image(number, study=study, **{"StudyDate": TODAY, **changes})


class MemoryNode:
    """`start` begins a run of the dicom role, `crash` ends it with its memory."""

    def __init__(self, folder: Path, *, method: str = "move", port: int | None = None, **config: Any) -> None:
        self.port = port or free_port()
        self.archive_port = free_port()
        self.web = ""
        self.method = method
        self.folder = folder / "data"
        self.further = config
        initialise(self.config)
        self.running: PullingNode | None = None

    @property
    def config(self) -> Config:
        pull = Pull(method=self.method, timeout_s=3, study_timeout_s=10)
        return Config(
            node=Node(data_dir=self.folder, identity="memory"),
            worklist=Worklist(mode="information", writers=["evidence"]),
            pull=pull,
            pull_web=PullWeb(url=self.web),
            peers={"pacs": PeerEntry(ae_title="PACS", host="127.0.0.1", port=self.archive_port)},
            **self.further,
        )

    def start(self) -> None:
        self.begun = memory_identity.begin(self.config)
        self.running = PullingNode(Site(self.config, b"", b""), port=self.port, vault=self.begun.vault)
        self.recovery = Recovery(self.config, self.begun.node, archive_of(self.config))

    def crash(self) -> None:
        assert self.running is not None
        self.running.close()
        self.begun.node.database.close()
        self.begun.held.release()
        self.running = None

    def restart(self) -> None:
        self.crash()
        self.start()

    def take(self, *objects: Dataset) -> str:
        """Receive as a worker does; the study's key, which is settled then."""
        assert self.running is not None
        for one in objects:
            [receipt] = self.running.work([received(one)])
            assert isinstance(receipt, Receipt), receipt
        with self.begun.node.database.write() as connection:
            connection.execute(tables.study.update().values(state="SETTLED", first_received_at=time.time()))
        return receipt.study_key

    def look(self) -> None:
        """One round of recovery, as if the pauses were over."""
        with self.begun.node.database.write() as connection:
            connection.execute(tables.lost_identity.update().values(not_before=0.0))
        self.recovery._closed_until = 0.0
        self.recovery.look(threading.Event())
        self.recovery.look(threading.Event())  # and what came late

    def code(self, study_key: str) -> str:
        """Why the study waits; "" when it does not."""
        with self.begun.node.database.read() as connection:
            one = lost.of(connection, study_key)
        return one.code if one else ""

    def identity(self, study_key: str) -> WriteBackIdentity:
        return WriteBackIdentity.from_envelopes(*self.begun.node.vault.open(study_key))

    def rows(self, table: str) -> list[dict[str, Any]]:
        with Database(self.folder / "ledger.sqlite3", read_only=True).read() as connection:
            return [dict(row._mapping) for row in connection.execute(select(tables.metadata.tables[table]))]

    def until_recovered(self, study_key: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while self.code(study_key):
            assert time.monotonic() < end, self.code(study_key)
            self.look()
