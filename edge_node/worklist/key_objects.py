"""Key Object Selection documents (PS3.3 A.35.4, TID 2010): which images to look at, and which results no longer stand.

Built without the report library: both are small, and a rejection must not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pydicom.dataset import Dataset

from edge_node.domain.finding import ADVISORY, Finding
from edge_node.worklist.header import (
    CLASSES,
    MANUFACTURER,
    MODEL_NAME,
    Making,
    ReportReference,
    code_item,
    document_reference,
    put_header,
    reference_item,
    shown_image,
)
from edge_node.worklist.uids import result_uid
from edge_node.worklist.words import about

# Value type by which a content item refers to an object: pictures by IMAGE, everything else by COMPOSITE.
_COMPOSITE = frozenset(CLASSES[kind] for kind in ("sr", "sr-comprehensive", "sr-enhanced", "kos", "gsps"))


class Rejection(Enum):
    """Why a result is withdrawn, as a document title (IHE RAD TF-3 4.66, CID 7010)."""

    QUALITY = ("113001", "DCM", "Rejected for Quality Reasons")
    SAFETY = ("113037", "DCM", "Rejected for Patient Safety Reasons")


def key_objects(making: Making, finding: Finding, picture: ReportReference | None) -> Dataset:
    """The image a flagged finding is shown on, and our `picture` of it, as objects "Of Interest"."""
    image, frames = shown_image(making.identity, finding)
    references = [ReportReference(image.sop_class, image.sop_uid, image.series_uid)]
    if picture is not None:
        references.append(picture)
    made = _document(making, ("113000", "DCM", "Of Interest"), f"{ADVISORY} {about(finding)}", references)
    put_header(making, made, "kos", finding.model)
    if frames:
        shown = next(one for one in made.ContentSequence if one.ValueType == "IMAGE")
        shown.ReferencedSOPSequence[0].ReferencedFrameNumber = frames
    return made


def rejection_note(making: Making, rejected: Sequence[ReportReference], why: Rejection, said: str) -> Dataset:
    """Withdraws objects of ours that the archive has: it hides them, or no longer shows them by itself."""
    made = _document(making, why.value, f"{ADVISORY} {said}", rejected)
    put_header(making, made, "rejection", None)
    return made


def _document(making: Making, title: tuple[str, str, str], said: str, references: Sequence[ReportReference]) -> Dataset:
    made = Dataset()
    made.ReferencedPerformedProcedureStepSequence = []
    made.ReferencedRequestSequence = [making.identity.request()]
    made.CurrentRequestedProcedureEvidenceSequence = [document_reference(making.identity.study_uid, references)]
    made.ValueType = "CONTAINER"
    made.ConceptNameCodeSequence = [code_item(*title)]
    made.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    made.ContentTemplateSequence = [template]
    made.ContentSequence = [
        _coded(("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),
        _uid(("121012", "DCM", "Device Observer UID"), result_uid(making.key, "device", making.node)),
        _text("HAS OBS CONTEXT", ("121013", "DCM", "Device Observer Name"), making.node),
        _text("HAS OBS CONTEXT", ("121014", "DCM", "Device Observer Manufacturer"), MANUFACTURER),
        _text("HAS OBS CONTEXT", ("121015", "DCM", "Device Observer Model Name"), MODEL_NAME),
        *(_reference(one) for one in references),
        _text("CONTAINS", ("113012", "DCM", "Key Object Description"), said),
    ]
    return made


def _item(relation: str, kind: str, name: tuple[str, str, str] | None) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    if name is not None:
        item.ConceptNameCodeSequence = [code_item(*name)]
    return item


def _coded(name: tuple[str, str, str], value: tuple[str, str, str]) -> Dataset:
    item = _item("HAS OBS CONTEXT", "CODE", name)
    item.ConceptCodeSequence = [code_item(*value)]
    return item


def _uid(name: tuple[str, str, str], value: str) -> Dataset:
    item = _item("HAS OBS CONTEXT", "UIDREF", name)
    item.UID = value
    return item


def _text(relation: str, name: tuple[str, str, str], value: str) -> Dataset:
    item = _item(relation, "TEXT", name)
    item.TextValue = value
    return item


def _reference(one: ReportReference) -> Dataset:
    item = _item("CONTAINS", "COMPOSITE" if one.sop_class in _COMPOSITE else "IMAGE", None)
    item.ReferencedSOPSequence = [reference_item(one.sop_class, one.sop_uid)]
    return item
