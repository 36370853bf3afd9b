"""`edge-node demo`: a loopback hospital, a day in a minute, a report with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_node.cli.context import Invocation


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(demo)


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and the toy hospital's files.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Another seed makes other patients.")] = 1,
    orthanc: Annotated[
        bool, typer.Option("--orthanc", help="Use the installed Orthanc as PACS archive and as trainer.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="End with the summary in JSON.")] = False,
) -> None:
    """Run the whole line against a toy hospital on loopback; everything in it is fictional. Needs nothing installed."""
    from edge_node.demo.run import run

    call: Invocation = ctx.obj
    raise SystemExit(run(out, seed=seed, orthanc=orthanc, json=json or call.json))
