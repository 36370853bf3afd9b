"""An archive that stores, commits and answers queries, with the faults that archives have."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Self

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel as Model
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find
from pynetdicom.sop_class import Verification

from edge_node.domain.worklist import Peer

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
SUCCESS, PENDING, NO_SUCH_INSTANCE, RESOURCE_LIMITATION, PROCESSING_FAILURE = 0, 0xFF00, 0x0112, 0x0213, 0x0110


@dataclass
class Archive:
    """`report_to` is (AE title, port) of a new association for the report; None: on that of the request.

    `silent` requests are not answered, `fail` ones answered with a failure, `lose` stored objects vanish again,
    `refuse_actions` N-ACTIONs get a failure status; `role` proposes the SCP role on a new association.
    """

    report_to: tuple[str, int] | None = None
    commits: bool = True
    queries: bool = True
    silent: int = 0
    fail: int = 0
    lose: int = 0
    refuse_actions: int = 0
    delay_s: float = 0.05
    role: bool = True
    classes: Collection[str] | None = None
    kept: dict[str, Dataset] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    confirmed: list[int] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    _server: Any = None

    def __enter__(self) -> Self:
        entity = AE("ARCHIVE")
        for context in AllStoragePresentationContexts:
            if self.classes is None or context.abstract_syntax in self.classes:
                entity.add_supported_context(context.abstract_syntax)
        for wanted, model in ((self.commits, Model), (self.queries, Find)):
            if wanted:
                entity.add_supported_context(model)
        entity.add_supported_context(Verification)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._action),
        ]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self.threads:
            thread.join(10)
        self._server.shutdown()

    @property
    def peer(self) -> Peer:
        return Peer("ARCHIVE", "127.0.0.1", self._server.server_address[1])

    def _store(self, event: Any) -> int:
        one = dcmread(BytesIO(event.encoded_dataset()))
        self.stored.append(str(one.SOPInstanceUID))
        if self.lose:
            self.lose -= 1
        else:
            self.kept[str(one.SOPInstanceUID)] = one
        return SUCCESS

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        one = self.kept.get(str(query.SOPInstanceUID))
        if one is not None and (query.StudyInstanceUID, query.SeriesInstanceUID) == (
            one.StudyInstanceUID,
            one.SeriesInstanceUID,
        ):
            found = Dataset()
            found.QueryRetrieveLevel = "IMAGE"
            found.SOPInstanceUID = one.SOPInstanceUID
            yield PENDING, found
        yield SUCCESS, None

    def _action(self, event: Any) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append(str(asked.TransactionUID))
        if self.refuse_actions:
            self.refuse_actions -= 1
            return PROCESSING_FAILURE, None
        if self.silent:
            self.silent -= 1
            return SUCCESS, None
        thread = threading.Thread(target=self.report, args=(asked, event.assoc), daemon=True)
        self.threads.append(thread)
        thread.start()
        return SUCCESS, None

    def report(self, asked: Dataset, association: Any = None) -> None:
        """Answer a request, on a new association where there is an address for one."""
        time.sleep(self.delay_s)
        said, done, failed = Dataset(), [], []
        said.TransactionUID = asked.TransactionUID
        fails = self.fail > 0
        self.fail -= fails
        for item in asked.ReferencedSOPSequence:
            one = Dataset()
            one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = (
                item.ReferencedSOPClassUID,
                item.ReferencedSOPInstanceUID,
            )
            if fails or item.ReferencedSOPInstanceUID not in self.kept:
                one.FailureReason = RESOURCE_LIMITATION if fails else NO_SUCH_INSTANCE
                failed.append(one)
            else:
                done.append(one)
        if done:
            said.ReferencedSOPSequence = done
        if failed:
            said.FailedSOPSequence = failed
        if self.report_to is not None:
            entity = AE("ARCHIVE")
            entity.add_requested_context(Model)
            roles = [build_role(Model, scu_role=False, scp_role=True)] if self.role else []
            association = entity.associate("127.0.0.1", self.report_to[1], ae_title=self.report_to[0], ext_neg=roles)
            if not association.is_established:
                return
        try:
            status, _ = association.send_n_event_report(said, 2 if failed else 1, Model, WELL_KNOWN)
            self.confirmed.append(status.get("Status", -1))
        except (RuntimeError, ValueError):  # released meanwhile, or the role is not ours
            self.confirmed.append(-1)
        if self.report_to is not None:
            association.release()
