"""What a node asks again and again costs the same after years: it finds its rows by an index, or has counted them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, func, insert, select, text, update

from edge_node.domain.study import DeliveryState
from edge_node.service import snapshot
from edge_node.store import counted, due, lost, own_list, studies, tables
from edge_node.store.database import Database
from tests.unit.store.conftest import Store

Question = Callable[[Connection], object]
GROWING = ("instance", "envelope", "task", "finding", "reading", "delivery", "commitment", "reader")
ASKED: dict[str, Question] = {
    **{
        f"is there work, {'of one target' if target else 'of any'}, {'urgent' if up_to else 'all'}": (
            lambda connection, target=target, up_to=up_to: due.most_urgent(connection, "worklist", target, up_to)
        )
        for target, up_to in product((None, "evidence"), (None, 5))
    },
    "what has not settled": studies.unsettled,
    "what waits to be judged": studies.untriaged,
    "whose identity is lost": lost.lost,
    "the reading list": lambda connection: own_list.entries(
        connection, lambda *_: "1.2.3", lambda _: (), since=time.time()
    ),
    "the reading order": lambda connection: snapshot.reading_list(connection, since=time.time()),
    "what was delivered": counted.deliveries,
    "how much there is": studies.totals,
}


def plans(database: Database, question: Question) -> list[str]:
    """Each step of SQLite's plans for what a question reads."""
    asked: list[str] = []
    found: list[str] = []

    with database.read() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.set_trace_callback(asked.append)
        question(connection)
        raw.set_trace_callback(None)
        for statement in asked:
            if statement.startswith("SELECT"):
                found += [str(row[3]) for row in raw.execute("EXPLAIN QUERY PLAN " + statement).fetchall()]
    return found


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_again_and_again_does_not_read_all_of_a_ledger(store: Store, name: str) -> None:
    steps = plans(store.database, ASKED[name])
    assert steps
    for step in steps:
        scanned = re.match(r"SCAN (\w+)", step)
        assert scanned is None or scanned[1] not in GROWING, step
        # all that was ever done has the step; what is to be done has a state as well
        assert "task_to_claim (step=?)" not in step
        if scanned is not None and scanned[1] == "study":
            assert "COVERING INDEX" in step


def test_what_is_to_be_done_is_found_by_its_state_and_time(store: Store) -> None:
    steps = plans(store.database, ASKED["is there work, of any, all"])
    assert any("task_to_claim (step=? AND state=? AND not_before<?)" in step for step in steps)


Change = tuple[str, str, str]
changes = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop"]),
        st.sampled_from(["1.1", "1.2", "1.3"]),
        st.sampled_from([str(state) for state in DeliveryState]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(before=changes, after=changes)
def test_what_was_counted_is_what_counting_gives_whatever_changed(before: list[Change], after: list[Change]) -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        tables.delivery.create(connection)
        for change in before:
            _apply(connection, change)
        counted.begin(connection)
        for change in after:
            _apply(connection, change)
            table = tables.delivery
            rows = select(table.c.destination, table.c.state, func.count()).group_by(table.c.destination, table.c.state)
            told = {
                (where, state): objects
                for where, states in counted.deliveries(connection).items()
                for state, objects in states.items()
            }
            assert told == {(where, state): objects for where, state, objects in connection.execute(rows)}
    engine.dispose()


def _apply(connection: Connection, change: Change) -> None:
    what, uid, state = change
    mine = (tables.delivery.c.sop_uid == uid) & (tables.delivery.c.destination == "trainer")
    if what == "drop":
        connection.execute(delete(tables.delivery).where(mine))
    elif connection.execute(update(tables.delivery).where(mine).values(state=state)).rowcount == 0:
        row = {"sop_uid": uid, "destination": "trainer", "study_key": "k", "state": state, "code": "", "at": 0.0}
        connection.execute(insert(tables.delivery).values(**row))


def test_an_older_ledger_has_its_deliveries_counted_and_keeps_counting(store: Store) -> None:
    database = store.database
    with database.write() as connection:  # back to what version 13 was
        for name in ("comes", "goes", "moves"):
            connection.execute(text(f"DROP TRIGGER delivery_{name}"))
        counted.delivery_count.drop(connection)
        for index in ("study_in_state", "study_by_receipt", "study_by_triage", "task_undone"):
            connection.execute(text(f"DROP INDEX {index}"))
        connection.execute(text("CREATE INDEX study_by_state ON study (state)"))
        connection.execute(tables.schema_version.delete().where(tables.schema_version.c.version > 13))
        studies.put_delivery(connection, "k", "1.1", "trainer", DeliveryState.DELIVERED, "")
    database.close()
    database = Database(database.path)
    database.migrate()
    with database.write() as connection:
        studies.put_delivery(connection, "k", "1.2", "trainer", DeliveryState.PENDING, "")
        studies.put_delivery(connection, "k", "1.2", "trainer", DeliveryState.WITHHELD, "consent.denied")
        assert counted.deliveries(connection) == {"trainer": {"DELIVERED": 1, "WITHHELD": 1}}
        names = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'index'")).scalars())
    assert {"study_in_state", "study_by_receipt", "study_by_triage", "task_undone"} <= names
    assert "study_by_state" not in names
