"""The line's work: one row per step, target and study revision, claimed by lease.

A worker that dies lets its lease run out and another takes the row again; every step is idempotent, so "again" never
means "twice" to the outside. No folder scans, no lock files, no broker.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, exists, func, insert, select, update

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import TaskState
from edge_node.store import audit, due
from edge_node.store.database import Database
from edge_node.store.tables import UNDONE, reading, setting, study, task

BACKOFF_FIRST_S = 2.0
BACKOFF_CAP_S = 300.0


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed row: work for `step` on one revision of a study, for one target ("" when the step has none)."""

    id: int
    study_key: str
    revision: int
    step: str
    target: str
    attempts: int
    failures: int
    created_at: float
    urgency: int = 100  # smaller is more urgent


class Tasks:
    """Claims and settles work for one process; `actor` is what the audit calls it (node/role)."""

    def __init__(self, database: Database, actor: str) -> None:
        self._database = database
        self._actor = actor
        self._owner = f"{actor}:{os.getpid()}:{secrets.token_hex(4)}"

    def claim(self, step: str, target: str | None, lease_s: float, up_to: int | None = None) -> Task | None:
        """Take the most urgent due row of `step` (of one `target`), or one whose lease ran out; None: nothing to do.
        `up_to`: the least urgent that is taken."""
        now = time.time()
        if self.most_urgent(step, target, up_to) is None:
            return None  # an idle poll takes no write lock
        rows, values = due.rows(target is not None, up_to is not None).subquery(), due.values(step, target, up_to, now)
        with self._database.write() as connection:
            row = connection.execute(
                update(task)
                .where(task.c.id == select(rows.c.id).order_by(rows.c.urgency, rows.c.id).limit(1).scalar_subquery())
                .values(
                    state=TaskState.LEASED,
                    lease_until=now + lease_s,
                    owner=self._owner,
                    attempts=task.c.attempts + 1,
                )
                .returning(task),
                values,
            ).one_or_none()
            void = row is not None and superseded(connection, row.study_key, row.revision)
            if row is not None and void:  # it was leased, to a worker that died, when its revision was superseded
                connection.execute(update(task).where(task.c.id == row.id).values(**_superseded()))
        if row is None:
            return None
        if void:
            return self.claim(step, target, lease_s, up_to)
        return Task(
            row.id,
            row.study_key,
            row.revision,
            row.step,
            row.target,
            row.attempts,
            row.failures,
            row.created_at,
            row.urgency,
        )

    def most_urgent(self, step: str, target: str | None, up_to: int | None = None) -> int | None:
        """The urgency of the row that `claim` would take now; None: nothing to do."""
        with self._database.read() as connection:
            return due.most_urgent(connection, step, target, up_to)

    def extend(self, claimed: Task, lease_s: float) -> bool:
        """Renew the lease; False when another worker holds the row by now."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(task)
                .where(task.c.id == claimed.id, task.c.owner == self._owner, task.c.state == TaskState.LEASED)
                .values(lease_until=time.time() + lease_s)
            )
        return bool(changed.rowcount)

    def done(self, connection: Connection, claimed: Task, code: str, detail: dict[str, object]) -> bool:
        """Mark the row done and audit it in the caller's transaction; False: the lease was lost, commit nothing."""
        changed = connection.execute(
            update(task)
            .where(task.c.id == claimed.id, task.c.owner == self._owner, task.c.state == TaskState.LEASED)
            .values(state=TaskState.DONE, code=code, message="", finished_at=time.time(), lease_until=None)
        )
        if not changed.rowcount:
            return False
        audit.append(
            connection,
            self._actor,
            f"{claimed.step}.done",
            claimed.study_key,
            {"revision": claimed.revision, "target": claimed.target, "code": code, **detail},
        )
        return True

    def put_back(self, claimed: Task, error: Retry, max_age_s: float) -> TaskState:
        """After a passing failure: try again later with jittered back-off, or wait for a human past `max_age_s`; what
        a newer revision has superseded meanwhile is done."""
        now = time.time()
        failures = 0 if error.progress else claimed.failures + (1 if error.counts else 0)
        pause = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2 ** min(max(failures - 1, 0), 12))
        pause = max(pause * random.uniform(0.5, 1.0), error.after or 0.0)  # noqa: S311  jitter, not a secret
        too_old = now - claimed.created_at > max_age_s
        state = TaskState.DEAD if too_old else TaskState.READY
        with self._database.write() as connection:
            if self._void(connection, claimed):
                return TaskState.DONE
            changed = connection.execute(
                update(task)
                .where(task.c.id == claimed.id, task.c.owner == self._owner, task.c.state == TaskState.LEASED)
                .values(
                    state=state,
                    failures=failures,
                    not_before=now + pause,
                    lease_until=None,
                    code=error.code,
                    message=error.message,
                    finished_at=now if too_old else None,
                )
            )
            if too_old and changed.rowcount:
                self._audit_failure(connection, claimed, error, "gave-up")
        return state

    def bury(self, claimed: Task, error: EdgeNodeError) -> None:
        """After a permanent failure: the row waits for a human (`edge-node study retry`)."""
        with self._database.write() as connection:
            if self._void(connection, claimed):
                return
            connection.execute(
                update(task)
                .where(task.c.id == claimed.id, task.c.owner == self._owner)
                .values(
                    state=TaskState.DEAD,
                    lease_until=None,
                    code=error.code,
                    message=error.message,
                    finished_at=time.time(),
                )
            )
            self._audit_failure(connection, claimed, error, "failed")

    def _void(self, connection: Connection, claimed: Task) -> bool:
        """End the row if a newer revision has work of its own by now: it was not there to be superseded."""
        if not superseded(connection, claimed.study_key, claimed.revision):
            return False
        mine = (task.c.id == claimed.id) & (task.c.owner == self._owner) & (task.c.state == TaskState.LEASED)
        connection.execute(update(task).where(mine).values(**_superseded()))
        return True

    def _audit_failure(self, connection: Connection, claimed: Task, error: EdgeNodeError, what: str) -> None:
        audit.append(
            connection,
            self._actor,
            f"{claimed.step}.{what}",
            claimed.study_key,
            {"revision": claimed.revision, "target": claimed.target, "code": error.code, "attempts": claimed.attempts},
        )

    def release_leases(self) -> int:
        """Give back what this owner still holds (graceful drain), so that nobody waits for leases to run out."""
        # Whoever stops in time has not died of it.
        return self._release(task.c.owner == self._owner, attempts=task.c.attempts - 1)

    def take_over(self) -> int:
        """At the start of a role: give back what its dead predecessors on this node still hold."""
        return self._release(task.c.owner.startswith(f"{self._actor}:", autoescape=True))

    def _release(self, condition: ColumnElement[bool], **more: ColumnElement[int]) -> int:
        newer = task.alias("newer")
        later = exists().where(newer.c.study_key == task.c.study_key, newer.c.revision > task.c.revision)
        with self._database.write() as connection:
            held = (condition, UNDONE, task.c.state == TaskState.LEASED)
            connection.execute(update(task).where(*held, later).values(**_superseded()))
            changed = connection.execute(
                update(task).where(*held).values(state=TaskState.READY, lease_until=None, owner="", **more)
            )
        return int(changed.rowcount)


