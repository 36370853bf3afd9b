"""The result as FHIR R4 resources: Observation for each finding, DiagnosticReport, Task to read, Device for the model.

Never final: `preliminary`, with the security label AIAST. Patient, order and imaging study belong to others: they are
referred to by their identifiers and never made. Identifiers of what is ours are keyed hashes of the study, so that the
same result is the same resource.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydicom.dataset import Dataset

from edge_node.config.destinations import Fhir
from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import ADVISORY, Code, Finding, ModelIdentity, Verdict
from edge_node.worklist.header import MANUFACTURER
from edge_node.worklist.identity import WriteBackIdentity, number_of, text_of
from edge_node.worklist.uids import result_uid
from edge_node.worklist.words import (
    ACR_CATEGORIES,
    CATEGORY,
    LATE,
    LOOKED_FOR,
    NOT_A_DIAGNOSIS,
    PROBABILITY,
    SERVICE,
    VERDICT,
    VERDICTS,
    about,
    advised,
)
from edge_node.worklist.writer import WriteBack

Resource = dict[str, Any]
URIS = "urn:ietf:rfc:3986"
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "RADLEX": "http://radlex.org",
    "UCUM": "http://unitsofmeasure.org",
}
PRIORITIES = {"HIGH": "stat", "MEDIUM": "urgent", "LOW": "routine"}
RANK = {"stat": 0, "asap": 1, "urgent": 2, "routine": 3}
OPEN = ("draft", "requested", "received", "ready")  # nobody has taken the task
INTERPRETATION = Code("110005", "DCM", "Interpretation")
IMAGING_STUDY = Code("18748-4", "LN", "Diagnostic imaging study")
LABEL = {
    "security": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
            "code": "AIAST",
            "display": "Artificial Intelligence asserted",
        }
    ]
}


@dataclass(frozen=True, slots=True, repr=False)
class Subject:
    """What all resources of one result refer to: patient, order and imaging study by their identifiers."""

    patient: Resource
    requests: list[Resource]
    study: Resource
    study_date: str

    @classmethod
    def of(cls, identity: WriteBackIdentity, options: Fhir) -> Subject:
        """Raises Quarantine ``worklist.identity-incomplete`` when no patient can be named without doubt."""
        known = Dataset()
        identity.copy(
            known,
            "PatientID",
            "IssuerOfPatientID",
            "IssuerOfPatientIDQualifiersSequence",
            "AccessionNumber",
            "StudyDate",
        )
        number = number_of(known, "PatientID")
        if not number:
            raise _incomplete("has no Patient ID that could be sent")
        patient = {"type": "Patient", "identifier": {"system": _patient_system(known, options), "value": number}}
        accession = number_of(known, "AccessionNumber")
        if not accession:
            raise _incomplete("has no accession number that could be sent")
        kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
        order = {"type": kind, "value": accession}
        if options.accession_system:
            order["system"] = options.accession_system
        study = {"system": "urn:dicom:uid", "value": f"urn:oid:{identity.study_uid}"}
        date = text_of(known, "StudyDate")
        return cls(
            patient,
            [{"type": "ServiceRequest", "identifier": order}],
            {"type": "ImagingStudy", "identifier": study},
            f"{date[:4]}-{date[4:6]}-{date[6:]}" if re.fullmatch(r"\d{8}", date) else "",
        )


def identifier(order: WriteBack, kind: str, *parts: str) -> Resource:
    """The business identifier of a resource of ours, the same in all revisions of the study."""
    return {
        "system": URIS,
        "value": f"urn:oid:{result_uid(order.key, f'fhir-{kind}', order.identity.study_uid, *parts)}",
    }


def device_identifier(order: WriteBack, model: ModelIdentity) -> Resource:
    """The identifier of one model on one node; no study is part of it."""
    parts = (order.node, model.name, model.version, model.sha256)
    return {"system": URIS, "value": f"urn:oid:{result_uid(order.key, 'fhir-device', *parts)}"}


def observation_identifier(order: WriteBack, finding: Finding) -> Resource:
    """The identifier of what one model says of one finding."""
    return identifier(order, "observation", finding.code.scheme, finding.code.value, finding.model.name)


def full_url(named: Resource) -> str:
    """The address of a resource within its bundle, made of its identifier."""
    return f"urn:uuid:{UUID(int=int(named['value'].rpartition('.')[2]))}"


def device(order: WriteBack, model: ModelIdentity) -> Resource:
    """The model as a device: name, version, sha256 of the file that ran, and its label."""
    return {
        "resourceType": "Device",
        "identifier": [device_identifier(order, model)],
        "status": "active",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "version": [{"value": f"{model.version} {model.variant}".strip()}],
        "note": [{"text": f"sha256 {model.sha256}. {model.label}".strip()}],
    }


def observation(order: WriteBack, subject: Subject, finding: Finding, *, withdrawn: bool = False) -> Resource:
    """What a model says of one finding. The code is that of the verdict: a reader that looks for the finding's code
    alone must not take "looked for and not flagged" for "found"."""
    components: list[Resource] = [{"code": concept(LOOKED_FOR), "valueCodeableConcept": concept(finding.code)}]
    if finding.verdict is not Verdict.CANNOT_JUDGE and math.isfinite(finding.probability):
        value = {"value": round(finding.probability, 4), "unit": "1", "system": SYSTEMS["UCUM"], "code": "1"}
        components.append({"code": concept(PROBABILITY), "valueQuantity": value})
    if finding.verdict is Verdict.FLAGGED and finding.category in ACR_CATEGORIES:
        category = concept(ACR_CATEGORIES[finding.category])
        components.append({"code": concept(CATEGORY), "valueCodeableConcept": category})
    return {
        "resourceType": "Observation",
        "meta": LABEL,
        "identifier": [observation_identifier(order, finding)],
        "status": "cancelled" if withdrawn else "preliminary",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}]}
        ],
        "code": {**concept(VERDICT), "text": f"{VERDICT.meaning}: {finding.code.meaning}"},
        "subject": subject.patient,
        "basedOn": subject.requests,
        "effectiveDateTime": moment(order, order.made_at),
        "issued": moment(order, order.made_at),
        "valueCodeableConcept": concept(VERDICTS[finding.verdict]),
        "note": [{"text": advised(finding)}],
        "device": {"reference": full_url(device_identifier(order, finding.model))},
        "derivedFrom": [subject.study],
        "component": components,
    }


def report(
    order: WriteBack,
    subject: Subject,
    findings: list[Finding],
    before: list[str],
    *,
    evidence: bool,
    late: bool = False,
) -> Resource:
    """The preliminary report, which names the structured report if there is one (`evidence`).

    `before` are sentences about what an earlier one said.
    """
    said = [NOT_A_DIAGNOSIS, ADVISORY, *([LATE] if late else []), *(about(one) for one in findings)]
    if not findings:
        said.append("No model judged the study as it stands now.")
    said += before
    said.append(f"Priority: {order.priority.reason}.")
    named = [identifier(order, "report")]
    if findings and evidence:
        stored = order.structured_report
        named.append({"use": "secondary", "system": "urn:dicom:uid", "value": f"urn:oid:{stored.sop_uid}"})
    made: Resource = {
        "resourceType": "DiagnosticReport",
        "meta": LABEL,
        "identifier": named,
        "status": "preliminary" if findings else "cancelled",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": {"coding": [coding(SERVICE), coding(IMAGING_STUDY)], "text": SERVICE.meaning},
        "subject": subject.patient,
        "basedOn": subject.requests,
        "issued": moment(order, order.made_at),
        "imagingStudy": [subject.study],
        "conclusion": " ".join(said),
    }
    if subject.study_date:
        made["effectiveDateTime"] = subject.study_date
    if findings:
        made["result"] = [{"reference": full_url(observation_identifier(order, one))} for one in findings]
    return made


def task(order: WriteBack, subject: Subject) -> Resource:
    """The proposal to read the study by a certain time; what a RIS or a dashboard sorts by."""
    return {
        "resourceType": "Task",
        "identifier": [identifier(order, "task")],
        "basedOn": subject.requests,
        "status": "requested",
        "intent": "proposal",
        "code": concept(INTERPRETATION),
        "focus": subject.study,
        "for": subject.patient,
        "authoredOn": moment(order, order.ready_at),
        **urgency(order),
    }


def urgency(order: WriteBack) -> Resource:
    """What a later revision changes in the task."""
    due = datetime.fromtimestamp(int(order.priority.due), UTC)
    return {
        "priority": PRIORITIES[order.priority.level],
        "description": f"{order.priority.reason}. {NOT_A_DIAGNOSIS} {ADVISORY}",
        "lastModified": moment(order, order.made_at),
        "restriction": {"period": {"end": moment(order, due)}},
    }


def more_urgent(order: WriteBack, there: Resource) -> bool:
    """Whether the study must be read before the task as the server has it: by priority, then by due time."""
    rank, known = RANK[PRIORITIES[order.priority.level]], RANK.get(str(there.get("priority")), len(RANK))
    try:
        due = datetime.fromisoformat(str(there["restriction"]["period"]["end"])).astimezone().timestamp()
    except (KeyError, TypeError, ValueError):
        return rank < known
    return rank < known or (rank == known and int(order.priority.due) < int(due))


def coding(code: Code) -> Resource:
    """Coding of a code; our own scheme has a URN, for it has no address."""
    system = SYSTEMS.get(code.scheme, f"urn:edge-node:{code.scheme}")
    return {"system": system, "code": code.value, "display": code.meaning}


def concept(code: Code) -> Resource:
    """CodeableConcept of one code."""
    return {"coding": [coding(code)], "text": code.meaning}


def moment(order: WriteBack, when: datetime) -> str:
    """instant on the clock of the study, to the second."""
    return order.identity.local(when).isoformat(timespec="seconds")


def _patient_system(known: Dataset, options: Fhir) -> str:
    issuer = text_of(known, "IssuerOfPatientID")
    if issuer in options.patient_systems:
        return options.patient_systems[issuer]
    qualifiers = next(iter(known.get("IssuerOfPatientIDQualifiersSequence") or []), Dataset())
    universal, kind = text_of(qualifiers, "UniversalEntityID"), text_of(qualifiers, "UniversalEntityIDType")
    if universal and kind == "ISO":
        return f"urn:oid:{universal}"
    if universal and kind == "URI":
        return universal
    if not issuer and not universal and options.patient_system:
        return options.patient_system
    raise _incomplete(
        "names an issuer of the Patient ID that fhir.patient_systems does not have"
        if issuer or universal
        else "names no issuer of the Patient ID, and fhir.patient_system is not set"
    )


def _incomplete(why: str) -> Quarantine:
    return Quarantine(
        "worklist.identity-incomplete",
        f"the study {why}: its result cannot be sent as FHIR under the right patient and order",
        hint="edge-node study show STUDY",
    )
