"""Work that was given up and waits for a human: by reason, and again when the reason is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from edge_node.domain.study import TaskState
from edge_node.store import audit
from edge_node.store.database import Database, in_turns
from edge_node.store.tables import UNDONE, study, task
from edge_node.store.tasks import anew

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


def retry(
    database: Database, actor: str, *, steps: Sequence[str] = RETRIED, target: str = "", code: str = ""
) -> tuple[int, int]:
    """Make what was given up of the studies' current revisions due again at once: of some steps, for one target and
    reason, "" means any. Returns how many rows, of how many studies."""
    given = [column == value for column, value in ((task.c.target, target), (task.c.code, code)) if value]
    wanted = (
        select(task.c.id, task.c.study_key)
        .join(study, (study.c.study_key == task.c.study_key) & (study.c.revision == task.c.revision))
        .where(UNDONE, task.c.state == TaskState.DEAD, task.c.step.in_(list(steps)), *given)
        .order_by(task.c.urgency, task.c.id)
    )
    with database.read() as connection:
        found = connection.execute(wanted).all()
    due: list[str] = []
    for some in in_turns(found):
        with database.write() as connection:
            for row in some:
                still = (task.c.id == row.id) & (task.c.state == TaskState.DEAD)  # nobody else was quicker
                if connection.execute(update(task).where(still).values(**anew())).rowcount:
                    audit.append(connection, actor, "study.retried", row.study_key, {"rows": 1})
                    due.append(row.study_key)
    return len(due), len(set(due))
