"""Work that nobody waits for: it has what the processors have left; its rows are claimed and committed as ever."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future
from typing import Final

from edge_node.pipeline import Done, Work
from edge_node.store.tasks import Task

LEAST: Final = 19  # the lowest of a thread that still gets a share of a busy machine


def patient(work: Work) -> Work:
    """`work` in a thread of the lowest priority. The thread that asks keeps its own: it writes to the ledger, and who
    holds the ledger's lock without being let run holds up the receiver."""

    def slowly(task: Task) -> Done:
        outcome: Future[Done] = Future()

        def run() -> None:
            with contextlib.suppress(OSError):  # not everywhere has a thread a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST)
            try:
                outcome.set_result(work(task))
            except BaseException as error:  # raised again where it was asked for
                outcome.set_exception(error)

        threading.Thread(target=run, name="patient", daemon=True).start()
        return outcome.result()

    return slowly
