"""Who should read a study, as DICOM and HL7 name a person or a group: a code of the site's own scheme."""

from __future__ import annotations

from pydicom.dataset import Dataset

from edge_node.domain.finding import TriageResult, Verdict
from edge_node.domain.reading_list import Performer, Routes
from edge_node.worklist.header import code_item


def performer_item(performer: Performer) -> Dataset:
    """Item of the Scheduled Human Performers Sequence (PS3.4 Table CC.2.5-3), all three of type 1."""
    code, item = performer.code, Dataset()
    item.HumanPerformerCodeSequence = [code_item(code.value, code.scheme, code.meaning)]
    item.HumanPerformerName = code.meaning
    item.HumanPerformerOrganization = performer.organization[:64]
    return item


def performer_of(routes: Routes, modalities: str, body_part: str, result: TriageResult) -> Performer | None:
    """The reader for a study by what the ledger has of it (`modalities` with commas) and what was flagged in it."""
    return routes.reader(tuple(modalities.split(",")), body_part, flagged_in(result))


def flagged_in(result: TriageResult) -> tuple[str, ...]:
    """Code values of the flagged findings."""
    return tuple(one.code.value for one in result.findings if one.verdict is Verdict.FLAGGED)
