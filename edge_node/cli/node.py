"""`edge-node init | run | status | doctor`: the node itself."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.status import ExitCode
from edge_node.domain.study import Role

MOST_REFUSALS = 20
MOST_ROWS = 20
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    for verb in (init, run, status, doctor):
        app.command()(verb)


def init(ctx: typer.Context, json: Json = False) -> None:
    """Make the data folder, the node keys and the ledger; safe to repeat, never overwrites."""
    from edge_node.service.setup import initialise

    call: Invocation = ctx.obj
    done = initialise(call.load().config)
    emit(
        done,
        json=json or call.json,
        human=lambda: table(("what", "result"), [(k, v) for k, v in done.items()]),
    )
    if not (json or call.json):
        say("next: edge-node doctor")


def run(
    ctx: typer.Context,
    role: Annotated[Role | None, typer.Option("--role", help="Run this role only (one systemd unit each).")] = None,
) -> None:
    """Run the node: one role, or all of them as supervised child processes."""
    call: Invocation = ctx.obj
    config = call.load().config
    if role is not None:
        from edge_node.service.beginning import run_role

        raise SystemExit(run_role(role, config))
    from edge_node.service import logs
    from edge_node.service.supervise import Supervisor

    logs.configure(config.node.log_format, config.node.log_level, role="supervisor", node=config.node.name)
    roles = [Role.DICOM, Role.COMPUTE, Role.FORWARD] + ([Role.STATUS] if config.status.port else [])
    raise SystemExit(Supervisor(roles, call.arguments()).run())


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until interrupted.")] = False,
    json: Json = False,
) -> None:
    """What the node is doing, what waits for a human, what is in quarantine. Works with the node down."""
    from dataclasses import asdict

    from edge_node.service.snapshot import snapshot

    call: Invocation = ctx.obj
    config = call.load().config
    if json or call.json:
        shot = snapshot(config)
        emit({**asdict(shot), "healthy": shot.healthy}, json=True, human=lambda: None)
        raise SystemExit(ExitCode.FINE if shot.healthy else ExitCode.FOUND_WRONG)
    if not watch:
        Console(highlight=False).print(_page(asdict(snapshot(config))))
        return
    with Live(_page(asdict(snapshot(config))), refresh_per_second=2, screen=True) as live:
        try:
            while True:
                time.sleep(1.0)
                live.update(_page(asdict(snapshot(config))))
        except KeyboardInterrupt:
            return


def clock(seconds: float | None) -> str:
    """Local time of day for people; "" for None."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


