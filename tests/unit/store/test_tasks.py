"""Work by lease: nothing is done twice, nothing is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.study import Deidentified, TaskState
from edge_node.store import tasks as work
from edge_node.store.tables import task
from edge_node.store.tasks import Tasks, enqueue
from tests.unit.store.conftest import Store


def add(store: Store, count: int = 1, **options: float) -> None:
    with store.database.write() as connection:
        for number in range(count):
            enqueue(connection, f"S{number}", 1, "triage", **options)  # type: ignore[arg-type]


def test_every_row_is_claimed_by_exactly_one_of_many_workers(store: Store) -> None:
    add(store, 40)
    workers = [Tasks(store.database, f"test/compute{n}") for n in range(4)]

    def drain(worker: Tasks) -> list[int]:
        claimed = []
        while (one := worker.claim("triage", None, 60)) is not None:
            claimed.append(one.id)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        taken = [one for claimed in pool.map(drain, workers) for one in claimed]
    assert len(taken) == len(set(taken)) == 40


def test_what_would_be_claimed_is_seen_and_not_taken(store: Store) -> None:
    assert store.tasks.most_urgent("triage", None) is None
    add(store, 2, urgency=720)
    with store.database.write() as connection:
        enqueue(connection, "STAT", 1, "triage", urgency=60)
        enqueue(connection, "LATER", 1, "triage", urgency=1, not_before=time.time() + 3600)
    assert store.tasks.most_urgent("triage", None) == 60
    assert store.tasks.most_urgent("triage", None, 10) is None
    assert store.tasks.most_urgent("forward", None) is None
    urgent = store.tasks.claim("triage", None, 3600)
    assert urgent is not None
    assert (urgent.urgency, urgent.attempts) == (60, 1)
    assert store.tasks.most_urgent("triage", None) == 720
    with store.database.write() as connection:
        work.pause(connection, "triage")
    assert store.tasks.most_urgent("triage", None) is None


def test_a_row_whose_lease_ran_out_is_taken_by_another(store: Store) -> None:
    add(store)
    first = store.tasks.claim("triage", None, lease_s=0.05)
    time.sleep(0.1)
    second = Tasks(store.database, "test/other").claim("triage", None, 60)
    assert first is not None
    assert second is not None
    assert first.id == second.id


def test_a_worker_that_lost_its_lease_commits_nothing(store: Store) -> None:
    add(store)
    slow = store.tasks.claim("triage", None, lease_s=0.05)
    time.sleep(0.1)
    Tasks(store.database, "test/other").claim("triage", None, 60)
    assert slow is not None
    with store.database.write() as connection:
        assert store.tasks.done(connection, slow, "triage.finding", {}) is False


def test_a_role_that_starts_again_takes_over_what_its_dead_self_held(store: Store) -> None:
    add(store)
    store.tasks.claim("triage", None, 3600)
    reborn = Tasks(store.database, "test/compute")
    assert reborn.claim("triage", None, 60) is None
    assert reborn.take_over() == 1
    assert reborn.claim("triage", None, 60) is not None


def test_another_role_is_not_robbed_at_a_start(store: Store) -> None:
    add(store)
    store.tasks.claim("triage", None, 3600)
    assert Tasks(store.database, "test/comp").take_over() == 0


def test_a_passing_failure_backs_off_and_progress_begins_anew(store: Store) -> None:
    add(store)
    for expected in (1, 2, 3):
        claimed = store.tasks.claim("triage", None, 60)
        assert claimed is not None
        assert store.tasks.put_back(claimed, Retry("x", "later"), 3600) is TaskState.READY
        with store.database.write() as connection:
            row = connection.execute(select(task)).one()
            assert row.failures == expected
            assert row.not_before > time.time()
            connection.execute(update(task).values(not_before=0.0))
    claimed = store.tasks.claim("triage", None, 60)
    assert claimed is not None
    store.tasks.put_back(claimed, Retry("x", "some of it got through", progress=True), 3600)
    with store.database.read() as connection:
        assert connection.execute(select(task.c.failures)).scalar() == 0


def test_what_fails_past_its_age_waits_for_a_human_and_can_be_retried(store: Store) -> None:
    add(store)
    claimed = store.tasks.claim("triage", None, 60)
    assert claimed is not None
    assert store.tasks.put_back(claimed, Retry("x", "still down"), max_age_s=-1) is TaskState.DEAD
    assert store.tasks.claim("triage", None, 60) is None


def settled_again(store: Store) -> None:
    """The next revision of every study has settled."""
    with store.database.write() as connection:
        for key in connection.execute(select(task.c.study_key).distinct()).scalars().all():
            work.supersede(connection, key, 2)
            enqueue(connection, key, 2, "triage")


def first_revision(store: Store) -> tuple[str, str]:
    with store.database.read() as connection:
        row = connection.execute(select(task).where(task.c.revision == 1)).one()
    return row.state, row.code


@pytest.mark.parametrize("way", ["retry", "too old", "buried", "drained", "taken over", "lease ran out"])
def test_a_row_that_was_leased_when_it_was_superseded_does_not_come_back(store: Store, way: str) -> None:
    add(store)
    claimed = store.tasks.claim("triage", None, -1 if way == "lease ran out" else 60)
    assert claimed is not None
    settled_again(store)
    assert first_revision(store)[0] == TaskState.LEASED  # what is under way may still tell
    if way in ("retry", "too old"):
        age = 3600 if way == "retry" else -1
        assert store.tasks.put_back(claimed, Retry("x", "later"), age) is TaskState.DONE
    elif way == "buried":
        store.tasks.bury(claimed, Quarantine("x", "never"))
    elif way == "drained":
        assert store.tasks.release_leases() == 0
    elif way == "taken over":
        assert Tasks(store.database, "test/compute").take_over() == 0
    newest = store.tasks.claim("triage", None, 60)
    assert first_revision(store) == (TaskState.DONE, "superseded")
    assert newest is not None
    assert newest.revision == 2


def test_a_row_that_was_leased_when_it_was_superseded_may_still_be_done(store: Store) -> None:
    add(store)
    claimed = store.tasks.claim("triage", None, 60)
    assert claimed is not None
    settled_again(store)
    with store.database.write() as connection:
        assert store.tasks.done(connection, claimed, "triage.finding", {})
    assert first_revision(store) == (TaskState.DONE, "triage.finding")


def test_a_lost_lease_ends_nobody_elses_row(store: Store) -> None:
    add(store)
    slow = store.tasks.claim("triage", None, lease_s=-1)
    other = Tasks(store.database, "test/other")
    assert other.claim("triage", None, 60) is not None
    settled_again(store)
    assert slow is not None
    store.tasks.put_back(slow, Retry("x", "later"), 3600)
    store.tasks.bury(slow, Quarantine("x", "never"))
    assert first_revision(store)[0] == TaskState.LEASED


def test_the_most_urgent_row_goes_first(store: Store) -> None:
    with store.database.write() as connection:
        enqueue(connection, "ROUTINE", 1, "triage", urgency=720)
        enqueue(connection, "STAT", 1, "triage", urgency=60)
    claimed = store.tasks.claim("triage", None, 60)
    assert claimed is not None
    assert claimed.study_key == "STAT"


def test_a_worker_for_the_urgent_leaves_the_others_alone(store: Store) -> None:
    add(store, 1, urgency=720)
    assert store.tasks.claim("triage", None, 60, up_to=60) is None
    with store.database.write() as connection:
        enqueue(connection, "S9", 1, "triage", urgency=60)
    urgent = store.tasks.claim("triage", None, 60, up_to=60)
    assert urgent is not None
    assert urgent.urgency == 60
    assert store.tasks.claim("triage", None, 60, up_to=60) is None


def test_a_paused_step_is_not_claimed_until_resumed(store: Store) -> None:
    add(store)
    with store.database.write() as connection:
        work.pause(connection, "triage")
    assert store.tasks.claim("triage", None, 60) is None
    with store.database.write() as connection:
        work.resume(connection, "triage")
    assert store.tasks.claim("triage", None, 60) is not None


def test_the_same_work_is_never_added_twice(store: Store) -> None:
    add(store)
    add(store)
    with store.database.read() as connection:
        assert len(connection.execute(select(task)).all()) == 1


def test_a_retry_touches_only_the_steps_it_names(store: Store, clean_instance: Callable[..., Deidentified]) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1.0)
    later = time.time() + 3600
    with store.database.write() as connection:
        enqueue(connection, "STUDYKEY0001", 1, "purge", target="clean", not_before=later)
        enqueue(connection, "STUDYKEY0001", 1, "worklist", target="ups", not_before=later)
        assert work.requeue(connection, "STUDYKEY0001", steps=("worklist",), states=(TaskState.READY,)) == 1
    assert store.tasks.claim("worklist", None, 60) is not None
    assert store.tasks.claim("purge", None, 60) is None
