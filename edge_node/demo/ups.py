"""The reading worklist of the toy PACS: Unified Procedure Steps and the rules of PS3.4 Annex CC, no network.

The rules are strict on purpose. A real PACS forgives much; what passes here passes there.
"""

from __future__ import annotations

import copy
import threading
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from edge_node.domain.status import Status
from edge_node.service.dimse import UnifiedProcedureStepPush
from edge_node.worklist.matching import dataset_matches

Verdict = tuple[Status, tuple[str, ...]]
"""A status and the reasons for a refusal: attribute keywords and rules, never values."""

_TYPE_1 = (
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
    "ProcedureStepState",
)
_TYPE_2 = (
    "TransactionUID",
    "WorklistLabel",
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "ScheduledWorkitemCodeSequence",
    "CommentsOnTheScheduledProcedureStep",
    "InputInformationSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
_REQUEST_TYPE_2 = (
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "OrderPlacerIdentifierSequence",
    "OrderFillerIdentifierSequence",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)
_NOT_BY_SCU = ("SOPClassUID", "SOPInstanceUID", "ScheduledProcedureStepModificationDateTime")
_EMPTY_AT_CREATE = (
    "TransactionUID",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
_FINAL = ("COMPLETED", "CANCELED")
_RANK = {"HIGH": 0, "MEDIUM": 1, "LOW": 2}
_GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5"
_READINESS = ("INCOMPLETE", "UNAVAILABLE", "READY")
_PERFORMED = ("PerformedProcedureStepStartDateTime", "PerformedProcedureStepEndDateTime")


def judge_create(item: Dataset) -> Verdict:
    """Judge the attribute list of an N-CREATE by the SCU column of PS3.4 Table CC.2.5-3."""
    if item.get("ProcedureStepState") not in (None, "", "SCHEDULED"):
        return Status.UPS_NOT_SCHEDULED, ("ProcedureStepState must be SCHEDULED",)
    absent = [keyword for keyword in (*_TYPE_1, *_TYPE_2) if keyword not in item]
    for request in item.get("ReferencedRequestSequence") or []:
        absent += [f"ReferencedRequestSequence.{k}" for k in ("StudyInstanceUID", *_REQUEST_TYPE_2) if k not in request]
    for source in item.get("InputInformationSequence") or []:
        absent += _absent_in_input(source)
    if absent:
        return Status.MISSING_ATTRIBUTE, tuple(absent)
    empty = [keyword for keyword in _TYPE_1 if item[keyword].value in (None, "")]
    if empty:
        return Status.MISSING_ATTRIBUTE_VALUE, tuple(empty)
    wrong = [f"{keyword} is not the SCU's to send" for keyword in _NOT_BY_SCU if keyword in item]
    wrong += [f"{keyword} must be empty at creation" for keyword in _EMPTY_AT_CREATE if item.get(keyword)]
    wrong += _wrong_enumerations(item)
    return (Status.INVALID_ATTRIBUTE_VALUE, tuple(wrong)) if wrong else (Status.SUCCESS, ())


def _absent_in_input(source: Dataset) -> list[str]:
    """Referenced Instances and Access Macro (PS3.3 Table 10-3b), as far as DICOM instances are concerned."""
    needed = ["TypeOfInstances", "ReferencedSOPSequence"]
    if source.get("TypeOfInstances") == "DICOM":
        needed += ["StudyInstanceUID", "SeriesInstanceUID"]
    absent = [f"InputInformationSequence.{k}" for k in needed if not source.get(k)]
    for reference in source.get("ReferencedSOPSequence") or []:
        absent += [
            f"InputInformationSequence.ReferencedSOPSequence.{k}"
            for k in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")
            if not reference.get(k)
        ]
    return absent


def _wrong_enumerations(item: Dataset) -> list[str]:
    wrong = []
    if "ScheduledProcedureStepPriority" in item and item.ScheduledProcedureStepPriority not in _RANK:
        wrong.append("ScheduledProcedureStepPriority must be HIGH, MEDIUM or LOW")
    if "InputReadinessState" in item and item.InputReadinessState not in _READINESS:
        wrong.append("InputReadinessState must be INCOMPLETE, UNAVAILABLE or READY")
    return wrong


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


class UpsWorklist:
    """The workitems and what may be done to them. Thread-safe; every method answers with a `Verdict`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._items: dict[str, Dataset] = {}
        self._locks: dict[str, str] = {}  # workitem -> Transaction UID of the performer that holds it
        self.subscribers: dict[str, str] = {}  # receiving AE -> workitem or the global subscription UID

    def ordered(self) -> list[Dataset]:
        """Copies in reading order: priority, then expected completion, then scheduled start."""
        far = "9"  # a workitem without a date comes after those that have one

        def key(item: Dataset) -> tuple[int, str, str]:
            due, start = item.get("ExpectedCompletionDateTime"), item.get("ScheduledProcedureStepStartDateTime")
            return _RANK.get(item.get("ScheduledProcedureStepPriority"), len(_RANK)), str(due or far), str(start or far)

        with self._lock:
            return [self._shown(item) for item in sorted(self._items.values(), key=key)]

    def create(self, uid: str, attributes: Dataset) -> Verdict:
        """N-CREATE (PS3.4 CC.2.5): only SCHEDULED, only complete, only once."""
        with self._lock:
            if uid in self._items:
                return Status.DUPLICATE_SOP_INSTANCE, ("this workitem exists",)
            status, reasons = judge_create(attributes)
            if status is Status.SUCCESS:
                item = copy.deepcopy(attributes)
                item.SOPClassUID, item.SOPInstanceUID = UnifiedProcedureStepPush, uid
                item.ScheduledProcedureStepModificationDateTime = _now()
                self._items[uid] = item
            return status, reasons

    def update(self, uid: str, changes: Dataset) -> Verdict:
        """N-SET (PS3.4 CC.2.6): a locked workitem needs its performer's Transaction UID; the state is not set here."""
        with self._lock:
            item = self._items.get(uid)
            if item is None:
                return Status.UPS_UNKNOWN, ("no such workitem",)
            if item.ProcedureStepState in _FINAL:
                return Status.UPS_NO_LONGER_UPDATABLE, ("the workitem is in a final state",)
            if str(changes.get("TransactionUID") or "") != self._locks.get(uid, ""):
                return Status.UPS_WRONG_TRANSACTION_UID, ("TransactionUID does not fit the lock",)
            wrong = [f"{k} cannot be set" for k in ("ProcedureStepState", *_NOT_BY_SCU) if k in changes]
            wrong += _wrong_enumerations(changes)
            if wrong:
                return Status.INVALID_ATTRIBUTE_VALUE, tuple(wrong)
            for element in changes:
                if element.keyword != "TransactionUID":
                    item[element.tag] = copy.deepcopy(element)
            item.ScheduledProcedureStepModificationDateTime = _now()
            return Status.SUCCESS, ()

    def change_state(self, uid: str, state: str, transaction: str) -> Verdict:
        """N-ACTION type 1 (PS3.4 CC.2.1 and Table CC.1.1-2)."""
        with self._lock:
            item = self._items.get(uid)
            if item is None:
                return Status.UPS_UNKNOWN, ("no such workitem",)
            if state not in ("SCHEDULED", "IN PROGRESS", *_FINAL):
                return Status.INVALID_ATTRIBUTE_VALUE, ("ProcedureStepState is not a state",)
            if not transaction:
                return Status.UPS_WRONG_TRANSACTION_UID, ("TransactionUID is missing",)
            if state == "SCHEDULED":
                return Status.UPS_SCHEDULED_ONLY_BY_CREATE, ("only N-CREATE makes a workitem SCHEDULED",)
            if state == "IN PROGRESS":
                return self._start(uid, item, transaction)
            return self._finish(uid, item, state, transaction)

    def _start(self, uid: str, item: Dataset, transaction: str) -> Verdict:
        if item.ProcedureStepState in _FINAL:
            return Status.UPS_NO_LONGER_UPDATABLE, ("the workitem is in a final state",)
        if item.ProcedureStepState == "IN PROGRESS":
            return Status.UPS_ALREADY_IN_PROGRESS, ("a performer has this workitem",)
        item.ProcedureStepState = "IN PROGRESS"
        self._locks[uid] = transaction
        return Status.SUCCESS, ()

    def _finish(self, uid: str, item: Dataset, state: str, transaction: str) -> Verdict:
        now = item.ProcedureStepState
        if now == state:
            return (Status.UPS_ALREADY_COMPLETED if state == "COMPLETED" else Status.UPS_ALREADY_CANCELED), ()
        if now in _FINAL:
            return Status.UPS_NO_LONGER_UPDATABLE, ("the workitem is in a final state",)
        if now == "SCHEDULED":
            return Status.UPS_NOT_IN_PROGRESS, ("the workitem is not IN PROGRESS",)
        if transaction != self._locks.get(uid):
            return Status.UPS_WRONG_TRANSACTION_UID, ("TransactionUID does not fit the lock",)
        if state == "COMPLETED":
            performed = item.get("UnifiedProcedureStepPerformedProcedureSequence")
            absent = [k for k in _PERFORMED if not performed or not performed[0].get(k)]
            if absent:
                return Status.UPS_FINAL_STATE_NOT_MET, tuple(absent)
        item.ProcedureStepState = state
        return Status.SUCCESS, ()

    def request_cancel(self, uid: str) -> Verdict:
        """N-ACTION type 2 (PS3.4 CC.2.2): a workitem nobody has taken is canceled, a taken one is not."""
        with self._lock:
            item = self._items.get(uid)
            if item is None:
                return Status.UPS_UNKNOWN, ("no such workitem",)
            if item.ProcedureStepState == "CANCELED":
                return Status.UPS_ALREADY_CANCELED, ()
            if item.ProcedureStepState == "COMPLETED":
                return Status.UPS_ALREADY_COMPLETED_FAILURE, ("the workitem is COMPLETED",)
            if item.ProcedureStepState == "IN PROGRESS":
                return Status.UPS_PERFORMER_UNREACHABLE, ("the performer cannot be contacted",)
            item.ProcedureStepState = "CANCELED"
            return Status.SUCCESS, ()

    def subscribe(self, receiver: str, uid: str, *, wanted: bool) -> Verdict:
        """N-ACTION types 3 to 5 (PS3.4 CC.2.3): remember or forget who wants to be told. The toy sends no events."""
        with self._lock:
            if not receiver:
                return Status.UPS_UNKNOWN_RECEIVER, ("ReceivingAE is missing",)
            if uid not in self._items and not uid.startswith(_GLOBAL_SUBSCRIPTION):
                return Status.UPS_UNKNOWN, ("no such workitem",)
            if wanted:
                self.subscribers[receiver] = uid
            else:
                self.subscribers.pop(receiver, None)
            return Status.SUCCESS, ()

    def get(self, uid: str) -> Dataset | None:
        """A copy of a workitem without its Transaction UID, which is its lock; None if there is none."""
        with self._lock:
            item = self._items.get(uid)
            return None if item is None else self._shown(item)

    def find(self, query: Dataset) -> list[Dataset]:
        """The workitems that match, in reading order."""
        return [item for item in self.ordered() if dataset_matches(item, query)]

    @staticmethod
    def _shown(item: Dataset) -> Dataset:
        shown = copy.deepcopy(item)
        if "TransactionUID" in shown:
            shown.TransactionUID = None
        return shown
