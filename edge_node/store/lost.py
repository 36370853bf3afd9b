"""Identity that was lost with the memory that held its key: what is destroyed for good, and whose is needed again.

Where the vault key is in the memory of the dicom role only, no envelope of an earlier run can ever be opened again. The
run that follows destroys them all, and remembers the studies that a writer or the reading list still needs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.reading_list import ReadState
from edge_node.domain.study import KeyClass, StudyState, TaskState
from edge_node.store import audit, pulls
from edge_node.store.keyring import LIFE
from edge_node.store.tables import (
    data_key,
    envelope,
    instance,
    list_state,
    lost_identity,
    reading,
    setting,
    study,
    task,
)

REST_S = 60.0  # so long writers leave a study alone that has no identity; recovery wakes them
_WAKEN = ("worklist", "order")
_OPEN = (TaskState.READY, TaskState.LEASED)
_UNDONE = (*_OPEN, TaskState.DEAD)  # named one by one: an index finds these, and not what is merely other than done
_FINAL = [str(state) for state in ReadState if state.final]


@dataclass(frozen=True, slots=True)
class Lost:
    """A study whose identity is to be had again.

    `looks` counts answers of the archive, `code` and `message` say how it stands. `settled`: all of it was received.
    `writers`: whether work of writers that waits for it still tries; None when there is none (yet).
    """

    study_key: str
    modalities: tuple[str, ...]
    received_at: float
    lost_at: float
    looks: int
    not_before: float
    code: str
    message: str
    settled: bool
    writers: bool | None


def begin_life(
    connection: Connection, life: str, actor: str, *, why: EdgeNodeError, writes: bool, listed_since: float | None
) -> tuple[int, int]:
    """A run of the dicom role with a vault key of its own begins: whatever an earlier key sealed is destroyed.

    `writes`: some writer needs identity; `listed_since`: the reading list shows studies received after it, None without
    one. `why` is what their work says meanwhile. Returns how many data keys were destroyed and how many studies are to
    be asked for. The caller runs `Database.shred_journal` after the transaction.
    """
    had = set(connection.execute(select(envelope.c.study_key).distinct()).scalars())
    had |= set(connection.execute(select(lost_identity.c.study_key)).scalars())
    count = _forget_all(connection, actor)
    connection.execute(insert(setting).values(name=LIFE, value=life))
    wanted = sorted(had & (_to_write(connection) if writes else set()) | had & _listed(connection, listed_since))
    now = time.time()
    connection.execute(delete(lost_identity))
    for study_key in wanted:
        connection.execute(
            insert(lost_identity).values(
                study_key=study_key, lost_at=now, looks=0, not_before=0.0, code=why.code, message=why.message
            )
        )
        audit.append(connection, actor, "identity.lost", study_key)
    lost_now = select(lost_identity.c.study_key)
    mine = (task.c.step == "worklist") & task.c.study_key.in_(lost_now) & task.c.state.in_(_OPEN)
    # Their time begins anew: for how long the node was down is no reason to give up before anybody was asked.
    connection.execute(
        update(task)
        .where(mine)
        .values(
            state=TaskState.READY,
            owner="",
            lease_until=None,
            not_before=now + REST_S,
            failures=0,
            created_at=now,
            code=why.code,
            message=why.message,
        )
    )
    audit.append(connection, actor, "identity.begun", detail={"destroyed": count, "asked": len(wanted)})
    return count, len(wanted)


def life(connection: Connection) -> str:
    """The run of the dicom role whose memory held the vault key last; "" where the key is on the disk."""
    return str(connection.execute(select(setting.c.value).where(setting.c.name == LIFE)).scalar() or "")


def end_memory(connection: Connection, actor: str) -> None:
    """The vault key is on the disk again: what was sealed under one that never was is destroyed."""
    count = _forget_all(connection, actor)
    connection.execute(delete(lost_identity))
    audit.append(connection, actor, "identity.ended", detail={"destroyed": count})


def _forget_all(connection: Connection, actor: str) -> int:
    for job in pulls.open_jobs(connection):  # what they ask for is sealed under the same key
        pulls.cancel(connection, job, actor)
    count = connection.execute(delete(data_key).where(data_key.c["class"] == str(KeyClass.ENVELOPE))).rowcount
    connection.execute(delete(envelope))
    connection.execute(delete(setting).where(setting.c.name == LIFE))
    return int(count)


def _to_write(connection: Connection) -> set[str]:
    """Studies with work of writers that is not done, or before triage."""
    coming = select(study.c.study_key).where(study.c.state.in_((StudyState.RECEIVING, StudyState.SETTLED)))
    undone = (
        select(task.c.study_key)
        .join(study, (study.c.study_key == task.c.study_key) & (study.c.revision == task.c.revision))
        .where(task.c.step == "worklist", task.c.state.in_(_UNDONE))
    )
    return set(connection.execute(coming).scalars()) | set(connection.execute(undone).scalars())


def _listed(connection: Connection, since: float | None) -> set[str]:
    """Studies on the reading list that nobody has finished."""
    if since is None:
        return set()
    rows = (
        select(reading.c.study_key)
        .join(study, study.c.study_key == reading.c.study_key)
        .outerjoin(list_state, list_state.c.study_key == reading.c.study_key)
        .where(study.c.first_received_at >= since, study.c.state != StudyState.CLOSED)
        .where(list_state.c.state.is_(None) | list_state.c.state.not_in(_FINAL))
    )
    return set(connection.execute(rows).scalars())


def of(connection: Connection, study_key: str) -> Lost | None:
    """How the identity of a study stands; None where nothing is lost."""
    return next(iter(lost(connection, [study_key])), None)


def lost(connection: Connection, only: Iterable[str] | None = None) -> list[Lost]:
    """All of them, the most urgent first: by the place in the reading order, then by receipt."""
    query = (
        select(lost_identity, study.c.modalities, study.c.first_received_at, study.c.state)
        .join(study, study.c.study_key == lost_identity.c.study_key)
        .outerjoin(reading, reading.c.study_key == lost_identity.c.study_key)
        .where(study.c.state != StudyState.CLOSED)  # of which nobody needs an identity
        .where(study.c.study_key.in_(_lost()))  # few; else all studies are read to find them
        .order_by(reading.c.tier.is_(None), reading.c.tier, reading.c.due, study.c.first_received_at, study.c.study_key)
    )
    if only is not None:
        query = query.where(lost_identity.c.study_key.in_(list(only)))
    states = _writers(connection)
    return [
        Lost(
            row.study_key,
            tuple(name for name in row.modalities.split(",") if name),
            float(row.first_received_at),
            float(row.lost_at),
            int(row.looks),
            float(row.not_before),
            str(row.code),
            str(row.message),
            row.state != StudyState.RECEIVING,
            states.get(row.study_key),
        )
        for row in connection.execute(query).all()
    ]


def _lost() -> Select[Any]:
    return select(lost_identity.c.study_key)


def _writers(connection: Connection) -> dict[str, bool]:
    """{lost study with work of writers that is not done: whether any of it still tries}."""
    rows = connection.execute(
        select(task.c.study_key, task.c.state)
        .join(lost_identity, lost_identity.c.study_key == task.c.study_key)
        .join(study, (study.c.study_key == task.c.study_key) & (study.c.revision == task.c.revision))
        .where(task.c.step == "worklist", task.c.state.in_(_UNDONE), task.c.study_key.in_(_lost()))
    )
    found: dict[str, bool] = {}
    for study_key, state in rows:
        found[study_key] = found.get(study_key, False) or state in _OPEN
    return found


def missing(connection: Connection, study_key: str) -> int:
    """How many envelopes a study lacks: one for each of its instances, and its own."""
    count = func.count()
    instances = connection.execute(select(count).where(instance.c.study_key == study_key)).scalar_one()
    sealed = connection.execute(select(count).where(envelope.c.study_key == study_key)).scalar_one()
    return max(0, int(instances) + 1 - int(sealed))


def whole(connection: Connection) -> set[str]:
    """Those of the lost studies that lack no envelope any more."""
    images = select(func.count()).where(instance.c.study_key == lost_identity.c.study_key).scalar_subquery()
    sealed = select(func.count()).where(envelope.c.study_key == lost_identity.c.study_key).scalar_subquery()
    return set(connection.execute(select(lost_identity.c.study_key).where(sealed > images)).scalars())


def has_own(connection: Connection, study_key: str) -> bool:
    """Whether the study's own envelope (patient, study, order) is there, and that of one instance at least."""
    uids = set(connection.execute(select(envelope.c.sop_uid).where(envelope.c.study_key == study_key)).scalars())
    return "" in uids and len(uids) > 1


def stands(connection: Connection, study_key: str, why: EdgeNodeError, *, not_before: float, looked: bool) -> None:
    """Nothing came of it so far; `looked` when the archive answered."""
    connection.execute(
        update(lost_identity)
        .where(lost_identity.c.study_key == study_key)
        .values(
            code=why.code,
            message=why.message,
            not_before=not_before,
            looks=lost_identity.c.looks + (1 if looked else 0),
        )
    )


def recovered(connection: Connection, study_key: str, actor: str) -> bool:
    """The identity is here again: the writers go on at once. False if nobody missed it any more."""
    if not connection.execute(delete(lost_identity).where(lost_identity.c.study_key == study_key)).rowcount:
        return False
    connection.execute(
        update(task)
        .where(task.c.step.in_(_WAKEN), task.c.study_key == study_key, task.c.state == TaskState.READY)
        .values(not_before=0.0, code="", message="")
    )
    audit.append(connection, actor, "identity.recovered", study_key, {"missing": missing(connection, study_key)})
    return True
