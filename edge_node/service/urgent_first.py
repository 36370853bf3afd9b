"""A bench of triage whose studies give way to more urgent ones, until they have been judged."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Final

from edge_node.service.unfailing import Unfailing
from edge_node.store.tasks import Task
from edge_node.triage.turns import Precedence

QUICK_POLL_S: Final = 0.05  # of who works for the urgent alone


@dataclass(frozen=True, slots=True, kw_only=True)
class UrgentFirst(Unfailing):
    """All benches of a process share `precedence`: they share its interpreter lock, so that whatever one does costs the
    others time."""

    precedence: Precedence

    def one(self, claimed: Task) -> None:
        """As ever, but the study is under way until its outcome is committed, and does not begin before its time."""
        with self.precedence.judging(claimed.urgency) as give_way:
            give_way()
            Unfailing.one(self, claimed)

    def for_the_urgent(self, up_to: int, woken: threading.Event) -> UrgentFirst:
        """A worker for rows `up_to` an urgency alone. It is `woken` when there may be one, and looks often all the
        same, because an order may be raised by another process."""

        def rest(_stop: threading.Event) -> None:
            woken.wait(QUICK_POLL_S)
            woken.clear()

        return replace(self, up_to=up_to, rest=rest)
