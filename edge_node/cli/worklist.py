"""`edge-node worklist`: the reading order as the node sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.cli.node import clock
from edge_node.domain.errors import Quarantine
from edge_node.service.node import ledger_path
from edge_node.store.database import Database

app = typer.Typer(help="The reading order.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command("list")
def list_worklist(
    ctx: typer.Context,
    hours: Annotated[
        float | None, typer.Option(min=0, help="Results of so many hours; default: reading_list.hours.")
    ] = None,
    json: Json = False,
) -> None:
    """Studies in the order they should be read. Advisory: a radiologist reads all of them. Works with the node down."""
    rows = _rows(ctx, hours)
    call: Invocation = ctx.obj
    emit(
        rows,
        json=json or call.json,
        human=lambda: table(
            ("#", "level", "tier", "due", "study", "what", "state", "reading", "why", "written"),
            [
                (
                    number,
                    Text(r["level"], {"HIGH": "bold red", "MEDIUM": "yellow"}.get(r["level"], "")),
                    r["tier"],
                    clock(r["due"]),
                    r["study"],
                    f"{r['modalities']} {r['body_part']}".strip(),
                    r["state"],
                    r["read"].lower(),
                    r["reason"],
                    clock(r["written_at"]) or "not yet",
                )
                for number, r in enumerate(rows, start=1)
            ],
            empty="No study was triaged yet.",
        ),
    )


@app.command()
def show(ctx: typer.Context, study: str, json: Json = False) -> None:
    """One study's place in the reading order, and why."""
    rows = _rows(ctx, None)
    call: Invocation = ctx.obj
    number = next((n for n, row in enumerate(rows, start=1) if row["study"] == study), 0)
    if not number:
        raise Quarantine(
            "worklist.unknown",
            f"{study} has no place in the reading order",
            hint="edge-node worklist list; one that left it has its place in `edge-node study timeline`",
        )
    place: dict[str, Any] = {"place": number, "of": len(rows), **rows[number - 1]}
    emit(place, json=json or call.json, human=lambda: table(("what", "value"), list(_shown(place))))


@app.command()
def withdraw(
    ctx: typer.Context,
    study: str,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="It must not be seen any more (wrong patient, wrong images).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take a result back: a rejection note to the PACS, a withdrawal to every other system that was told.

    The study keeps its place in the reading order: nothing moves a study down.
    """
    from edge_node.service.node import existing_ledger
    from edge_node.service.roles import targets_of
    from edge_node.store.withdrawal import withdraw as take_back

    call: Invocation = ctx.obj
    config = call.load().config
    if not yes:
        typer.confirm(f"Withdraw the result of {study} everywhere?", abort=True)
    with existing_ledger(config).write() as connection:
        revision = take_back(
            connection, study, targets_of(config).of("worklist"), f"{config.node.name}/admin", unsafe=unsafe
        )
    emit(
        {"study": study, "revision": revision},
        json=json or call.json,
        human=lambda: say(f"The result of {study} is withdrawn; every writer will tell it (revision {revision})."),
    )


def _shown(place: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in place.items():
        yield key, clock(value) if key == "due" or key.endswith("_at") else value


def _rows(ctx: typer.Context, hours: float | None) -> list[dict[str, Any]]:
    from edge_node.service.snapshot import reading_list

    call: Invocation = ctx.obj
    config = call.load().config
    since = time.time() - (config.reading_list.hours if hours is None else hours) * 3600.0
    with Database(ledger_path(config), read_only=True).read() as connection:
        return reading_list(connection, since=since)
