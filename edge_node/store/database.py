"""The database under the ledger: engine, durable transactions, versioned migrations.

SQLite in WAL mode with synchronous=FULL: a committed transaction survives a power cut. Every write transaction takes
the write lock at its start (BEGIN IMMEDIATE), so that what it read is still true when it writes.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import DatabaseError, OperationalError, ProgrammingError

from edge_node.domain.errors import Retry, Stop
from edge_node.store import counted, prior_tables, tables, watch_tables

BUSY_TIMEOUT_S = 30.0
AT_ONCE = 50  # rows that one transaction of many may change
BREATH_S = 0.15  # who waits for the lock looks for it ten times a second
SHRED_WAIT_S = 1.0


def _create_first_schema(connection: Connection) -> None:
    tables.metadata.create_all(connection)
    connection.execute(insert(tables.audit_head).values(id=1, seq=0, hash="0" * 64))


def _add_pixel_work(connection: Connection) -> None:
    """Version 2: what the pixel step did with an object. Objects from before were judged by their risk alone."""
    if "pixel_work" not in {column["name"] for column in inspect(connection).get_columns("instance")}:
        connection.execute(text("ALTER TABLE instance ADD COLUMN pixel_work VARCHAR(64) NOT NULL DEFAULT ''"))
    connection.execute(update(tables.instance).values(pixel_work="unlooked"))


def _add_trial(connection: Connection) -> None:
    """Version 3: the trial whose pseudonyms a study has. Until then there were only the site's own."""
    if "trial" not in {column["name"] for column in inspect(connection).get_columns("study")}:
        connection.execute(text("ALTER TABLE study ADD COLUMN trial VARCHAR(32) NOT NULL DEFAULT ''"))


def _add_escrow(connection: Connection) -> None:
    """Version 4: sealed ways back to identity, and which site key made a study's pseudonyms."""
    if "site_key_id" not in {column["name"] for column in inspect(connection).get_columns("study")}:
        connection.execute(text("ALTER TABLE study ADD COLUMN site_key_id VARCHAR(8) NOT NULL DEFAULT ''"))
    tables.escrow.create(connection, checkfirst=True)


def _add_announcements(connection: Connection) -> None:
    """Version 5: what others announce of a study, and the names by which they mean its instances."""
    for table in (tables.instance, tables.quarantine):
        if "instance_key" not in {column["name"] for column in inspect(connection).get_columns(table.name)}:
            connection.execute(
                text(f"ALTER TABLE {table.name} ADD COLUMN instance_key VARCHAR(32) NOT NULL DEFAULT ''")
            )
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    tables.announcement.create(connection, checkfirst=True)
    tables.announced_instance.create(connection, checkfirst=True)


def _add_pulls(connection: Connection) -> None:
    """Version 6: the queue of studies that the node asks an archive for."""
    tables.pull_job.create(connection, checkfirst=True)
    tables.pull_item.create(connection, checkfirst=True)


def _add_models(connection: Connection) -> None:
    """Version 7: model packages, their stages and every change of them."""
    tables.model_package.create(connection, checkfirst=True)
    tables.model_change.create(connection, checkfirst=True)


def _add_proof(connection: Connection) -> None:
    """Version 8: storage commitment of results, whether a human reads the study already, and masks of findings."""
    if "sealed_mask" not in {column["name"] for column in inspect(connection).get_columns("finding")}:
        connection.execute(text("ALTER TABLE finding ADD COLUMN sealed_mask BLOB"))
    tables.commitment.create(connection, checkfirst=True)
    tables.reader.create(connection, checkfirst=True)


def _add_own_list(connection: Connection) -> None:
    """Version 9: what readers do with the node's own reading list, and who wants to be told."""
    tables.list_state.create(connection, checkfirst=True)
    tables.list_subscriber.create(connection, checkfirst=True)


def _add_watch(connection: Connection) -> None:
    """Version 10: what each result of a model was like, what validations measured, and looks at drift."""
    for table in (watch_tables.observation, watch_tables.model_record, watch_tables.drift_look):
        table.create(connection, checkfirst=True)


def _add_patient_class(connection: Connection) -> None:
    """Version 11: whether the patient came as an emergency, as far as order and images say."""
    if "patient_class" not in {column["name"] for column in inspect(connection).get_columns("study")}:
        connection.execute(text("ALTER TABLE study ADD COLUMN patient_class VARCHAR(1) NOT NULL DEFAULT ''"))


def _add_lost_identity(connection: Connection) -> None:
    """Version 12: studies whose identity is asked of the PACS again."""
    tables.lost_identity.create(connection, checkfirst=True)


def _add_priors(connection: Connection) -> None:
    """Version 13: earlier studies that models ask for, and which studies came as such."""
    for table, column, kind in (("pull_job", "wanted_by", "VARCHAR(16)"), ("pull_item", "prior", "BOOLEAN")):
        if column not in {one["name"] for one in inspect(connection).get_columns(table)}:
            default = "''" if kind != "BOOLEAN" else "FALSE"
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} {kind} NOT NULL DEFAULT {default}"))
    prior_tables.prior_wish.create(connection, checkfirst=True)
    prior_tables.prior.create(connection, checkfirst=True)


def _add_totals(connection: Connection) -> None:
    """Version 14: what a ledger of years needs so that looking at it does not read all of it."""
    connection.execute(text("DROP INDEX IF EXISTS study_by_state"))
    for table in (tables.study, tables.task, tables.quarantine):
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    counted.begin(connection)


def _name_digests(connection: Connection) -> None:
    """Version 15: the hash of a clean object says how it was made."""
    if "digest" not in {column["name"] for column in inspect(connection).get_columns("instance")}:
        connection.execute(text("ALTER TABLE instance RENAME COLUMN sha256 TO digest"))


