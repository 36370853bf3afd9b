"""The state of the node as the ledger tells it: for `edge-node status`, the status page and the metrics.

Reads only, works with the daemon down, needs no key, shows no PHI.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select

from edge_node.config.schema import Config
from edge_node.domain.study import StudyState, TaskState
from edge_node.service.node import ledger_path, spool_path
from edge_node.service.watching import watched_in
from edge_node.store import announcements, audit, counted, dead, held, lost, own_list, priors, readers, studies, tasks
from edge_node.store.database import Database
from edge_node.store.lost import Lost
from edge_node.store.spool import free_bytes
from edge_node.store.tables import (
    UNDONE,
    delivery,
    finding,
    heartbeat,
    list_state,
    reader,
    reading,
    study,
    task,
)

STALE_S = 20.0
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Plain data throughout (JSON-serialisable); times in seconds since the epoch, UTC.

    `quarantine` has the newest objects that are held, `MOST_ROWS` at most, `waiting_for_human` as much of
    what was given up first; `quarantine_reasons` and `given_up` count all.
    """

    at: float
    node: str
    roles: list[dict[str, Any]]
    studies: dict[str, int]
    work: list[dict[str, Any]]
    waiting_for_human: list[dict[str, Any]]
    given_up: list[dict[str, Any]]
    waiting_for_identity: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]
    quarantine_reasons: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    failing: list[dict[str, Any]]
    deliveries: dict[str, dict[str, int]]
    instances: int
    bytes: int
    disk_free: int
    disk_reserve: int
    paused: list[str]
    drift: list[dict[str, Any]]

    @property
    def healthy(self) -> bool:
        """All roles that ever ran are alive with all their processes, nothing waits for a human, the disk reserve is
        intact."""
        alive = all(role["alive"] for role in self.roles) and not self.failing
        return alive and not self.waiting_for_human and self.disk_free > self.disk_reserve


def snapshot(config: Config) -> Snapshot:
    """Read everything in one transaction. Raises Stop("ledger.missing") when there is no ledger."""
    database = Database(ledger_path(config), read_only=True)
    try:
        with database.read() as connection:
            return _read(connection, config)
    finally:
        database.close()


def _read(connection: Connection, config: Config) -> Snapshot:
    now = time.time()
    work = connection.execute(
        select(task.c.step, task.c.target, task.c.state, func.count().label("rows"), func.min(task.c.created_at))
        .where(UNDONE)
        .group_by(task.c.step, task.c.target, task.c.state)
    ).all()
    waiting = connection.execute(
        select(task).where(UNDONE, task.c.state == TaskState.DEAD).order_by(task.c.finished_at).limit(MOST_ROWS)
    ).all()
    roles = [_role(row, now) for row in connection.execute(select(heartbeat).order_by(heartbeat.c.role))]
    instances, size = studies.totals(connection)
    return Snapshot(
        at=now,
        node=config.node.name,
        refused=[row for role in roles for row in role.pop("refused", [])],
        failing=[{"role": role["role"], **row} for role in roles for row in role.pop("failing", [])],
        roles=roles,
        studies=studies.counts_by_state(connection),
        work=[
            {"step": r.step, "target": r.target, "state": r.state, "rows": r.rows, "oldest_s": round(now - r[4], 1)}
            for r in work
        ],
        waiting_for_human=[
            {"study": r.study_key, "step": r.step, "target": r.target, "code": r.code, "message": r.message}
            for r in waiting
        ],
        given_up=[asdict(one) for one in dead.reasons(connection)],
        waiting_for_identity=[
            {"study": one.study_key, **_identity(one), "waits_s": round(now - one.lost_at, 1)}
            for one in lost.lost(connection)
        ],
        quarantine=[quarantine_item(row) for row in held.rows(connection, held.Which(), limit=MOST_ROWS)],
        quarantine_reasons=[asdict(one) for one in held.reasons(connection)],
        deliveries=counted.deliveries(connection),
        instances=instances,
        bytes=size,
        disk_free=free_bytes(spool_path(config)),
        disk_reserve=config.storage.reserve_mb * 1_000_000,
        paused=tasks.paused(connection),
        drift=watched_in(connection, config),
    )


def _role(row: Row[Any], now: float) -> dict[str, Any]:
    alive = row.state == "ready" and now - row.at < STALE_S
    return {
        "role": row.role,
        "pid": row.pid,
        "state": row.state if alive or row.state == "stopped" else "silent",
        "alive": alive,
        "up_s": round(row.at - row.started_at, 1),
        "seen_s_ago": round(now - row.at, 1),
        **json.loads(row.detail),
    }


def _identity(one: Lost) -> dict[str, Any]:
    """Why a study has no identity now (`[node] identity = "memory"`); `looks` counts answers of the PACS."""
    return {"code": one.code, "message": one.message, "looks": one.looks}


