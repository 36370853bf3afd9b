"""The result as an HL7 v2.5.1 ORU^R01 message (chapter 7.3.1).

Never final: OBR-25 and OBX-11 are R, results stored and not verified. A later revision of the study is R as well, for C
replaces a final result and there is none; what it no longer finds is deleted with D. The message is made of the
envelope and the ledger alone, so that sending again is sending the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from edge_node.config.destinations import Hl7
from edge_node.domain.finding import ADVISORY, Code, Finding, TriageOutcome, Verdict
from edge_node.domain.reading_list import Performer
from edge_node.worklist.hl7 import (
    TEXT_LENGTH,
    coded,
    components,
    dicom_moment,
    escape,
    lines_of,
    moment,
    person_names,
    segment,
)
from edge_node.worklist.hl7_segments import (
    PATIENT,
    Message,
    control_id_of,
    encoded,
    header,
    numbers,
    patient_segment,
    visit,
)
from edge_node.worklist.identity import number_of, text_of
from edge_node.worklist.words import (
    ACR_CATEGORIES,
    CATEGORY,
    DRAFT,
    LATE,
    LEVEL,
    LEVELS,
    LOOKED_FOR,
    NOT_A_DIAGNOSIS,
    PROBABILITY,
    SCHEME,
    SERVICE,
    VERDICT,
    VERDICTS,
    about,
    models_of,
    ranked,
    standing,
    told_of_earlier,
    withdrawn,
)
from edge_node.worklist.writer import WriteBack

ORU = "ORU^R01^ORU_R01"
STORED, DELETED = "R", "D"  # table 0085
PRIORITIES = {  # table 0485
    "HIGH": Code("S", "HL70485", "Stat"),
    "MEDIUM": Code("A", "HL70485", "As soon as possible"),
    "LOW": Code("R", "HL70485", "Routine"),
}
SECTIONS = {"CT": "CT", "MR": "NMR", "US": "RUS", "NM": "NMS", "PT": "NMS"}  # table 0074, else RAD
STUDY_UID = Code("110180", "DCM", "Study Instance UID")
REPORT_UID = Code("SR_INSTANCE_UID", SCHEME, "SOP Instance UID of the structured report")
ALGORITHM = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")


def message(order: WriteBack, options: Hl7, *, evidence: bool = True) -> Message | None:
    """The ORU^R01 of one result; None when no model judged and no earlier result needs withdrawing. `evidence` says
    whether there is a structured report to refer to.

    Raises Quarantine ``worklist.identity-incomplete`` when the study has no Patient ID, or neither an accession number
    nor an order number: the receiver could file the result under the wrong patient or order.
    """
    judged = order.result.outcome is TriageOutcome.FINDING and order.result.top is not None
    if not judged and order.replaces is None:
        return None
    patient = Dataset()
    order.identity.copy(patient, *PATIENT)
    requested = order.identity.request(workitem=True)
    control_id = control_id_of(order, "edge-node.hl7")
    segments = [
        header(order, options, ORU, control_id),
        patient_segment(patient, options),
        *visit(patient),
        segment("ORC", {1: "RE", **numbers(requested)}),
        _request(order, patient, requested),
        segment(
            "TQ1",
            {
                1: "1",
                7: moment(order.identity.local(order.ready_at)),
                8: moment(order.identity.local(datetime.fromtimestamp(int(order.priority.due), UTC))),
                9: coded(PRIORITIES[order.priority.level]),
            },
        ),
        *_observations(order, judged, evidence),
    ]
    return encoded(control_id, segments)


def _request(order: WriteBack, patient: Dataset, requested: Dataset) -> str:
    procedure = next(iter(requested.get("RequestedProcedureCodeSequence") or []), None)
    asked = None
    if procedure is not None:
        asked = Code(*(text_of(procedure, word) for word in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")))
    elif text_of(requested, "RequestedProcedureDescription"):
        asked = Code("", "", text_of(requested, "RequestedProcedureDescription"))
    physician = text_of(requested, "RequestingPhysician") or text_of(patient, "ReferringPhysicianName")
    return segment(
        "OBR",
        {
            1: "1",
            **numbers(requested),
            4: coded(SERVICE, asked),
            7: dicom_moment(
                text_of(patient, "StudyDate"), text_of(patient, "StudyTime"), text_of(patient, "TimezoneOffsetFromUTC")
            ),
            16: person_names(physician, numbered=True),
            18: escape(number_of(requested, "AccessionNumber")),
            22: moment(order.identity.local(order.made_at)),
            24: SECTIONS.get(order.identity.text("Modality"), "RAD"),
            25: STORED,
            28: _recipient(order.performer),
        },
    )


def _recipient(performer: Performer | None) -> str:
    """Result Copies To (XCN): the reader's code as ID, its meaning as name, its scheme as assigning authority."""
    if performer is None:
        return ""
    code = performer.code
    parts = [escape(code.value), escape(code.meaning), "", "", "", "", "", "", escape(code.scheme)]
    return components(*parts)


