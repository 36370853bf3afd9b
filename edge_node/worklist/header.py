"""What every result object has around its content: patient, study, series, equipment, and where its UIDs come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ExplicitVRLittleEndian

from edge_node.domain.finding import Finding, ModelIdentity
from edge_node.worklist.identity import InstanceReference, WriteBackIdentity
from edge_node.worklist.uids import result_uid

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
KINDS = {COMPREHENSIVE_3D_SR: "sr", SECONDARY_CAPTURE: "sc"}
MANUFACTURER = "edge-node"
MODEL_NAME = "edge-node triage"
SERIES = {
    "sr": (9901, "SR", "ADVISORY AI triage result - not for diagnosis"),
    "sc": (9902, "OT", "ADVISORY AI key image - not for diagnosis"),
}


@dataclass(frozen=True, slots=True)
class ReportReference:
    """One structured report of ours: SOP Class, SOP Instance and Series Instance UID."""

    sop_class: str
    sop_uid: str
    series_uid: str


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


def shown_image(identity: WriteBackIdentity, finding: Finding) -> tuple[InstanceReference, list[int] | None]:
    """The original image a finding is shown on, and the frames to name in a reference to it."""
    if not finding.key_sop_uid:
        return identity.first, None
    image = identity.original(finding.key_sop_uid)
    return image, [finding.key_frame] if image.multi_frame or finding.key_frame > 1 else None


def put_header(making: Making, target: Dataset, kind: str, sop_class: str, model: ModelIdentity) -> None:
    """Everything around the content: patient, study, series, equipment and SOP common modules, and file meta."""
    number, modality, description = SERIES[kind]
    local = making.identity.local(making.made_at)
    making.identity.stamp(target)
    target.SOPClassUID = sop_class
    target.SOPInstanceUID = making.uid(kind)
    target.InstanceCreationDate = target.ContentDate = local.strftime("%Y%m%d")
    target.InstanceCreationTime = target.ContentTime = local.strftime("%H%M%S")
    # One series a study and kind, one instance a revision.
    target.SeriesInstanceUID = result_uid(making.key, f"{kind}-series", making.identity.study_uid)
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


def _equipment(making: Making, model: ModelIdentity, local: datetime) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item("109102", "DCM", "Processing Equipment")]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = model.name[:64]
    item.SoftwareVersions = [making.version, f"{model.version} {model.variant}"[:64]]
    item.StationName = making.node[:16]
    item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = model.label[:1024]
    return item
