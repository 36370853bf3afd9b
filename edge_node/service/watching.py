"""The watch over models: results in windows against a reference, alarms in the ledger. No patient in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import structlog
from sqlalchemy import Connection, select

from edge_node.config.schema import Config
from edge_node.domain.finding import Verdict
from edge_node.service.check import Check
from edge_node.service.node import Node, ledger_path
from edge_node.store import watch
from edge_node.store.database import Database
from edge_node.store.tables import model_package
from edge_node.store.watch import Look, Observation, Record, Stream
from edge_node.triage import drift

log = structlog.get_logger()

BASELINE: Final = 200  # first results that become the reference where no validation was made
_JUDGED: Final = (str(Verdict.FLAGGED), str(Verdict.NOT_FLAGGED))


def look(node: Node) -> int:
    """Look at every stream that has news; returns how many alarms were raised. For the compute role's schedule."""
    with node.database.read() as connection:
        streams = watch.streams(connection)
    return sum(_look_at(node, stream) for stream in streams)


def _look_at(node: Node, stream: Stream) -> int:
    size, level = node.config.triage.drift_window, node.config.triage.drift_false_alarms
    with node.database.read() as connection:
        reference = _reference(connection, stream)
        if reference is None:
            first = watch.observations(connection, stream, limit=BASELINE)
            window: list[Observation] = []
        else:
            after = _after(connection, stream, reference)
            window = watch.observations(connection, stream, after=after, limit=size)
            early = next(iter(watch.looks(connection, stream, limit=1)), None)
    if reference is None:
        if len(first) == BASELINE:
            with node.database.write() as connection:
                told = {"results": BASELINE}
                figures = {"reference": _kept(first), "last": first[-1].id}
                watch.write_record(connection, node.actor, stream, "baseline", "edge-node", figures, told)
        return 0
    if not window:
        return 0
    past, now = _seen_of(reference, window[-1].threshold), _seen(window)
    full = len(window) == size
    if full:
        tests = drift.compare(past, now, level)
    else:
        if early is not None and not early.full and early.last > after:
            return 0  # this window has alarmed already
        tests = [drift.flag_rate(past, now.flagged, level / 2)]
    alarms = [test.what for test in tests if test.alarm]
    if not full and not alarms:
        return 0
    with node.database.write() as connection:
        watch.write_look(
            connection,
            node.actor,
            stream,
            reference=reference.id,
            last=window[-1].id,
            results=len(window),
            full=full,
            alarms=alarms,
            tests=[_plain(test) for test in tests],
        )
    if alarms:
        log.warning("model.drift", variant=stream.variant, reason=", ".join(alarms), count=len(window))
    return int(bool(alarms))


def watched(config: Config) -> list[dict[str, Any]]:
    """Every stream with its state, for people and machines. Raises Stop("ledger.missing")."""
    database = Database(ledger_path(config), read_only=True)
    try:
        with database.read() as connection:
            return watched_in(connection, config)
    finally:
        database.close()


def watched_in(connection: Connection, config: Config) -> list[dict[str, Any]]:
    """As `watched`, of one snapshot of the ledger."""
    size, level = config.triage.drift_window, config.triage.drift_false_alarms
    names = {
        row.package: (row.name, row.version)
        for row in connection.execute(select(model_package.c.package, model_package.c.name, model_package.c.version))
    }
    rows = []
    for stream in watch.streams(connection):
        name, version = names.get(stream.package, (stream.package[:12], ""))
        reference = _reference(connection, stream)
        looks = watch.looks(connection, stream, limit=30)
        after = _after(connection, stream, reference) if reference else 0
        waiting = watch.count(connection, stream, after=after)
        last = looks[0] if looks else None
        rows.append(
            {
                "model": name,
                "version": version,
                "variant": stream.variant,
                "finding": stream.finding,
                "state": _state(last, reference),
                "results": watch.count(connection, stream),
                "waiting": waiting,
                "window": size,
                "reference": _what(reference, waiting),
                "looked_at": last.at if last else 0.0,
                "changed": [test["what"] for test in last.tests if test["alarm"]] if last else [],
                "tests": last.tests if last else [],
                "history": _history(looks),
                "rule": f"looks at {size} results each, at most one false alarm in {size / level:.0f} results expected",
            }
        )
    return rows


