"""What others announced of studies: recorded once, durable, in keyed hashes; asked when a study is settled."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from edge_node.domain.announcement import Announced, Announcement, Command, Kind, StepState
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import StudyState
from edge_node.store import audit
from edge_node.store.tables import announced_instance, announcement, instance, quarantine, study

FINAL = tuple(state for state in StepState if state.final)


def is_known(connection: Connection, said: Announcement) -> bool:
    """Whether the ledger knows the step or list, or one of its studies, by these names."""
    there = select(announcement.c.signal_key).where(announcement.c.signal_key == said.signal_key)
    known = select(study.c.study_key).where(study.c.study_key.in_(said.study_keys))
    return any(connection.execute(query.limit(1)).first() is not None for query in (there, known))


def record(connection: Connection, said: Announcement, *, actor: str, calling_ae: str, at: float) -> None:
    """Take an announcement down, in the caller's transaction, and audit it with each of its studies.

    Raises EdgeNodeError ``announce.duplicate`` (created before), ``announce.unknown`` (never created),
    ``announce.final`` (completed or discontinued before): nothing is changed then.
    """
    rows = connection.execute(select(announcement).where(announcement.c.signal_key == said.signal_key)).all()
    if said.command is Command.CREATE:
        if rows:
            raise EdgeNodeError("announce.duplicate", "an instance of this UID exists already")
        keys, state = said.study_keys, said.state or StepState.IN_PROGRESS
        for key in keys:
            connection.execute(
                insert(announcement).values(
                    signal_key=said.signal_key, study_key=key, kind=said.kind, state=state, at=at, changed_at=at
                )
            )
    else:
        if not rows:
            raise EdgeNodeError("announce.unknown", "no performed procedure step of this UID was created")
        if StepState(rows[0].state).final:
            raise EdgeNodeError("announce.final", "the performed procedure step may no longer be updated")
        keys, state = tuple(row.study_key for row in rows), said.state or StepState(rows[0].state)
        connection.execute(
            update(announcement).where(announcement.c.signal_key == said.signal_key).values(state=state, changed_at=at)
        )
    if said.listed is not None:
        _list(connection, said.signal_key, said.listed)
    for key in keys:
        now = announced(connection, key)
        detail = {"kind": str(said.kind), "status": str(state), "from": calling_ae, **now.told()}
        if _tell_settled(connection, key, now):
            detail["late"] = True
        audit.append(connection, actor, "study.announced", key, detail)


def _list(connection: Connection, signal_key: str, listed: Sequence[str]) -> None:
    """A later list replaces an earlier one: N-SET sets the whole sequence (PS3.4 F.7.2.2)."""
    connection.execute(delete(announced_instance).where(announced_instance.c.signal_key == signal_key))
    if listed:
        rows = [{"signal_key": signal_key, "instance_key": key} for key in listed]
        connection.execute(insert(announced_instance), rows)


def _tell_settled(connection: Connection, study_key: str, now: Announced) -> bool:
    """A late word on a study that has settled: if instances are missing, it is not complete. Returns whether late."""
    settled = (study.c.study_key == study_key) & (study.c.state != StudyState.RECEIVING)
    if connection.execute(select(study.c.study_key).where(settled)).first() is None:
        return False
    if now.missing:
        connection.execute(update(study).where(settled).values(complete=False))
    return True


def announced(connection: Connection, study_key: str, revision: int = 0) -> Announced:
    """What is announced of a study, against what came; `revision` is the present one for `unlisted_now`."""
    rows = connection.execute(select(announcement).where(announcement.c.study_key == study_key)).all()
    if not rows:
        return Announced()
    steps = [StepState(row.state) for row in rows if row.kind == Kind.MPPS]
    final = [row.signal_key for row in rows if row.state in FINAL]
    listed = announced_instance.c.signal_key.in_(final)
    names = select(func.count(announced_instance.c.instance_key.distinct())).where(listed)
    unlisted = select(func.count()).where(instance.c.study_key == study_key, ~_is_listed(listed))
    return Announced(
        steps=len(steps),
        open_steps=sum(not state.final for state in steps),
        discontinued=sum(state is StepState.DISCONTINUED for state in steps),
        notices=len(rows) - len(steps),
        listed=int(connection.execute(names).scalar_one()),
        missing=int(connection.execute(names.where(~_came())).scalar_one()),
        unlisted=int(connection.execute(unlisted).scalar_one()),
        unlisted_now=int(connection.execute(unlisted.where(instance.c.revision == revision)).scalar_one()),
        changed_at=max(row.changed_at for row in rows),
    )


def _came() -> ColumnElement[bool]:
    """A listed instance is here: clean, or in quarantine. Whichever study it turned out to belong to."""
    key = announced_instance.c.instance_key
    return exists().where(instance.c.instance_key == key) | exists().where(quarantine.c.instance_key == key)


def _is_listed(listed: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(listed, announced_instance.c.instance_key == instance.c.instance_key)


def older(connection: Connection, before: float) -> bool:
    """Whether there are any that nobody changed since `before`."""
    return connection.execute(select(announcement.c.at).where(announcement.c.changed_at < before)).first() is not None


def expire(connection: Connection, before: float) -> int:
    """Forget announcements that nobody changed since `before` (seconds since the epoch); returns how many."""
    old = select(announcement.c.signal_key).where(announcement.c.changed_at < before)
    connection.execute(delete(announced_instance).where(announced_instance.c.signal_key.in_(old)))
    return int(connection.execute(delete(announcement).where(announcement.c.changed_at < before)).rowcount)
