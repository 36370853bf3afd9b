"""Which rows of the line's work may be claimed now: asked many times a second, for as long as the node lives."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Float,
    Integer,
    String,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)

from edge_node.domain.study import TaskState
from edge_node.store.prepared import Prepared
from edge_node.store.tables import setting, task


@cache
def rows(targeted: bool, limited: bool) -> CompoundSelect[Any]:
    """Id and urgency of the rows that may be claimed; `values` are its parameters.

    Two searches of an index rather than one condition with OR: of that SQLite would use the step alone, and read every
    row that was ever done.
    """
    of_step = bindparam("of_step", type_=String)
    found = select(task.c.id, task.c.urgency).where(
        task.c.step == of_step,
        *([task.c.target == bindparam("of_target", type_=String)] if targeted else []),
        *([task.c.urgency <= bindparam("up_to", type_=Integer)] if limited else []),
        task.c.step.not_in(select(setting.c.value).where(setting.c.name.like(literal_column("'paused.%'")))),
    )
    now = bindparam("now", type_=Float)
    ready = found.where(task.c.state == literal_column(f"'{TaskState.READY}'"), task.c.not_before <= now)
    left = found.where(task.c.state == literal_column(f"'{TaskState.LEASED}'"), task.c.lease_until < now)
    return union_all(ready, left)


@cache
def _poll(targeted: bool, limited: bool) -> Prepared:
    due = rows(targeted, limited).subquery()
    return Prepared(select(func.min(due.c.urgency).label("urgency")))


def values(step: str, target: str | None, up_to: int | None, now: float) -> dict[str, object]:
    """The parameters of `rows`; `now` in seconds since the epoch."""
    optional = {"of_target": target, "up_to": up_to}
    return {"of_step": step, "now": now, **{name: value for name, value in optional.items() if value is not None}}


def most_urgent(connection: Connection, step: str, target: str | None, up_to: int | None) -> int | None:
    """The urgency of the row that is to be taken first; None: nothing to do."""
    found = _poll(target is not None, up_to is not None).first(connection, **values(step, target, up_to, time.time()))
    return None if found.urgency is None else int(found.urgency)