class Lease:
    """Renews the lease of a claimed row while its work goes on (a forward may take hours)."""

    def __init__(self, tasks: Tasks, claimed: Task, lease_s: float) -> None:
        self._tasks, self._claimed, self._lease_s = tasks, claimed, lease_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def _run(self) -> None:
        while not self._over.wait(self._lease_s / 3):
            try:
                if not self._tasks.extend(self._claimed, self._lease_s):
                    return
            except EdgeNodeError:
                continue  # the ledger is busy: the next round renews, the lease outlasts two rounds

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def enqueue(
    connection: Connection,
    study_key: str,
    revision: int,
    step: str,
    *,
    target: str = "",
    urgency: int = 100,
    not_before: float = 0.0,
) -> None:
    """Add work; the same step, target and revision is never added twice."""
    there = connection.execute(
        select(task.c.id).where(
            task.c.study_key == study_key,
            task.c.revision == revision,
            task.c.step == step,
            task.c.target == target,
        )
    ).first()
    if there is None:
        connection.execute(
            insert(task).values(
                study_key=study_key,
                revision=revision,
                step=step,
                target=target,
                urgency=urgency,
                state=TaskState.READY,
                attempts=0,
                failures=0,
                created_at=time.time(),
                not_before=not_before,
            )
        )


