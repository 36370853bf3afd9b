"""What others announced of studies: recorded once, durable, in keyed hashes; asked when a study is settled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from edge_node.domain.announcement import Announced, Announcement, Command, Kind, StepState
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import StudyState
from edge_node.store import audit
from edge_node.store.tables import announced_instance, announcement, instance, quarantine, study

FINAL = tuple(state for state in StepState if state.final)
MOST_STEPS, MOST_NOTICES = 256, 256  # of one study
MOST_NOTICED = 50_000  # instances that all notices of one study list
PORTION, PORTION_LISTED = 200, 50_000  # rows, and instances listed by them, that are forgotten in one transaction


def is_known(connection: Connection, said: Announcement) -> bool:
    """Whether the ledger knows the step or list, or one of its studies, by these names."""
    there = select(announcement.c.signal_key).where(announcement.c.signal_key == said.signal_key)
    known = select(study.c.study_key).where(study.c.study_key.in_(said.study_keys))
    return any(connection.execute(query.limit(1)).first() is not None for query in (there, known))


def record(
    connection: Connection, said: Announcement, *, actor: str, calling_ae: str, at: float, again: bool = False
) -> None:
    """Take an announcement down, in the caller's transaction, and audit it with each of its studies.

    The receiver waits for this transaction: nothing is counted in it but what `said` itself lists, and that only when
    a study of it has settled. `again`: a worker died on it before; what stands there already in the same words is then
    no error and changes nothing. Raises EdgeNodeError ``announce.duplicate`` (created before), ``announce.unknown``
    (never created), ``announce.final`` (completed or discontinued before), ``announce.too-many-steps``: nothing is
    changed then.
    """
    rows = connection.execute(select(announcement).where(announcement.c.signal_key == said.signal_key)).all()
    if again and _is_there(connection, said, rows):
        return
    if said.command is Command.CREATE:
        if rows:
            raise EdgeNodeError("announce.duplicate", "an instance of this UID exists already")
        keys, state = said.study_keys, said.state or StepState.IN_PROGRESS
        carrier = _noticed(connection, said, at) if said.kind is Kind.IAN else _created(connection, said, state, at)
    else:
        if not rows:
            raise EdgeNodeError("announce.unknown", "no performed procedure step of this UID was created")
        if StepState(rows[0].state).final:
            raise EdgeNodeError("announce.final", "the performed procedure step may no longer be updated")
        keys, state = tuple(row.study_key for row in rows), said.state or StepState(rows[0].state)
        carrier = said.signal_key
        connection.execute(
            update(announcement).where(announcement.c.signal_key == carrier).values(state=state, changed_at=at)
        )
    if said.listed is not None:
        _list(connection, carrier, said.listed, adds=said.kind is Kind.IAN)
    detail: dict[str, object] = {"kind": str(said.kind), "status": str(state), "from": calling_ae}
    if said.listed is not None:
        detail["announced"] = len(said.listed)
    late = _tell_settled(connection, keys, said, carrier) if state.final else {}
    for key in keys:
        audit.append(connection, actor, "study.announced", key, detail | late.get(key, {}))


def _is_there(connection: Connection, said: Announcement, rows: Sequence[Any]) -> bool:
    """Whether this very word was taken down before; not for one that may change as often as it likes."""
    if not rows or (said.command is Command.SET and not StepState(rows[0].state).final):
        return False
    if said.state != rows[0].state or (
        said.command is Command.CREATE and {row.study_key for row in rows} != set(said.study_keys)
    ):
        return False
    if said.listed is None or said.kind is Kind.IAN:
        return True
    return set(_stored(connection, said.signal_key)) == set(said.listed)


def _created(connection: Connection, said: Announcement, state: StepState, at: float) -> str:
    """A row for each study of a step; returns the signal that its list belongs to: its own."""
    mine = announcement.c.study_key.in_(said.study_keys) & (announcement.c.kind == Kind.MPPS)
    counts = select(func.count()).where(mine).group_by(announcement.c.study_key)
    if max(connection.execute(counts).scalars(), default=0) >= MOST_STEPS:
        raise EdgeNodeError("announce.too-many-steps", f"a study of it has {MOST_STEPS} steps already")
    _insert(connection, said, state, at)
    return said.signal_key


def _noticed(connection: Connection, said: Announcement, at: float) -> str:
    """A row for a notice; returns the signal that its list belongs to: that of the study's first notice.

    An archive may notify after each object, each time with all that it listed before: one list a study keeps each
    instance once. Notices beyond MOST_NOTICES leave no row. All live as long as the last of them.
    """
    mine = announcement.c.study_key.in_(said.study_keys) & (announcement.c.kind == Kind.IAN)
    query = select(announcement.c.signal_key).where(mine).order_by(announcement.c.at, announcement.c.signal_key)
    before = connection.execute(query.limit(MOST_NOTICES)).scalars().all()
    connection.execute(update(announcement).where(mine).values(changed_at=at))
    if len(before) < MOST_NOTICES:
        _insert(connection, said, StepState.COMPLETED, at)
    return str(before[0]) if before else said.signal_key


def _insert(connection: Connection, said: Announcement, state: StepState, at: float) -> None:
    of_all = {"signal_key": said.signal_key, "kind": said.kind, "state": state, "at": at, "changed_at": at}
    connection.execute(insert(announcement), [{**of_all, "study_key": key} for key in said.study_keys])


def _stored(connection: Connection, carrier: str) -> Sequence[str]:
    mine = announced_instance.c.signal_key == carrier
    return connection.execute(select(announced_instance.c.instance_key).where(mine)).scalars().all()


def _list(connection: Connection, carrier: str, listed: Sequence[str], *, adds: bool) -> None:
    """A step's later list replaces an earlier one: N-SET sets the whole sequence (PS3.4 F.7.2.2). A notice's adds.

    Of all notices of a study MOST_NOTICED are kept: what came and is not listed leaves it to the quiet time. Only what
    changes is written: a list that grows with each request costs its length, not its square.
    """
    mine = announced_instance.c.signal_key == carrier
    if adds:
        named = mine & announced_instance.c.instance_key.in_(listed)
        there = set(connection.execute(select(announced_instance.c.instance_key).where(named)).scalars())
        total = int(connection.execute(select(func.count()).where(mine)).scalar_one())
        fresh = [key for key in listed if key not in there][: max(0, MOST_NOTICED - total)]
    else:
        there = set(_stored(connection, carrier))
        fresh = [key for key in listed if key not in there]
        if gone := there.difference(listed):
            connection.execute(delete(announced_instance).where(mine, announced_instance.c.instance_key.in_(gone)))
    if fresh:
        connection.execute(insert(announced_instance), [{"signal_key": carrier, "instance_key": k} for k in fresh])


def _tell_settled(
    connection: Connection, keys: Sequence[str], said: Announcement, carrier: str
) -> dict[str, dict[str, object]]:
    """A late word on studies that have settled: if instances are missing, none is complete. What to audit, by study."""
    settled = study.c.study_key.in_(keys) & (study.c.state != StudyState.RECEIVING)
    late = connection.execute(select(study.c.study_key).where(settled)).scalars().all()
    if not late:
        return {}
    mine = announced_instance.c.signal_key == carrier
    if said.kind is Kind.IAN:
        mine &= announced_instance.c.instance_key.in_(said.listed or ())
    missing = int(connection.execute(select(func.count()).where(mine, ~_came())).scalar_one())
    if missing:
        connection.execute(update(study).where(settled).values(complete=False))
    return {key: {"late": True, "missing": missing} for key in late}


def told_of(connection: Connection, condition: ColumnElement[bool]) -> set[str]:
    """Keys of the studies of a `condition` of which anything is announced: of most is nothing."""
    query = select(announcement.c.study_key).join(study, study.c.study_key == announcement.c.study_key).where(condition)
    return set(connection.execute(query).scalars())


def announced(connection: Connection, study_key: str, revision: int = 0) -> Announced:
    """What is announced of a study, against what came; `revision` is the present one for `unlisted_now`."""
    rows = connection.execute(select(announcement).where(announcement.c.study_key == study_key)).all()
    if not rows:
        return Announced()
    steps = [StepState(row.state) for row in rows if row.kind == Kind.MPPS]
    final = (announcement.c.study_key == study_key) & announcement.c.state.in_(FINAL)
    listed = announced_instance.c.signal_key.in_(select(announcement.c.signal_key).where(final))
    names = select(func.count(announced_instance.c.instance_key.distinct())).where(listed)
    # Looked up in one list made once: a lookup in each of hundreds of signals for each instance would take seconds.
    all_names = select(announced_instance.c.instance_key).where(listed)
    unlisted = select(func.count()).where(instance.c.study_key == study_key, instance.c.instance_key.not_in(all_names))
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


def old(connection: Connection, before: float, unknown_before: float) -> list[tuple[str, str]]:
    """Some (signal, study) that nobody changed since `before`, or whose study never came and nobody changed since
    `unknown_before` (seconds since the epoch); none when none are left."""
    query = select(announcement.c.signal_key, announcement.c.study_key).where(_is_old(before, unknown_before))
    pairs = [(str(row.signal_key), str(row.study_key)) for row in connection.execute(query.limit(PORTION))]
    named = announced_instance.c.signal_key.in_({signal for signal, _ in pairs})
    by = announced_instance.c.signal_key
    counts = select(by, func.count()).where(named).group_by(by)
    listed: dict[str, int] = {str(signal): int(count) for signal, count in connection.execute(counts)}
    totals = accumulate(listed.pop(signal, 0) for signal, _ in pairs)
    few = [pair for pair, total in zip(pairs, totals, strict=True) if total <= PORTION_LISTED]
    return few or pairs[:1]


def forget(connection: Connection, pairs: Sequence[tuple[str, str]], before: float, unknown_before: float) -> int:
    """Forget those of what `old` found that are still old, and lists that no study is left for; returns how many."""
    signals = {signal for signal, _ in pairs}
    count = 0
    for signal, key in pairs:
        mine = (announcement.c.signal_key == signal) & (announcement.c.study_key == key)
        count += int(connection.execute(delete(announcement).where(mine, _is_old(before, unknown_before))).rowcount)
    query = select(announcement.c.signal_key).where(announcement.c.signal_key.in_(signals))
    left = set(connection.execute(query).scalars())
    connection.execute(delete(announced_instance).where(announced_instance.c.signal_key.in_(signals - left)))
    return count


def _is_old(before: float, unknown_before: float) -> ColumnElement[bool]:
    unknown = ~exists().where(study.c.study_key == announcement.c.study_key)
    return (announcement.c.changed_at < before) | ((announcement.c.changed_at < unknown_before) & unknown)
