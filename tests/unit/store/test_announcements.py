"""What others announce of studies: a word of any length holds the ledger from nobody, and none costs its square."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import func, select, update

from edge_node.domain.announcement import Announcement, Command, Kind, StepState
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import Deidentified
from edge_node.store import announcements, retention
from edge_node.store.tables import announced_instance, announcement, study
from tests.unit.store.conftest import Store
from tests.unit.store.test_intake import Make

LONGEST_S = 5.0  # a five hundredth of it is usual; the receiver gives up after thirty


def create(signal: str = "STEP", *studies: str) -> Announcement:
    return Announcement(Kind.MPPS, Command.CREATE, signal, studies or ("S1",), StepState.IN_PROGRESS, ())


def done(signal: str, *listed: str, state: StepState = StepState.COMPLETED) -> Announcement:
    return Announcement(Kind.MPPS, Command.SET, signal, (), state, listed)


def notice(signal: str, *listed: str, study_key: str = "S1") -> Announcement:
    return Announcement(Kind.IAN, Command.CREATE, signal, (study_key,), StepState.COMPLETED, listed)


def record(store: Store, *words: Announcement, at: float | None = None, again: bool = False) -> float:
    """Seconds that the write lock was held for the longest."""
    longest = 0.0
    for said in words:
        with store.database.write() as connection:
            begun = time.monotonic()
            moment = time.time() if at is None else at
            announcements.record(connection, said, actor="t", calling_ae="CT1", at=moment, again=again)
        longest = max(longest, time.monotonic() - begun)
    return longest


def rows(store: Store, table: object = announced_instance) -> int:
    with store.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"{number:032x}" for number in range(count))


def settled(store: Store, clean: Deidentified) -> str:
    key = store.intake.record(clean, calling_ae="CT1", received_at=1000.0).study_key
    with store.database.write() as connection:
        connection.execute(update(study).values(state="SETTLED", complete=True))
    return key


def test_the_longest_word_that_is_taken_holds_the_ledger_for_a_moment_only(store: Store, clean_instance: Make) -> None:
    studies = (settled(store, clean_instance()), *(f"S{number}" for number in range(63)))
    assert record(store, create("STEP", *studies)) < LONGEST_S
    assert record(store, done("STEP", *names(10_000), state=StepState.IN_PROGRESS)) < LONGEST_S
    assert record(store, done("STEP", *reversed(names(10_000)))) < LONGEST_S
    with store.database.read() as connection:
        assert connection.execute(select(study.c.complete)).scalar() is False


def test_notices_that_grow_object_by_object_keep_each_object_once(store: Store) -> None:
    listed = names(300)
    record(store, *(notice(f"N{number}", *listed[: number + 1]) for number in range(300)))
    assert rows(store) == 300
    assert rows(store, announcement) == announcements.MOST_NOTICES
    with store.database.read() as connection:
        said = announcements.announced(connection, "S1")
    assert (said.listed, said.missing, said.notices) == (300, 300, announcements.MOST_NOTICES)


def test_the_notices_of_a_study_list_no_more_than_is_kept_of_one(store: Store) -> None:
    listed = names(60_000)
    longest = record(store, *(notice(f"N{n}", *listed[n : n + 10_000]) for n in range(0, 60_000, 10_000)))
    assert rows(store) == announcements.MOST_NOTICED
    assert longest < LONGEST_S


def test_notices_of_a_study_are_forgotten_together_and_not_before_the_last_of_them(store: Store) -> None:
    now = time.time()
    record(store, notice("N1", "a"), at=now - 86400.0 * 2)
    record(store, notice("N2", "a", "b"), at=now)
    assert retention.forget_announcements(store.database) == 0
    assert rows(store) == 2
    assert retention.forget_announcements(store.database, days=-1.0) == 2
    assert rows(store) == 0


def test_a_step_that_lists_more_each_time_writes_only_what_is_new(store: Store) -> None:
    record(store, create())
    record(store, done("STEP", *names(10), state=StepState.IN_PROGRESS))
    with store.database.read() as connection:
        first = connection.exec_driver_sql("SELECT max(rowid) FROM announced_instance").scalar()
    record(store, done("STEP", *names(11)[1:]))
    with store.database.read() as connection:
        kept = connection.execute(select(announced_instance.c.instance_key)).scalars().all()
        last = connection.exec_driver_sql("SELECT max(rowid) FROM announced_instance").scalar()
    assert sorted(kept) == sorted(names(11)[1:])
    assert last == first + 1


def test_a_word_on_which_a_worker_died_is_taken_down_once_and_is_no_error(store: Store) -> None:
    for said in (create(), done("STEP", "a", "b"), notice("N1", "a")):
        record(store, said)
        record(store, said, again=True)
        with pytest.raises(EdgeNodeError, match=r"announce\.(duplicate|final)"):
            record(store, said)
    assert rows(store) == 3
    with pytest.raises(EdgeNodeError, match=r"announce\.final"):
        record(store, done("STEP", "a"), again=True)
    with pytest.raises(EdgeNodeError, match=r"announce\.duplicate"):
        record(store, create("STEP", "S2"), again=True)


def test_a_word_on_which_a_worker_died_before_it_was_taken_down_is_taken_down(store: Store) -> None:
    for said in (create(), done("STEP", "a"), notice("N1", "b")):
        record(store, said, again=True)
    assert (rows(store), rows(store, announcement)) == (2, 2)


def test_a_study_has_no_more_steps_than_a_day_can_hold(store: Store) -> None:
    record(store, *(create(f"STEP{number}") for number in range(announcements.MOST_STEPS)))
    with pytest.raises(EdgeNodeError, match=r"announce\.too-many-steps"):
        record(store, create("ONE MORE", "S9", "S1"))
    assert rows(store, announcement) == announcements.MOST_STEPS


def test_what_is_said_of_studies_that_never_come_is_forgotten_after_a_day(store: Store, clean_instance: Make) -> None:
    key = settled(store, clean_instance())
    now = time.time()
    record(store, create("KNOWN", key), create("BOTH", key, "S2"), create("NEVER", "S3"), at=now - 90_000)
    for signal in ("KNOWN", "BOTH", "NEVER"):
        record(store, done(signal, f"of {signal}", state=StepState.IN_PROGRESS), at=now - 90_000)
    record(store, create("TODAY", "S3"), done("TODAY", "of TODAY"), at=now - 80_000)
    assert retention.forget_announcements(store.database) == 2
    with store.database.read() as connection:
        left = connection.execute(select(announcement.c.signal_key, announcement.c.study_key)).all()
        listed = connection.execute(select(announced_instance.c.instance_key)).scalars().all()
    assert sorted(tuple(row) for row in left) == [("BOTH", key), ("KNOWN", key), ("TODAY", "S3")]
    assert sorted(listed) == ["of BOTH", "of KNOWN", "of TODAY"]


def test_a_flood_is_forgotten_in_portions_that_hold_the_ledger_for_a_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "PORTION_LISTED", 25)
    record(store, *(create(f"STEP{n}", f"S{n}", f"T{n}") for n in range(5)), at=0.0)
    record(store, *(done(f"STEP{n}", *names(10), state=StepState.IN_PROGRESS) for n in range(5)), at=0.0)
    record(store, create("LONG", "S9"), done("LONG", *names(100)), at=0.0)
    sizes = []
    while rows(store, announcement):
        with store.database.read() as connection:
            pairs = announcements.old(connection, 1.0, 1.0)
        before = rows(store)
        with store.database.write() as connection:
            assert announcements.forget(connection, pairs, 1.0, 1.0) == len(pairs)
        sizes.append(before - rows(store))
    assert rows(store) == 0
    assert sorted(sizes)[-1] == 100  # one that is longer by itself goes by itself
    assert all(size <= 25 for size in sorted(sizes)[:-1])


def test_a_study_of_hundreds_of_steps_and_thousands_of_instances_is_judged_in_a_moment(
    store: Store, clean_instance: Make
) -> None:
    key = settled(store, clean_instance())
    for number in range(announcements.MOST_STEPS):
        record(store, create(f"STEP{number}", key), done(f"STEP{number}", *names(40)))
    begun = time.monotonic()
    with store.database.read() as connection:
        said = announcements.announced(connection, key, 1)
    assert time.monotonic() - begun < LONGEST_S
    assert (said.listed, said.missing, said.unlisted, said.unlisted_now) == (40, 40, 1, 1)
