"""Totals that the ledger keeps itself: how many objects stand where on their way to each destination.

A count over the rows would read all that were ever delivered, on every look at the status page.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Integer, String, Table, delete, func, insert, select, text

from edge_node.store.tables import delivery, metadata

delivery_count = Table(
    "delivery_count",
    metadata,
    Column("destination", String(32), primary_key=True),
    Column("state", String(16), primary_key=True),
    Column("objects", Integer, nullable=False),
)

_MORE = """
    INSERT INTO delivery_count (destination, state, objects) VALUES (NEW.destination, NEW.state, 1)
    ON CONFLICT (destination, state) DO UPDATE SET objects = objects + 1;"""
_LESS = """
    UPDATE delivery_count SET objects = objects - 1 WHERE destination = OLD.destination AND state = OLD.state;"""
_TRIGGERS = (
    f"CREATE TRIGGER IF NOT EXISTS delivery_comes AFTER INSERT ON delivery BEGIN {_MORE} END",
    f"CREATE TRIGGER IF NOT EXISTS delivery_goes AFTER DELETE ON delivery BEGIN {_LESS} END",
    f"CREATE TRIGGER IF NOT EXISTS delivery_moves AFTER UPDATE OF destination, state ON delivery BEGIN"
    f" {_LESS} {_MORE} END",
)


def begin(connection: Connection) -> None:
    """Count what is there, and from now on all that changes, in the transaction that changes it."""
    delivery_count.create(connection, checkfirst=True)
    of_each = select(delivery.c.destination, delivery.c.state, func.count()).group_by(
        delivery.c.destination, delivery.c.state
    )
    connection.execute(delete(delivery_count))
    connection.execute(insert(delivery_count).from_select(["destination", "state", "objects"], of_each))
    for trigger in _TRIGGERS:
        connection.execute(text(trigger))


def deliveries(connection: Connection) -> dict[str, dict[str, int]]:
    """{destination: {delivery state: number of objects}}"""
    found: dict[str, dict[str, int]] = {}
    for destination, state, objects in connection.execute(select(delivery_count).where(delivery_count.c.objects > 0)):
        found.setdefault(destination, {})[state] = int(objects)
    return found
