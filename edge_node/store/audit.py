"""The append-only, hash-chained audit: what happened to which study, in the transaction that made it happen.

Each entry's hash is SHA-256 over the previous hash and the entry's canonical JSON; altering, removing or reordering an
entry breaks every later hash. No PHI: study keys, counts, codes, versions, hashes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from edge_node.store.tables import audit, audit_head


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry as stored; `detail` is decoded JSON."""

    seq: int
    at: float
    actor: str
    action: str
    study_key: str
    detail: dict[str, Any]
    previous: str
    hash: str


def _digest(seq: int, at: float, actor: str, action: str, study_key: str, detail: str, previous: str) -> str:
    body = json.dumps([seq, repr(at), actor, action, study_key, detail, previous], separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def append(
    connection: Connection,
    actor: str,
    action: str,
    study_key: str = "",
    detail: dict[str, Any] | None = None,
    *,
    at: float | None = None,
) -> int:
    """Append one entry inside the caller's write transaction; returns its sequence number (from 1)."""
    when = time.time() if at is None else at
    head = connection.execute(select(audit_head.c.seq, audit_head.c.hash).with_for_update()).one()
    seq, text = head.seq + 1, json.dumps(detail or {}, sort_keys=True, separators=(",", ":"))
    digest = _digest(seq, when, actor, action, study_key, text, head.hash)
    connection.execute(
        insert(audit).values(
            seq=seq,
            at=when,
            actor=actor,
            action=action,
            study_key=study_key,
            detail=text,
            previous=head.hash,
            hash=digest,
        )
    )
    connection.execute(update(audit_head).values(seq=seq, hash=digest))
    return int(seq)


def entries(connection: Connection, study_key: str | None = None) -> Iterator[AuditEntry]:
    """All entries in order, or those of one study."""
    query = select(audit).order_by(audit.c.seq)
    if study_key is not None:
        query = query.where(audit.c.study_key == study_key)
    for row in connection.execute(query):
        yield AuditEntry(
            row.seq, row.at, row.actor, row.action, row.study_key, json.loads(row.detail), row.previous, row.hash
        )


@dataclass(frozen=True, slots=True)
class ChainReport:
    """`intact`, the number of entries read, and the first sequence number at which the chain breaks (0: none)."""

    intact: bool
    entries: int
    first_broken: int
    head: str


def verify(connection: Connection) -> ChainReport:
    """Recompute every hash from the first entry to the head."""
    previous, expected, count = "0" * 64, 1, 0
    for row in connection.execute(select(audit).order_by(audit.c.seq)):
        count += 1
        digest = _digest(row.seq, row.at, row.actor, row.action, row.study_key, row.detail, row.previous)
        if row.seq != expected or row.previous != previous or row.hash != digest:
            return ChainReport(False, count, expected, previous)
        previous, expected = row.hash, expected + 1
    head = connection.execute(select(audit_head.c.seq, audit_head.c.hash)).one()
    if head.seq != expected - 1 or head.hash != previous:
        return ChainReport(False, count, expected, previous)
    return ChainReport(True, count, 0, previous)
