"""What was ordered at once is settled, claimed and judged before the studies that can wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import select

from edge_node import pipeline
from edge_node.config.schema import Config
from edge_node.domain.finding import TriageOutcome, TriageResult
from edge_node.domain.study import CleanStudy, Deidentified, TaskState
from edge_node.pipeline import Bench, Targets
from edge_node.service import urgent_first
from edge_node.service.compute_steps import AT_ONCE, judging, settle_due
from edge_node.store import studies
from edge_node.store.tables import audit, task
from edge_node.store.tasks import Tasks
from edge_node.triage import turns
from edge_node.triage.turns import Precedence
from tests.unit.store.conftest import Store

STAT, ROUTINE = "STUDYKEYSTAT", "STUDYKEYSLOW"
TARGETS = Targets(worklist=("ups",), forward=(), purge={"envelope": 0.0, "clean": 0.0})


@dataclass
class Node:
    """What the compute role needs of a node, on the store of the test."""

    store: Store
    config: Config
    actor: str = "test/compute"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass
class Models:
    """Judges the urgent study until it is let go, any other at once; `begun` are the studies it has begun with."""

    begun: list[str] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def begin(self):
        yield self

    def judge(self, study: CleanStudy, _urgency: float) -> TriageResult:
        self.begun.append(study.study_key)
        if study.study_key == STAT:
            self.entered.set()
            assert self.go.wait(10)
        return TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-ct: no model is made for these objects")


@pytest.fixture
def node(store: Store, clean_instance: Callable[..., Deidentified]) -> Node:
    """Two studies that still come in, the urgent one second."""
    for number, (key, order) in enumerate(((ROUTINE, "ROUTINE"), (STAT, "STAT"))):
        made = clean_instance(number + 1, study=key)
        made = replace(made, instance=replace(made.instance, order_priority=order))
        store.intake.record(made, calling_ae="CT1", received_at=time.time() - 3600)
    return Node(store, Config())


def settled(node: Node, *study_keys: str) -> None:
    """These, or all."""
    with node.database.write() as connection:
        for one in studies.unsettled(connection):
            if one.study_key not in (study_keys or (STAT, ROUTINE)):
                continue
            studies.settle(connection, one, reason="quiet", complete=True, at=1.0)
            urgency = AT_ONCE if one.study_key == STAT else 720
            pipeline.settled(connection, one.study_key, one.revision, urgency)


def audited(node: Node, action: str) -> list[str]:
    with node.database.read() as connection:
        wanted = select(audit.c.study_key).where(audit.c.action == action).order_by(audit.c.seq)
        return [str(key) for key in connection.execute(wanted).scalars()]


def test_of_studies_that_are_complete_the_urgent_one_settles_first_and_wakes_its_worker(node: Node) -> None:
    woken = threading.Event()
    assert settle_due(node, None, woken) == 2
    assert audited(node, "settle.done") == [STAT, ROUTINE]
    assert woken.is_set()


def test_a_study_that_can_wait_wakes_nobody(store: Store, clean_instance: Callable[..., Deidentified]) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=time.time() - 3600)
    woken = threading.Event()
    assert settle_due(Node(store, Config()), None, woken) == 1
    assert not woken.is_set()


@contextmanager
def at_work(worker: Bench, workers: int = 2) -> Iterator[None]:
    """So many of them at once."""
    stop = threading.Event()
    threads = [threading.Thread(target=worker.run, args=[stop]) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def wait_for(judged: list[str], node: Node) -> None:
    until = time.monotonic() + 10
    while audited(node, "triage.done") != judged and time.monotonic() < until:
        time.sleep(0.01)
    assert audited(node, "triage.done") == judged


def begun(node: Node, study_key: str) -> tuple[str, int]:
    """State of its row, and how often it was claimed."""
    with node.database.read() as connection:
        mine = (task.c.study_key == study_key) & (task.c.step == "triage")
        row = connection.execute(select(task.c.state, task.c.attempts).where(mine)).one()
        return str(row.state), int(row.attempts)


def test_no_study_is_claimed_while_a_more_urgent_one_is_under_way_and_all_hands_are_free_for_urgent_ones(
    node: Node,
) -> None:
    settled(node, ROUTINE)
    models, precedence = Models(), Precedence()
    models.go.set()
    with ExitStack() as workers:
        with precedence.judging(AT_ONCE):
            workers.enter_context(at_work(judging(node, models, TARGETS, precedence)))
            time.sleep(2 * pipeline.POLL_S)
            assert begun(node, ROUTINE) == (TaskState.READY, 0)
            settled(node, STAT)
            wait_for([STAT], node)
            assert begun(node, ROUTINE) == (TaskState.READY, 0)
        wait_for([STAT, ROUTINE], node)


def test_a_study_gives_way_for_so_long_in_all_before_it_is_claimed_and_while_it_is_judged(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "GIVEN_WAY_S", 1.0)
    settled(node, ROUTINE)
    precedence, waited = Precedence(), []

    class Polite(Models):
        def judge(self, study: CleanStudy, urgency: float) -> TriageResult:
            began = time.monotonic()
            with precedence.judging(urgency) as give_way:
                give_way()
            waited.append(time.monotonic() - began)
            return Models.judge(self, study, urgency)

    with precedence.judging(AT_ONCE):
        began = time.monotonic()
        with at_work(judging(node, Polite(), TARGETS, precedence), workers=1):
            wait_for([ROUTINE], node)
        assert time.monotonic() - began >= 1.0
    assert waited[0] < 0.8


def test_who_was_too_late_for_an_urgent_study_takes_no_other_unasked(node: Node) -> None:
    settled(node)
    colleague = node.tasks

    class TooLate(Tasks):
        def most_urgent(self, step: str, target: str | None, up_to: int | None = None) -> int | None:
            seen = Tasks.most_urgent(self, step, target, up_to)
            colleague.claim("triage", None, 60.0, AT_ONCE)
            return seen

    worker = replace(judging(node, Models(), TARGETS), tasks=TooLate(node.database, "test/late"))
    assert worker.claim() is None
    assert begun(node, STAT) == (TaskState.LEASED, 1)
    assert begun(node, ROUTINE) == (TaskState.READY, 0)
    late = worker.claim()
    assert late is not None
    assert late.study_key == ROUTINE


def test_what_has_been_judged_waits_for_nobody_with_its_outcome(node: Node) -> None:
    settled(node, ROUTINE)
    precedence = Precedence()
    worker = judging(node, Models(), TARGETS, precedence)
    claimed = worker.claim()
    assert claimed is not None
    done, began = worker.work(claimed), time.monotonic()
    with precedence.judging(AT_ONCE):
        worker.commit(claimed, done)
    assert time.monotonic() - began < 5
    assert audited(node, "triage.done") == [ROUTINE]


def test_the_worker_for_the_urgent_does_not_sleep_when_it_is_woken(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urgent_first, "QUICK_POLL_S", 30.0)
    settled(node)
    models, woken, stop = Models(), threading.Event(), threading.Event()
    models.go.set()
    worker = judging(node, models, TARGETS).for_the_urgent(AT_ONCE, woken)
    thread = threading.Thread(target=worker.run, args=[stop])
    thread.start()
    until = time.monotonic() + 10
    while audited(node, "triage.done") != [STAT] and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()
    stop.set()
    woken.set()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - began < 10
    assert models.begun == [STAT]
