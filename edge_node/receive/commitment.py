"""N-EVENT-REPORT of the Storage Commitment Push Model, as the SCU that asked (PS3.4 J.3.3).

The node never commits anything itself: a modality may delete what somebody committed to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pynetdicom.sop_class import StorageCommitmentPushModel

from edge_node.domain.commitment import CommitmentReport, read_report
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.status import Status

MODEL = str(StorageCommitmentPushModel)
Committed = Callable[[CommitmentReport], bool]
"""Records an answer; False when nobody asked for it. Raises EdgeNodeError when the ledger cannot take it now."""


def answer_to(event: Any, committed: Committed) -> int:
    """The status for an N-EVENT-REPORT on an association that the archive opened."""
    try:
        report = read_report(event.event_information, "new")
    except Exception:  # whatever a peer's data set makes pydicom raise
        report = None
    if report is None:
        return Status.INVALID_ARGUMENT_VALUE
    try:
        known = committed(report)
    except EdgeNodeError:
        return Status.PROCESSING_FAILURE
    return Status.SUCCESS if known else Status.INVALID_ARGUMENT_VALUE