# One entry per schema version, in order; an entry is never edited once released.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create_first_schema,
    _add_pixel_work,
    _add_trial,
    _add_escrow,
    _add_announcements,
    _add_pulls,
    _add_models,
    _add_proof,
    _add_own_list,
    _add_watch,
    _add_patient_class,
    _add_lost_identity,
    _add_priors,
    _add_totals,
    _name_digests,
)


Item = TypeVar("Item")


def in_turns(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """`AT_ONCE` of them at a time, each time for a transaction of its own: between them others, the receiver above all,
    get the write lock."""
    for start in range(0, len(items), AT_ONCE):
        if start:
            time.sleep(BREATH_S)
        yield items[start : start + AT_ONCE]


class Database:
    """A ledger database at `path`; `read_only` never creates, migrates or writes (the status role, the CLI)."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        if read_only and not path.exists():
            raise Stop(
                "ledger.missing",
                f"there is no ledger at {path}",
                hint="run `edge-node init`, or point --config at the node's configuration",
                exit_code=69,
            )
        mode = "ro" if read_only else "rwc"
        self.engine: Engine = create_engine(
            f"sqlite:///file:{path}?mode={mode}&uri=true",
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
            pool_size=8,
            pool_use_lifo=True,  # each connection has a cache of its own: few of them, warm, not all in turn
        )
        event.listen(self.engine, "connect", self._on_connect)
        event.listen(self.engine, "begin", self._on_begin)

    def _on_connect(self, raw: Any, _record: object) -> None:
        raw.isolation_level = None  # SQLAlchemy, not the driver, says when a transaction begins
        cursor = raw.cursor()
        if not self.read_only:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA secure_delete=ON")  # a destroyed key must leave no bytes in free pages
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.execute("PRAGMA cache_size=-512")  # KiB, of each connection; the system has the file's pages anyway
        cursor.close()

    def _on_begin(self, connection: Connection) -> None:
        write = connection.get_execution_options().get("edge_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One durable write transaction. Raises Retry("ledger.busy") when the lock cannot be had in time."""
        with (
            _translated(self.path),
            self.engine.connect().execution_options(edge_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot."""
        with _translated(self.path), self.engine.connect() as connection, connection.begin():
            yield connection

    def migrate(self) -> int:
        """Bring the schema up to date, after a backup of what was there; returns the version now in force."""
        with _translated(self.path), self.engine.connect().execution_options(edge_write=True) as connection:
            with connection.begin():
                version = _version(connection)
                if version > len(MIGRATIONS):
                    raise Stop(
                        "ledger.newer",
                        f"the ledger {self.path} has schema {version}, this edge-node knows up to {len(MIGRATIONS)}",
                        hint="install the edge-node version that wrote it, or restore the backup beside it",
                    )
                if version == len(MIGRATIONS):
                    return version
            if version:
                with connection.begin():
                    self._backup(connection, version)
            with connection.begin():
                version = _version(connection)  # another role may have migrated meanwhile
                for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
                    migration(connection)
                    connection.execute(insert(tables.schema_version).values(version=number, applied_at=time.time()))
        return len(MIGRATIONS)

    def _backup(self, _connection: Connection, version: int) -> None:
        # The write lock is held, so the file and its WAL are at rest.
        for suffix in ("", "-wal"):
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                shutil.copy2(source, self.path.with_name(f"{self.path.name}.schema{version}{suffix}"))

    def integrity(self) -> str:
        """`ok`, or SQLite's own words on what is damaged."""
        with self.read() as connection:
            return str(connection.exec_driver_sql("PRAGMA quick_check").scalar())

    def shred_journal(self) -> bool:
        """Fold the WAL into the database and cut it, so that deleted key bytes do not linger there.

        Returns False when a reader was in the way: SQLite holds the write lock while it waits for one, and the receiver
        waits with it. The compute role does it every minute.
        """
        with self.engine.connect() as connection:
            raw = connection.connection.driver_connection
            if raw is None:
                return False
            try:
                raw.execute(f"PRAGMA busy_timeout={SHRED_WAIT_S * 1000:.0f}")
                busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000:.0f}")
            return not busy

    def close(self) -> None:
        self.engine.dispose()


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table("schema_version"):
        return 0
    versions = connection.execute(select(tables.schema_version.c.version)).scalars().all()
    return max(versions, default=0)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as error:
        words = str(_driver_error(error)).lower()
        if "locked" in words or "busy" in words:
            raise Retry("ledger.busy", f"the ledger {path} is locked by another process") from None
        if "full" in words:
            raise Retry(
                "ledger.disk-full", f"no room on the disk of the ledger {path}", hint="free space on the data disk"
            ) from None
        if "no such table" in words:
            raise Stop(
                "ledger.no-schema", f"the ledger {path} has no schema yet", hint="run `edge-node init`", exit_code=69
            ) from None
        raise Stop(
            "ledger.unusable",
            f"the ledger {path} cannot be used: {type(_driver_error(error)).__name__}",
            hint="check permissions and the disk, then `edge-node doctor`",
            exit_code=74,
        ) from None
    except (ProgrammingError, sqlite3.ProgrammingError):
        raise  # an error of ours: nobody shall restore a backup for it
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise Stop(
            "ledger.corrupt",
            f"the ledger {path} is damaged: {type(_driver_error(error)).__name__}",
            hint="stop the node and restore the newest backup (`edge-node docs operations`)",
            exit_code=74,
        ) from None


def _driver_error(error: DatabaseError | sqlite3.Error) -> BaseException | None:
    """As SQLite's driver raised it, through SQLAlchemy or not (`Prepared`)."""
    return error.orig if isinstance(error, DatabaseError) else error
