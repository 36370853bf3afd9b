"""Work that was given up and waits for a human: by reason, and again when the reason is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select, update

from edge_node.domain.study import TaskState
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.retention import AT_ONCE, BREATH_S
from edge_node.store.tables import UNDONE, task

RETRIED = ("triage", "pixels", "worklist", "forward")  # never the purge: its time is a promise, not a back-off


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Rows of one step and target that were given up for one reason; `since` in seconds since the epoch, `study` and
    `message` are of some of them."""

    step: str
    target: str
    code: str
    rows: int
    since: float | None
    study: str
    message: str


@dataclass(frozen=True, slots=True)
class Which:
    """Rows that were given up: of which steps, for which target and reason; "" means any."""

    steps: Sequence[str]
    target: str = ""
    code: str = ""

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        named = [column == value for column, value in ((task.c.target, self.target), (task.c.code, self.code)) if value]
        return [UNDONE, task.c.state == TaskState.DEAD, task.c.step.in_(list(self.steps)), *named]


def reasons(connection: Connection) -> list[GivenUp]:
    """The most frequent first."""
    of_each = (
        select(
            task.c.step,
            task.c.target,
            task.c.code,
            func.count(),
            func.min(task.c.finished_at),
            func.max(task.c.study_key),
            func.max(task.c.message),
        )
        .where(UNDONE, task.c.state == TaskState.DEAD)
        .group_by(task.c.step, task.c.target, task.c.code)
        .order_by(func.count().desc(), task.c.step, task.c.target, task.c.code)
    )
    return [GivenUp(*row) for row in connection.execute(of_each)]


def retry(database: Database, which: Which, actor: str) -> tuple[int, int]:
    """Make them due again at once; returns how many rows, of how many studies. The line gets the write lock between."""
    with database.read() as connection:
        wanted = select(task.c.id, task.c.study_key).where(*which.conditions()).order_by(task.c.urgency, task.c.id)
        found = connection.execute(wanted).all()
    due, studies = 0, set[str]()
    for start in range(0, len(found), AT_ONCE):
        if start:
            time.sleep(BREATH_S)
        with database.write() as connection:
            for row in found[start : start + AT_ONCE]:
                changed = connection.execute(
                    update(task)
                    .where(task.c.id == row.id, task.c.state == TaskState.DEAD)  # nobody else was quicker
                    .values(
                        state=TaskState.READY,
                        attempts=0,
                        failures=0,
                        not_before=0.0,
                        created_at=time.time(),
                        finished_at=None,
                    )
                )
                if changed.rowcount:
                    audit.append(connection, actor, "study.retried", row.study_key, {"rows": 1})
                    due += 1
                    studies.add(row.study_key)
    return due, len(studies)
