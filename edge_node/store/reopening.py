"""A study that receives again when it was taken for complete is its next revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from edge_node.domain.study import StudyState
from edge_node.store import audit, priors
from edge_node.store.database import Database
from edge_node.store.receipt import Clean
from edge_node.store.tables import study


def reopen(connection: Connection, actor: str, row: Any, at: float) -> int:
    """The study whose columns `row` has receives again, since `at`; its new revision."""
    revision = int(row.revision) + 1
    audit.append(connection, actor, "study.reopened", row.study_key, {"revision": revision, "was": row.state})
    changes = {"revision": revision, "state": StudyState.RECEIVING, "complete": False, "opened_at": at}
    connection.execute(update(study).where(study.c.study_key == row.study_key).values(**changes))
    return revision


def reopen_priors(database: Database, actor: str, duplicates: Sequence[Clean]) -> None:
    """A prior that is sent though nobody asked for it is to be read like any other study, and all of it is here."""
    if not duplicates:
        return
    keys, now = {one.study_key for one in duplicates}, max(one.received_at for one in duplicates)
    with database.read() as connection:
        sent = priors.sent_by_others(connection, keys, now)
    if not sent:
        return
    with database.write() as connection:
        for key in priors.sent_by_others(connection, sent, now):
            row = connection.execute(select(study).where(study.c.study_key == key)).one()
            # When it settles, it is seen that nobody asked.
            connection.execute(update(study).where(study.c.study_key == key).values(last_received_at=now))
            if row.state != StudyState.RECEIVING:
                reopen(connection, actor, row, now)
