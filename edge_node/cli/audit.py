"""`edge-node audit`: prove the chain, export it."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from typing import Annotated

import typer

from edge_node.cli.console import emit, print_data, say
from edge_node.cli.context import Invocation
from edge_node.domain.status import ExitCode
from edge_node.service.node import ledger_path
from edge_node.store import audit
from edge_node.store.database import Database

app = typer.Typer(help="The append-only, hash-chained audit.", no_args_is_help=True)


@app.command()
def verify(ctx: typer.Context, json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Recompute every hash from the first entry to the head. Exit code 1 when the chain is broken."""
    call: Invocation = ctx.obj
    with Database(ledger_path(call.load().config), read_only=True).read() as connection:
        report = audit.verify(connection)
    if report.intact:
        words = f"The audit chain is intact: {report.entries} entries, head {report.head[:16]}…"
    else:
        words = (
            f"THE AUDIT CHAIN IS BROKEN at entry {report.first_broken}. Stop the node; compare with your last export."
        )
    emit(asdict(report), json=json or call.json, human=lambda: say(words))
    raise SystemExit(ExitCode.FINE if report.intact else ExitCode.FOUND_WRONG)


@app.command()
def export(
    ctx: typer.Context, study: Annotated[str | None, typer.Option("--study", help="Entries of one study only.")] = None
) -> None:
    """Every entry as one JSON line, in order, with its hashes."""
    call: Invocation = ctx.obj
    with Database(ledger_path(call.load().config), read_only=True).read() as connection:
        for entry in audit.entries(connection, study):
            print_data(json_text.dumps(asdict(entry), sort_keys=True))
