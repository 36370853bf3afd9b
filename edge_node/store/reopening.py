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


def reopened(connection: Connection, actor: str, row: Any, at: float) -> dict[str, object]:
    """What changes of the study whose columns `row` has, to which something came at `at`."""
    revision = int(row.revision) + 1
    audit.append(connection, actor, "study.reopened", row.study_key, {"revision": revision, "was": row.state})
    return {"revision": revision, "state": StudyState.RECEIVING, "complete": False, "opened_at": at}


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
            changes: dict[str, object] = {"last_received_at": now}  # when it settles, it is seen that nobody asked
            if row.state != StudyState.RECEIVING:
                changes |= reopened(connection, actor, row, now)
            connection.execute(update(study).where(study.c.study_key == key).values(**changes))
