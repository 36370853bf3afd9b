"""Segments that every HL7 v2.5.1 message about a study begins with, and what names patient and order in them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from edge_node.config.destinations import Hl7
from edge_node.domain.errors import Quarantine
from edge_node.worklist.hl7 import (
    ENCODING,
    authority,
    components,
    dicom_moment,
    entity,
    escape,
    issuer_of,
    moment,
    person_names,
    segment,
    universal,
)
from edge_node.worklist.identity import number_of, text_of
from edge_node.worklist.writer import WriteBack

PATIENT = (
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "StudyDate",
    "StudyTime",
    "TimezoneOffsetFromUTC",
    "ReferringPhysicianName",
)


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One message, without its MLLP frame: UTF-8, segments ended by CR; `control_id` is its MSH-10, 20 characters."""

    control_id: str
    content: bytes


def encoded(control_id: str, segments: Iterable[str]) -> Message:
    """The segments as one message. Raises Quarantine ``worklist.cannot-encode``."""
    try:
        return Message(control_id, ("\r".join(segments) + "\r").encode("utf-8"))
    except UnicodeEncodeError:  # half a surrogate pair; the error would quote the message
        raise Quarantine(
            "worklist.cannot-encode",
            "the result cannot be encoded as HL7 with the identity as received",
            hint="edge-node study show STUDY",
        ) from None


def control_id_of(order: WriteBack, purpose: str) -> str:
    """MSH-10, the same for the same result and `purpose`: 96 bits of a keyed hash, for the UIDs in it are the
    patient's."""
    made = "\x1f".join([purpose, order.identity.study_uid, str(order.revision), order.made_at.isoformat()])
    digest = hmac.digest(order.key, made.encode(), hashlib.sha256)
    return base64.b32encode(digest[:12]).decode().rstrip("=")


def header(order: WriteBack, options: Hl7, kind: str, control_id: str) -> str:
    """MSH of a message about a result; `kind` is its MSH-9."""
    enhanced = options.acknowledgement == "enhanced"
    return segment(
        "MSH",
        {
            2: ENCODING,
            3: escape(options.sending_application),
            4: escape(options.sending_facility),
            5: escape(options.receiving_application),
            6: escape(options.receiving_facility),
            7: moment(order.identity.local(order.made_at)),
            9: kind,
            10: control_id,
            11: options.processing_id,
            12: "2.5.1",
            15: "AL" if enhanced else "",
            16: "NE" if enhanced else "",
            18: "UNICODE UTF-8",
        },
    )


def patient_segment(patient: Dataset, options: Hl7) -> str:
    """PID. Raises Quarantine ``worklist.identity-incomplete`` without a number, or an issuer of it."""
    number = number_of(patient, "PatientID")
    if not number:
        raise _incomplete("has no Patient ID that could be sent")
    issuer = issuer_of(patient) or authority(options.assigning_authority)
    if not issuer:
        raise _incomplete("names no issuer of the Patient ID, and assigning_authority is not set")
    assigned = [components(escape(number), "", "", issuer, "PI")]
    for other in patient.get("OtherPatientIDsSequence") or []:
        if number_of(other, "PatientID") and issuer_of(other):  # a number of nobody could be anybody's
            assigned.append(components(escape(number_of(other, "PatientID")), "", "", issuer_of(other), "PI"))
    sex = text_of(patient, "PatientSex")
    return segment(
        "PID",
        {
            1: "1",
            3: "~".join(dict.fromkeys(assigned)),
            5: person_names(text_of(patient, "PatientName")) or "^^^^^^U",  # table 0200: unspecified
            7: dicom_moment(text_of(patient, "PatientBirthDate"), "", ""),
            8: sex if sex in ("M", "F", "O") else "U",
        },
    )


def visit(patient: Dataset) -> Iterator[str]:
    """PV1, where the study names an admission."""
    number = number_of(patient, "AdmissionID")
    if number:
        by = next(iter(patient.get("IssuerOfAdmissionIDSequence") or []), Dataset())
        issuer = authority(text_of(by, "LocalNamespaceEntityID"), *universal(by))
        yield segment("PV1", {1: "1", 2: "U", 19: components(escape(number), "", "", issuer, "VN")})


def numbers(requested: Dataset) -> dict[int, str]:
    """Placer and filler order number, fields 2 and 3 of ORC and OBR; a RIS that gives none of its own fills orders
    under the accession number. Raises Quarantine ``worklist.identity-incomplete`` where there is none at all."""
    placer = number_of(requested, "PlacerOrderNumberImagingServiceRequest")
    filler = number_of(requested, "FillerOrderNumberImagingServiceRequest") or number_of(requested, "AccessionNumber")
    if not placer and not filler:
        raise _incomplete("has neither an accession number nor an order number that could be sent")
    return {
        2: entity(placer, next(iter(requested.get("OrderPlacerIdentifierSequence") or []), None)),
        3: entity(filler, next(iter(requested.get("OrderFillerIdentifierSequence") or []), None)),
    }


def _incomplete(why: str) -> Quarantine:
    return Quarantine(
        "worklist.identity-incomplete",
        f"the study {why}: its result cannot be sent as HL7 under the right patient and order",
        hint="edge-node study show STUDY",
    )
