"""Entries of the node's own reading list as DICOM: a UPS (PS3.4 Table CC.2.5-3) and a Modality Worklist item (K.6).

What comes from the ledger and what comes from the identity envelope are made apart, so that nothing is opened that is
not shown.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydicom.dataset import Dataset

from edge_node.domain.finding import ADVISORY
from edge_node.domain.reading_list import Entry, ReadState, Routes
from edge_node.worklist.header import code_item
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.performers import performer_item
from edge_node.worklist.ups import EMPTY, PATIENT, WORKLIST_LABEL, Workitem

UPS_CLASS = "1.2.840.10008.5.1.4.34.6.1"  # whatever the context, an instance is of the Push class (PS3.4 CC.3.1.1)
NOT_IMAGES = frozenset({"SR", "PR", "KO", "SEG", "DOC", "OT"})
# Requested Procedure Priority (0040,1003), PS3.3 C.4.11
PRIORITIES = {"HIGH": "STAT", "MEDIUM": "HIGH", "LOW": "ROUTINE"}
# Scheduled Procedure Step Status (0040,0020), PS3.3 C.4.10: the images are there
STATUSES = {ReadState.SCHEDULED: "READY", ReadState.IN_PROGRESS: "STARTED"}
MWL_PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientWeight",
    "AdmissionID",
    "ReferringPhysicianName",
    "AccessionNumber",
    "StudyDate",
    "StudyTime",
)
MWL_REQUEST = (
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "RequestingPhysician",
    "RequestingService",
    "ReasonForTheRequestedProcedure",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)


def modality_of(entry: Entry) -> str:
    """The modality that the study is about: the first that makes images."""
    return next((one for one in entry.modalities if one not in NOT_IMAGES), entry.modalities[0])


def ups_of(entry: Entry, routes: Routes) -> Dataset:
    """The UPS as far as the ledger knows it."""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = UPS_CLASS, entry.uid
    for keyword in EMPTY:
        setattr(made, keyword, None)
    made.ScheduledProcedureStepModificationDateTime = moment(entry.changed_at)
    made.ProcedureStepState = str(entry.state)
    made.InputReadinessState = "READY"
    made.ProcedureStepLabel = f"Read {modality_of(entry)} {entry.body_part}".strip()[:64]
    made.WorklistLabel = WORKLIST_LABEL
    made.ScheduledProcedureStepPriority = entry.priority.level
    made.ScheduledProcedureStepStartDateTime = moment(entry.ready_at)
    made.ExpectedCompletionDateTime = moment(entry.priority.due)
    made.CommentsOnTheScheduledProcedureStep = reason_of(entry)
    made.ScheduledWorkitemCodeSequence = [code_item("110005", "DCM", "Interpretation")]
    reader = routes.reader(entry.modalities, entry.body_part, entry.flagged)
    if reader is not None:
        made.ScheduledHumanPerformersSequence = [performer_item(reader)]
    return made


def identify_ups(made: Dataset, identity: WriteBackIdentity) -> None:
    """Add patient and order to a UPS."""
    identity.copy(made, *PATIENT)
    made.ReferencedRequestSequence = [identity.request(workitem=True)]


def put_images(made: Dataset, entry: Entry, identity: WriteBackIdentity, retrieve_ae: str) -> None:
    """Add the images to read, retrievable from `retrieve_ae`."""
    ready = datetime.fromtimestamp(entry.ready_at, UTC)
    item = Workitem(identity, entry.uid, entry.priority, ready, retrieve_ae, report=None)
    made.InputInformationSequence = item.attributes().InputInformationSequence


def mwl_of(entry: Entry, routes: Routes, station: str) -> Dataset:
    """The Modality Worklist item as far as the ledger knows it; `station` is the AE title that the caller asked for."""
    step = Dataset()
    step.Modality = list(entry.modalities) if len(entry.modalities) > 1 else entry.modalities[0]
    step.ScheduledStationAETitle = station
    step.ScheduledProcedureStepStartDate = moment(entry.ready_at)[:8]
    step.ScheduledProcedureStepStartTime = moment(entry.ready_at)[8:14]
    step.ScheduledProcedureStepDescription = f"Read {modality_of(entry)} {entry.body_part}".strip()[:64]
    step.ScheduledProcedureStepID = entry.study_key
    step.ScheduledProcedureStepStatus = STATUSES.get(entry.state, "DEPARTED")
    step.CommentsOnTheScheduledProcedureStep = reason_of(entry)
    reader = routes.reader(entry.modalities, entry.body_part, entry.flagged)
    step.ScheduledPerformingPhysicianName = reader.code.meaning if reader is not None else None
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ScheduledProcedureStepSequence = [step]
    made.RequestedProcedurePriority = PRIORITIES[entry.priority.level]
    made.RequestedProcedureComments = reason_of(entry)
    return made


def identify_mwl(made: Dataset, identity: WriteBackIdentity) -> None:
    """Add patient and order to a Modality Worklist item."""
    identity.copy(made, *MWL_PATIENT)
    requested = identity.request(workitem=True)
    made.StudyInstanceUID = identity.study_uid
    for keyword in MWL_REQUEST:
        made[keyword] = requested[keyword] if keyword in requested else _empty(keyword)


def reason_of(entry: Entry) -> str:
    """Why it stands where it stands."""
    return f"{entry.priority.reason}. {ADVISORY}"[:1024]


def moment(at: float) -> str:
    """A DT on the clock of this node."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y%m%d%H%M%S%z")


def _empty(keyword: str) -> object:
    made = Dataset()
    setattr(made, keyword, None)
    return made[keyword]
