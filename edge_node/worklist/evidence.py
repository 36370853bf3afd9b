"""Evidence of a result as DICOM objects of the original study: a structured report and the key image.

Everything is advisory and says so, in the series description and in the object itself. The same result, revision and
`made_at` give the same bytes, so that sending again is not sending twice.
"""

from __future__ import annotations

from datetime import datetime

from pydicom.dataset import Dataset

from edge_node.domain.finding import TriageOutcome, TriageResult
from edge_node.worklist.header import COMPREHENSIVE_3D_SR, Making, ReportReference
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.key_image import key_image
from edge_node.worklist.uids import result_uid


def build(
    identity: WriteBackIdentity,
    result: TriageResult,
    *,
    key: bytes,
    revision: int,
    made_at: datetime,
    node: str,
    version: str,
    predecessor: ReportReference | None = None,
) -> list[Dataset]:
    """The objects to store for one result, under the original study: SR (TID 1500), then the key image if there is one.

    `key` (16 bytes or more) makes the UIDs; `revision` counts from 1; `made_at` is an aware moment out of the ledger,
    never the clock; `node` and `version` name this node; `predecessor` is the report this one replaces. A result
    without a finding (NOT_APPLICABLE, SKIPPED) gives no objects. Data sets are Explicit VR Little Endian with file
    meta. Raises Quarantine ``worklist.identity-incomplete`` when the finding names an image that has no identity.
    """
    if result.outcome is not TriageOutcome.FINDING or result.top is None:
        return []
    making = Making(identity, key, revision, made_at, node, version)
    # highdicom takes a second to import: only who writes evidence pays for it.
    from edge_node.worklist.structured_report import structured_report

    objects = [structured_report(making, result, predecessor)]
    if result.key_image is not None:
        objects.append(key_image(making, result.top, result.key_image))
    return objects


def report_reference(key: bytes, study_uid: str, revision: int) -> ReportReference:
    """Which structured report `build` makes for a revision of a study: for a successor or a workitem to refer to."""
    return ReportReference(
        COMPREHENSIVE_3D_SR, result_uid(key, "sr", study_uid, revision), result_uid(key, "sr-series", study_uid)
    )