def supersede(connection: Connection, study_key: str, before_revision: int) -> int:
    """Older revisions' unfinished work is void once a newer revision settles; returns how many rows."""
    changed = connection.execute(
        update(task)
        .where(
            task.c.study_key == study_key,
            task.c.revision < before_revision,
            task.c.state.in_((TaskState.READY, TaskState.DEAD)),
        )
        .values(**_superseded())
    )
    return int(changed.rowcount)


def superseded(connection: Connection, study_key: str, revision: int) -> bool:
    """Whether a newer revision of the study has settled, or a human opened one: this one's work is void."""
    newer = select(task.c.id).where(task.c.study_key == study_key, task.c.revision > revision)
    return connection.execute(newer.limit(1)).first() is not None


def _superseded() -> dict[str, object]:
    return {
        "state": TaskState.DONE,
        "code": "superseded",
        "message": "",
        "finished_at": time.time(),
        "lease_until": None,
    }


def urgency_after(connection: Connection, done: Task) -> int:
    """Of the work that follows: the study's target in minutes, the smaller the sooner; while it has none, as before."""
    target = select(reading.c.target_minutes).where(reading.c.study_key == done.study_key)
    minutes = connection.execute(target).scalar()
    return done.urgency if minutes is None else int(minutes)


def unfinished(connection: Connection, study_key: str, revision: int, steps: Iterable[str]) -> int:
    """How many rows of `steps` are not DONE for this revision (DEAD ones count: a human is needed)."""
    return int(
        connection.execute(
            select(func.count())
            .select_from(task)
            .where(
                task.c.study_key == study_key,
                task.c.revision == revision,
                task.c.step.in_(tuple(steps)),
                task.c.state != TaskState.DONE,
            )
        ).scalar_one()
    )


def waits_for_first_try(connection: Connection, study_key: str, revision: int, step: str, target: str) -> bool:
    """Whether that row is there, neither done nor dead, and nothing goes wrong with this target at the moment."""
    row = connection.execute(
        select(task.c.state, task.c.failures).where(
            task.c.study_key == study_key,
            task.c.revision == revision,
            task.c.step == step,
            task.c.target == target,
        )
    ).one_or_none()
    if row is None or row.state not in (TaskState.READY, TaskState.LEASED) or row.failures:
        return False
    failing = select(task.c.id).where(
        task.c.step == step, task.c.target == target, task.c.state == TaskState.READY, task.c.failures > 0
    )
    return connection.execute(failing.limit(1)).first() is None


def requeue(connection: Connection, study_key: str, *, steps: Iterable[str], states: Iterable[str]) -> int:
    """Make rows of `steps` of the study's current revision READY again at once; returns how many."""
    current = select(study.c.revision).where(study.c.study_key == study_key).scalar_subquery()
    changed = connection.execute(
        update(task)
        .where(
            task.c.study_key == study_key,
            task.c.revision == current,
            task.c.step.in_(tuple(steps)),
            task.c.state.in_(tuple(states)),
        )
        .values(**anew())
    )
    return int(changed.rowcount)


def anew() -> dict[str, object]:
    """What a row has that is due at once as if it had just been added."""
    ready = {"state": TaskState.READY, "attempts": 0, "failures": 0, "not_before": 0.0}
    return {**ready, "created_at": time.time(), "finished_at": None}


def pause(connection: Connection, step: str) -> None:
    """No new work of `step` is claimed until `resume`."""
    resume(connection, step)
    connection.execute(insert(setting).values(name=f"paused.{step}", value=step))


def resume(connection: Connection, step: str) -> None:
    """Undo `pause`."""
    connection.execute(setting.delete().where(setting.c.name == f"paused.{step}"))


def paused(connection: Connection) -> list[str]:
    """Names of the paused steps."""
    rows = connection.execute(select(setting.c.value).where(setting.c.name.like("paused.%")))
    return sorted(str(value) for value in rows.scalars())
