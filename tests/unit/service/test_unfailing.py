"""Triage leaves no study without a place in the reading order, whatever fails; what ends its process is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select, update

from edge_node import pipeline
from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry, Stop
from edge_node.domain.finding import TriageOutcome, TriageResult
from edge_node.domain.study import Deidentified, StudyState, TaskState
from edge_node.pipeline import Done, Targets
from edge_node.service import compute_steps
from edge_node.service.unfailing import DEADLY_TRIES, PATIENT_TRIES, Unfailing, survivable
from edge_node.store import studies, watch
from edge_node.store.tables import finding, reading, study, task
from tests.unit.store.conftest import Store

KEY = "STUDYKEY0001"
TARGETS = Targets(worklist=("ups",), forward=(), purge={"envelope": 0.0, "clean": 0.0})


@dataclass
class Node:
    """What the compute role needs of a node, on the store of the test."""

    store: Store
    config: Config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Models:
    """Says or raises `answer` for every study."""

    def __init__(self, answer: TriageResult | Exception) -> None:
        self.answer = answer

    @contextmanager
    def begin(self):
        yield self

    def judge(self, _study: object, _urgency: float) -> TriageResult:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def node(store: Store, clean_instance: Callable[..., Deidentified]) -> Node:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=time.time())
    with store.database.write() as connection:
        [candidate] = studies.unsettled(connection)
        studies.settle(connection, candidate, reason="quiet", complete=True, at=1.0)
        pipeline.settled(connection, candidate.study_key, candidate.revision, urgency=720)
    return Node(store, Config())


def judging(node: Node, answer: TriageResult | Exception) -> Unfailing:
    return compute_steps.judging(node, Models(answer), TARGETS)  # type: ignore[arg-type]


def work_off(node: Node, answer: TriageResult | Exception, *, most: int = 20) -> int:
    """Claim and work the row of triage until it is done; returns how often."""
    bench = judging(node, answer)
    for count in range(1, most + 1):
        with node.database.write() as connection:
            connection.execute(update(task).values(not_before=0.0))
        claimed = node.tasks.claim("triage", None, 60)
        assert claimed is not None
        bench.one(claimed)
        if row(node).state != TaskState.READY:
            return count
    return most


def row(node: Node, step: str = "triage") -> Any:
    with node.database.read() as connection:
        return connection.execute(select(task).where(task.c.step == step)).one()


def result_of(node: Node) -> TriageResult:
    result = node.clean.finding(KEY, 1)
    assert result is not None
    return result


def placed(node: Node) -> Any:
    with node.database.read() as connection:
        return connection.execute(select(reading)).one()


def state_of(node: Node) -> str:
    with node.database.read() as connection:
        return str(connection.execute(select(study.c.state)).scalar())


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Retry("triage.gpu-memory", "no room"), PATIENT_TRIES),
        (ValueError("a bug"), pipeline.UNEXPECTED_TRIES),
        (Quarantine("store.key-destroyed", "gone"), 1),
    ],
)
def test_a_study_that_cannot_be_judged_gets_the_place_of_its_order_and_goes_on(
    node: Node, error: Exception, tries: int
) -> None:
    assert work_off(node, error) == tries
    assert (row(node).state, row(node).code) == (TaskState.DONE, "triage.skipped")
    code = error.code if isinstance(error, EdgeNodeError) else "internal.ValueError"
    result = result_of(node)
    assert result.outcome is TriageOutcome.SKIPPED
    assert result.reason == f"triage.gave-up: not judged in {tries} tries, the last ended with {code}"
    assert placed(node).reason.startswith("ROUTINE order")
    assert state_of(node) == StudyState.TRIAGED
    assert row(node, "worklist").state == TaskState.READY


def test_it_is_given_up_after_some_five_minutes_of_failing_not_of_waiting(node: Node) -> None:
    with node.database.write() as connection:  # a long queue
        connection.execute(update(task).values(created_at=time.time() - 7 * 86400))
    bench, waited = judging(node, Retry("triage.gpu-memory", "no room")), 0.0
    while True:
        claimed = node.tasks.claim("triage", None, 60)
        assert claimed is not None
        bench.one(claimed)
        if row(node).state == TaskState.DONE:
            break
        waited += row(node).not_before - time.time()
        with node.database.write() as connection:
            connection.execute(update(task).values(not_before=0.0))
    assert 120 < waited < 300


def test_what_passes_in_between_is_judged(node: Node) -> None:
    assert work_off(node, Retry("triage.gpu-memory", "no room"), most=PATIENT_TRIES - 1) == PATIENT_TRIES - 1
    assert row(node).state == TaskState.READY
    work_off(node, TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-ct: none"))
    assert result_of(node).outcome is TriageOutcome.NOT_APPLICABLE


def test_a_study_on_which_the_process_dies_is_skipped_and_says_so(node: Node) -> None:
    for _ in range(DEADLY_TRIES):
        assert node.tasks.claim("triage", None, lease_s=-1) is not None
    assert work_off(node, TriageResult(TriageOutcome.NOT_APPLICABLE, "never reached")) == 1
    assert result_of(node).reason == "triage.crashed: the process ended 5 times in the middle of this study"
    assert placed(node).reason.startswith("ROUTINE order")


def test_a_study_on_which_the_process_died_less_often_is_judged(node: Node) -> None:
    for _ in range(DEADLY_TRIES - 1):
        node.tasks.claim("triage", None, lease_s=-1)
    work_off(node, TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-ct: none"))
    assert result_of(node).outcome is TriageOutcome.NOT_APPLICABLE


def test_failures_and_stops_in_time_are_no_deaths(node: Node) -> None:
    for _ in range(DEADLY_TRIES + 2):
        claimed = node.tasks.claim("triage", None, 60)
        assert claimed is not None
        survivable("triage.crashed", claimed)
        node.tasks.release_leases()
    for _ in range(DEADLY_TRIES + 2):
        claimed = node.tasks.claim("triage", None, 60)
        assert claimed is not None
        survivable("triage.crashed", claimed)
        node.tasks.put_back(claimed, Retry("x", "later"), 3600)
        with node.database.write() as connection:
            connection.execute(update(task).values(not_before=0.0))


def test_when_even_that_fails_the_row_is_tried_again_and_never_dead(node: Node, monkeypatch: Any) -> None:
    def broken(*_: object) -> None:
        raise ValueError

    with monkeypatch.context() as patched:
        patched.setattr(watch, "observe", broken)
        assert work_off(node, TriageResult(TriageOutcome.NOT_APPLICABLE, ""), most=12) == 12
    assert row(node).state == TaskState.READY
    with node.database.read() as connection:
        assert connection.execute(select(finding)).first() is None
    work_off(node, TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-ct: none"))
    assert state_of(node) == StudyState.TRIAGED


def test_a_role_that_must_stop_stops(node: Node) -> None:
    claimed = node.tasks.claim("triage", None, 60)
    assert claimed is not None
    with pytest.raises(Stop):
        judging(node, Stop("triage.no-gpu", "gone")).one(claimed)
    assert row(node).state == TaskState.READY


def test_a_bench_of_another_step_leaves_its_row_to_a_human(node: Node) -> None:
    def refused(_: object) -> Done:
        raise Quarantine("worklist.rejected", "never")

    claimed = node.tasks.claim("triage", None, 60)
    assert claimed is not None
    pipeline.Bench("triage", refused, node.tasks, node.database, TARGETS, 60.0).one(claimed)
    assert row(node).state == TaskState.DEAD
