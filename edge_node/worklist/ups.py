"""The reading list entry as a Unified Procedure Step, pushed to the worklist of the site (PS3.4 Annex CC)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.valuerep import DT

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.finding import ADVISORY
from edge_node.domain.reading_list import Performer
from edge_node.domain.worklist import Peer, Priority
from edge_node.worklist.association import UPS_PULL, UPS_PUSH, Line, line_to
from edge_node.worklist.header import ReportReference, code_item
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.performers import performer_item
from edge_node.worklist.statuses import Answer, Status

RANK = {"HIGH": 0, "MEDIUM": 1, "LOW": 2}
WORKLIST_LABEL = "ADVISORY AI triage"
PATIENT = (  # UPS Relationship module: type 2 in N-CREATE
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
)
EMPTY = (  # type 2 in N-CREATE and nothing to say
    "TransactionUID",
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
ASKED = ("ScheduledProcedureStepPriority", "ProcedureStepState", "ExpectedCompletionDateTime")


class UpsOutcome(StrEnum):
    """CREATED; ALREADY_THERE at this or a higher priority; RAISED; BEING_READ: a human has it or is done with it."""

    CREATED = "created"
    ALREADY_THERE = "already-there"
    RAISED = "raised"
    BEING_READ = "being-read"


@dataclass(frozen=True, slots=True, repr=False)
class Workitem:
    """One study to read: `uid` deterministic per study, `ready_at` aware (when the result was known), `retrieve_ae`
    the archive the images and the `report` can be fetched from; `performer` who should read it, if the site says so."""

    identity: WriteBackIdentity
    uid: str
    priority: Priority
    ready_at: datetime
    retrieve_ae: str
    report: ReportReference | None
    performer: Performer | None = None

    def attributes(self) -> Dataset:
        """The attribute list of the N-CREATE: all of type 1 and 2 of PS3.4 Table CC.2.5-3.

        There is no expiration time: a worklist may drop what has expired, and an overdue study must not vanish.
        """
        made = Dataset()
        made.SpecificCharacterSet = "ISO_IR 192"
        for keyword in EMPTY:
            setattr(made, keyword, None)
        made.ProcedureStepState = "SCHEDULED"
        made.InputReadinessState = "READY"
        made.ProcedureStepLabel = self._label()
        made.WorklistLabel = WORKLIST_LABEL
        made.ScheduledProcedureStepStartDateTime = self._moment(self.ready_at)
        made.ScheduledWorkitemCodeSequence = [code_item("110005", "DCM", "Interpretation")]
        made.update(self.urgency())
        self.identity.copy(made, *PATIENT)
        made.ReferencedRequestSequence = [self.identity.request(workitem=True)]
        made.InputInformationSequence = self._inputs()
        return made

    def urgency(self) -> Dataset:
        """What an N-SET changes: priority, deadline and the reason for both, and who should read."""
        made = Dataset()
        made.SpecificCharacterSet = "ISO_IR 192"
        made.ScheduledProcedureStepPriority = self.priority.level
        made.ExpectedCompletionDateTime = self._moment(datetime.fromtimestamp(int(self.priority.due), UTC))
        made.CommentsOnTheScheduledProcedureStep = f"{self.priority.reason}. {ADVISORY}"[:10240]
        if self.performer is not None:
            made.ScheduledHumanPerformersSequence = [performer_item(self.performer)]
        return made

    def more_urgent_than(self, there: Dataset | Mapping[str, str]) -> bool:
        """Whether this must be read before the entry as the worklist has it: by priority, then by deadline."""
        rank, known = RANK[self.priority.level], RANK.get(str(there.get("ScheduledProcedureStepPriority") or ""), 3)
        due = _parsed(str(there.get("ExpectedCompletionDateTime") or ""))
        return rank < known or (rank == known and due is not None and int(self.priority.due) < int(due.timestamp()))

    def _label(self) -> str:
        about = self.identity.text("StudyDescription").replace("\\", " ").strip()
        return f"Read {about or 'study'}"[:64]

    def _moment(self, moment: datetime) -> str:
        return self.identity.local(moment).strftime("%Y%m%d%H%M%S%z")

    def _inputs(self) -> list[Dataset]:
        series = {uid: [image.item() for image in images] for uid, images in self.identity.series().items()}
        if self.report is not None:
            reference = Dataset()
            reference.ReferencedSOPClassUID = self.report.sop_class
            reference.ReferencedSOPInstanceUID = self.report.sop_uid
            series[self.report.series_uid] = [reference]
        inputs = []
        for series_uid, references in series.items():
            archive = Dataset()
            archive.RetrieveAETitle = self.retrieve_ae
            item = Dataset()
            item.TypeOfInstances = "DICOM"
            item.StudyInstanceUID = self.identity.study_uid
            item.SeriesInstanceUID = series_uid
            item.ReferencedSOPSequence = references
            item.DICOMRetrievalSequence = [archive]
            inputs.append(item)
        return inputs


def push(item: Workitem, peer: Peer, calling_ae: str, timeout_s: float) -> UpsOutcome:
    """Put the workitem on the worklist of `peer`, or raise the one that is there; it is never lowered.

    Raises Retry ``worklist.ups-unavailable`` and Quarantine ``worklist.ups-refused``; pushing again is harmless.
    """
    attributes = item.attributes()
    classes = (UPS_PUSH, UPS_PULL)
    with line_to(peer, classes, calling_ae=calling_ae, timeout_s=timeout_s, service="ups") as line:
        created = line.create_workitem(item.uid, attributes)
        if created.answer is not Answer.EXISTS:
            _must_be_done(created, "N-CREATE", peer)
            return UpsOutcome.CREATED
        return _raise_existing(line, item, peer)


def _raise_existing(line: Line, item: Workitem, peer: Peer) -> UpsOutcome:
    status, there = line.get_workitem(item.uid, ASKED)
    _must_be_done(status, "N-GET", peer)
    if str(there.get("ProcedureStepState") or "SCHEDULED") != "SCHEDULED":
        return UpsOutcome.BEING_READ
    if not item.more_urgent_than(there):
        return UpsOutcome.ALREADY_THERE
    changed = line.set_workitem(item.uid, item.urgency())
    if changed.answer is Answer.TAKEN:  # claimed between our two questions
        return UpsOutcome.BEING_READ
    _must_be_done(changed, "N-SET", peer)
    return UpsOutcome.RAISED


def _must_be_done(status: Status, operation: str, peer: Peer) -> None:
    if status.answer is Answer.DONE:
        return
    said = f"{peer.ae_title} at {peer.host}:{peer.port} answers {status.name} to the {operation} of the workitem"
    if status.answer is Answer.LATER:
        raise Retry("worklist.ups-unavailable", said, hint="edge-node echo ups")
    raise Quarantine("worklist.ups-refused", said, hint="edge-node worklist show STUDY")


def _parsed(text: str) -> datetime | None:
    """A DT of the worklist; without a time zone it is on this node's clock."""
    try:
        moment = DT(text) if text else None
    except (ValueError, OverflowError):
        return None
    return moment.astimezone() if isinstance(moment, datetime) else None
