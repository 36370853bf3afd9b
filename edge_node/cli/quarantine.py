"""`edge-node quarantine`: what is held, by reason and sender; release and discard of one, some or all."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.cli.node import clock
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.domain.status import ExitCode
from edge_node.service.node import ledger_path
from edge_node.store.database import Database
from edge_node.store.held import Which, reasons, rows

app = typer.Typer(help="What could not be de-identified, sealed: by reason; release, discard.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Items = Annotated[list[str] | None, typer.Argument(help="Objects by name (Q…); none: those that the options mean.")]
Code = Annotated[str, typer.Option("--code", help="Only what is held for this reason.")]
Sender = Annotated[str, typer.Option("--from", help="Only what came from this calling AE title.")]
Study = Annotated[str, typer.Option("--study", help="Only objects of this study key.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything that is held.")]


@app.command("list")
def list_held(
    ctx: typer.Context,
    code: Code = "",
    sender: Sender = "",
    study: Study = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many objects, the newest.")] = 50,
    json: Json = False,
) -> None:
    """What is held, counted by reason and sender, then the objects. Works with the node down; shows no content."""
    from edge_node.service.snapshot import quarantine_item

    call: Invocation = ctx.obj
    which = Which((), code, sender, study)
    with Database(ledger_path(call.load().config), read_only=True).read() as connection:
        counted, found = reasons(connection, which), rows(connection, which, limit=limit)
    objects = [quarantine_item(row) for row in found]

    def human() -> None:
        table(
            ("objects", "from", "MB", "first received", "next to expire", "why"),
            [
                (
                    one.objects,
                    one.sender,
                    f"{one.bytes / 1e6:.1f}",
                    clock(one.first_at),
                    clock(one.next_to_expire),
                    f"{one.code}: {one.message}",
                )
                for one in counted
            ],
            empty="Nothing is held.",
        )
        if objects:
            say("")
            columns = ("item", "study", "from", "bytes", "received", "expires", "code")
            table(
                columns,
                [
                    (
                        one["item"],
                        one["study"],
                        one["from"],
                        one["bytes"],
                        clock(one["received_at"]),
                        clock(one["expires_at"]),
                        one["code"],
                    )
                    for one in objects
                ],
            )
        left = sum(one.objects for one in counted) - len(objects)
        if left:
            say(f"… and {left} more: --limit")

    emit({"reasons": [asdict(one) for one in counted], "objects": objects}, json=json or call.json, human=human)


@app.command()
def release(
    ctx: typer.Context,
    items: Items = None,
    code: Code = "",
    sender: Sender = "",
    study: Study = "",
    everything: Everything = False,
    json: Json = False,
) -> None:
    """De-identify held objects again, after a change of the recipe or an update; what passes goes its way."""
    from edge_node.service import release as releasing

    call: Invocation = ctx.obj
    config = call.load().config
    names = releasing.held_now(config, _meant(items, code, sender, study, everything))
    quiet = json or call.json
    counts: Counter[str] = Counter()
    still: list[tuple[str, EdgeNodeError]] = []
    studies: set[str] = set()
    columns = (TextColumn("release"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet or len(names) == 1) as progress:
        bar = progress.add_task("release", total=len(names))
        for done in releasing.release(config, names):
            if isinstance(done.outcome, EdgeNodeError):
                still.append((done.item, done.outcome))
            else:
                counts[str(done.outcome.received)] += 1
                studies.add(done.outcome.study_key)
            progress.advance(bar)
    released = sum(counts.values())
    emit(
        {
            "released": released,
            "not_tried": len(names) - released - len(still),
            "held": [{"item": item, "code": error.code, "message": error.message} for item, error in still],
            "studies": sorted(studies),
        },
        json=quiet,
        human=lambda: say(f"{released} of {len(names)} released, of {len(studies)} studies."),
    )
    if still and not quiet:
        by_reason = Counter((error.code, error.hint) for _, error in still)
        for (why, hint), count in by_reason.most_common(20):
            say(f"{count} still held: {why}. next: {hint}".removesuffix(". next: "))
    waits = any(isinstance(error, Retry) for _, error in still)
    raise SystemExit(ExitCode.TRY_AGAIN if waits else ExitCode.FOUND_WRONG if still else ExitCode.FINE)


@app.command()
def discard(
    ctx: typer.Context,
    items: Items = None,
    code: Code = "",
    sender: Sender = "",
    study: Study = "",
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Destroy held objects for good (their keys are deleted)."""
    from edge_node.service import release as releasing

    call: Invocation = ctx.obj
    config = call.load().config
    names = releasing.held_now(config, _meant(items, code, sender, study, everything))
    what = names[0] if len(names) == 1 else f"{len(names)} objects"
    if not yes:
        typer.confirm(f"Destroy {what} for good?", abort=True)
    count = releasing.discard(config, names)
    emit({"destroyed": count}, json=json or call.json, human=lambda: say(f"{count} destroyed."))


def _meant(items: list[str] | None, code: str, sender: str, study: str, everything: bool) -> Which:
    """Raises Quarantine("quarantine.unknown") unless it is said what is meant: nothing said is not everything."""
    if not (items or code or sender or study or everything):
        raise Quarantine(
            "quarantine.unknown",
            "nothing is said of which objects are meant",
            hint="edge-node quarantine list; then name objects, or --code, --from, --study, or --all",
        )
    return Which(tuple(items or ()), code, sender, study)
