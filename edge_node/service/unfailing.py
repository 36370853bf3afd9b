"""A bench whose rows never wait for a human, and rows that end the process that works on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.pipeline import Bench, Done
from edge_node.store.tasks import Task

log = structlog.get_logger()

PATIENT_TRIES: Final = 8  # with the ledger's back-off some five minutes of failing, however long the row waited before
DEADLY_TRIES: Final = 5

Otherwise = Callable[[Task, EdgeNodeError], Done]
"""What is done for a row whose work could not be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfailing(Bench):
    """A worker that, when it gives a row up, does something else for it: nobody would look after a dead one in time."""

    otherwise: Otherwise

    def failed(self, claimed: Task, error: EdgeNodeError) -> None:
        """Tries again for some five minutes, then does the other thing, for as long as that takes."""
        if isinstance(error, Retry) and claimed.failures + 1 < PATIENT_TRIES:
            Bench.failed(self, claimed, error)
            return
        label = {"step": claimed.step, "study": claimed.study_key}
        log.warning("step.gave-up", **label, code=error.code, attempts=claimed.attempts)
        try:
            self.commit(claimed, self.otherwise(claimed, error))
        except Exception as worse:
            log.exception("step.unexpected", **label)
            code = worse.code if isinstance(worse, EdgeNodeError) else f"internal.{type(worse).__name__}"
            Bench.failed(self, claimed, Retry(code, f"given up for {error.code}, and that failed too"))


def survivable(code: str, claimed: Task) -> None:
    """Raises Quarantine `code` for a row that was begun again and again and neither done nor failed: its process died
    on it."""
    ended = claimed.attempts - claimed.failures - 1
    if ended >= DEADLY_TRIES:
        raise Quarantine(
            code,
            f"the process ended {ended} times in the middle of this study",
            hint="look for the reason in the log of the system (memory?), then edge-node study retry STUDY",
            study=claimed.study_key,
        )
