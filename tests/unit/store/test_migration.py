"""A ledger of an older version comes up to date with all it held, and a copy of it stays."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import inspect, select, text

from edge_node.domain.study import Deidentified
from edge_node.store import tables
from edge_node.store.database import MIGRATIONS, Database
from tests.unit.store.conftest import Store


def test_a_version_1_ledger_learns_what_the_pixel_step_did(
    store: Store, clean_instance: Callable[..., Deidentified]
) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1.0)
    with store.database.write() as connection:  # back to what version 1 was
        connection.execute(text("ALTER TABLE instance DROP COLUMN pixel_work"))
        connection.execute(text("ALTER TABLE study DROP COLUMN trial"))
        connection.execute(tables.schema_version.delete().where(tables.schema_version.c.version > 1))
    store.database.close()
    database = Database(store.database.path)
    assert database.migrate() == len(MIGRATIONS)
    with database.read() as connection:
        row = connection.execute(select(tables.instance)).one()
        trial = connection.execute(select(tables.study.c.trial)).scalar()
        versions = connection.execute(select(tables.schema_version.c.version)).scalars().all()
    assert (row.pixel_work, row.pixel_risk, row.kept, trial) == ("unlooked", "", True, "")
    assert sorted(versions) == list(range(1, len(MIGRATIONS) + 1))
    assert database.path.with_name(database.path.name + ".schema1").exists()
    assert database.migrate() == len(MIGRATIONS)


def test_a_new_ledger_has_the_column_and_judges_nothing_beforehand(
    store: Store, clean_instance: Callable[..., Deidentified]
) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        assert "pixel_work" in {c["name"] for c in inspect(connection).get_columns("instance")}
        assert connection.execute(select(tables.instance.c.pixel_work)).scalar() == ""
