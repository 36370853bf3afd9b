"""Work that nobody waits for: it has what the processors have left; its rows are claimed and committed as ever."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future
from typing import Final

from edge_node.pipeline import Done, Work
from edge_node.store.tasks import Task

LEAST: Final = 10


def patient(work: Work) -> Work:
    """`work` in a thread of low priority. The thread that asks keeps its own: it writes to the ledger, and who holds
    the ledger's lock without being let run holds up the receiver. The thread that renews the lease writes too and
    shares the interpreter lock with the work: with the lowest priority there is, it held the ledger for up to half a
    second on a busy machine."""

    def slowly(task: Task) -> Done:
        # An error holds the frames it came through. If they held `outcome`, which holds the error, all of the study
        # would stay in memory until the collector comes by.
        def run(outcome: Future[Done]) -> None:
            with contextlib.suppress(OSError):  # not everywhere has a thread a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST)
            try:
                outcome.set_result(work(task))
            except BaseException as error:  # raised again where it was asked for
                outcome.set_exception(error)
            finally:
                del outcome

        outcome: Future[Done] = Future()
        threading.Thread(target=run, args=[outcome], name="patient", daemon=True).start()
        try:
            return outcome.result()
        finally:
            del outcome

    return slowly
