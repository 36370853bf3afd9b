"""What every result object has around its content: patient, study, series, equipment, and where its UIDs come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ExplicitVRLittleEndian

from edge_node.domain.finding import Finding, ModelIdentity
from edge_node.worklist.identity import InstanceReference, WriteBackIdentity
from edge_node.worklist.uids import result_uid

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
# What the ledger calls each object. Reports in the order of preference: an archive gets the first class it takes.
CLASSES = {
    "sr": COMPREHENSIVE_3D_SR,
    "sr-comprehensive": COMPREHENSIVE_SR,
    "sr-enhanced": ENHANCED_SR,
    "sc": SECONDARY_CAPTURE,
    "kos": KEY_OBJECTS,
    "seg": SEGMENTATION,
    "gsps": PRESENTATION_STATE,
    "rejection": KEY_OBJECTS,
}
REPORTS = ("sr", "sr-comprehensive", "sr-enhanced")
MANUFACTURER = "edge-node"
MODEL_NAME = "edge-node triage"
SERIES = {
    "sr": (9901, "SR", "ADVISORY AI triage result - not for diagnosis"),
    "sr-comprehensive": (9901, "SR", "ADVISORY AI triage result - not for diagnosis"),
    "sr-enhanced": (9901, "SR", "ADVISORY AI triage result - not for diagnosis"),
    "sc": (9902, "OT", "ADVISORY AI key image - not for diagnosis"),
    "kos": (9903, "KO", "ADVISORY AI key objects - not for diagnosis"),
    "seg": (9904, "SEG", "ADVISORY AI segmentation - not for diagnosis"),
    "gsps": (9905, "PR", "ADVISORY AI annotation - not for diagnosis"),
    "rejection": (9906, "KO", "ADVISORY AI result withdrawn - not for diagnosis"),
}


@dataclass(frozen=True, slots=True)
class ReportReference:
    """One structured report (or other object) of ours: SOP Class, SOP Instance and Series Instance UID."""

    sop_class: str
    sop_uid: str
    series_uid: str


def series_uid(key: bytes, kind: str, study_uid: str) -> str:
    """One series a study and kind, one instance in it a revision."""
    return result_uid(key, f"{kind}-series", study_uid)


@dataclass(frozen=True, slots=True, repr=False)
class Making:
    """What all objects of one result share: identity, key, revision, the moment and who made it."""

    identity: WriteBackIdentity
    key: bytes
    revision: int
    made_at: datetime
    node: str
    version: str

    def uid(self, kind: str, *parts: str | int) -> str:
        """Deterministic UID of something of this revision of the study."""
        return result_uid(self.key, kind, self.identity.study_uid, self.revision, *parts)


def report_reference(key: bytes, study_uid: str, revision: int, kind: str = "sr") -> ReportReference:
    """Which structured report of a `kind` is made for a revision of a study: for a successor or a workitem to name."""
    return ReportReference(CLASSES[kind], result_uid(key, kind, study_uid, revision), series_uid(key, kind, study_uid))


def shown_image(identity: WriteBackIdentity, finding: Finding) -> tuple[InstanceReference, list[int] | None]:
    """The original image a finding is shown on, and the frames to name in a reference to it."""
    if not finding.key_sop_uid:
        return identity.first, None
    image = identity.original(finding.key_sop_uid)
    return image, [finding.key_frame] if image.multi_frame or finding.key_frame > 1 else None


def put_header(making: Making, target: Dataset, kind: str, model: ModelIdentity | None) -> None:
    """Everything around the content: patient, study, series, equipment and SOP common modules, and file meta.

    `model` is None where no model had a part in it.
    """
    sop_class = CLASSES[kind]
    number, modality, description = SERIES[kind]
    local = making.identity.local(making.made_at)
    making.identity.stamp(target)
    target.SOPClassUID = sop_class
    target.SOPInstanceUID = making.uid(kind)
    target.InstanceCreationDate = target.ContentDate = local.strftime("%Y%m%d")
    target.InstanceCreationTime = target.ContentTime = local.strftime("%H%M%S")
    target.SeriesInstanceUID = series_uid(making.key, kind, making.identity.study_uid)
    target.SeriesNumber = number
    target.InstanceNumber = making.revision
    target.Modality = modality
    target.SeriesDescription = description
    target.Manufacturer = MANUFACTURER
    target.ManufacturerModelName = MODEL_NAME
    target.SoftwareVersions = making.version
    target.StationName = making.node[:16]
    target.ContributingEquipmentSequence = [_equipment(making, model, local)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(target.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    target.file_meta = meta


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """Code Sequence macro (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def reference_item(sop_class: str, sop_uid: str) -> Dataset:
    """SOP Instance Reference macro (PS3.3 Table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
    return item


def document_reference(study_uid: str, references: Iterable[ReportReference]) -> Dataset:
    """Hierarchical SOP Instance Reference macro (PS3.3 Table C.17-3) of objects of one study."""
    by_series: dict[str, list[Dataset]] = {}
    for one in references:
        by_series.setdefault(one.series_uid, []).append(reference_item(one.sop_class, one.sop_uid))
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for uid, items in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = uid, items
        study.ReferencedSeriesSequence.append(series)
    return study


def _equipment(making: Making, model: ModelIdentity | None, local: datetime) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item("109102", "DCM", "Processing Equipment")]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = model.name[:64] if model else MODEL_NAME
    item.SoftwareVersions = [making.version, *([f"{model.version} {model.variant}"[:64]] if model else [])]
    item.StationName = making.node[:16]
    item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = model.label[:1024] if model else "Withdrawal of an earlier result"
    return item
