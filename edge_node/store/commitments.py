"""Requests for storage commitment of results, and their answers, wherever and whenever they come in."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from edge_node.domain.commitment import NOT_MENTIONED, CommitmentReport, CommitmentState, StoredReference
from edge_node.domain.study import TaskState
from edge_node.store.tables import commitment, task

TARGET = "commitment"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was made, where it stands, and {SOP Instance UID: reason} of what is not committed."""

    transaction_uid: str
    state: CommitmentState
    failures: dict[str, str]
    via: str
    asked_at: float


def put(
    connection: Connection,
    transaction_uid: str,
    study_key: str,
    revision: int,
    objects: tuple[StoredReference, ...],
    at: float,
) -> None:
    """Remember a request before it is made: its answer may be faster than whatever comes after."""
    connection.execute(
        insert(commitment).values(
            transaction_uid=transaction_uid,
            study_key=study_key,
            revision=revision,
            state=CommitmentState.ASKED,
            objects=json.dumps([[one.sop_class, one.sop_uid] for one in objects]),
            failures="",
            asked_at=at,
        )
    )


def unheard(connection: Connection, transaction_uid: str) -> None:
    """The archive did not confirm the request; an answer that comes nevertheless still counts."""
    connection.execute(
        update(commitment)
        .where(commitment.c.transaction_uid == transaction_uid, commitment.c.state == CommitmentState.ASKED)
        .values(state=CommitmentState.UNHEARD)
    )


def answer(connection: Connection, report: CommitmentReport, at: float) -> bool:
    """Record an answer and wake the work that waits for it; False for a transaction that is not ours.

    Committed is what the archive names with the SOP class we sent. A second answer changes nothing, unless it commits
    what failed before.
    """
    row = connection.execute(
        select(commitment).where(commitment.c.transaction_uid == report.transaction_uid)
    ).one_or_none()
    if row is None:
        return False
    asked = [StoredReference(*pair) for pair in json.loads(row.objects)]
    failures = {
        one.sop_uid: report.failed.get(one.sop_uid, NOT_MENTIONED) for one in asked if one not in report.committed
    }
    state = CommitmentState.FAILED if failures else CommitmentState.COMMITTED
    if row.state in (CommitmentState.COMMITTED, state):
        return True
    connection.execute(
        update(commitment)
        .where(commitment.c.transaction_uid == report.transaction_uid)
        .values(state=state, failures=json.dumps(failures), via=report.via, answered_at=at)
    )
    connection.execute(
        update(task)
        .where(
            task.c.study_key == row.study_key,
            task.c.revision == row.revision,
            task.c.target == TARGET,
            task.c.state == TaskState.READY,
        )
        .values(not_before=0.0)
    )
    return True


def asked(connection: Connection, study_key: str, revision: int) -> list[Asked]:
    """All requests for one revision of a study, the oldest first."""
    rows = connection.execute(
        select(commitment)
        .where(commitment.c.study_key == study_key, commitment.c.revision == revision)
        .order_by(commitment.c.asked_at, commitment.c.transaction_uid)
    )
    return [
        Asked(
            r.transaction_uid,
            CommitmentState(r.state),
            json.loads(r.failures) if r.failures else {},
            r.via,
            float(r.asked_at),
        )
        for r in rows
    ]