def checks(config: Config) -> Iterator[Check]:
    """For `doctor`."""
    for row in watched(config):
        name = f"drift {row['model']}"
        stream = f"{row['version']} {row['variant']}, {row['finding']}"
        if row["state"] == "alarm":
            detail = f"{stream}: changed: {', '.join(row['changed'])}"
            yield Check(name, "warn", detail, f"edge-node model drift {row['model']}")
        else:
            yield Check(name, "ok", f"{stream}: {row['state']}, {row['reference']}")


def _reference(connection: Connection, stream: Stream) -> Record | None:
    """The newest validation with enough judged cases, else the first results of the stream."""
    made = watch.newest(connection, stream, "validation")
    if made is not None and len(made.figures["reference"]["scores"]) >= drift.FEWEST:
        return made
    return watch.newest(connection, stream, "baseline")


def _after(connection: Connection, stream: Stream, reference: Record) -> int:
    done = watch.looks(connection, stream, limit=1, full=True)
    return max(int(reference.figures.get("last", 0)), done[0].last if done else 0)


def _state(last: Look | None, reference: Record | None) -> str:
    if reference is None:
        return "no reference yet"
    if last is None:
        return "first window fills"
    return "alarm" if last.alarm else "quiet"


def _what(reference: Record | None, waiting: int) -> str:
    if reference is None:
        return f"{waiting} of the first {BASELINE} results"
    count = len(reference.figures["reference"]["scores"])
    return f"{reference.kind} of {count}" if reference.kind == "validation" else f"the first {BASELINE} results"


def _kept(first: Sequence[Observation]) -> dict[str, Any]:
    judged = [one for one in first if one.verdict in _JUDGED]
    return {
        "scores": [round(one.probability, 6) for one in judged],
        "flagged": [one.verdict == str(Verdict.FLAGGED) for one in judged],
        "weights": [],
        "seen": [dict(one.seen) for one in judged],
        "not_judged": len(first) - len(judged),
    }


def _seen_of(reference: Record, threshold: float) -> drift.Seen:
    """The reference, flagged by the threshold of today: a new operating point is a decision, no drift."""
    kept: dict[str, Any] = reference.figures["reference"]
    scores: list[float] = kept["scores"]
    made = _columns(kept["seen"])
    if "not_judged" in kept:
        made[0]["judged"] = ["yes"] * len(scores) + ["no"] * int(kept["not_judged"])
    return drift.Seen(scores, [score >= threshold for score in scores], made[0], made[1], kept["weights"])


def _seen(window: Sequence[Observation]) -> drift.Seen:
    judged = [one for one in window if one.verdict in _JUDGED]
    words, numbers = _columns([one.seen for one in judged])
    words["judged"] = ["yes" if one.verdict in _JUDGED else "no" for one in window]
    flags = [one.verdict == str(Verdict.FLAGGED) for one in judged]
    return drift.Seen([one.probability for one in judged], flags, words, numbers)


def _columns(seen: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    words: dict[str, list[str]] = {}
    numbers: dict[str, list[float]] = {}
    for one in seen:
        for name, value in one.items():
            if isinstance(value, str):
                words.setdefault(name, []).append(value)
            elif math.isfinite(value):
                numbers.setdefault(name, []).append(float(value))
    return words, numbers


def _plain(test: drift.Test) -> dict[str, Any]:
    return {**asdict(test), "alarm": test.alarm, "size": test.size}


def _history(looks: Sequence[Look]) -> dict[str, list[dict[str, Any]]]:
    """Values by what was tested, oldest first, of full windows: what the plots draw."""
    told: dict[str, list[dict[str, Any]]] = {}
    for one in reversed([one for one in looks if one.full]):
        for test in one.tests:
            if test["value"] is not None:
                point = {"at": one.at, "value": test["value"], "alarm": test["alarm"], "expected": test["expected"]}
                told.setdefault(test["what"], []).append(point)
    return told
