"""Storage commitment of our own results (PS3.4 Annex J): what was asked, and what the archive said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edge_node.domain.status import status_name

NOT_MENTIONED = "NOT_MENTIONED"


class CommitmentState(StrEnum):
    """ASKED: the archive owes an answer. UNHEARD: nobody knows whether it was asked; an answer counts all the same."""

    ASKED = "ASKED"
    UNHEARD = "UNHEARD"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class StoredReference:
    """One result object in an archive: SOP Class and SOP Instance UID (ours, a keyed hash)."""

    sop_class: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """One N-EVENT-REPORT (PS3.4 J.3.3): what is committed, and what is not with its reason by name."""

    transaction_uid: str
    committed: frozenset[StoredReference]
    failed: dict[str, str]
    via: str  # "same" association as the request, or a "new" one


def read_report(information: Any, via: str) -> CommitmentReport | None:
    """The event information of an N-EVENT-REPORT (PS3.4 Table J.3-2), a data set; None when it names no transaction.

    Failure reasons (PS3.3 C.14.1.1) are DIMSE statuses. Raises whatever reading the data set raises.
    """
    transaction = str(information.get("TransactionUID") or "")
    committed = frozenset(_reference(item) for item in information.get("ReferencedSOPSequence") or ())
    failed = {
        _reference(item).sop_uid: status_name(int(item.get("FailureReason") or 0))
        for item in information.get("FailedSOPSequence") or ()
    }
    return CommitmentReport(transaction, committed, failed, via) if transaction else None


def _reference(item: Any) -> StoredReference:
    return StoredReference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
