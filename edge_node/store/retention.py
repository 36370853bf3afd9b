"""What is destroyed when its time is over: envelopes, clean objects, quarantined items, escrow, empty segments.

Destroying means deleting the wrapped data key (crypto-shredding); rows stay, so that the ledger tells for ever what
was there. Nothing is destroyed of a study that was reopened meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from edge_node.domain.study import KeyClass, StudyState
from edge_node.store import announcements, audit, escrow
from edge_node.store.database import BREATH_S, Database, in_turns
from edge_node.store.keyring import destroy
from edge_node.store.spool import idle_segments, remove_segment
from edge_node.store.tables import HELD, envelope, finding, instance, lost_identity, quarantine, study
from edge_node.store.tasks import unfinished

ANNOUNCED_DAYS = 30.0  # a step that is still in progress then was forgotten by its modality
ANNOUNCED_UNKNOWN_DAYS = 1.0  # of a study of which no instance came
FORGET_S = 20.0


def _is_past(connection: Connection, study_key: str, revision: int, states: tuple[StudyState, ...]) -> bool:
    """Whether this revision is the current one and stands in one of `states`: a reopened study does not."""
    row = connection.execute(
        select(study.c.state).where(study.c.study_key == study_key, study.c.revision == revision)
    ).one_or_none()
    return row is not None and row.state in states


def destroy_identity(connection: Connection, study_key: str, revision: int) -> None:
    """Shred the study's identity envelopes, unless it was reopened or a write-back still needs them."""
    past = (StudyState.TRIAGED, StudyState.DELIVERED, StudyState.CLOSED)
    if _is_past(connection, study_key, revision, past) and not unfinished(
        connection, study_key, revision, ("worklist",)
    ):
        destroy(connection, study_key, KeyClass.ENVELOPE)
        connection.execute(delete(envelope).where(envelope.c.study_key == study_key))
        connection.execute(delete(lost_identity).where(lost_identity.c.study_key == study_key))  # nor asked for again


def destroy_clean(connection: Connection, study_key: str, revision: int) -> None:
    """Shred the study's clean objects and key images, unless it was reopened."""
    if _is_past(connection, study_key, revision, (StudyState.DELIVERED, StudyState.CLOSED)):
        destroy(connection, study_key, KeyClass.CLEAN)
        connection.execute(update(instance).where(instance.c.study_key == study_key).values(kept=False))
        connection.execute(
            update(finding).where(finding.c.study_key == study_key).values(sealed_key_image=None, sealed_mask=None)
        )


def close_quarantine(connection: Connection, item: str, state: str, actor: str) -> bool:
    """Shred one quarantined item (`state` RELEASED, DISCARDED or EXPIRED says why); False when it was closed before."""
    changed = connection.execute(
        update(quarantine)
        .where(quarantine.c.item == item, quarantine.c.state == "HELD")
        .values(state=state, closed_at=time.time())
    )
    if not changed.rowcount:
        return False
    destroy(connection, item, KeyClass.QUARANTINE)
    row = connection.execute(select(quarantine.c.study_key).where(quarantine.c.item == item)).one()
    audit.append(connection, actor, f"quarantine.{state.lower()}", row.study_key or "", {"item": item})
    return True


def expire_quarantine(database: Database, actor: str) -> int:
    """Shred the quarantined items whose time is over; returns how many."""
    with database.read() as connection:
        over = select(quarantine.c.item).where(HELD, quarantine.c.expires_at < time.time())
        items = connection.execute(over).scalars().all()
    if not items:
        return 0
    return close_all(database, items, "EXPIRED", actor)


def close_all(database: Database, items: Sequence[str], state: str, actor: str) -> int:
    """`close_quarantine` for many; returns how many were held until now."""
    count = 0
    for some in in_turns(items):
        with database.write() as connection:
            count += sum(close_quarantine(connection, item, state, actor) for item in some)
    database.shred_journal()
    return count


def expire_escrow(database: Database, actor: str, days: float) -> int:
    """Delete the escrow records older than `days` (0: never); returns how many."""
    if not days:
        return 0
    before = time.time() - days * 86400.0
    with database.read() as connection:
        if not escrow.older(connection, before):
            return 0
    with database.write() as connection:
        count = escrow.expire(connection, before)
        audit.append(connection, actor, "escrow.expired", "", {"records": count})
    database.shred_journal()
    return count


def forget_announcements(
    database: Database, days: float = ANNOUNCED_DAYS, unknown_days: float = ANNOUNCED_UNKNOWN_DAYS
) -> int:
    """Delete what was announced of studies longer ago than `days` without a word since; returns how many.

    Of studies of which nothing came, after `unknown_days`: anybody may announce them without end. So many that FORGET_S
    are not enough are left to the next round; between two transactions whoever waits for the write lock gets it.
    """
    until = time.monotonic() + FORGET_S
    now, forgotten = time.time(), 0
    times = now - days * 86400.0, now - min(days, unknown_days) * 86400.0
    while True:
        with database.read() as connection:  # looked for where nobody waits: the receiver needs the write lock
            pairs = announcements.old(connection, *times)
        if not pairs or time.monotonic() > until:
            return forgotten
        with database.write() as connection:
            forgotten += announcements.forget(connection, pairs, *times)
        time.sleep(BREATH_S)


def sweep_segments(database: Database, folder: Path) -> int:
    """Delete the segments that hold nothing kept any more; returns the bytes that came free."""
    freed = 0
    for name in idle_segments(folder):
        with database.read() as connection:
            kept = select(instance.c.sop_uid).where(instance.c.segment == name, instance.c.kept).limit(1)
            held = select(quarantine.c.item).where(quarantine.c.segment == name, quarantine.c.state == "HELD").limit(1)
            needed = connection.execute(kept).first() or connection.execute(held).first()
        if not needed:
            freed += remove_segment(folder, name)
    return freed
