"""`edge-node import`: take in the files of a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.status import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("import")(import_folder)


def import_folder(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files, or one file.")],
    senders: Annotated[int, typer.Option("--senders", min=1, max=16, help="Files under way at once.")] = 4,
    json: Json = False,
) -> None:
    """Take in every DICOM file below a folder through the running receiver; the files stay where they are."""
    from edge_node.service.handing import Handed, Outcome
    from edge_node.service.importing import files_below, import_files

    call: Invocation = ctx.obj
    config = call.load().config
    files = files_below(folder)
    counts: Counter[Outcome] = Counter()
    studies: set[str] = set()
    told: list[Handed] = []
    quiet = json or call.json
    columns = (
        TextColumn("import"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[word]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("import", total=len(files), word="")
        for one in import_files(config, files, senders=senders):
            counts[one.outcome] += 1
            studies |= {one.study} - {""}
            if one.outcome in (Outcome.SKIPPED, Outcome.FAILED, Outcome.QUARANTINED):
                told.append(one)
            word = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if outcome is not Outcome.STORED)
            progress.update(bar, advance=1, word=word)
    emit(
        {
            "files": len(files),
            **{str(outcome): counts[outcome] for outcome in Outcome},
            "studies": sorted(studies),
            "told": [
                {"file": one.name, "outcome": str(one.outcome), "code": one.code, "reason": one.reason} for one in told
            ],
        },
        json=quiet,
        human=lambda: table(("outcome", "files"), [(str(outcome), counts[outcome]) for outcome in Outcome]),
    )
    if not quiet:
        for one in sorted(told, key=lambda one: one.name)[:20]:
            say(f"{one.outcome}: {one.name}: {one.code} {one.reason}".rstrip())
        if len(told) > 20:
            say(f"… and {len(told) - 20} more: --json lists them all")
    bad = counts[Outcome.QUARANTINED] + counts[Outcome.FAILED]
    raise SystemExit(ExitCode.FOUND_WRONG if bad else ExitCode.FINE)
