"""All writers by the name the ledger and the configuration know them by. A new one: its file, a line here, its test."""

from __future__ import annotations

from edge_node.worklist.write_evidence import EvidenceWriter
from edge_node.worklist.write_fhir import FhirWriter
from edge_node.worklist.write_hl7 import Hl7Writer
from edge_node.worklist.write_ups import UpsWriter
from edge_node.worklist.write_ups_rs import UpsRsWriter
from edge_node.worklist.writer import WorklistWriter

WRITERS: dict[str, type[WorklistWriter]] = {
    "evidence": EvidenceWriter,
    "ups": UpsWriter,
    "hl7": Hl7Writer,
    "fhir": FhirWriter,
    "ups_rs": UpsRsWriter,
}


def writers_for(mode: str) -> tuple[str, ...]:
    """The names of the writers that run in a mode, in order: none in shadow, those that leave the reading order alone
    in information, all in live. Raises ValueError for another word."""
    if mode not in ("shadow", "information", "live"):
        raise ValueError("the worklist mode is shadow, information or live")
    return tuple(
        name for name, writer in WRITERS.items() if mode == "live" or (mode == "information" and not writer.reorders)
    )
