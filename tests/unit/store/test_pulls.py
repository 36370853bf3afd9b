"""The queue of pulls when something dies or is busy: nothing hangs for ever, no key outlives its job."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import select, update

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.pull import Kind, Pulled, PullState, Wanted
from edge_node.store import database, pulls
from edge_node.store.pulls import Named, Pulls
from edge_node.store.tables import data_key, pull_item, pull_job
from tests.unit.store.conftest import Store


@pytest.fixture
def queue(store: Store) -> Pulls:
    return Pulls(store.database, store.keyring, "test/dicom")


def asked(count: int) -> list[Named]:
    return [Named(Wanted(Kind.STUDY, f"1.2.{number}"), f"R{number}", f"STUDY{number}") for number in range(count)]


def rows(store: Store, table: Any = pull_item) -> list[Any]:
    with store.database.read() as connection:
        return list(connection.execute(select(table)).all())


def age(store: Store, seconds: float) -> None:
    with store.database.write() as connection:
        connection.execute(update(pull_job).values(created_at=time.time() - seconds))
        connection.execute(update(pull_item).values(created_at=time.time() - seconds))


def cut_short(store: Store, queue: Pulls, count: int = 3) -> str:
    """A job whose asker was killed after `count` requests were in."""
    job, _ = queue.ask(asked(count), "a list", again=False)
    with store.database.write() as connection:
        connection.execute(update(pull_job).values(state=PullState.RUNNING))
    return job


class Interrupted(BaseException):
    """As a KeyboardInterrupt, which pytest would take for its own."""


def test_who_interrupts_his_asking_has_asked_for_nothing(
    store: Store, queue: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "PORTION", 2)
    added, portions = queue._add, iter(range(2))

    def interrupted(*words: Any) -> int:
        if next(portions, None) is None:
            raise Interrupted
        return added(*words)

    monkeypatch.setattr(queue, "_add", interrupted)
    with pytest.raises(Interrupted):
        queue.ask(asked(8), "a list", again=False)
    assert [row.state for row in rows(store, pull_job)] == [PullState.CANCELLED]
    assert [(row.state, row.code, row.sealed) for row in rows(store)] == [("CANCELLED", "pull.cut-short", b"")] * 4
    assert rows(store, data_key) == []
    assert queue.claim() is None


def test_a_list_whose_asker_was_killed_ends_with_its_key(store: Store, queue: Pulls) -> None:
    cut_short(store, queue)
    assert queue.end_cut_short() == 0  # he may still be at it
    age(store, pulls.ASKING_S + 1)
    assert queue.claim() is not None  # what is in is worked on meanwhile
    assert queue.end_cut_short() == 1
    assert [row.state for row in rows(store, pull_job)] == [PullState.CANCELLED]
    assert {row.state for row in rows(store)} == {PullState.CANCELLED}
    assert rows(store, data_key) == []
    assert queue.end_cut_short() == 0


def test_a_killed_asker_is_found_out_by_the_next_one_too(store: Store, queue: Pulls) -> None:
    dead = cut_short(store, queue)
    age(store, pulls.ASKING_S + 1)
    job, count = queue.ask(asked(2), "another", again=False)
    assert count == 2
    assert {row.job: row.state for row in rows(store, pull_job)} == {dead: "CANCELLED", job: "WAITING"}


def test_a_list_that_is_given_up_while_it_is_asked_for_is_not_said_to_be_in(
    store: Store, queue: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "PORTION", 2)
    added = queue._add

    def cancelled_behind(connection: Any, job: str, requests: Any) -> int:
        count = added(connection, job, requests)
        pulls.cancel(connection, job, "another")
        return count

    monkeypatch.setattr(queue, "_add", cancelled_behind)
    _, count = queue.ask(asked(8), "a list", again=False)
    assert (count, len(rows(store))) == (2, 2)
    assert rows(store, data_key) == []


def test_the_bytes_of_a_jobs_key_leave_the_journal_with_its_last_request(store: Store, queue: Pulls) -> None:
    queue.ask(asked(2), "a list", again=False)
    [key] = rows(store, data_key)
    journal = store.folder / "ledger.sqlite3-wal"
    for left in (1, 0):
        assert key.wrapped in journal.read_bytes()
        item = queue.claim()
        assert item is not None
        queue.done(item, Pulled("pull.complete", 1))
        assert bool(rows(store, data_key)) == bool(left)
    assert key.wrapped not in journal.read_bytes() + (store.folder / "ledger.sqlite3").read_bytes()


def test_what_a_crash_left_in_the_journal_is_gone_after_the_next_start(store: Store, queue: Pulls) -> None:
    job, _ = queue.ask(asked(1), "a list", again=False)
    [key] = rows(store, data_key)
    with store.database.write() as connection:
        pulls.cancel(connection, job, "test")  # and killed before it could shred
    journal = store.folder / "ledger.sqlite3-wal"
    assert key.wrapped in journal.read_bytes()
    queue.take_over(8)
    assert key.wrapped not in journal.read_bytes() + (store.folder / "ledger.sqlite3").read_bytes()


def test_shredding_keeps_nobody_from_writing_while_somebody_reads(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SHRED_WAIT_S", 0.2)
    with store.database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE noted (x)")
    with store.database.read() as reading:
        reading.exec_driver_sql("SELECT * FROM noted").all()
        with store.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO noted VALUES (1)")
        answer: list[bool] = []
        shredding = threading.Thread(target=lambda: answer.append(store.database.shred_journal()))
        shredding.start()
        time.sleep(0.05)
        begun = time.monotonic()
        with store.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO noted VALUES (2)")
        assert time.monotonic() - begun < 2.0
        shredding.join(40)
    assert answer == [False]
    assert store.database.shred_journal()


def test_a_study_that_kills_the_puller_each_time_is_given_up_and_blocks_nobody(
    store: Store, queue: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(pulls.time, "time", lambda: now)
    queue.ask(asked(2), "a list", again=False)
    pauses = []
    for _ in range(3):
        item = queue.claim()
        assert item is not None
        assert item.number == 1
        assert queue.take_over(4) == 1  # it was killed
        [row] = [row for row in rows(store) if row.number == 1]
        pauses.append(row.not_before - now)
        if pauses[-1] > 0:
            other = queue.claim()
            assert other is not None
            assert other.number == 2  # meanwhile
            queue.later(other, Retry("pull.stopping", "x"), counts=False)
        now += 7200.0
    assert pauses == [0.0, pulls.BACKOFF_FIRST_S, pulls.BACKOFF_FIRST_S * 2]
    assert queue.claim() is not None
    assert queue.take_over(4) == 0
    [row] = [row for row in rows(store) if row.number == 1]
    assert (row.state, row.code, row.attempts) == ("FAILED", "pull.killed", 4)


def test_those_that_were_killed_together_are_not_tried_together(store: Store, queue: Pulls) -> None:
    queue.ask(asked(3), "a list", again=False)
    for _ in range(2):
        assert [queue.claim() is not None for _ in range(3)] == [True] * 3
        assert queue.take_over(8) == 3
    waits = sorted(round(row.not_before - time.time(), -1) for row in rows(store))
    assert waits == [30.0, 60.0, 90.0]


def test_a_site_that_allows_one_try_survives_a_power_cut(store: Store, queue: Pulls) -> None:
    queue.ask(asked(1), "a list", again=False)
    queue.claim()
    assert queue.take_over(1) == 1
    assert queue.claim() is not None


def test_a_request_is_not_taken_while_its_key_cannot_be_read(
    store: Store, queue: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.ask(asked(1), "a list", again=False)

    def busy(*_: object) -> None:
        raise Retry("ledger.busy", "locked")

    with monkeypatch.context() as patch:
        patch.setattr(store.keyring, "open", busy)
        with pytest.raises(EdgeNodeError, match=r"ledger\.busy"):
            queue.claim()
    assert [(row.state, row.attempts) for row in rows(store)] == [(PullState.WAITING, 0)]
    assert queue.claim() is not None


def test_many_threads_claim_each_request_once(store: Store, queue: Pulls) -> None:
    queue.ask(asked(40), "a list", again=False)
    taken: list[int] = []

    def work() -> None:
        while (item := queue.claim()) is not None:
            taken.append(item.number)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == list(range(1, 41))
