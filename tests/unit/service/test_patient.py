"""What nobody waits for leaves the processors to the others, and its rows are written like any other."""

from __future__ import annotations

import os
import threading

import pytest

from edge_node.domain.errors import Quarantine
from edge_node.pipeline import Done
from edge_node.service.patient import LEAST, patient
from edge_node.store.tasks import Task

TASK = Task(1, "STUDY", 1, "pixels", "", 1, 0, 0.0)


def own_priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_work_has_the_lowest_priority_and_who_asked_for_it_keeps_its_own() -> None:
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
