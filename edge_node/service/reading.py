"""Where a study belongs in the reading order, by all that the ledger knows of it."""

from __future__ import annotations

from sqlalchemy import Connection

from edge_node.config.schema import Config
from edge_node.domain.finding import TriageResult
from edge_node.domain.worklist import Priority
from edge_node.store import studies
from edge_node.worklist.modes import Modes
from edge_node.worklist.priority import decide


def place(connection: Connection, config: Config, study_key: str, result: TriageResult) -> Priority:
    """The place that order, patient class and what was found give a study, by the modes of the site."""
    options, row = config.worklist, studies.get(connection, study_key)._mapping
    modes = Modes.of(options.mode, options.writer_modes, options.model_modes)
    return decide(
        # The virtual deadline counts from the first instance: a late one must not push the study back.
        arrival=float(row["first_received_at"]),
        order=str(row["order_priority"]),
        patient_class=str(row["patient_class"]),
        finding=modes.permitted(result, reorders=True).top,
    )
