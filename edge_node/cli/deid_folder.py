"""`edge-node deid apply`: the node's de-identification over a folder of files."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_node import __version__
from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Recipe; default: the site's.")]
Profile = Annotated[
    str | None,
    typer.Option("--profile", help="A shipped profile: alone, or as what the recipe stands on where it says nothing."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="File with the key of the pseudonyms; default: the node's.")
]
Variables = Annotated[list[str] | None, typer.Option("--var", help="NAME=VALUE for var:NAME in the recipe.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `edge-node deid`."""
    app.command()(apply)


def apply(
    ctx: typer.Context,
    in_dir: Path,
    out_dir: Path,
    recipe: RecipeFile = None,
    key_file: KeyFile = None,
    profile: Profile = None,
    variables: Variables = None,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Processes; 0: one a core.")] = 0,
    uncleaned_pixels: Annotated[
        str, typer.Option("--uncleaned-pixels", help="hold, or write: objects whose pixels may show identity.")
    ] = "hold",
    json: Json = False,
) -> None:
    """De-identify every file below IN_DIR into OUT_DIR, as the node would; what cannot be cleaned is not written.

    Exit code 0: everything was written; 1: something was held back, with the reason in the answer.
    """
    from edge_node.deid import folder

    call: Invocation = ctx.obj
    if uncleaned_pixels not in ("hold", "write"):
        raise typer.BadParameter("hold or write", param_hint="--uncleaned-pixels")
    path, base = which_recipe(call, recipe, profile)
    work = folder.Work(
        path, key_of(call, key_file), __version__, base, variables_of(variables), uncleaned_pixels == "hold"
    )
    quiet = json or call.json
    folder.check_folders(in_dir, out_dir)
    total = len(folder.files_in(in_dir))
    jobs = min(jobs or os.cpu_count() or 1, total)
    outcomes = []
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bar, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("de-identifying", total=total)
        for outcome in folder.apply(in_dir, out_dir, work, jobs=jobs):
            outcomes.append(outcome)
            progress.advance(task)
    held = [one for one in outcomes if not one.written]
    identity = work.engine().recipe_id
    written = len(outcomes) - len(held)
    data = {
        "recipe": {"name": identity.name, "sha256": identity.sha256},
        "files": len(outcomes),
        "written": written,
        "quarantined": [{"file": one.source, "code": one.code, "reason": one.reason} for one in held],
        "outputs": [
            {"file": one.source, "output": one.target, **({"note": one.note} if one.note else {})}
            for one in outcomes
            if one.written
        ],
    }

    def human() -> None:
        if held:
            table(("file", "code", "reason"), [(one.source, one.code, one.reason) for one in held])
        for note, count in Counter(one.note for one in outcomes if one.note).items():
            say(f"{count} × {note}: two files with one SOP Instance UID")
        say(f"{written} of {len(outcomes)} written, {len(held)} held back, by recipe {identity.name}")

    emit(data, json=quiet, human=human)
    raise SystemExit(ExitCode.FOUND_WRONG if held else ExitCode.FINE)


def which_recipe(call: Invocation, recipe: Path | None, profile: str | None) -> tuple[Path, Path | None]:
    """`Work`'s recipe and base: the recipe given, the profile given, or one on top of the other; else the site's.

    Raises Stop("deid.unknown-profile").
    """
    from edge_node.deid.profiles import profile_text
    from edge_node.service.node import recipe_path, shipped

    shipped_path = None
    if profile is not None:
        profile_text(profile)
        shipped_path = shipped("recipes", f"{profile}.deid")
    if recipe is not None:
        return recipe, shipped_path
    return shipped_path or recipe_path(call.load().config), None


def key_of(call: Invocation, key_file: Path | None) -> bytes:
    """The key of the pseudonyms: the bytes of a file, or the node's. Raises Stop."""
    from edge_node.config.secrets import load_key

    if key_file is None:
        return load_key("pseudonym", call.load().config)
    try:
        key = key_file.read_bytes()
    except OSError as error:
        raise Stop("deid.site-key", f"{key_file}: the key cannot be read: {error.strerror}") from None
    if key_file.stat().st_mode & 0o077:
        say(f"{key_file}: other users may read this key; chmod 0400 {key_file}")
    return key


def variables_of(given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE words as a mapping. Raises BadParameter."""
    found = {}
    for word in given or ():
        name, separator, value = word.partition("=")
        if not separator or not name.isidentifier() or not value.isascii() or not value.isprintable():
            raise typer.BadParameter(f"{word!r} is not NAME=VALUE in printable ASCII", param_hint="--var")
        found[name] = value
    return found
