"""`edge-node deid`: prove a recipe, show what it does to an object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edge_node import __version__
from edge_node.cli import deid_folder
from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode

app = typer.Typer(help="De-identification: prove a recipe, show what it does.", no_args_is_help=True)
deid_folder.register(app)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command()
def lint(ctx: typer.Context, recipe: Annotated[Path | None, typer.Argument()] = None, json: Json = False) -> None:
    """Read a recipe as the node would; every line it would not obey is an error with file and line."""
    from edge_node.deid import Deidentifier
    from edge_node.service.node import recipe_path

    call: Invocation = ctx.obj
    path = recipe or recipe_path(call.load().config)
    identity = Deidentifier(path, b"\0" * 32, version=__version__).recipe_id
    emit(
        {"recipe": identity.name, "sha256": identity.sha256, "valid": True},
        json=json or call.json,
        human=lambda: say(f"{path} is valid: recipe {identity.name}, sha256 {identity.sha256}"),
    )


@app.command("test")
def try_recipe(
    ctx: typer.Context,
    file: Path,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Another recipe than the site's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the clean object here.")] = None,
    values: Annotated[bool, typer.Option("--values", help="Show values; for test data, not for patients.")] = False,
    json: Json = False,
) -> None:
    """De-identify one file in memory and show attribute by attribute what was removed, replaced and kept.

    Uses the node's key if there is one, else a throw-away key.
    """
    from edge_node.config.secrets import load_key
    from edge_node.deid import Deidentifier
    from edge_node.deid.part10 import instance_from_file
    from edge_node.deid.report import changes
    from edge_node.service.node import recipe_path

    call: Invocation = ctx.obj
    config = call.load().config
    try:
        key = load_key("pseudonym", config)
    except Stop:
        key = os.urandom(32)
    instance = instance_from_file(file)
    clean = Deidentifier(recipe or recipe_path(config), key, version=__version__).deidentify(instance).instance
    rows = changes(instance, clean.part10)
    if out is not None:
        out.write_bytes(clean.part10)
    colours = {"removed": "red", "replaced": "yellow", "kept": "green", "added": "cyan"}
    data = [
        {"tag": r.tag, "name": r.name, "action": r.action, **({"before": r.before, "after": r.after} if values else {})}
        for r in rows
    ]
    columns = ("tag", "attribute", "action", *(("before", "after") if values else ()))
    emit(
        {"recipe": clean.recipe.sha256, "pixel_risk": clean.pixel_risk, "attributes": data},
        json=json or call.json,
        human=lambda: table(
            columns,
            [
                (r.tag, r.name, Text(r.action, colours[r.action]), *((r.before, r.after) if values else ()))
                for r in rows
            ],
        ),
    )
    raise SystemExit(ExitCode.FINE)
