"""Writer "hl7": the result as an ORU^R01 message to the RIS, the EHR or an interface engine."""

from __future__ import annotations

from typing import ClassVar

from edge_node.config.client_tls import section_context
from edge_node.config.destinations import Hl7
from edge_node.worklist.mllp import Listener, deliver
from edge_node.worklist.oru import message
from edge_node.worklist.writer import Site, WriteBack, WriteReport, no_address


class Hl7Writer:
    """One message a revision; outcomes ``accepted`` and ``nothing-to-say``. Its priority (TQ1-9) re-orders reading."""

    reorders: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        self._options = site.hl7 or Hl7()
        self._evidence = site.evidence
        self._listener = listener_of("hl7", self._options, site.timeout_s)

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `oru.message` and `mllp.deliver` raise."""
        made = message(order, self._options, evidence=self._evidence)
        if made is None:
            return WriteReport("hl7", str(self._listener), "nothing-to-say")
        deliver(made.content, made.control_id, self._listener)
        return WriteReport("hl7", str(self._listener), "accepted", (("hl7", made.control_id),))


def listener_of(section: str, options: Hl7, timeout_s: float) -> Listener:
    """The listener of a section ("hl7", "hl7_order"). Raises Stop ``worklist.no-address``, and ``hl7.tls`` and the like
    for unusable files."""
    if not options.host:
        raise no_address(f"{section}.host")
    tls = section_context(section, options.ca_file, options.client_cert, options.client_key) if options.tls else None
    return Listener(options.host, options.port, tls, timeout_s)
