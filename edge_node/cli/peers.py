"""`edge-node echo | send`: talk to a DICOM peer by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.config.schema import Config
from edge_node.config.tls import peer_of
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode
from edge_node.domain.worklist import Peer

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(echo)
    app.command()(send)


def peer_named(config: Config, name: str) -> Peer:
    """A peer by its name in the configuration, or given as AET@host:port. Raises Stop("peer.unknown")."""
    if "@" in name:
        title, _, address = name.partition("@")
        host, _, port = address.rpartition(":")
        if host and port.isdigit():
            return Peer(title, host, int(port))
    entry = config.peers.get(name)
    if entry is None:
        known = ", ".join(config.peers) or "none is configured"
        raise Stop(
            "peer.unknown",
            f"there is no peer {name} (known: {known})",
            hint=f"add [peers.{name}] to the configuration, or say AET@host:port",
            exit_code=ExitCode.USAGE,
        )
    return peer_of(entry)


def echo(ctx: typer.Context, peer: str, json: Json = False) -> None:
    """C-ECHO a peer (its name in the configuration, or AET@host:port)."""
    from edge_node.service import echo as verification

    call: Invocation = ctx.obj
    config = call.load().config
    target = peer_named(config, peer)
    seconds = verification.echo(target, config.worklist.calling_ae_title, 10.0)
    emit(
        {"peer": target.ae_title, "seconds": round(seconds, 4)},
        json=json or call.json,
        human=lambda: say(f"{target.ae_title} answers in {seconds * 1000:.0f} ms"),
    )


def send(
    ctx: typer.Context,
    peer: str,
    path: Path,
    calling_ae: Annotated[str, typer.Option("--calling-ae", help="AE title to send as.")] = "EDGESEND",
    json: Json = False,
) -> None:
    """C-STORE every DICOM file below a folder to a peer."""
    from edge_node.service.sender import send_study

    call: Invocation = ctx.obj
    target = peer_named(call.load().config, peer)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    with Progress(console=Console(stderr=True), disable=json or call.json) as progress:
        bar = progress.add_task(f"to {target.ae_title}", total=len(files))
        report = send_study(
            files,
            target,
            calling_ae=calling_ae,
            progress=lambda done, _total, _word: progress.update(bar, completed=done),
        )
    emit(
        {"sent": len(report.results), "accepted": report.accepted, "by_status": report.by_status},
        json=json or call.json,
        human=lambda: table(("status", "objects"), sorted(report.by_status.items())),
    )
    raise SystemExit(ExitCode.FINE if report.accepted == len(report.results) else ExitCode.FOUND_WRONG)
