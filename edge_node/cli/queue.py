"""`edge-node queue`: the line's work, step by step; pause and resume, and try again what was given up."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.status import ExitCode
from edge_node.pipeline import BY_NAME
from edge_node.service.node import existing_ledger, ledger_path
from edge_node.store import audit, dead, tasks
from edge_node.store.database import Database

app = typer.Typer(help="The line's work; pause, resume, retry what was given up.", invoke_without_command=True)
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


@app.command()
def retry(
    ctx: typer.Context,
    step: Annotated[str, typer.Option("--step", help="Only of this step (triage, pixels, worklist, forward).")] = "",
    target: Annotated[str, typer.Option("--target", help="Only for this writer or destination.")] = "",
    code: Annotated[str, typer.Option("--code", help="Only what was given up for this reason.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything that waits for a human.")] = False,
    json: Json = False,
) -> None:
    """Try again, at once, what was given up and waits for a human, of all studies."""
    if step and step not in dead.RETRIED:
        raise typer.BadParameter(f"{step!r} is not one of {', '.join(dead.RETRIED)}", param_hint="--step")
    if not (step or target or code or everything):
        raise typer.BadParameter("say which work: --step, --target, --code, or --all")
    call: Invocation = ctx.obj
    config = call.load().config
    steps = [step] if step else dead.RETRIED
    rows, studies = dead.retry(
        existing_ledger(config), f"{config.node.name}/admin", steps=steps, target=target, code=code
    )
    emit(
        {"rows": rows, "studies": studies},
        json=json or call.json,
        human=lambda: say(f"{rows} pieces of work of {studies} studies are due again." if rows else "Nothing waits."),
    )
    raise SystemExit(ExitCode.FINE if rows else ExitCode.FOUND_WRONG)


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
