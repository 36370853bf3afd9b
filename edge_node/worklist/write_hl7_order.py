"""Writer "hl7_order": the order of a flagged study raised to stat at the RIS, by OMI^O23 or ORM^O01. Off by default."""

from __future__ import annotations

from typing import ClassVar

from edge_node.config.destinations import Hl7Order
from edge_node.worklist.mllp import deliver
from edge_node.worklist.order_change import OrderOutcome, change
from edge_node.worklist.write_hl7 import listener_of
from edge_node.worklist.writer import Site, WriteBack, WriteReport

REFUSED = frozenset({"UX", "UA"})  # table 0119: unable to change, unable to accept the order


class Hl7OrderWriter:
    """One message a study, with the first revision that asks for stat; it is never taken back, because what else was
    thought of the order since is not for us to know. Outcomes are those of `OrderOutcome`."""

    reorders: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        self._options = site.hl7_order or Hl7Order()
        self._listener = listener_of("hl7_order", self._options, site.timeout_s)

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `order_change.change` and `mllp.deliver` raise."""
        made = change(order, self._options)
        if isinstance(made, OrderOutcome):
            return WriteReport("hl7_order", str(self._listener), str(made))
        answer = deliver(made.content, made.control_id, self._listener)
        if REFUSED.intersection(answer.controls):  # AA says that it was understood, ORC-1 what became of it
            return WriteReport("hl7_order", str(self._listener), str(OrderOutcome.UNABLE))
        raised = str(OrderOutcome.RAISED)
        return WriteReport("hl7_order", str(self._listener), raised, (("order", made.control_id),))