def _page(shot: dict[str, Any]) -> Group:
    free, reserve = shot["disk_free"] / 1e9, shot["disk_reserve"] / 1e9
    head = Text.assemble(
        (f" {shot['node']} ", "bold reverse"),
        f"  {shot['instances']} instances, {shot['bytes'] / 1e6:.1f} MB; "
        f"disk: {free:.1f} GB free, reserve {reserve:.1f} GB",
    )
    roles = _grid("role", "state", "pid", "up", "detail")
    for role in shot["roles"]:
        known = {"role", "pid", "state", "alive", "up_s", "seen_s_ago"}
        detail = ", ".join(f"{k} {v}" for k, v in role.items() if k not in known)
        roles.add_row(
            role["role"],
            Text(role["state"], "green" if role["alive"] else "bold red"),
            str(role["pid"]),
            f"{role['up_s']:.0f} s",
            detail,
        )
    parts: list[Any] = [head, "", roles]
    if shot["failing"]:
        failing = _grid("role", "process", "exit code", "why")
        for row in shot["failing"]:
            why = f"{row['code']} (edge-node docs {row['code']})"
            code = row["exit_code"]  # none: there was no room to start it
            failing.add_row(row["role"], row["process"], "" if code is None else str(code), why)
        parts += ["", Text("processes that do not stay (see the log of their role)", "bold red"), failing]
    parts += [
        "",
        Text.assemble(("studies  ", "bold"), "  ".join(f"{k} {v}" for k, v in shot["studies"].items()) or "none"),
    ]
    if shot["deliveries"]:
        sent = "; ".join(
            f"to {to}: " + ", ".join(f"{s} {n}" for s, n in d.items()) for to, d in shot["deliveries"].items()
        )
        parts.append(Text.assemble(("sent     ", "bold"), sent))
    if shot["paused"]:
        parts.append(Text(f"paused: {', '.join(shot['paused'])} (edge-node queue resume STEP)", "bold yellow"))
    if shot["work"]:
        work = _grid("step", "target", "state", "rows", "oldest")
        for row in shot["work"]:
            work.add_row(row["step"], row["target"], row["state"], str(row["rows"]), f"{row['oldest_s']:.0f} s")
        parts += ["", work]
    if shot["waiting_for_human"]:
        dead = _grid("studies", "step", "target", "since", "one of them", "why")
        for row in shot["given_up"][:MOST_ROWS]:
            why = f"{row['code']}: {row['message']}"
            dead.add_row(str(row["rows"]), row["step"], row["target"], clock(row["since"]), row["study"], why)
        _and_more(dead, len(shot["given_up"]), "edge-node status --json")
        parts += [
            "",
            Text("waiting for a human (edge-node queue retry, edge-node study retry STUDY)", "bold red"),
            dead,
        ]
    if shot["waiting_for_identity"]:
        asked = _grid("study", "waits", "looks", "why")
        for row in shot["waiting_for_identity"][:MOST_ROWS]:
            why = f"{row['code']}: {row['message']}"
            asked.add_row(row["study"], f"{row['waits_s']:.0f} s", str(row["looks"]), why)
        _and_more(asked, len(shot["waiting_for_identity"]), "edge-node status --json")
        parts += ["", Text("waiting for identity, asked of the PACS (edge-node docs operations)", "bold yellow"), asked]
    if shot["drift"]:
        watched = _grid("model", "variant", "results", "drift", "changed")
        for row in shot["drift"]:
            state = Text(row["state"], "bold red" if row["state"] == "alarm" else "")
            name = f"{row['model']} {row['version']}"
            watched.add_row(name, row["variant"], str(row["results"]), state, ", ".join(row["changed"]))
        parts += ["", Text("models (edge-node model drift)", "bold"), watched]
    if shot["quarantine_reasons"]:
        held = _grid("objects", "from", "MB", "last received", "next to expire", "one of them", "why")
        for row in shot["quarantine_reasons"][:MOST_ROWS]:
            held.add_row(
                str(row["objects"]),
                row["sender"],
                f"{row['bytes'] / 1e6:.1f}",
                clock(row["last_at"]),
                clock(row["next_to_expire"]),
                row["item"],
                f"{row['code']}: {row['message']}",
            )
        _and_more(held, len(shot["quarantine_reasons"]), "edge-node quarantine list")
        parts += ["", Text("quarantine (edge-node quarantine list, release, discard)", "bold yellow"), held]
    if shot["refused"]:
        refused = _grid("from", "reason", "count", "last")
        for row in shot["refused"][:MOST_REFUSALS]:
            refused.add_row(row["from"], row["reason"], str(row["count"]), clock(row["last_at"]))
        parts += ["", Text("refused since the receiver started (edge-node docs operations)", "bold yellow"), refused]
    return Group(*parts)


def _and_more(grid: Table, rows: int, command: str) -> None:
    if rows > MOST_ROWS:
        grid.add_row("…", f"{rows - MOST_ROWS} more: {command}")


def _grid(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="dim", pad_edge=False)


def doctor(ctx: typer.Context, json: Json = False) -> None:
    """Check everything the node needs: configuration, keys, ledger, audit, recipe, models, peers, trainer, disk."""
    from edge_node.service.doctor import examine

    call: Invocation = ctx.obj
    checks = list(examine(call.load()))
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    emit(
        [{"check": c.name, "result": c.result, "detail": c.detail, "next": c.hint} for c in checks],
        json=json or call.json,
        human=lambda: table(
            ("check", "result", "detail", "next"),
            [(c.name, Text(c.result, colours[c.result]), c.detail, c.hint) for c in checks],
        ),
    )
    raise SystemExit(ExitCode.FOUND_WRONG if any(c.result == "fail" for c in checks) else ExitCode.FINE)
