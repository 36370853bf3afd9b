"""The status role: a page for people, JSON and Prometheus metrics for machines, on loopback, from the ledger alone."""

from __future__ import annotations

import html
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError, Stop
from edge_node.domain.reading_list import ReadState
from edge_node.domain.status import ExitCode
from edge_node.service import notify
from edge_node.service.drift_section import drift_section
from edge_node.service.node import ledger_path
from edge_node.service.plots import STYLE as PLOTS
from edge_node.service.snapshot import Snapshot, reading_list, snapshot
from edge_node.store.database import Database
from edge_node.store.readers import Reading

log = structlog.get_logger()


class LedgerCollector(Collector):
    """Metrics read from the ledger at each scrape; no label carries a study or a person."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def collect(self) -> Iterator[Metric]:
        shot = snapshot(self._config)
        yield _family("edge_node_studies", "Studies by state", ("state",), [((s,), n) for s, n in shot.studies.items()])
        yield _family(
            "edge_node_work",
            "Unfinished work by step and state",
            ("step", "target", "state"),
            [((w["step"], w["target"], w["state"]), w["rows"]) for w in shot.work],
        )
        yield _family(
            "edge_node_work_oldest_seconds",
            "Age of the oldest unfinished work",
            ("step", "target", "state"),
            [((w["step"], w["target"], w["state"]), w["oldest_s"]) for w in shot.work],
        )
        yield _family(
            "edge_node_deliveries",
            "Instances by destination and state",
            ("destination", "state"),
            [((to, s), n) for to, states in shot.deliveries.items() for s, n in states.items()],
        )
        yield _family(
            "edge_node_role_up",
            "1 when the role is alive",
            ("role",),
            [((r["role"],), int(r["alive"])) for r in shot.roles],
        )
        yield _family("edge_node_quarantine", "Objects held in quarantine", (), [((), _held(shot))])
        yield _family(
            "edge_node_refused",
            "Associations and instances refused or aborted since the receiver started, by calling AE title and reason",
            ("calling_ae", "reason"),
            [((r["from"], r["reason"]), r["count"]) for r in shot.refused],
        )
        labels = ("model", "version", "variant", "finding")
        watched = [((d["model"], d["version"], d["variant"], d["finding"]), d) for d in shot.drift]
        yield _family(
            "edge_node_model_drift_alarm",
            "1 when the last look at the results of a model found a change (edge-node model drift)",
            labels,
            [(key, int(d["state"] == "alarm")) for key, d in watched],
        )
        yield _family(
            "edge_node_model_results", "Results of a model", labels, [(key, d["results"]) for key, d in watched]
        )
        yield _family(
            "edge_node_model_flag_rate",
            "Share that a model flagged in the last look at its results",
            labels,
            [(key, t["value"]) for key, d in watched for t in d["tests"] if t["what"] == "flag rate"],
        )
        yield _family("edge_node_instances", "Instances in the ledger", (), [((), shot.instances)])
        yield _family("edge_node_disk_free_bytes", "Free bytes on the data disk", (), [((), shot.disk_free)])


def _family(
    name: str, text: str, labels: tuple[str, ...], rows: list[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def serve(config: Config) -> int:
    """Serve until SIGTERM. Raises Stop: ``status.off`` (port 0), ``status.cannot-listen`` (the address is taken)."""
    if not config.status.port:
        raise Stop(
            "status.off",
            "the status page is switched off ([status] port = 0)",
            hint="set status.port, or systemctl disable --now edge-node-status",
        )
    registry = CollectorRegistry()
    registry.register(LedgerCollector(config))

    class Page(BaseHTTPRequestHandler):
        server_version = "edge-node"
        sys_version = ""

        def do_GET(self) -> None:
            try:
                self._answer()
            except EdgeNodeError as error:
                self._send(503, "application/json", json.dumps({"code": error.code, "message": error.message}).encode())

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/status.json":
                self._send(200, "application/json", json.dumps(asdict(snapshot(config))).encode())
            elif path == "/healthz":
                healthy = snapshot(config).healthy
                self._send(200 if healthy else 503, "text/plain", b"ok\n" if healthy else b"look at /\n")
            elif path == "/":
                self._send(200, "text/html; charset=utf-8", _render(config).encode())
            else:
                self._send(404, "text/plain", b"nothing here\n")

        def _send(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Access lines say nothing the metrics do not."""

    try:
        server = ThreadingHTTPServer((config.status.host, config.status.port), Page)
    except OSError as error:
        raise Stop(
            "status.cannot-listen",
            f"[status] cannot listen on {config.status.host}:{config.status.port}: {os.strerror(error.errno or 0)}",
            hint="set status.port to a free port, or to 0 to do without the page",
            exit_code=69,
        ) from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
    notify.ready("serving")
    log.info("role.ready", role="status", port=server.server_address[1])
    interval = notify.watchdog_interval_s() or 3600.0
    while not stop.wait(interval):
        notify.watchdog()
    notify.stopping()
    server.shutdown()
    return ExitCode.FINE


