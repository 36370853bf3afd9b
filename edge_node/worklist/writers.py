"""All writers by the name the ledger and the configuration know them by. A new one: its file, a line here, its test."""

from __future__ import annotations

from edge_node.domain.modes import Mode, may_write
from edge_node.worklist.write_evidence import EvidenceWriter
from edge_node.worklist.write_fhir import FhirWriter
from edge_node.worklist.write_hl7 import Hl7Writer
from edge_node.worklist.write_hl7_order import Hl7OrderWriter
from edge_node.worklist.write_ups import UpsWriter
from edge_node.worklist.write_ups_rs import UpsRsWriter
from edge_node.worklist.writer import WorklistWriter

WRITERS: dict[str, type[WorklistWriter]] = {
    "evidence": EvidenceWriter,
    "ups": UpsWriter,
    "hl7": Hl7Writer,
    "fhir": FhirWriter,
    "ups_rs": UpsRsWriter,
    "hl7_order": Hl7OrderWriter,
}


def writers_for(mode: str) -> tuple[str, ...]:
    """The names of the writers that run in a mode, in order, after `modes.MAY_WRITE`. Raises ValueError for another
    word."""
    known = Mode(mode)
    return tuple(name for name, writer in WRITERS.items() if may_write(known, reorders=writer.reorders))
