"""What is held in quarantine: by reason and sender, and which of it somebody means."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from edge_node.store.tables import HELD, quarantine


@dataclass(frozen=True, slots=True)
class Which:
    """Held objects by name, or all that have this reason, sender (calling AE title) and study; "" means any."""

    items: Collection[str] = ()
    code: str = ""
    sender: str = ""
    study: str = ""

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        wanted = ((quarantine.c.code, self.code), (quarantine.c.calling_ae, self.sender))
        found = [column == value for column, value in (*wanted, (quarantine.c.study_key, self.study)) if value]
        return [HELD, *found, *([quarantine.c.item.in_(list(self.items))] if self.items else [])]


@dataclass(frozen=True, slots=True)
class Reason:
    """Objects of one sender that are held for one reason; times in seconds since the epoch; `item` and
    `message` are of some of them."""

    code: str
    sender: str
    objects: int
    bytes: int
    first_at: float
    last_at: float
    next_to_expire: float
    item: str
    message: str


def rows(connection: Connection, which: Which, *, limit: int | None = None) -> list[Row[Any]]:
    """The newest first."""
    query = select(quarantine).where(*which.conditions()).order_by(quarantine.c.received_at.desc(), quarantine.c.item)
    return list(connection.execute(query.limit(limit)).all())


def reasons(connection: Connection, which: Which | None = None) -> list[Reason]:
    """The most frequent first."""
    of_each = (
        select(
            quarantine.c.code,
            quarantine.c.calling_ae,
            func.count().label("objects"),
            func.sum(quarantine.c.size),
            func.min(quarantine.c.received_at),
            func.max(quarantine.c.received_at),
            func.min(quarantine.c.expires_at),
            func.max(quarantine.c.item),
            func.max(quarantine.c.message),
        )
        .where(*(which or Which()).conditions())
        .group_by(quarantine.c.code, quarantine.c.calling_ae)
        .order_by(func.count().desc(), quarantine.c.code, quarantine.c.calling_ae)
    )
    return [
        Reason(code, sender, objects, int(size), *others)
        for code, sender, objects, size, *others in connection.execute(of_each)
    ]
