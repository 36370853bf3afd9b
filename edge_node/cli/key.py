"""`edge-node key`: which keys there are, how to rotate them, and the escrow key pair."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.config.load import load

app = typer.Typer(help="Node keys: what hangs on them, rotation, escrow.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_keys(ctx: typer.Context, json: Json = False) -> None:
    """Every key with its id and what hangs on it; shows no key. Needs the keys of the dicom role."""
    from edge_node.service.rekey import overview

    call: Invocation = ctx.obj
    rows = overview(call.load().config)
    emit(
        rows,
        json=json or call.json,
        human=lambda: table(
            ("key", "id", "old", "what hangs on it"),
            [
                (
                    row["key"],
                    row["id"],
                    row["old"],
                    ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in list(row.items())[3:]),
                )
                for row in rows
            ],
        ),
    )


@app.command()
def rotate(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="clean, vault, quarantine or pseudonym.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put a new key in the place of a node key; the node must be stopped. May be repeated after a crash.

    pseudonym changes the pseudonyms of everything received from then on: read `edge-node docs keys` before.
    """
    from edge_node.service.rekey import SITE_KEY, rotate

    call: Invocation = ctx.obj
    if name == SITE_KEY and not yes:
        typer.confirm(
            "From now on every patient gets other pseudonyms, and consent lists must be made anew. Go on?", abort=True
        )
    done = rotate(call.load().config, name)
    words = f"The {name} key {done.was} was replaced by {done.now}" + (
        ", it stays for the studies under way until `edge-node key retire`."
        if name == SITE_KEY
        else f"; {done.rewrapped} data keys were wrapped anew."
    )
    emit(asdict(done), json=json or call.json, human=lambda: say(words + " Back up the new key now."))


@app.command()
def retire(ctx: typer.Context, json: Json = False) -> None:
    """Delete the old site key (pseudonym) of a rotation, once every study of it is closed. The node must be stopped."""
    from edge_node.service.rekey import retire

    call: Invocation = ctx.obj
    name = retire(call.load().config)
    emit(
        {"retired": name}, json=json or call.json, human=lambda: say(f"The old site key {name} is gone from this node.")
    )


@app.command("escrow")
def escrow(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder away from the node's data.")],
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for one and encrypt the private key.")] = False,
    json: Json = False,
) -> None:
    """Make the escrow key pair: the node gets the public key, the privacy officer takes the private key away.

    Run it on the privacy officer's machine if you can. Never overwrites.
    """
    from edge_node.service.escrow import new_pair

    call: Invocation = ctx.obj
    secret = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else ""
    # deid.escrow may already name the public key that is only made now
    config = load(call.config_path, flags={**call.flags, "deid.escrow": ""}).config
    pair = new_pair(directory, secret, config)
    emit(
        {"id": pair.name, "private": str(pair.private), "public": str(pair.public)},
        json=json or call.json,
        human=lambda: say(
            f"Escrow key {pair.name}. {pair.private} belongs to the privacy officer: take it away from this machine,"
            f" keep a copy in a safe. Set deid.escrow to where the node keeps {pair.public.name}."
        ),
    )
