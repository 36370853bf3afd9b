"""What nobody waits for leaves the processors to the others, and its rows are written like any other."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref

import pytest

from edge_node.domain.errors import Quarantine
from edge_node.pipeline import Done
from edge_node.service.patient import LEAST, patient
from edge_node.store.tasks import Task

TASK = Task(1, "STUDY", 1, "pixels", "", 1, 0, 0.0)


def own_priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_work_has_a_low_priority_and_who_asked_for_it_keeps_its_own() -> None:
    before, seen = own_priority(), []

    def work(task: Task) -> Done:
        seen.append((task, own_priority()))
        return Done("pixels.done")

    assert patient(work)(TASK).code == "pixels.done"
    assert seen == [(TASK, LEAST)]
    assert own_priority() == before < LEAST


def test_what_goes_wrong_in_the_work_is_raised_where_it_was_asked_for() -> None:
    def work(_task: Task) -> Done:
        raise Quarantine("pixels.crashed", "the process ended in the middle of this study")

    with pytest.raises(Quarantine, match="in the middle"):
        patient(work)(TASK)


def test_what_failed_work_held_in_memory_is_given_back_at_once_and_not_when_the_collector_comes_by() -> None:
    class Pixels:
        """Of a study."""

    held: list[weakref.ref[Pixels]] = []

    def work(_task: Task) -> Done:
        pixels = Pixels()
        held.append(weakref.ref(pixels))
        raise Quarantine("pixels.crashed", "the process ended in the middle of this study")

    gc.disable()
    try:
        with contextlib.suppress(Quarantine):
            patient(work)(TASK)
        until = time.monotonic() + 5  # the thread may still be about to end
        while held[0]() is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert held[0]() is None
    finally:
        gc.enable()
