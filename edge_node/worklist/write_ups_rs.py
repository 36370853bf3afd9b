"""Writer "ups_rs": the prioritised entry on a worklist that speaks UPS-RS, the same entry as by UPS-Push."""

from __future__ import annotations

from typing import ClassVar

from edge_node.config.destinations import UpsRs
from edge_node.worklist.ups_rs import push_rs
from edge_node.worklist.web import WebServer
from edge_node.worklist.write_ups import workitem
from edge_node.worklist.writer import Site, WriteBack, WriteReport, configured, no_address


class UpsRsWriter:
    """One workitem a study, whatever the revision: a later result raises it. Outcomes are those of `UpsOutcome`."""

    reorders: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        self._pacs = configured(site.pacs, "pacs")
        self._options = site.ups_rs or UpsRs()
        self._server = server_of(self._options, site.timeout_s)

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `ups_rs.push_rs` and `WebServer.ask` raise."""
        item = workitem(order, self._pacs)
        outcome = push_rs(item, self._server, self._options.uid_parameter)
        return WriteReport("ups_rs", str(self._server), str(outcome), (("workitem", item.uid),))


def server_of(options: UpsRs, timeout_s: float) -> WebServer:
    """The server of the section [ups_rs]. Raises Stop ``worklist.no-address`` and what `WebServer` raises."""
    if not options.url:
        raise no_address("ups_rs.url")
    return WebServer("ups_rs", options, "ups-rs", timeout_s)
