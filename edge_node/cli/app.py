"""The `edge-node` command: global options, and every verb in a file of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_node import __version__
from edge_node.cli import (
    audit,
    config,
    consent,
    deid,
    demo,
    docs,
    ingest,
    key,
    model,
    node,
    peers,
    pull,
    quarantine,
    queue,
    study,
    worklist,
)
from edge_node.cli.console import fail, print_data
from edge_node.cli.context import Invocation
from edge_node.domain.errors import EdgeNodeError

app = typer.Typer(
    name="edge-node",
    help="Hospital-side DICOM edge node: de-identify on entry, triage, prioritise the worklist, forward.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(config.app, name="config")
app.add_typer(study.app, name="study")
app.add_typer(worklist.app, name="worklist")
app.add_typer(queue.app, name="queue")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(deid.app, name="deid")
app.add_typer(consent.app, name="consent")
app.add_typer(audit.app, name="audit")
app.add_typer(key.app, name="key")
app.add_typer(pull.app, name="pull")
app.add_typer(model.app, name="model")
node.register(app)
peers.register(app)
ingest.register(app)
demo.register(app)
docs.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_data(f"edge-node {__version__}")
        raise typer.Exit


def _flag(text: str) -> tuple[str, object]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not section.option=value", param_hint="--set")
    return key.strip(), value


@app.callback()
def options(
    ctx: typer.Context,
    config_path: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration file; default: /etc/edge-node/edge-node.toml.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override one option: section.option=value.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Hospital-side DICOM edge node: de-identify on entry, triage, prioritise the worklist, forward."""
    ctx.obj = Invocation(config_path, dict(_flag(s) for s in settings or []), json)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except EdgeNodeError as error:
        fail(error, json="--json" in sys.argv)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
