"""The order behind a flagged study raised to stat, as HL7 v2.5.1 OMI^O23 (chapter 4.4.10) or ORM^O01 (4.4.1).

Nothing but the priority is said: a receiver may take every field of a change for what the order is from now on. So
there is no visit (its class would have to be guessed), no time, no physician and no finding. Stat is the highest
priority of table 0485 and the only one ever sent: whatever stood before, nothing is lowered.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pydicom.dataset import Dataset

from edge_node.config.destinations import Hl7Order
from edge_node.domain.finding import Code, Verdict
from edge_node.worklist.hl7 import coded, components, escape, moment, segment
from edge_node.worklist.hl7_segments import PATIENT, Message, control_id_of, encoded, header, numbers, patient_segment
from edge_node.worklist.identity import text_of
from edge_node.worklist.oru import PRIORITIES
from edge_node.worklist.words import SCHEME
from edge_node.worklist.writer import WriteBack

CHANGE = "XO"  # table 0119: change order request
KINDS = {"omi": "OMI^O23^OMI_O23", "orm": "ORM^O01^ORM_O01"}
REASON = Code("AI_TRIAGE", SCHEME, "Raised by automated triage, advisory")
NUMBERS = (
    "AccessionNumber",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
)


class OrderOutcome(StrEnum):
    """RAISED: the receiver took it; UNABLE: it says that it cannot change this order. The others send nothing:
    NOTHING_TO_RAISE (no live model flagged it as stat, or it was ordered so, or it was raised for an earlier revision),
    NO_ORDER (neither accession nor order number), SEVERAL_ORDERS, INCOMPLETE_ORDER (what the message must name is
    not in the images)."""

    RAISED = "raised"
    UNABLE = "unable"
    NOTHING_TO_RAISE = "nothing-to-raise"
    NO_ORDER = "no-order"
    SEVERAL_ORDERS = "several-orders"
    INCOMPLETE_ORDER = "incomplete-order"


def change(order: WriteBack, options: Hl7Order) -> Message | OrderOutcome:
    """The message that raises the order of a study, or why there is none.

    Raises Quarantine ``worklist.identity-incomplete`` when patient and issuer are not known: the receiver could change
    another patient's order.
    """
    if not _raises(order):
        return OrderOutcome.NOTHING_TO_RAISE
    stated = {keyword: order.identity.requested(keyword) for keyword in NUMBERS}
    if not any(stated[keyword] for keyword in NUMBERS[:3]):
        return OrderOutcome.NO_ORDER
    if any(len(values) > 1 for values in stated.values()):
        return OrderOutcome.SEVERAL_ORDERS
    requested, imaging = order.identity.request(workitem=True), options.message == "omi"
    procedure, steps = _procedure(requested), list(_steps(order, stated)) if imaging else []
    if not procedure or (imaging and not steps):
        return OrderOutcome.INCOMPLETE_ORDER
    patient = Dataset()
    order.identity.copy(patient, *PATIENT)
    stat, names = coded(PRIORITIES["HIGH"]), numbers(requested)
    # Quantity/Timing (TQ) of messages that know no TQ1; ORC-7 and OBR-27 say the same (4.5.1.7).
    timing = "" if imaging else components("", "", "", "", "", PRIORITIES["HIGH"].value)
    control_id = control_id_of(order, "edge-node.hl7-order")
    about = {1: "1", **names, 4: procedure, 18: escape("".join(stated["AccessionNumber"])), 27: timing}
    segments = [
        header(order, options, KINDS[options.message], control_id),
        patient_segment(patient, options),
        segment(
            "ORC",
            {1: CHANGE, **names, 7: timing, 9: moment(order.identity.local(order.made_at)), 16: coded(REASON)},
        ),
        *([segment("TQ1", {1: "1", 9: stat})] if imaging else []),
        segment("OBR", about),
        *(steps if imaging else [_study_segment(order)]),
    ]
    return encoded(control_id, segments)


def _raises(order: WriteBack) -> bool:
    """Whether a live model's flag asks for stat now, and neither the order nor an earlier message did before."""
    top = order.result.top
    flagged = top is not None and top.verdict is Verdict.FLAGGED
    first = order.replaces is None and order.ordered != "STAT"
    return flagged and first and order.priority.raised_by_ai and order.priority.level == "HIGH"


def _procedure(requested: Dataset) -> str:
    """OBR-4, the procedure as it was ordered; "" when the images do not say: another one would change the order."""
    procedure = next(iter(requested.get("RequestedProcedureCodeSequence") or []), None)
    if procedure is not None:
        words = ("CodeValue", "CodeMeaning", "CodingSchemeDesignator")
        return components(*(escape(text_of(procedure, word)) for word in words))
    described = text_of(requested, "RequestedProcedureDescription")
    return components("", escape(described)) if described else ""


def _study_segment(order: WriteBack) -> str:
    """ZDS: the Study Instance UID beside an ORM, which has no field for it (IHE RAD TF-2 4.4.4.1.2)."""
    return segment("ZDS", {1: components(order.identity.study_uid, "", "Application", "DICOM")})


def _steps(order: WriteBack, stated: dict[str, list[str]]) -> Iterator[str]:
    """An IPC for each scheduled procedure step; none unless all of its required fields are known (IPC-1 to IPC-4)."""
    identity = order.identity
    accession, procedure = "".join(stated["AccessionNumber"]), "".join(stated["RequestedProcedureID"])
    if not accession or not procedure:
        return
    for step in identity.requested("ScheduledProcedureStepID"):
        modality = Code(identity.text("Modality"), "DCM", "")
        fields = {1: escape(accession), 2: escape(procedure), 3: identity.study_uid, 4: escape(step)}
        yield segment("IPC", {**fields, 5: coded(modality) if modality.value else ""})
