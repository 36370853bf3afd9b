"""The memory of the watch over models: results as they were, what validations measured, looks at drift."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, inspect, select

from edge_node.domain.finding import TriageResult
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.watch_tables import drift_look, model_record, observation

KEPT_S = 400 * 86400.0


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """Results that belong together: one finding of one variant of one package."""

    package: str
    variant: str
    finding: str


@dataclass(frozen=True, slots=True)
class Observation:
    """One result as the watch sees it; `seen` are facts of the input."""

    id: int
    at: float
    verdict: str
    probability: float
    threshold: float
    seen: Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class Record:
    """Something that was measured, `kind` validation, parity or baseline."""

    id: int
    at: float
    stream: Stream
    kind: str
    who: str
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a window of results that ends with observation `last`."""

    id: int
    at: float
    stream: Stream
    record: int
    last: int
    count: int
    full: bool
    alarm: bool
    tests: list[dict[str, Any]]


def observe(connection: Connection, study_key: str, result: TriageResult) -> None:
    """Remember what every model said, in the transaction of the result. Replaces what was said of the study before."""
    for one in result.findings:
        row = {"study_key": study_key, "package": one.model.package, "finding": one.code.value}
        connection.execute(delete(observation).where(*(observation.c[key] == value for key, value in row.items())))
        connection.execute(
            insert(observation).values(
                **row,
                at=time.time(),
                variant=one.model.variant,
                verdict=str(one.verdict),
                probability=one.probability,
                threshold=one.threshold,
                seen=json.dumps(dict(one.seen), sort_keys=True),
            )
        )


def streams(connection: Connection) -> list[Stream]:
    """Every stream with results; none in a ledger from before there was a watch."""
    if not inspect(connection).has_table(observation.name):
        return []
    rows = connection.execute(
        select(observation.c.package, observation.c.variant, observation.c.finding).distinct()
    ).all()
    return sorted(Stream(*row) for row in rows)


def observations(connection: Connection, stream: Stream, *, after: int = 0, limit: int = 1000) -> list[Observation]:
    """Results of a stream in the order they came."""
    rows = connection.execute(
        select(observation)
        .where(*_of(observation, stream), observation.c.id > after)
        .order_by(observation.c.id)
        .limit(limit)
    ).all()
    return [Observation(r.id, r.at, r.verdict, r.probability, r.threshold, json.loads(r.seen)) for r in rows]


def count(connection: Connection, stream: Stream, *, after: int = 0) -> int:
    """How many results came after observation `after`."""
    query = select(func.count()).where(*_of(observation, stream), observation.c.id > after)
    return int(connection.execute(query).scalar() or 0)


def newest(connection: Connection, stream: Stream, *kinds: str) -> Record | None:
    """The newest record of these kinds, None without one."""
    row = connection.execute(
        select(model_record)
        .where(*_of(model_record, stream), model_record.c.kind.in_(kinds))
        .order_by(model_record.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _record(row)


def records(connection: Connection, stream: Stream, kind: str) -> list[Record]:
    """Every record of a kind, the newest first."""
    rows = connection.execute(
        select(model_record)
        .where(*_of(model_record, stream), model_record.c.kind == kind)
        .order_by(model_record.c.id.desc())
    ).all()
    return [_record(row) for row in rows]


def write_record(
    connection: Connection,
    actor: str,
    stream: Stream,
    kind: str,
    who: str,
    figures: Mapping[str, Any],
    told: Mapping[str, Any],
) -> int:
    """Keep what was measured; `told` goes into the audit. Returns its number."""
    done = connection.execute(
        insert(model_record).values(
            at=time.time(),
            package=stream.package,
            variant=stream.variant,
            finding=stream.finding,
            kind=kind,
            who=who,
            figures=json.dumps(figures, sort_keys=True),
        )
    )
    audit.append(
        connection,
        actor,
        f"model.{kind}",
        "",
        {"package": stream.package, "variant": stream.variant, "finding": stream.finding, "who": who, **told},
    )
    key = done.inserted_primary_key
    return int(key[0]) if key else 0


def looks(connection: Connection, stream: Stream, *, limit: int = 50, full: bool = False) -> list[Look]:
    """Looks at a stream, the newest first; `full` leaves out early alarms."""
    only = [drift_look.c.full.is_(True)] if full else []
    rows = connection.execute(
        select(drift_look).where(*_of(drift_look, stream), *only).order_by(drift_look.c.id.desc()).limit(limit)
    ).all()
    return [
        Look(
            r.id,
            r.at,
            Stream(r.package, r.variant, r.finding),
            r.record,
            r.last,
            r.results,
            bool(r.full),
            bool(r.alarm),
            json.loads(r.tests),
        )
        for r in rows
    ]


def write_look(
    connection: Connection,
    actor: str,
    stream: Stream,
    *,
    reference: int,
    last: int,
    results: int,
    full: bool,
    alarms: Sequence[str],
    tests: Sequence[Mapping[str, Any]],
) -> None:
    """Keep a look; one with an alarm stands in the audit."""
    connection.execute(
        insert(drift_look).values(
            at=time.time(),
            package=stream.package,
            variant=stream.variant,
            finding=stream.finding,
            record=reference,
            last=last,
            results=results,
            full=full,
            alarm=bool(alarms),
            tests=json.dumps(list(tests)),
        )
    )
    if alarms:
        detail = {"package": stream.package, "finding": stream.finding, "results": results, "changed": list(alarms)}
        audit.append(connection, actor, "model.drift", "", detail)


def forget(database: Database, now: float) -> None:
    """Delete results older than 400 days."""
    with database.write() as connection:
        connection.execute(delete(observation).where(observation.c.at < now - KEPT_S))


def _of(table: Any, stream: Stream) -> list[Any]:
    return [
        table.c.package == stream.package,
        table.c.variant == stream.variant,
        table.c.finding == stream.finding,
    ]


def _record(row: Any) -> Record:
    stream = Stream(row.package, row.variant, row.finding)
    return Record(row.id, row.at, stream, row.kind, row.who, json.loads(row.figures))
