"""The order behind a study: what its images say, and what the modality worklist of the RIS says (PS3.4 K.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.order import Order, priority_of
from edge_node.domain.worklist import Peer
from edge_node.worklist.association import MODALITY_WORKLIST, line_to
from edge_node.worklist.identity import WriteBackIdentity, as_received, number_of, text_of
from edge_node.worklist.statuses import Answer

PLACES = ("RequestingService", "CurrentPatientLocation")
_ASKED = (
    "AccessionNumber",
    "PatientID",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedurePriority",
    *PLACES,
)
_WORD = re.compile(r"[\w&]+")


def said_by(item: Dataset, *, emergency: Sequence[str], inpatient: Sequence[str]) -> Order:
    """What a data set with the attributes of an order says. A place may be named in a word of several."""
    words = {word.upper() for keyword in PLACES for word in _WORD.findall(text_of(item, keyword))}
    patient_class = "E" if words & _upper(emergency) else "I" if words & _upper(inpatient) else ""
    return Order(priority_of([text_of(item, "RequestedProcedurePriority")]), patient_class)


def _upper(words: Iterable[str]) -> set[str]:
    return {word.upper() for word in words}


def query_of(identity: WriteBackIdentity) -> Dataset | None:
    """The question for the order of a study: by accession number, else by Study Instance UID."""
    keys = Dataset()
    keys.SpecificCharacterSet = "ISO_IR 192"
    step = Dataset()
    step.Modality = step.ScheduledStationAETitle = step.ScheduledProcedureStepStartDate = ""
    with as_received():
        for keyword in _ASKED:
            setattr(keys, keyword, "")
        keys.ScheduledProcedureStepSequence = [step]
        accession = identity.text("AccessionNumber").strip()
        if accession and not set(accession) & set("*?\\"):
            keys.AccessionNumber = accession
        else:
            keys.StudyInstanceUID = identity.study_uid
    return keys


def is_of(answer: Dataset, identity: WriteBackIdentity) -> bool:
    """Whether an answer is this study's: number or UID as asked, and never another patient's."""
    patient, accession = identity.text("PatientID").strip(), identity.text("AccessionNumber").strip()
    if patient and number_of(answer, "PatientID") != patient:
        return False
    return number_of(answer, "StudyInstanceUID") == identity.study_uid or (
        bool(accession) and bool(patient) and number_of(answer, "AccessionNumber") == accession
    )


def ask(
    identity: WriteBackIdentity,
    peer: Peer,
    *,
    calling_ae: str,
    timeout_s: float,
    emergency: Sequence[str],
    inpatient: Sequence[str],
) -> Order:
    """What the worklist of `peer` says of the order; `Order()` if it does not have it.

    Raises Retry ``worklist.order-unavailable`` or ``worklist.order-rejects-us``, Quarantine
    ``worklist.order-refused``.
    """
    with line_to(peer, (MODALITY_WORKLIST,), calling_ae=calling_ae, timeout_s=timeout_s, service="order") as line:
        status, answers = line.find(query_of(identity), MODALITY_WORKLIST)
    if status.answer is not Answer.DONE:
        said = f"{peer.ae_title} at {peer.host}:{peer.port} answers {status.name} to a query for an order"
        if status.answer is Answer.LATER:
            raise Retry("worklist.order-unavailable", said, hint="edge-node echo with the name of order.peer")
        raise Quarantine("worklist.order-refused", said, hint="edge-node doctor")
    known = Order()
    for answer in answers:
        if is_of(answer, identity):
            known = known.with_(said_by(answer, emergency=emergency, inpatient=inpatient))
    return known