@dataclass(frozen=True, slots=True, repr=False)
class _Observation:
    """What varies in an OBX: OBX-2, 3, 4, 5 and 6, and whose word it is. A later one of the same OBX-3 and OBX-4
    replaces it."""

    kind: str
    code: Code
    value: str
    sub_id: str = ""
    units: str = ""
    model: str = ""

    @property
    def place(self) -> tuple[str, str]:
        return (self.code.value, self.sub_id)


def _observations(order: WriteBack, judged: bool, evidence: bool) -> Iterator[str]:
    """The OBX segments: the draft in words first, then the same in codes, then what no longer stands."""
    now = ranked(order.result) if judged else []
    before = ranked(order.earlier) if order.earlier is not None else []
    stated = [
        *(_Observation("TX", DRAFT, escape(line), "1") for line in _draft(order, now)),
        _Observation("CWE", LEVEL, coded(LEVELS[order.priority.level])),
        *_findings(now),
        _Observation("HD", STUDY_UID, components("", order.identity.study_uid, "ISO")),
    ]
    if judged and evidence:
        report = order.structured_report
        stated.append(_Observation("HD", REPORT_UID, components("", report.sop_uid, "ISO")))
    places = {one.place for one in stated}
    rows = [(one, STORED) for one in stated]
    missing = models_of(order.result.unavailable)
    gone = [one for one in _findings(before) if one.place not in places and one.model not in missing]
    rows += [(one, DELETED) for one in gone]
    for number, (one, status) in enumerate(rows, start=1):
        yield segment(
            "OBX",
            {
                1: str(number),
                2: one.kind,
                3: coded(one.code),
                4: one.sub_id,
                5: one.value,
                6: one.units,
                11: status,
                14: moment(order.identity.local(order.made_at)),
                18: escape(order.node),
            },
        )


def _draft(order: WriteBack, now: list[Finding]) -> Iterator[str]:
    yield from lines_of(f"{NOT_A_DIAGNOSIS} {ADVISORY}")
    if order.late:
        yield from lines_of(LATE)
    for finding in now:
        yield from lines_of(about(finding))
    if not now:
        yield from lines_of("No model judged the study as it stands now.")
    missing = order.result.unavailable
    for said in told_of_earlier(withdrawn(order.earlier, now, missing), standing(order.earlier, now, missing)):
        yield from lines_of(said)
    yield from lines_of(f"Priority: {order.priority.reason}.")


def _findings(findings: list[Finding]) -> Iterator[_Observation]:
    """Findings in codes; OBX-4 is the code's value, and a number if two share it. Only a flagged one has a category."""
    seen: dict[str, int] = {}
    for finding in findings:
        name = escape(finding.code.value[:16])
        seen[name] = seen.get(name, 0) + 1
        sub_id = name if seen[name] == 1 else f"{name}.{seen[name]}"
        about_it = [
            _Observation("CWE", LOOKED_FOR, coded(finding.code)),
            _Observation("CWE", VERDICT, coded(VERDICTS[finding.verdict])),
        ]
        if finding.verdict is not Verdict.CANNOT_JUDGE and math.isfinite(finding.probability):
            about_it.append(_Observation("NM", PROBABILITY, f"{finding.probability:.4f}", units="1^no units^UCUM"))
        if finding.verdict is Verdict.FLAGGED and finding.category in ACR_CATEGORIES:
            about_it.append(_Observation("CWE", CATEGORY, coded(ACR_CATEGORIES[finding.category])))
        for code, value in ((ALGORITHM, finding.model.name), (ALGORITHM_VERSION, finding.model.version)):
            about_it.append(_Observation("ST", code, escape(value[: TEXT_LENGTH // 3])))
        yield from (replace(one, sub_id=sub_id, model=finding.model.name) for one in about_it)
