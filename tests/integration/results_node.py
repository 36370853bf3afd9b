"""A node that has judged a study and writes its result back, step by step, as its dicom role does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import select

from edge_node import pipeline
from edge_node.config.schema import Config, PeerEntry, Receive
from edge_node.config.schema import Node as NodeSection
from edge_node.config.write_back import Worklist
from edge_node.domain.finding import TriageResult
from edge_node.domain.study import Role, StudyState
from edge_node.domain.worklist import Peer
from edge_node.pipeline import Bench
from edge_node.receive.scp import StorageSCP
from edge_node.service.commitment_steps import commitment_work, note_commitment
from edge_node.service.dicom_steps import worklist_work
from edge_node.service.intake_worker import make_intake
from edge_node.service.node import Node, open_node
from edge_node.service.roles import bench, targets_of
from edge_node.service.setup import initialise
from edge_node.store import audit, studies
from edge_node.store.commitments import TARGET
from edge_node.store.receipt import Receipt
from edge_node.store.tables import study, task
from edge_node.store.tasks import Task, enqueue
from edge_node.worklist.priority import decide
from tests.unit.deid.objects import received


@dataclass
class ResultsNode:
    """`study_key` of the one study; `run(target)` claims and works its row once, as a bench does."""

    node: Node
    study_key: str = ""

    def take(self, *objects: Dataset) -> list[str]:
        """Receive objects as a worker does; returns their pseudonymous SOP Instance UIDs, in order of number."""
        accept = make_intake(self.node.config)
        for one in objects:
            [receipt] = accept([received(one)])
            assert isinstance(receipt, Receipt), receipt
            self.study_key = receipt.study_key
        return [one.sop_uid for one in self.node.clean.study(self.study_key).objects]

    def judged(self, result: TriageResult, revision: int = 1) -> None:
        """Settle and triage the study with this result; the work of the writers is due."""
        now = time.time()
        with self.node.database.write() as connection:
            connection.execute(study.update().values(state=StudyState.SETTLED, settled_at=now, revision=revision))
            self.node.clean.put_finding(connection, self.study_key, revision, result)
            priority = decide(arrival=now, order="ROUTINE", patient_class="", finding=result.top)
            studies.put_reading(connection, self.study_key, revision, priority)
            studies.advance(connection, self.study_key, revision, StudyState.TRIAGED, now)
            for target in targets_of(self.node.config).of("worklist"):
                enqueue(connection, self.study_key, revision, "worklist", target=target)

    def bench(self, target: str) -> Bench:
        work = commitment_work(self.node) if target == TARGET else worklist_work(self.node, target)
        return bench(self.node, "worklist", work, max_age_s=3600.0, target=target)

    def run(self, target: str) -> dict[str, Any]:
        """One claim, whenever it is due; the row as it is afterwards."""
        with self.node.database.write() as connection:
            connection.execute(task.update().values(not_before=0.0))
        claimed = self.node.tasks.claim("worklist", target, pipeline.LEASE_S)
        assert isinstance(claimed, Task), f"no row for {target}"
        self.bench(target).one(claimed)
        return self.row(target, claimed.revision)

    def row(self, target: str, revision: int = 1) -> dict[str, Any]:
        with self.node.database.read() as connection:
            found = connection.execute(
                select(task).where(task.c.target == target, task.c.revision == revision)
            ).one_or_none()
        return dict(found._mapping) if found is not None else {}

    def until(self, target: str, states: tuple[str, ...], patience_s: float = 20.0) -> dict[str, Any]:
        """Run until the row is in one of `states`."""
        end = time.monotonic() + patience_s
        row = self.run(target)
        while row["state"] not in states:
            assert time.monotonic() < end, row
            time.sleep(0.1)
            row = self.run(target)
        return row

    @property
    def state(self) -> str:
        with self.node.database.read() as connection:
            return str(studies.get(connection, self.study_key)._mapping["state"])

    def audited(self) -> list[str]:
        """Codes of what was done, in order."""
        with self.node.database.read() as connection:
            return [str(entry.detail["code"]) for entry in audit.entries(connection) if "code" in entry.detail]

    @contextmanager
    def receiver(self) -> Iterator[int]:
        """The node's own listener, for what an archive reports; its port."""
        scp = StorageSCP(
            self.node.config.receive,
            lambda _arrival: (_ for _ in ()).throw(AssertionError("nothing is stored here")),
            self.node.config.node.data_dir,
            free_bytes=lambda: 1 << 40,
            committed=note_commitment(self.node),
        )
        scp.start()
        try:
            yield scp.port
        finally:
            scp.stop(1.0)


def results_node(folder: Path, archive: Peer, *, worklist_at: Peer | None = None, **worklist: Any) -> ResultsNode:
    """A live site whose archive is at `archive`, and whose UPS worklist at `worklist_at`."""
    options = {"mode": "live", "writers": ["evidence"], "timeout_s": 5, **worklist}
    config = Config(
        node=NodeSection(data_dir=folder / "data"),
        receive=Receive(host="127.0.0.1", port=0),
        worklist=Worklist(**options),
        peers={
            name: PeerEntry(ae_title=peer.ae_title, host=peer.host, port=peer.port)
            for name, peer in (("pacs", archive), ("ups", worklist_at or archive))
        },
    )
    if not (folder / "data").exists():
        initialise(config)
    return ResultsNode(open_node(config, Role.DICOM))
