"""`edge-node deid`: prove a recipe, show what it does to an object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edge_node.cli import deid_folder, reidentify
from edge_node.cli.console import emit, print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.status import ExitCode

app = typer.Typer(help="De-identification: prove a recipe, show what it does.", no_args_is_help=True)
deid_folder.register(app)
reidentify.register(app)
_ACTIONS = ("removed", "emptied", "replaced", "kept", "added", "empty")
_FEW = 12  # doubts about the whole file that are worth a line each
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command()
def lint(
    ctx: typer.Context,
    recipe: Annotated[Path | None, typer.Argument()] = None,
    variables: deid_folder.Variables = None,
    strict: Annotated[bool, typer.Option("--strict", help="Doubts count like errors.")] = False,
    json: Json = False,
) -> None:
    """Say of every line that the node would not obey, and of what no rule speaks of, where it stands and what to write.

    Exit code 0: the recipe can be used; 1: it cannot, or with --strict there is a doubt.
    """
    from edge_node.deid.lint import lint as findings_of
    from edge_node.deid.plan import Plan
    from edge_node.deid.recipe import load
    from edge_node.service.node import recipe_path

    call: Invocation = ctx.obj
    path = recipe or recipe_path(call.load().config)
    given = deid_folder.variables_of(deid_folder.with_the_sites(call, recipe, variables))
    found = findings_of(path, given)
    wrong = any(finding.error or strict for finding in found)
    data: dict[str, object] = {
        "file": str(path),
        "valid": not any(finding.error for finding in found),
        "findings": [
            {"line": f.line, "kind": "error" if f.error else "doubt", "what": f.what, "instead": f.instead}
            for f in found
        ],
    }
    if data["valid"]:
        data |= {"recipe": path.stem, "sha256": Plan(load(path, given), given).sha256}

    def human() -> None:
        shown = [f for f in found if f.line or f.error]
        rest = [f for f in found if not f.line and not f.error]
        rows = [
            (f"{path}:{f.line}" if f.line else str(path), "error" if f.error else "doubt", f.what, f.instead)
            for f in [*shown, *(rest if len(rest) <= _FEW else [])]
        ]
        if rows:
            table(("where", "kind", "what", "instead"), rows)
        if len(rest) > _FEW:
            say(f"{len(rest)} attributes of Table E.1-1 have no rule: the Basic Profile holds; --json lists them")
        if data["valid"]:
            say(f"{path} can be used: recipe {path.stem}, sha256 {data['sha256']}")

    emit(data, json=json or call.json, human=human)
    raise SystemExit(ExitCode.FOUND_WRONG if wrong else ExitCode.FINE)


@app.command("recipe")
def write_recipe(
    profile: Annotated[str, typer.Option("--profile", help="basic, basic+research or strict.")] = "basic",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option of PS3.15 E.3 on top; --list names them.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List profiles and options.")] = False,
) -> None:
    """Write a recipe for a profile and any options from Table E.1-1 to standard output."""
    from edge_node.deid.profiles import OPTIONS, PROFILES, profile_text, recipe_text

    if show:
        rows = [(name, "profile", " ".join(options) or "no option") for name, options in PROFILES.items()]
        table(("name", "kind", "means"), [*rows, *((n, f"option {o.code}", o.title) for n, o in OPTIONS.items())])
    elif option:
        profile_text(profile)  # refuses an unknown one
        print_data(recipe_text([*PROFILES[profile], *option], name="strict" if profile == "strict" else ""))
    else:
        print_data(profile_text(profile))


@app.command("test")
def dry_run(
    ctx: typer.Context,
    recipe: Path,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files, or one file.")],
    profile: deid_folder.Profile = None,
    key_file: deid_folder.KeyFile = None,
    variables: deid_folder.Variables = None,
    label: deid_folder.Label = "",
    may_leave: deid_folder.MayLeave = None,
    deface: deid_folder.Deface = False,
    json: Json = False,
) -> None:
    """What a recipe would do to a folder, attribute by attribute, without writing anything and without a value.

    Pixels are judged too, as `deid apply` would. Exit code 1 if anything would be held back.
    """
    call: Invocation = ctx.obj
    engine = deid_folder.engine_of(call, recipe, profile, key_file, variables, label)
    tools = deid_folder.tools_for(engine, may_leave, deface)
    seen = deid_folder.surveyed(directory, engine, tools, quiet=json or call.json)
    rows = [(a.name, a.kind, a.basic, *(counts[action] or "" for action in _ACTIONS)) for a, counts in seen.rows()]
    data = {
        "recipe": engine.recipe_id.sha256,
        "files": seen.files,
        "clean": seen.clean,
        "quarantined": [{"file": one.file, "code": one.code, "reason": one.reason} for one in seen.held],
        "pixel_risk": seen.risks,
        "pixels": seen.pixels,
        "attributes": [{"name": a.name, "class": a.kind, "basic": a.basic, **counts} for a, counts in seen.rows()],
    }

    def human() -> None:
        table(("attribute", "class", "E.1-1", *_ACTIONS), rows)
        if seen.held:
            table(("file", "code", "reason"), [(one.file, one.code, one.reason) for one in seen.held])
        for done, count in seen.pixels.items():
            say(f"{count} × pixels {done}")
        say(f"{seen.clean} of {seen.files} would be clean, {len(seen.held)} held back; nothing was written")

    emit(data, json=json or call.json, human=human)
    raise SystemExit(ExitCode.FOUND_WRONG if seen.held else ExitCode.FINE)


@app.command()
def diff(
    ctx: typer.Context,
    file: Path,
    recipe: deid_folder.RecipeFile = None,
    profile: deid_folder.Profile = None,
    key_file: deid_folder.KeyFile = None,
    variables: deid_folder.Variables = None,
    label: deid_folder.Label = "",
    out: Annotated[Path | None, typer.Option("--out", help="Write the clean object here.")] = None,
    values: Annotated[bool, typer.Option("--values", help="Show values; for test data, not for patients.")] = False,
    json: Json = False,
) -> None:
    """De-identify one file in memory and show by class of attribute what was removed, replaced and kept.

    Uses the key given, the node's key if there is one, else a throw-away key.
    """
    from edge_node.deid.part10 import instance_from_file
    from edge_node.deid.report import changes
    from edge_node.deid.survey import Attribute

    call: Invocation = ctx.obj
    engine = deid_folder.engine_of(call, recipe, profile, key_file, variables, label)
    instance = instance_from_file(file)
    clean = engine.deidentify(instance).instance
    if out is not None:
        out.write_bytes(clean.part10)
    rows = [(Attribute(_path(row.tag)).kind, row) for row in changes(instance, clean.part10)]
    rows.sort(key=lambda pair: pair[0])
    colours = {"removed": "red", "replaced": "yellow", "kept": "green", "added": "cyan"}
    data = [
        {
            "class": kind,
            "tag": r.tag,
            "name": r.name,
            "action": r.action,
            **({"before": r.before, "after": r.after} if values else {}),
        }
        for kind, r in rows
    ]
    columns = ("class", "tag", "attribute", "action", *(("before", "after") if values else ()))
    emit(
        {"recipe": clean.recipe.sha256, "pixel_risk": clean.pixel_risk, "attributes": data},
        json=json or call.json,
        human=lambda: table(
            columns,
            [
                (k, r.tag, r.name, Text(r.action, colours[r.action]), *((r.before, r.after) if values else ()))
                for k, r in rows
            ],
        ),
    )
    raise SystemExit(ExitCode.FINE)


def _path(text: str) -> tuple[int, ...]:
    """``(0040,0275)[1] > (0040,0007)`` as tags."""
    return tuple(int(step[1:5] + step[6:10], 16) for step in text.split(" > "))
