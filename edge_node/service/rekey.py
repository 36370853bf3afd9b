"""Rotation of node keys: crash-safe at every step, audited, refused while anybody uses the keys.

The files are exchanged first (`config.key_files`); from then on the new key wraps and the old one still opens, so the
node could start at any moment. Then every data key is wrapped anew in one transaction with the audit entry, the journal
is cut, and the old key goes. The site key wraps nothing: the old one stays until `retire`, so that studies under way
go on under it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from edge_node.config.key_files import KeyGuard, drop_old, exchange, exchanged
from edge_node.config.schema import Config
from edge_node.config.secrets import NODE_KEYS, kept_keys, load_key, load_old_key
from edge_node.deid import key_id_of
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode
from edge_node.domain.study import StudyState
from edge_node.service.node import existing_ledger, ledger_path
from edge_node.service.vault_key import refuse_without_key
from edge_node.store import audit, tables
from edge_node.store.database import Database
from edge_node.store.keyring import rewrap, wrapped_keys

SITE_KEY = "pseudonym"


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: ids of the keys (8 hexadecimal digits), data keys wrapped anew; `resumed`: an earlier one
    was cut short and is finished now."""

    key: str
    was: str
    now: str
    rewrapped: int
    resumed: bool


def rotate(config: Config, name: str) -> Rotation:
    """Exchange the node key `name`, or finish an exchange that was cut short.

    Raises Stop: `keys.unknown`, `keys.in-use` while a role runs, `keys.old-still-there` for a site key whose last
    rotation is not retired, `keys.unopened` when a data key opens with neither key (nothing is lost then).
    """
    _check(name)
    if name not in kept_keys(config):
        refuse_without_key(config, "restart the dicom role: each run has another vault key")
    guard = KeyGuard(config, exclusive=True)
    database = existing_ledger(config)
    try:
        resumed = exchanged(config, name)
        actor = f"{config.node.name}/admin"
        if resumed:
            _refuse_second(config, database, name)
        else:
            before = key_id_of(load_key(name, config, environ={}))
            with database.write() as connection:  # whoever cannot record it must not begin
                audit.append(connection, actor, "key.rotation-begun", detail={"key": name, "from": before})
        exchange(config, name)
        new, old = load_key(name, config, environ={}), load_old_key(name, config, environ={}) or b""
        was, now = key_id_of(old), key_id_of(new)
        with database.write() as connection:
            count = 0 if name == SITE_KEY else rewrap(connection, name, new, old)
            if name == SITE_KEY:  # studies from before the ledger recorded it
                connection.execute(update(tables.study).where(tables.study.c.site_key_id == "").values(site_key_id=was))
            detail = {"key": name, "from": was, "to": now, "rewrapped": count}
            audit.append(connection, actor, "key.rotated", detail=detail)
        database.shred_journal()
        if name != SITE_KEY:
            drop_old(config, name)
        return Rotation(name, was, now, count, resumed)
    finally:
        database.close()
        guard.release()


def retire(config: Config) -> str:
    """Delete the old site key once no study of it is under way; returns its id.

    Raises Stop: `keys.nothing-to-retire`, `keys.still-open` with the number of studies, `keys.in-use`.
    """
    guard = KeyGuard(config, exclusive=True)
    database = existing_ledger(config)
    try:
        old = load_old_key(SITE_KEY, config, environ={})
        if old is None or not exchanged(config, SITE_KEY):
            raise Stop(
                "keys.nothing-to-retire",
                "there is no old site key",
                hint="edge-node key list",
                exit_code=ExitCode.FOUND_WRONG,
            )
        name = key_id_of(old)
        with database.write() as connection:
            count = open_studies(connection, name)
            if count:
                raise Stop(
                    "keys.still-open",
                    f"{count} studies of the site key {name} are not closed: a late instance would begin another study",
                    hint="edge-node study list; wait until retention has closed them",
                    exit_code=ExitCode.TRY_AGAIN,
                )
            audit.append(connection, f"{config.node.name}/admin", "key.retired", detail={"key": SITE_KEY, "id": name})
        drop_old(config, SITE_KEY)
        return name
    finally:
        database.close()
        guard.release()


def open_studies(connection: Connection, key_id: str) -> int:
    """How many studies that this site key began are not closed."""
    own = tables.study.c.site_key_id == key_id
    query = select(func.count()).select_from(tables.study).where(own, tables.study.c.state != StudyState.CLOSED)
    return int(connection.execute(query).scalar_one())


def overview(config: Config) -> list[dict[str, object]]:
    """Every node key with its id, what it was before, and how much hangs on it; then every escrow key in use."""
    with Database(ledger_path(config), read_only=True).read() as connection:
        wraps = wrapped_keys(connection)
        by_key = select(tables.study.c.site_key_id, func.count()).group_by(tables.study.c.site_key_id)
        made = {str(key_id): int(count) for key_id, count in connection.execute(by_key)}
        records = connection.execute(
            select(tables.escrow.c.escrow_key, func.count()).group_by(tables.escrow.c.escrow_key)
        ).all()
    rows: list[dict[str, object]] = []
    for name in NODE_KEYS:
        if name not in kept_keys(config):
            rows.append({"key": name, "id": "in memory", "old": "", "data_keys": wraps.get(name, 0)})
            continue
        now, old = key_id_of(load_key(name, config)), load_old_key(name, config)
        was = key_id_of(old) if old else ""
        row: dict[str, object] = {"key": name, "id": now, "old": was}
        if name == SITE_KEY:
            row |= {"studies": made.get(now, 0), **({"studies_of_old": made.get(was, 0)} if was else {})}
        else:
            row |= {"data_keys": wraps.get(name, 0)}
        rows.append(row)
    rows += [{"key": "escrow", "id": name, "old": "", "records": count} for name, count in records]
    return rows


def _check(name: str) -> None:
    if name not in NODE_KEYS:
        raise Stop(
            "keys.unknown",
            f"there is no node key {name} (keys: {', '.join(NODE_KEYS)})",
            hint="edge-node key list; an escrow key is changed by naming another public key in deid.escrow",
            exit_code=ExitCode.USAGE,
        )


def _refuse_second(config: Config, database: Database, name: str) -> None:
    """A site key is not rotated again before the one before the last is gone: two must be enough for all studies."""
    if name != SITE_KEY:
        return
    now = key_id_of(load_key(name, config, environ={}))
    with database.read() as connection:
        query = select(tables.audit.c.detail).where(tables.audit.c.action == "key.rotated")
        done = any(json.loads(text).get("to") == now for text in connection.execute(query).scalars())
    if done:
        raise Stop(
            "keys.old-still-there",
            "the site key before the present one is still kept for studies under way",
            hint="edge-node key retire, once they are closed",
            exit_code=ExitCode.TRY_AGAIN,
        )
