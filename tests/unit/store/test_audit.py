"""The audit chain: whatever is altered, removed or reordered shows."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from edge_node.store import audit
from edge_node.store.tables import audit as audit_table
from edge_node.store.tables import audit_head
from tests.unit.store.conftest import Store


@pytest.fixture
def chained(store: Store) -> Store:
    with store.database.write() as connection:
        for number in range(5):
            audit.append(connection, "test/dicom", "study.opened", f"STUDY{number}", {"n": number})
    return store


def test_an_untouched_chain_is_intact(chained: Store) -> None:
    with chained.database.read() as connection:
        report = audit.verify(connection)
    assert (report.intact, report.entries) == (True, 5)


@pytest.mark.parametrize("column", ["actor", "action", "study_key", "detail", "at"])
def test_an_altered_entry_breaks_the_chain_at_its_place(chained: Store, column: str) -> None:
    with chained.database.write() as connection:
        value = 1.0 if column == "at" else "forged"
        connection.execute(update(audit_table).where(audit_table.c.seq == 3).values({column: value}))
    with chained.database.read() as connection:
        report = audit.verify(connection)
    assert (report.intact, report.first_broken) == (False, 3)


@pytest.mark.parametrize("seq", [1, 3, 5])
def test_a_removed_entry_breaks_the_chain_even_at_its_end(chained: Store, seq: int) -> None:
    with chained.database.write() as connection:
        connection.execute(delete(audit_table).where(audit_table.c.seq == seq))
    with chained.database.read() as connection:
        assert not audit.verify(connection).intact


def test_cutting_the_end_and_the_head_together_is_seen_against_an_export(chained: Store) -> None:
    with chained.database.read() as connection:
        exported = list(audit.entries(connection))
    with chained.database.write() as connection:
        connection.execute(delete(audit_table).where(audit_table.c.seq == 5))
        connection.execute(update(audit_head).values(seq=4, hash=exported[3].hash))
    with chained.database.read() as connection:
        report = audit.verify(connection)
    assert report.intact
    assert report.head != exported[-1].hash


def test_an_entry_is_gone_when_its_transaction_fails(store: Store) -> None:
    with pytest.raises(RuntimeError), store.database.write() as connection:
        audit.append(connection, "test", "study.opened", "S")
        raise RuntimeError
    with store.database.read() as connection:
        report = audit.verify(connection)
    assert (report.intact, report.entries) == (True, 0)
