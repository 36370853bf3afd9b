"""Writer "evidence": structured report, key image and what goes with them into the archive."""

from __future__ import annotations

from typing import ClassVar

from edge_node.domain.finding import TriageResult, Verdict
from edge_node.worklist.evidence import wanted
from edge_node.worklist.pacs import store
from edge_node.worklist.writer import Site, WriteBack, WriteReport, configured


class EvidenceWriter:
    """Stores what `evidence.wanted` names.

    Outcomes: ``stored`` as wanted; ``stored-less`` where the archive takes less, or an older kind of report;
    ``withdrawn`` when a rejection note went out; ``nothing-to-store``.
    """

    reorders: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pacs = configured(site.pacs, "pacs")

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `pacs.store` and the makers of `evidence.wanted` raise."""
        things = wanted(order, picture=self._shows(order.result), further=self._site.further)
        report = store(things, self._pacs, self._site.calling_ae, self._site.timeout_s)
        kinds = [one.kind for one in report.objects]
        outcome = "stored-less" if report.left_out else "stored"
        if not things:
            outcome = "nothing-to-store"
        elif kinds == ["rejection"]:
            outcome = "withdrawn"
        return WriteReport(
            "evidence",
            report.destination,
            outcome,
            tuple((one.kind, one.sop_uid) for one in report.objects),
            report.left_out,
        )

    def _shows(self, result: TriageResult) -> bool:
        if self._site.key_image == "flagged":
            return result.top is not None and result.top.verdict is Verdict.FLAGGED
        return self._site.key_image == "always"
