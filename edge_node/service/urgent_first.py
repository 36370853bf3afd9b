"""A bench of triage whose studies give way to more urgent ones, before they are claimed and while they are judged."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Final

from edge_node.pipeline import LEASE_S
from edge_node.service.unfailing import Unfailing
from edge_node.store.tasks import Task
from edge_node.triage.turns import Precedence

QUICK_POLL_S: Final = 0.05  # of who works for the urgent alone


@dataclass(frozen=True, slots=True, kw_only=True)
class UrgentFirst(Unfailing):
    """All benches of a process share `precedence`: they share its interpreter lock, so that whatever one does costs the
    others time."""

    precedence: Precedence

    def claim(self) -> Task | None:
        """As ever, but no row is taken before its time: who held one would have no hand free for a more urgent one."""
        waiting = self.tasks.most_urgent(self.step, self.target, self.up_to)
        if not self.precedence.may_begin(waiting):
            return None
        # Another worker may have taken that one since: then not what comes after it, unasked.
        return self.tasks.claim(self.step, self.target, LEASE_S, waiting)

    def one(self, claimed: Task) -> None:
        """As ever, but the study is under way until its outcome is committed."""
        with self.precedence.judging(claimed.urgency):
            Unfailing.one(self, claimed)

    def for_the_urgent(self, up_to: int, woken: threading.Event) -> UrgentFirst:
        """A worker for rows `up_to` an urgency alone. It is `woken` when there may be one, and looks often all the
        same, because an order may be raised by another process."""

        def rest(_stop: threading.Event) -> None:
            woken.wait(QUICK_POLL_S)
            woken.clear()

        return replace(self, up_to=up_to, rest=rest)