def quarantine_item(row: Row[Any]) -> dict[str, Any]:
    """One quarantined object as shown to people: reason and circumstances, never content."""
    return {
        "item": row.item,
        "study": row.study_key or "",
        "code": row.code,
        "message": row.message,
        "from": row.calling_ae,
        "bytes": row.size,
        "received_at": row.received_at,
        "expires_at": row.expires_at,
    }


def study_rows(connection: Connection, *, state: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """Studies, newest first, with verdict and place in the reading order."""
    query = select(study).order_by(study.c.first_received_at.desc()).limit(limit)
    if state:
        query = query.where(study.c.state == StudyState(state))
    return [_study_row(connection, row) for row in connection.execute(query).all()]


def _study_row(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    found = connection.execute(
        select(finding.c.result)
        .where(finding.c.study_key == row.study_key)
        .order_by(finding.c.revision.desc())
        .limit(1)
    ).scalar()
    place = studies.get_reading(connection, row.study_key)
    sent = connection.execute(
        select(delivery.c.state, func.count()).where(delivery.c.study_key == row.study_key).group_by(delivery.c.state)
    ).all()
    return {
        "study": row.study_key,
        "state": row.state,
        "revision": row.revision,
        "complete": row.complete,
        "modalities": row.modalities,
        "body_part": row.body_part,
        "instances": row.instances,
        "bytes": row.bytes,
        "from": row.calling_ae,
        "recipe": row.recipe,
        "recipe_sha256": row.recipe_sha256,
        "trial": row.trial,
        "site_key": row.site_key_id,
        "first_received_at": row.first_received_at,
        "last_received_at": row.last_received_at,
        "settled_at": row.settled_at,
        "settle_reason": row.settle_reason,
        "triaged_at": row.triaged_at,
        "delivered_at": row.delivered_at,
        "result": json.loads(found) if found else None,
        "priority": place.reason if place else "",
        "prior": priors.is_prior(connection, row.study_key),
        "trainer": {str(s): int(c) for s, c in sent},
    }


def study_detail(connection: Connection, study_key: str) -> dict[str, Any]:
    """One study with its work, deliveries by reason and audit trail. Raises Quarantine("study.unknown")."""
    row = studies.get(connection, study_key)
    reasons = connection.execute(
        select(delivery.c.destination, delivery.c.state, delivery.c.code, func.count())
        .where(delivery.c.study_key == study_key)
        .group_by(delivery.c.destination, delivery.c.state, delivery.c.code)
    ).all()
    rows = connection.execute(select(task).where(task.c.study_key == study_key).order_by(task.c.id)).all()
    waiting = lost.of(connection, study_key)
    return {
        **_study_row(connection, row),
        **({"identity": _identity(waiting)} if waiting else {}),
        "announced": announcements.announced(connection, study_key).told(),
        "work": [
            {
                "revision": r.revision,
                "step": r.step,
                "target": r.target,
                "state": r.state,
                "attempts": r.attempts,
                "code": r.code,
                "message": r.message,
            }
            for r in rows
        ],
        "deliveries": [{"to": d, "state": s, "code": c, "instances": n} for d, s, c, n in reasons],
        "timeline": [
            {"at": e.at, "actor": e.actor, "action": e.action, "detail": e.detail}
            for e in audit.entries(connection, study_key)
        ],
    }


def _reading_state(row: Row[Any]) -> str:
    state = own_list.stands(row.taken, row.number, row.changed_at, row.decided_at)[0]
    reported = row.reader == readers.Reading.REPORTED and row.at >= row.decided_at
    return str(readers.Reading.REPORTED if reported and not state.final else state)


def reading_list(connection: Connection, *, since: float) -> list[dict[str, Any]]:
    """The reading order: smaller tier first, then the earlier due time, of results from after `since`.

    `read` is what readers of our own list did, or that there is a report of what was known when it was written.
    """
    rows = connection.execute(
        select(reading, study.c.modalities, study.c.body_part, study.c.state, study.c.first_received_at)
        .add_columns(list_state.c.state.label("taken"), list_state.c.number, list_state.c.changed_at)
        .join(study, study.c.study_key == reading.c.study_key)
        .add_columns(reader.c.state.label("reader"), reader.c.at)
        .outerjoin(list_state, list_state.c.study_key == reading.c.study_key)
        .outerjoin(reader, reader.c.study_key == reading.c.study_key)
        .where(or_(study.c.triaged_at >= since, study.c.triaged_at.is_(None)))
        .order_by(reading.c.tier, reading.c.due)
    )
    return [
        {
            "study": r.study_key,
            "level": r.level,
            "tier": r.tier,
            "due": r.due,
            "target_minutes": r.target_minutes,
            "raised_by_ai": r.raised_by_ai,
            "reason": r.reason,
            "modalities": r.modalities,
            "body_part": r.body_part,
            "state": r.state,
            "read": _reading_state(r),
            "arrived_at": r.first_received_at,
            "written_at": r.written_at,
        }
        for r in rows
    ]
