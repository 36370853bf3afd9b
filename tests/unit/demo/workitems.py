"""A workitem as an SCU must send it (PS3.4 Table CC.2.5-3), for the tests."""

from __future__ import annotations

from pydicom.dataset import Dataset

EMPTY_SEQUENCES = (
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "ScheduledWorkitemCodeSequence",
    "InputInformationSequence",
    "OtherPatientIDsSequence",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)


def workitem(priority: str = "HIGH", due: str = "20260309103000", start: str = "20260309101500") -> Dataset:
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.TransactionUID = ""
    item.ScheduledProcedureStepPriority = priority
    item.ProcedureStepLabel = "Read: CT head"
    item.WorklistLabel = "READING"
    item.ScheduledProcedureStepStartDateTime = start
    item.ExpectedCompletionDateTime = due
    item.CommentsOnTheScheduledProcedureStep = ""
    item.InputReadinessState = "READY"
    item.ProcedureStepState = "SCHEDULED"
    item.PatientName, item.PatientID, item.IssuerOfPatientID = "Żółć-Zmyślona^Łucja", "TOY1", "TOYHOSP"
    item.PatientBirthDate, item.PatientSex, item.AdmissionID = "", "", ""
    item.AdmittingDiagnosesDescription = ""
    for keyword in EMPTY_SEQUENCES:
        setattr(item, keyword, [])
    return item


def lock(transaction: str, state: str | None = None) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction
    if state is not None:
        ds.ProcedureStepState = state
    return ds
