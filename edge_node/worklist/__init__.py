"""Results back into the hospital: one decision about the reading order, evidence of it, and the writers that tell."""

from edge_node.worklist.evidence import build, report_reference
from edge_node.worklist.header import ReportReference
from edge_node.worklist.identity import InstanceReference, WriteBackIdentity
from edge_node.worklist.pacs import StoredObject, StoreReport, store
from edge_node.worklist.priority import decide, sort_key
from edge_node.worklist.uids import result_uid
from edge_node.worklist.ups import UpsOutcome, Workitem, push
from edge_node.worklist.writer import Site, WorklistWriter, WriteBack, WriteReport
from edge_node.worklist.writers import WRITERS, writers_for

__all__ = [
    "WRITERS",
    "InstanceReference",
    "ReportReference",
    "Site",
    "StoreReport",
    "StoredObject",
    "UpsOutcome",
    "Workitem",
    "WorklistWriter",
    "WriteBack",
    "WriteBackIdentity",
    "WriteReport",
    "build",
    "decide",
    "push",
    "report_reference",
    "result_uid",
    "sort_key",
    "store",
    "writers_for",
]
