"""`edge-node queue`: the line's work, step by step; pause and resume."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.pipeline import BY_NAME
from edge_node.service.node import ledger_path
from edge_node.store import audit, tasks
from edge_node.store.database import Database

app = typer.Typer(help="The line's work; pause and resume a step.", invoke_without_command=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
PAUSABLE = ("triage", "pixels", "worklist", "forward", "purge")


@app.callback()
def queue(ctx: typer.Context, json: Json = False) -> None:
    """Work that is not done yet, by step. Works with the node down."""
    if ctx.invoked_subcommand:
        return
    from edge_node.service.snapshot import snapshot

    call: Invocation = ctx.obj
    shot = snapshot(call.load().config)
    emit(
        {"work": shot.work, "paused": shot.paused},
        json=json or call.json,
        human=lambda: table(
            ("step", "target", "state", "rows", "oldest s", "on failure"),
            [
                (r["step"], r["target"], r["state"], r["rows"], r["oldest_s"], BY_NAME[r["step"]].on_failure)
                for r in shot.work
            ],
            empty="Nothing waits." + (f" Paused: {', '.join(shot.paused)}." if shot.paused else ""),
        ),
    )


@app.command()
def pause(ctx: typer.Context, step: str) -> None:
    """Take no new work of a step (triage, pixels, worklist, forward, purge) until it is resumed."""
    _switch(ctx, step, paused=True)


@app.command()
def resume(ctx: typer.Context, step: str) -> None:
    """Take work of a step again."""
    _switch(ctx, step, paused=False)


def _switch(ctx: typer.Context, step: str, *, paused: bool) -> None:
    if step not in PAUSABLE:
        raise typer.BadParameter(f"{step!r} is not one of {', '.join(PAUSABLE)}", param_hint="STEP")
    call: Invocation = ctx.obj
    config = call.load().config
    with Database(ledger_path(config)).write() as connection:
        (tasks.pause if paused else tasks.resume)(connection, step)
        audit.append(
            connection,
            f"{config.node.name}/admin",
            "queue.paused" if paused else "queue.resumed",
            detail={"step": step},
        )
    say(f"{step} is {'paused' if paused else 'running'}.")
