"""Writer "ups": the prioritised entry on a UPS worklist."""

from __future__ import annotations

from typing import ClassVar

from edge_node.domain.finding import TriageOutcome
from edge_node.domain.worklist import Peer
from edge_node.worklist.uids import result_uid
from edge_node.worklist.ups import Workitem, push
from edge_node.worklist.writer import Site, WriteBack, WriteReport, configured


class UpsWriter:
    """One workitem a study, whatever the revision: a later result raises it. Outcomes are those of `UpsOutcome`."""

    reorders: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pacs = configured(site.pacs, "pacs")
        self._ups = configured(site.ups, "ups")

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `ups.push` raises."""
        item = workitem(order, self._pacs)
        outcome = push(item, self._ups, self._site.calling_ae, self._site.timeout_s)
        return WriteReport("ups", self._ups.ae_title, str(outcome), (("workitem", item.uid),))


def workitem(order: WriteBack, archive: Peer) -> Workitem:
    """The workitem of a result, the same by whichever way it is written; images and report are in `archive`."""
    study_uid = order.identity.study_uid
    reported = order.result.outcome is TriageOutcome.FINDING and order.result.top is not None
    return Workitem(
        identity=order.identity,
        uid=result_uid(order.key, "workitem", study_uid),
        priority=order.priority,
        ready_at=order.ready_at,
        retrieve_ae=archive.ae_title,
        report=order.structured_report if reported else None,
        performer=order.performer,
    )
