"""A node with its own reading list on a real ledger and a real port, in this process, and those who ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)
from sqlalchemy import update

from edge_node.config.lists import ReadingList, Routing
from edge_node.config.schema import PeerEntry, Worklist
from edge_node.domain.finding import Finding, TriageOutcome, TriageResult
from edge_node.domain.study import Role, StudyState
from edge_node.service.node import open_node
from edge_node.service.own_list import OwnList
from edge_node.store import studies, tables
from edge_node.worklist.priority import decide
from tests.integration.peers_orthanc import free_port
from tests.unit.service.site import Site, image

PATIENCE_S = 15.0


class ListNode:
    """The list of a site; `triage` puts a study on it."""

    def __init__(
        self, site: Site, *, peers: dict[str, PeerEntry] | None = None, worklist: Any = None, **options: Any
    ) -> None:
        self.site = site
        options = {"port": free_port(), "timeout_s": 5.0, **options}
        routing = Routing(routes={"finding:1386000": "STROKE", "modality:CT": "CT"}, names={"STROKE": "Neuro on call"})
        archive = PeerEntry(ae_title="ARCHIVE", host="127.0.0.1", port=104)
        self.config = site.config.model_copy(
            update={
                "reading_list": ReadingList(**options),
                "worklist": worklist or Worklist(mode="live"),
                "routing": routing,
                "peers": {"pacs": archive, **(peers or {})},
            }
        )
        self.node = open_node(self.config, Role.DICOM)
        self.began = time.time()
        self.stopping = threading.Event()
        self.own = OwnList(self.config, self.node)
        self.own.start()
        self.telling = threading.Thread(target=self.own.teller.run, args=(self.stopping,), daemon=True)
        self.telling.start()

    def triage(self, number: int, *, order: str = "ROUTINE", found: Finding | None = None, **changes: Any) -> str:
        """Receive study `number`, give it a place; its study key."""
        one = image(1, study=number, AccessionNumber=f"ACC{number}")
        for keyword, value in changes.items():
            setattr(one, keyword, value)
        [receipt] = self.site.take(one)
        key, now = receipt.study_key, time.time()
        result = TriageResult(TriageOutcome.FINDING, "", (found,)) if found else TriageResult(TriageOutcome.SKIPPED)
        priority = decide(arrival=self.began - 60 + number, order=order, patient_class="", finding=found)
        with self.node.database.write() as connection:
            row = studies.get(connection, key)._mapping
            self.node.clean.put_finding(connection, key, row["revision"], result)
            studies.put_reading(connection, key, row["revision"], priority)
            done = {"state": StudyState.TRIAGED, "triaged_at": now}
            connection.execute(update(tables.study).where(tables.study.c.study_key == key).values(**done))
        return str(key)

    @contextmanager
    def asking(self, ae_title: str = "VIEWER", called: str = "EDGELIST") -> Iterator[Any]:
        """An association of a viewer."""
        viewer = AE(ae_title=ae_title)
        for one in (
            UnifiedProcedureStepPull,
            UnifiedProcedureStepWatch,
            UnifiedProcedureStepQuery,
            ModalityWorklistInformationFind,
        ):
            viewer.add_requested_context(one)
        line = viewer.associate("127.0.0.1", self.own.port, ae_title=called)
        assert line.is_established
        try:
            yield line
        finally:
            line.release()

    def find(self, *, worklist: bool = False, **keys: Any) -> list[Dataset]:
        """The matches of a C-FIND."""
        return self.find_all(worklist=worklist, **keys)[0]

    def find_all(self, *, worklist: bool = False, **keys: Any) -> tuple[list[Dataset], int]:
        """The matches of a C-FIND, and its final status."""
        model = ModalityWorklistInformationFind if worklist else UnifiedProcedureStepQuery
        with self.asking() as line:
            answers = list(line.send_c_find(asked(**keys), model))
        return [match for _, match in answers if match is not None], int(answers[-1][0].Status)

    def act(self, action: int, uid: str, **information: Any) -> int:
        """An N-ACTION; its status."""
        with self.asking() as line:
            context = UnifiedProcedureStepPull if action == 1 else UnifiedProcedureStepWatch
            status, _ = line.send_n_action(
                asked(**information), action, UnifiedProcedureStepPush, uid, meta_uid=context
            )
        return int(status.Status)

    def claim(self, uid: str, state: str = "IN PROGRESS", transaction: str = "") -> tuple[int, str]:
        """Change the state of an entry; status and Transaction UID."""
        transaction = transaction or generate_uid()
        return self.act(1, uid, ProcedureStepState=state, TransactionUID=transaction), transaction

    def close(self) -> None:
        self.stopping.set()
        self.telling.join(10)
        self.own.stop()
        self.node.database.close()


def asked(**keys: Any) -> Dataset:
    """A data set of keys."""
    made = Dataset()
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


class Watcher:
    """A subscriber: an SCU of UPS Event that listens."""

    def __init__(self, ae_title: str = "WATCHER") -> None:
        self.heard: list[tuple[str, str]] = []
        entity = AE(ae_title=ae_title)
        entity.add_supported_context(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )
        port = self.server.server_address[1]
        self.peer = PeerEntry(ae_title=ae_title, host="127.0.0.1", port=port)

    def _hear(self, event: Any) -> tuple[int, None]:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.heard.append((uid, str(event.event_information.ProcedureStepState)))
        return 0, None

    def until(self, count: int) -> list[tuple[str, str]]:
        """What was heard, once it is so much."""
        end = time.monotonic() + PATIENCE_S
        while len(self.heard) < count:
            assert time.monotonic() < end, f"heard {self.heard}"
            time.sleep(0.05)
        return self.heard

    def close(self) -> None:
        self.server.shutdown()
