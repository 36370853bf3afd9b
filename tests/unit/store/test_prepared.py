"""Statements that go to SQLite's driver as text: the same rows, the same transactions, the same errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, update

from edge_node.domain.errors import Retry, Stop
from edge_node.store.database import Database
from edge_node.store.prepared import Prepared
from edge_node.store.tables import envelope

ADD = Prepared(insert(envelope))
FIND = Prepared(select(envelope).where(envelope.c.study_key == bindparam("key")))
CHANGE = Prepared(update(envelope).where(envelope.c.study_key == bindparam("key")), "key_id")
ROW = {"study_key": "ABC", "sop_uid": "", "key_id": "k", "sealed": b"\0\1"}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(tmp_path / "ledger.sqlite3")
    made.migrate()
    return made


def test_what_is_written_is_found_by_the_names_of_its_columns_also_by_sqlalchemy(database: Database) -> None:
    with database.write() as connection:
        ADD.run_all(connection, [ROW, ROW | {"sop_uid": "1.2"}])
        CHANGE.run(connection, {"key": "ABC", "key_id": "new"})
    with database.read() as connection:
        found = FIND.first(connection, key="ABC")
        assert (found.key_id, found.sealed) == ("new", b"\0\1")
        assert FIND.first(connection, key="nobody") is None
        assert len(connection.execute(select(envelope)).all()) == 2


def test_it_is_undone_with_its_transaction(database: Database) -> None:
    with pytest.raises(KeyError), database.write() as connection:
        ADD.run(connection, ROW)
        raise KeyError
    with database.read() as connection:
        assert FIND.first(connection, key="ABC") is None


def test_errors_of_the_driver_are_told_as_those_of_sqlalchemy_are(tmp_path: Path, database: Database) -> None:
    with pytest.raises(Stop, match=r"ledger\.corrupt.*IntegrityError"), database.write() as connection:
        ADD.run_all(connection, [ROW, ROW])
    with pytest.raises(Stop, match=r"ledger\.no-schema"), Database(tmp_path / "empty").write() as connection:
        ADD.run(connection, ROW)


def test_an_error_of_the_program_is_no_damage_of_the_ledger(database: Database) -> None:
    with pytest.raises(sqlite3.ProgrammingError), database.write() as connection:
        ADD.run(connection, {"study_key": "ABC"})


def test_a_ledger_that_is_locked_is_asked_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_node.store.database.BUSY_TIMEOUT_S", 0.05)
    other = Database(database.path)
    with database.write(), pytest.raises(Retry, match=r"ledger\.busy"), other.read() as connection:
        ADD.run(connection, ROW)
