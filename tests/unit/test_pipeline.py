"""The line: a study goes from step to step, whatever fails on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from edge_node import pipeline
from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.study import Deidentified, StudyState, TaskState
from edge_node.domain.worklist import Priority
from edge_node.pipeline import Bench, Done, Targets
from edge_node.store import retention, studies
from edge_node.store.tables import audit, reading, study, task
from edge_node.store.tasks import Task
from tests.unit.store.conftest import Store

TARGETS = Targets(worklist=("evidence", "ups"), forward=("",), purge={"envelope": 0.0, "clean": 0.0})
KEY = "STUDYKEY0001"


def state_of(store: Store) -> str:
    with store.database.read() as connection:
        return str(connection.execute(select(study.c.state)).scalar())


def settle(store: Store) -> None:
    with store.database.write() as connection:
        [candidate] = studies.unsettled(connection)
        assert studies.settle(connection, candidate, reason="quiet", complete=True, at=1.0) is not None
        pipeline.settled(connection, candidate.study_key, candidate.revision, urgency=1)


def bench(store: Store, step: str, work: pipeline.Work, *, target: str | None = None, max_age_s: float = 60.0) -> Bench:
    return Bench(step, work, store.tasks, store.database, TARGETS, max_age_s, target)


def work_off(store: Store, step: str, work: pipeline.Work = lambda _task: Done("ok"), target: str | None = None) -> int:
    one, count = bench(store, step, work, target=target), 0
    while (claimed := store.tasks.claim(step, target, 60)) is not None:
        one.one(claimed)
        count += 1
    return count


@pytest.fixture
def settled_study(store: Store, clean_instance: Callable[..., Deidentified]) -> Store:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1.0)
    settle(store)
    return store


def test_the_table_is_a_line_with_one_fork_and_every_follower_exists() -> None:
    for step in pipeline.STEPS:
        assert all(name in pipeline.BY_NAME for name in step.then)
    assert pipeline.BY_NAME["triage"].then == ("worklist", "forward")


def test_a_study_goes_down_the_whole_line(settled_study: Store) -> None:
    store = settled_study
    assert work_off(store, "triage") == 1
    assert state_of(store) == StudyState.TRIAGED
    assert work_off(store, "worklist", target="evidence") == 1
    assert work_off(store, "pixels") == 1
    assert work_off(store, "forward") == 1
    assert state_of(store) == StudyState.TRIAGED  # the second writer has not written yet
    assert work_off(store, "worklist", target="ups") == 1
    assert state_of(store) == StudyState.DELIVERED
    assert work_off(store, "purge") == 2
    assert state_of(store) == StudyState.CLOSED


def test_what_was_found_urgent_is_written_before_what_waited_longer(
    store: Store, clean_instance: Callable[..., Deidentified]
) -> None:
    minutes = {"STUDYKEY0001": 720.0, "STUDYKEY0002": 240.0, "STUDYKEY0003": 16.4}
    for key in minutes:
        store.intake.record(clean_instance(study=key), calling_ae="CT1", received_at=1.0)
        settle(store)

    def judged(one: Task) -> Done:
        place = Priority(0, 1.0, minutes[one.study_key], "HIGH", True, "found")
        return Done("ok", commit=lambda c: studies.put_reading(c, one.study_key, one.revision, place))

    assert work_off(store, "triage", judged) == 3
    order: list[tuple[str, int]] = []

    def written(one: Task) -> Done:
        order.append((one.study_key, one.urgency))
        return Done("ok")

    work_off(store, "worklist", written, target="ups")
    assert order == [("STUDYKEY0003", 16), ("STUDYKEY0002", 240), ("STUDYKEY0001", 720)]


def test_work_of_a_study_without_a_place_is_as_urgent_as_what_led_to_it(settled_study: Store) -> None:
    work_off(settled_study, "triage")
    with settled_study.database.read() as connection:
        rows = connection.execute(select(task.c.urgency).where(task.c.step == "worklist")).scalars().all()
    assert rows == [1, 1]


def test_triage_does_not_wait_for_the_pixels_and_forwarding_does(settled_study: Store) -> None:
    store = settled_study
    assert work_off(store, "triage") == 1
    assert work_off(store, "worklist", target="evidence") == work_off(store, "worklist", target="ups") == 1
    assert work_off(store, "forward") == 0
    assert state_of(store) == StudyState.TRIAGED  # no pixels are purged before the trainer had its chance
    assert work_off(store, "purge", target="clean") == 0
    assert work_off(store, "pixels") == 1
    assert work_off(store, "forward") == 1
    assert state_of(store) == StudyState.DELIVERED


def test_pixels_that_are_ready_first_wait_for_triage(settled_study: Store) -> None:
    store = settled_study
    assert work_off(store, "pixels") == 1
    assert state_of(store) == StudyState.SETTLED
    assert work_off(store, "forward") == 0
    assert work_off(store, "triage") == 1
    assert work_off(store, "forward") == 1


@pytest.mark.parametrize("order", [("triage", "pixels"), ("pixels", "triage")])
def test_a_site_without_any_target_ends_its_studies_too(settled_study: Store, order: tuple[str, str]) -> None:
    nowhere = Targets(worklist=(), forward=(), purge={"clean": 0.0})
    for step in order:
        claimed = settled_study.tasks.claim(step, None, 60)
        assert claimed is not None
        work = Bench(step, lambda _t: Done("ok"), settled_study.tasks, settled_study.database, nowhere, 60.0)
        work.one(claimed)
    assert state_of(settled_study) == StudyState.DELIVERED


def test_pixels_of_a_reopened_study_open_no_way_for_the_old_revision(
    settled_study: Store, clean_instance: Callable[..., Deidentified]
) -> None:
    store = settled_study
    work_off(store, "triage")
    store.intake.record(clean_instance(2), calling_ae="CT1", received_at=2.0)
    assert work_off(store, "pixels") == 1
    assert work_off(store, "forward") == 0


def test_a_failing_writer_blocks_neither_the_other_writer_nor_the_forwarder(settled_study: Store) -> None:
    store = settled_study
    work_off(store, "triage")

    def down(_task: Task) -> Done:
        raise Retry("worklist.pacs-unavailable", "the PACS is down")

    assert work_off(store, "worklist", down, target="evidence") == 1
    assert work_off(store, "worklist", target="ups") == 1
    assert work_off(store, "pixels") == 1
    assert work_off(store, "forward") == 1
    assert state_of(store) == StudyState.TRIAGED


def test_nothing_is_purged_while_a_delivery_waits_for_a_human(settled_study: Store) -> None:
    store = settled_study
    work_off(store, "triage")

    def rejected(_task: Task) -> Done:
        raise Quarantine("worklist.rejected", "the PACS will never take it")

    work_off(store, "worklist", rejected, target="evidence")
    work_off(store, "worklist", target="ups")
    work_off(store, "pixels")
    work_off(store, "forward")
    assert work_off(store, "purge") == 0
    with store.database.read() as connection:
        dead = connection.execute(select(task.c.code).where(task.c.state == TaskState.DEAD)).scalars().all()
    assert dead == ["worklist.rejected"]


def test_identity_goes_when_the_write_back_is_done_even_while_the_trainer_is_away(settled_study: Store) -> None:
    store = settled_study
    work_off(store, "triage")
    work_off(store, "worklist")

    def shred(task: Task) -> Done:
        return Done("purge.envelope", commit=lambda c: retention.destroy_identity(c, task.study_key, task.revision))

    assert work_off(store, "purge", shred, target="envelope") == 1
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open(KEY)
    assert state_of(store) == StudyState.TRIAGED
    assert store.clean.study(KEY).objects[0].read()
    work_off(store, "pixels")
    work_off(store, "forward")
    assert state_of(store) == StudyState.DELIVERED
    work_off(store, "purge", target="clean")
    assert state_of(store) == StudyState.CLOSED


def test_identity_stays_while_a_writer_waits_for_a_human(settled_study: Store) -> None:
    store = settled_study
    work_off(store, "triage")
    work_off(store, "worklist", target="ups")
    with store.database.write() as connection:
        retention.destroy_identity(connection, KEY, 1)
    assert store.vault.open(KEY)[0]


def test_an_unexpected_error_is_tried_again_and_then_held_for_a_human(settled_study: Store) -> None:
    store, tries = settled_study, []

    def broken(_task: Task) -> Done:
        tries.append(1)
        raise KeyError("ZZSECRET^ANNA")

    for _ in range(10):
        work_off(store, "triage", broken)
        with store.database.write() as connection:
            connection.execute(update(task).values(not_before=0.0))
    with store.database.read() as connection:
        row = connection.execute(select(task).where(task.c.step == "triage")).one()
    assert len(tries) == pipeline.UNEXPECTED_TRIES
    assert (row.state, row.code) == (TaskState.DEAD, "internal.KeyError")
    assert "ZZSECRET" not in row.message


def test_outcome_audit_and_next_work_commit_together_or_not_at_all(settled_study: Store) -> None:
    store = settled_study

    def commit(_connection: object) -> None:
        raise RuntimeError("power cut in the middle")

    work_off(store, "triage", lambda _task: Done("ok", commit=commit))
    with store.database.read() as connection:
        steps = connection.execute(select(task.c.step)).scalars().all()
        actions = connection.execute(select(audit.c.action)).scalars().all()
    assert sorted(steps) == ["order", "pixels", "triage"]
    assert "triage.done" not in actions
    assert state_of(store) == StudyState.SETTLED


def test_a_study_reopened_during_triage_is_triaged_again_and_the_old_result_moves_nothing(
    settled_study: Store, clean_instance: Callable[..., Deidentified]
) -> None:
    store = settled_study

    def late(_task: Task) -> Done:
        store.intake.record(clean_instance(2), calling_ae="CT1", received_at=2.0)
        return Done("ok")

    work_off(store, "triage", late)
    assert state_of(store) == StudyState.RECEIVING
    assert work_off(store, "worklist") == 0
    settle(store)
    assert work_off(store, "triage") == 1
    assert state_of(store) == StudyState.TRIAGED


def test_stop_leaves_the_loop_and_gives_the_row_back(settled_study: Store) -> None:
    store = settled_study

    def stop(_task: Task) -> Done:
        raise Stop("triage.no-gpu", "the GPU is gone")

    with pytest.raises(Stop, match=r"triage\.no-gpu"):
        bench(store, "triage", stop).run(threading.Event())
    with store.database.read() as connection:
        assert connection.execute(select(task.c.state).where(task.c.step == "triage")).scalar() == TaskState.READY


def test_the_reading_order_may_rise_but_never_falls(settled_study: Store) -> None:
    store = settled_study
    high = Priority(0, 100.0, 15.0, "HIGH", True, "flagged")
    low = Priority(1, 900.0, 720.0, "LOW", False, "not flagged")
    with store.database.write() as connection:
        studies.put_reading(connection, KEY, 1, low)
        studies.put_reading(connection, KEY, 2, high)
        connection.execute(update(reading).values(decided_at=2.0))
        studies.put_reading(connection, KEY, 3, low)
        kept = studies.get_reading(connection, KEY)
        assert kept == replace(high, reason="place kept from an earlier result; now: not flagged")
        row = connection.execute(select(reading)).one()
        assert (row.revision, row.decided_at > 2.0) == (3, True)
        studies.put_reading(connection, KEY, 4, low)
        assert studies.get_reading(connection, KEY) == kept  # told once, however often


def test_a_result_that_comes_after_that_of_a_newer_revision_can_only_raise_the_place(settled_study: Store) -> None:
    place = Priority(1, 900.0, 720.0, "LOW", False, "not flagged")
    with settled_study.database.write() as connection:
        studies.put_reading(connection, KEY, 2, place)
        studies.put_reading(connection, KEY, 1, replace(place, due=1000.0, reason="older"))
        assert studies.get_reading(connection, KEY) == place
        assert connection.execute(select(reading.c.revision)).scalar() == 2
        high = Priority(0, 100.0, 15.0, "HIGH", True, "flagged")
        studies.put_reading(connection, KEY, 1, high)
        assert studies.get_reading(connection, KEY) == high
        assert connection.execute(select(reading.c.revision)).scalar() == 2
