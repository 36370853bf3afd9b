"""The toy PACS: keeps what it is sent, answers queries, commits storage and keeps the reading worklist.

It writes identified objects below its folder. That is right for a PACS and harmless here: the patients are invented.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Self

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from edge_node.demo.commitment import Commitment
from edge_node.demo.query import answers
from edge_node.demo.ups import UpsWorklist, Verdict
from edge_node.domain.status import Status
from edge_node.service.dimse import (
    AE,
    ALL_TRANSFER_SYNTAXES,
    MAX_PDU,
    AllStoragePresentationContexts,
    PatientRootQueryRetrieveInformationModelFind,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
    Verification,
    evt,
    serve,
)

_UPS_CLASSES = (
    UnifiedProcedureStepPush,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepWatch,
    UnifiedProcedureStepQuery,
)
_CHANGE_STATE, _REQUEST_CANCEL, _SUBSCRIBE, _UNSUBSCRIBE, _SUSPEND = 1, 2, 3, 4, 5
_ACTIONS = {  # which negotiated class allows which N-ACTION type (PS3.4 Table CC.2-1)
    _CHANGE_STATE: (UnifiedProcedureStepPull,),
    _REQUEST_CANCEL: (UnifiedProcedureStepPush, UnifiedProcedureStepWatch),
    _SUBSCRIBE: (UnifiedProcedureStepWatch,),
    _UNSUBSCRIBE: (UnifiedProcedureStepWatch,),
    _SUSPEND: (UnifiedProcedureStepWatch,),
}


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    header: Dataset  # everything but pixels, for queries


class ToyPacs:
    """A loopback PACS as a context manager.

    ``port=0`` takes any free port; `port` says which. `known_peers` maps AE titles to (host, port): a peer in it gets
    its storage commitment report on a new association, any other on the association it asked on.
    `fail_stores` refuses the first so many objects with OUT_OF_RESOURCES, to watch senders try again.
    """

    def __init__(
        self,
        ae_title: str = "DEMOPACS",
        port: int = 0,
        *,
        store: Path,
        known_peers: Mapping[str, tuple[str, int]] | None = None,
        fail_stores: int = 0,
    ) -> None:
        self.ae_title = ae_title
        self.port = port
        self.store = store
        self.log: list[dict[str, Any]] = []
        self.worklist = UpsWorklist()
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.RLock()
        self._refuse = fail_stores
        self._commitment = Commitment(ae_title, self._class_of, known_peers or {}, self._note)
        self._server: Any = None

    def __enter__(self) -> Self:
        self.store.mkdir(parents=True, exist_ok=True)
        ae = AE(self.ae_title)
        ae.maximum_pdu_size = MAX_PDU
        ae.maximum_associations = 64
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        for model in (PatientRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelFind):
            ae.add_supported_context(model)
        for sop_class in (Verification, *_UPS_CLASSES):
            ae.add_supported_context(sop_class)
        ae.add_supported_context(StorageCommitmentPushModel)
        self._server = serve(
            ae,
            self.port,
            [
                (evt.EVT_C_ECHO, self._on_echo),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_C_FIND, self._on_find),
                (evt.EVT_N_CREATE, self._on_create),
                (evt.EVT_N_SET, self._on_set),
                (evt.EVT_N_GET, self._on_get),
                (evt.EVT_N_ACTION, self._on_action),
            ],
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commitment.finish()
        self._server.shutdown()

    @property
    def instances(self) -> dict[str, Path]:
        """SOP Instance UID → file of everything stored."""
        with self._lock:
            return {uid: kept.path for uid, kept in self._kept.items()}

    @property
    def workitems(self) -> list[Dataset]:
        """The reading worklist in reading order (copies)."""
        return self.worklist.ordered()

    def _note(self, operation: str, status: Status, **facts: object) -> None:
        """Log an operation: UIDs of classes, counts and keywords only."""
        with self._lock:
            self.log.append({"time": time(), "operation": operation, "status": status.name, **facts})

    def _class_of(self, sop_instance: str) -> str | None:
        with self._lock:
            kept = self._kept.get(sop_instance)
            return str(kept.header.get("SOPClassUID", "")) if kept else None

    def _on_echo(self, _event: Any) -> int:
        self._note("C-ECHO", Status.SUCCESS)
        return Status.SUCCESS

    def _on_store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self._keep(uid, event.encoded_dataset())
        self._note(
            "C-STORE", status, sop_class=str(event.request.AffectedSOPClassUID), caller=event.assoc.requestor.ae_title
        )
        return status

    def _keep(self, uid: str, part10: bytes) -> Status:
        with self._lock:
            if self._refuse > 0:
                self._refuse -= 1
                return Status.OUT_OF_RESOURCES
        try:
            header = dcmread(BytesIO(part10), stop_before_pixels=True)
            study = UID(str(header.get("StudyInstanceUID", "")))
            fits = header.SOPInstanceUID == uid
        except Exception:  # pydicom raises anything on broken input; a PACS refuses and lives on
            return Status.CANNOT_UNDERSTAND
        if not fits or not study.is_valid or not UID(uid).is_valid:
            return Status.DATA_SET_MISMATCH
        # UIDs as folder and file name are safe: only digits and dots passed.
        folder = self.store / study
        folder.mkdir(exist_ok=True)
        path = folder / f"{uid}.dcm"
        path.write_bytes(part10)
        with self._lock:
            self._kept[uid] = _Kept(path, header)
        return Status.SUCCESS

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        model = event.context.abstract_syntax
        if model in _UPS_CLASSES:
            rows: list[Dataset] | None = [_asked(item, query) for item in self.worklist.find(query)]
        else:
            with self._lock:
                headers = [kept.header for kept in self._kept.values()]
            patient_root = model == PatientRootQueryRetrieveInformationModelFind
            rows = answers(headers, query, patient_root=patient_root, retrieve_ae=self.ae_title)
        if rows is None:
            self._note("C-FIND", Status.DATA_SET_MISMATCH)
            yield Status.DATA_SET_MISMATCH, None
            return
        for row in rows:
            if event.is_cancelled:
                self._note("C-FIND", Status.CANCEL)
                yield Status.CANCEL, None
                return
            yield Status.PENDING, row
        self._note("C-FIND", Status.SUCCESS, matches=len(rows))

    def _on_create(self, event: Any) -> tuple[int, Dataset | None]:
        if event.context.abstract_syntax != UnifiedProcedureStepPush:
            return self._answer("N-CREATE", (Status.UNRECOGNISED_OPERATION, ("belongs to UPS Push",))), None
        uid = event.request.AffectedSOPInstanceUID
        if not uid:
            return self._answer("N-CREATE", (Status.MISSING_ATTRIBUTE, ("AffectedSOPInstanceUID",))), None
        status = self._answer("N-CREATE", self.worklist.create(str(uid), event.attribute_list))
        if status is not Status.SUCCESS:
            return status, None
        created = Dataset()
        created.SOPClassUID, created.SOPInstanceUID = UnifiedProcedureStepPush, uid
        return status, created

    def _on_set(self, event: Any) -> tuple[int, Dataset | None]:
        if event.context.abstract_syntax != UnifiedProcedureStepPull:
            return self._answer("N-SET", (Status.UNRECOGNISED_OPERATION, ("belongs to UPS Pull",))), None
        uid = str(event.request.RequestedSOPInstanceUID)
        return self._answer("N-SET", self.worklist.update(uid, event.modification_list)), None

    def _on_get(self, event: Any) -> tuple[int, Dataset | None]:
        item = self.worklist.get(str(event.request.RequestedSOPInstanceUID))
        if item is None:
            return self._answer("N-GET", (Status.UPS_UNKNOWN, ("no such workitem",))), None
        wanted = event.attribute_identifiers
        if wanted:
            item = _picked(item, wanted)
        return self._answer("N-GET", (Status.SUCCESS, ())), item

    def _on_action(self, event: Any) -> tuple[int, Dataset | None]:
        if event.context.abstract_syntax == StorageCommitmentPushModel:
            return self._commitment.requested(event), None
        kind = event.action_type
        if event.context.abstract_syntax not in _ACTIONS.get(kind, ()):
            return self._answer("N-ACTION", (Status.NO_SUCH_ACTION, ("not an action of this SOP Class",))), None
        uid = str(event.request.RequestedSOPInstanceUID)
        information = event.action_information if event.request.ActionInformation else Dataset()
        return self._answer("N-ACTION", self._act(kind, uid, information)), None

    def _act(self, kind: int, uid: str, information: Dataset) -> Verdict:
        if kind == _CHANGE_STATE:
            state, lock = str(information.get("ProcedureStepState", "")), str(information.get("TransactionUID") or "")
            return self.worklist.change_state(uid, state, lock)
        if kind == _REQUEST_CANCEL:
            return self.worklist.request_cancel(uid)
        return self.worklist.subscribe(str(information.get("ReceivingAE", "")), uid, wanted=kind == _SUBSCRIBE)

    def _answer(self, operation: str, verdict: Verdict) -> Status:
        status, reasons = verdict
        self._note(operation, status, reasons=list(reasons))
        return status


def _asked(item: Dataset, query: Dataset) -> Dataset:
    """The attributes of `item` that the query asks for, and always its identity."""
    shown = _picked(item, [element.tag for element in query if element.tag in item])
    shown.SOPClassUID, shown.SOPInstanceUID = item.SOPClassUID, item.SOPInstanceUID
    shown.SpecificCharacterSet = item.get("SpecificCharacterSet", "ISO_IR 192")
    return shown


def _picked(item: Dataset, tags: list[Any]) -> Dataset:
    shown = Dataset()
    for tag in tags:
        if tag in item:
            shown[tag] = item[tag]
    return shown
