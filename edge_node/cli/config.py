"""`edge-node config`: check it, show what is in force and why, list every option."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_node.cli.console import emit, fail, print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.config.document import effective_toml, example_toml, heading, options_markdown, schema_json, toml_value
from edge_node.config.load import ConfigInvalid, Loaded
from edge_node.config.options import Option, sections

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command()
def check(ctx: typer.Context, json: Json = False) -> None:
    """Name everything that is wrong with the configuration and its recipes, with file and line; exit code 78 if so.

    Says which objects get which recipe.
    """
    from edge_node.service.recipes import usable

    call: Invocation = ctx.obj
    as_json = json or call.json
    try:
        loaded = call.load()
        recipes = usable(loaded.config)
    except ConfigInvalid as error:
        if as_json:
            emit({"valid": False, "problems": error.problems}, json=True, human=lambda: None)
        fail(error, json=as_json)
    place = str(loaded.path) if loaded.path else "defaults only, no file"
    told = [one.told() for one in recipes]

    def human() -> None:
        table(
            ("objects", "recipe", "trial", "sha256"),
            [(one["objects"], one["recipe"], one["trial"], one["sha256"][:16]) for one in told],
        )
        for doubt in dict.fromkeys(text for one in told for text in one["doubts"]):
            say(f"doubtful: {doubt}")
        say(f"The configuration is valid ({place}).")

    emit({"valid": True, "problems": [], "path": loaded.path, "recipes": told}, json=as_json, human=human)


@app.command()
def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    json: Json = False,
) -> None:
    """Show the configuration in force, defaults included. Secrets are never in it, only the paths of their files."""
    call: Invocation = ctx.obj
    loaded = _loaded(call, json=json or call.json)
    config = loaded.config.model_dump(mode="json")
    data: dict[str, object] = config
    if origin:
        data = {"path": loaded.path, "config": config, "origin": {key: str(at) for key, at in loaded.origin.items()}}
    emit(
        data,
        json=json or call.json,
        human=lambda: print_data(effective_toml(loaded.config, loaded.origin if origin else None)),
    )


@app.command()
def schema(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="As JSON Schema, for editors.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False,
) -> None:
    """List every option: type, default, meaning."""
    call: Invocation = ctx.obj
    if markdown:
        print_data(options_markdown())
    elif json or call.json:
        print_data(schema_json())
    else:
        every = [option for options in sections().values() for option in options.values()]
        table(
            ("option", "type", "default", "meaning"),
            [(_name(option), option.type_text, _default(option), option.sentence) for option in every],
        )


@app.command()
def example() -> None:
    """Print a commented configuration file to start from."""
    print_data(example_toml())


def _loaded(call: Invocation, *, json: bool) -> Loaded:
    try:
        return call.load()
    except ConfigInvalid as error:
        fail(error, json=json)


def _name(option: Option) -> str:
    return f"{heading(option.section).strip('[]')}.{option.key}"


def _default(option: Option) -> str:
    if option.required:
        return "required"
    return "unset" if option.default is None else toml_value(option.default)