MOST_ROWS = 50  # of a table
FINISHED = [str(Reading.REPORTED), *(str(one) for one in ReadState if one.final)]
_STYLE = """
:root{color-scheme:light dark;--ink:#1b2733;--dim:#5b6b7a;--paper:#f7f9fb;
--card:#fff;--line:#dde4ea;--red:#b3261e;--ok:#1b7f4b;--mark:#1f5fa8}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#93a4b5;--paper:#10161c;--card:#182129;--line:#2a3641;
--red:#ff8a80;--ok:#6fd29b;--mark:#7fb2ee}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1rem;margin:2rem 0 .5rem}p{color:var(--dim)}
table{border-collapse:collapse;width:100%;background:var(--card);
border:1px solid var(--line);border-radius:8px;overflow:hidden}
th,td{text-align:left;padding:.4rem .7rem;border-top:1px solid var(--line);font-variant-numeric:tabular-nums}
th{font-size:.8rem;color:var(--dim);font-weight:600;border-top:0}
.bad{
color:var(--red);font-weight:600}.ok{color:var(--ok)}
"""


def _held(shot: Snapshot) -> int:
    return sum(one["objects"] for one in shot.quarantine_reasons)


def _render(config: Config) -> str:
    shot = snapshot(config)
    with Database(ledger_path(config), read_only=True).read() as connection:
        since = time.time() - config.reading_list.hours * 3600.0
        order = [one for one in reading_list(connection, since=since) if one["read"] not in FINISHED][:MOST_ROWS]
    sections = [
        _table("Roles", ("role", "state", "pid"), [(r["role"], r["state"], r["pid"]) for r in shot.roles]),
        _table(
            "Processes that do not stay",
            ("role", "process", "exit code", "why"),
            [(r["role"], r["process"], r["exit_code"], r["code"]) for r in shot.failing],
        ),
        _table(
            "Reading order (advisory: a radiologist reads every study)",
            ("#", "level", "tier", "due", "study", "what", "why", "reading"),
            [
                (i, r["level"], r["tier"], _clock(r["due"]), r["study"], _about(r), r["reason"], r["read"].lower())
                for i, r in enumerate(order, 1)
            ],
        ),
        drift_section(shot.drift),
        _table("Studies", ("state", "studies"), list(shot.studies.items())),
        _table(
            "Unfinished work",
            ("step", "target", "state", "rows", "oldest"),
            [(w["step"], w["target"], w["state"], w["rows"], f"{w['oldest_s']:.0f} s") for w in shot.work],
        ),
        _table(
            f"Waiting for a human: {sum(w['rows'] for w in shot.given_up)}",
            ("studies", "step", "one of them", "why"),
            [
                (w["rows"], f"{w['step']} {w['target']}", w["study"], f"{w['code']}: {w['message']}")
                for w in shot.given_up[:MOST_ROWS]
            ],
        ),
        _table(
            f"Waiting for identity: {len(shot.waiting_for_identity)}",
            ("study", "looks", "why"),
            [(w["study"], w["looks"], f"{w['code']}: {w['message']}") for w in shot.waiting_for_identity[:MOST_ROWS]],
        ),
        _table(
            f"Quarantine: {_held(shot)} objects (edge-node quarantine list)",
            ("objects", "from", "why", "next to be destroyed"),
            [
                (q["objects"], q["sender"], f"{q['code']}: {q['message']}", _clock(q["next_to_expire"]))
                for q in shot.quarantine_reasons[:MOST_ROWS]
            ],
        ),
        _table(
            "Refused since the receiver started",
            ("from", "reason", "count", "last"),
            [(r["from"], r["reason"], r["count"], _clock(r["last_at"])) for r in shot.refused[:MOST_ROWS]],
        ),
    ]
    drifts = any(row["state"] == "alarm" for row in shot.drift)
    word = (
        '<span class="ok">all well</span>' if shot.healthy and not drifts else '<span class="bad">needs a look</span>'
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="refresh" content="5"><title>{html.escape(shot.node)}</title><style>{_STYLE}{PLOTS}</style>'
        f"<h1>{html.escape(shot.node)}: {word}</h1><p>{time.strftime('%Y-%m-%d %H:%M:%S')} · "
        f"{shot.instances} instances · {shot.disk_free / 1e9:.1f} GB free</p>{''.join(sections)}</html>"
    )


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    return f"<td>{html.escape('' if value is None else str(value))}</td>"


def _about(row: dict[str, Any]) -> str:
    return f"{row['modalities']} {row['body_part']}".strip()


def _clock(seconds: float) -> str:
    """Local time; with its day unless that is today."""
    when = datetime.fromtimestamp(seconds).astimezone()
    today = when.date() == datetime.now().astimezone().date()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")
