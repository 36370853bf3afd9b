"""Writer "evidence": structured report and key image into the archive."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from edge_node.domain.finding import TriageResult, Verdict
from edge_node.worklist.evidence import build, report_reference
from edge_node.worklist.header import KINDS
from edge_node.worklist.pacs import store
from edge_node.worklist.writer import Site, WriteBack, WriteReport, configured


class EvidenceWriter:
    """Stores what `evidence.build` makes; outcomes ``stored`` and ``nothing-to-store``."""

    reorders: ClassVar[bool] = False
    leaves: ClassVar[str] = "sr"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pacs = configured(site.pacs, "pacs")

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `pacs.store` and `evidence.build` raise."""
        result = order.result if self._shows(order.result) else replace(order.result, key_image=None)
        replaces = None
        if order.replaces is not None:
            replaces = report_reference(order.key, order.identity.study_uid, order.replaces)
        datasets = build(
            order.identity,
            result,
            key=order.key,
            revision=order.revision,
            made_at=order.made_at,
            node=order.node,
            version=order.version,
            predecessor=replaces,
        )
        report = store(datasets, self._pacs, self._site.calling_ae, self._site.timeout_s)
        return WriteReport(
            "evidence",
            report.destination,
            "stored" if datasets else "nothing-to-store",
            tuple((KINDS[str(dataset.SOPClassUID)], str(dataset.SOPInstanceUID)) for dataset in datasets),
        )

    def _shows(self, result: TriageResult) -> bool:
        if self._site.key_image == "flagged":
            return result.top is not None and result.top.verdict is Verdict.FLAGGED
        return self._site.key_image == "always"
