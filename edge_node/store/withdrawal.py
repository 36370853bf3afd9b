"""A result taken back by a human: a revision of the study that has none, for every writer to tell."""

from __future__ import annotations

import time
from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.finding import WITHDRAWN, WITHDRAWN_UNSAFE, TriageOutcome, TriageResult, result_to_json
from edge_node.domain.study import StudyState, TaskState
from edge_node.store import audit, studies
from edge_node.store.tables import envelope, finding, reading, result_object, study, task
from edge_node.store.tasks import enqueue

_JUDGED = (StudyState.TRIAGED, StudyState.DELIVERED, StudyState.CLOSED)


def withdraw(connection: Connection, study_key: str, writers: Iterable[str], actor: str, *, unsafe: bool) -> int:
    """Open the revision and add the writers' work; returns its number. The place in the reading order is kept.

    Raises Quarantine ``study.unknown``, ``worklist.nothing-to-withdraw`` and ``vault.destroyed``, and Retry
    ``worklist.busy`` while work on the study is under way.
    """
    row = studies.get(connection, study_key)._mapping
    revision, now = int(row["revision"]), time.time()
    told = select(result_object.c.uid).where(result_object.c.study_key == study_key).limit(1)
    reason = connection.execute(
        select(finding.c.result).where(finding.c.study_key == study_key, finding.c.revision == revision)
    ).scalar()
    if connection.execute(told).first() is None or WITHDRAWN in str(reason or ""):
        raise Quarantine(
            "worklist.nothing-to-withdraw",
            f"no system holds a result of {study_key} that stands",
            hint=f"edge-node study show {study_key}",
        )
    if connection.execute(select(envelope.c.key_id).where(envelope.c.study_key == study_key)).first() is None:
        raise Quarantine(
            "vault.destroyed",
            "the identity of this study was destroyed by retention; nothing can be written back any more",
            study=study_key,
            hint="send the study again from the PACS, then withdraw",
        )
    mine = task.c.study_key == study_key
    leased = connection.execute(select(task.c.id).where(mine, task.c.state == TaskState.LEASED)).first()
    if leased is not None or row["state"] not in _JUDGED:
        raise Retry("worklist.busy", f"work on {study_key} is under way", hint="ask again in a moment")
    unfinished = (TaskState.READY, TaskState.DEAD)
    connection.execute(
        update(task)
        .where(mine, task.c.step == "worklist", task.c.state.in_(unfinished))
        .values(state=TaskState.DONE, code="superseded", finished_at=now)
    )
    # What goes to the trainer has nothing to do with it, and must still be done before anything is destroyed.
    connection.execute(
        update(task)
        .where(mine, task.c.step.in_(("pixels", "forward")), task.c.state.in_(unfinished))
        .values(revision=revision + 1)
    )
    connection.execute(
        update(study)
        .where(study.c.study_key == study_key)
        .values(revision=revision + 1, state=StudyState.TRIAGED, triaged_at=now)
    )
    taken_back = TriageResult(TriageOutcome.SKIPPED, WITHDRAWN_UNSAFE if unsafe else WITHDRAWN)
    connection.execute(
        insert(finding).values(
            study_key=study_key, revision=revision + 1, result=result_to_json(taken_back), key_id="", at=now
        )
    )
    connection.execute(
        update(reading)
        .where(reading.c.study_key == study_key)
        .values(revision=revision + 1, reason="AI result withdrawn, place kept")
    )
    for name in writers:
        enqueue(connection, study_key, revision + 1, "worklist", target=name, urgency=0)
    audit.append(connection, actor, "worklist.withdrawn", study_key, {"revision": revision + 1, "unsafe": unsafe})
    return revision + 1
