"""`edge-node deid reidentify`: who a pseudonym is, for somebody who may know it."""

from __future__ import annotations

import json as json_text
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_node.cli.console import print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode

if TYPE_CHECKING:
    from edge_node.store.escrow import Record


def register(app: typer.Typer) -> None:
    """Add the verb of this file to `edge-node deid`."""
    app.command()(reidentify)


def reidentify(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(help="Pseudonymous UID or Patient ID, or a study key.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit, so it must not say who.")],
    escrow_key: Annotated[
        Path | None, typer.Option("--escrow-key", help="The escrow private key: opens the escrow record.")
    ] = None,
    vault: Annotated[bool, typer.Option("--vault", help="Open the identity envelope while it lives.")] = False,
    candidates: Annotated[
        Path | None, typer.Option("--candidates", help="CSV with patient_id,issuer or uid: which of them is it?")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="With --candidates: key label; default: all the ledger knows.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="With --candidates: an older site key; default: the node's.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write JSON to this new file (0600).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON, wherever it goes.")] = False,
) -> None:
    """Tell who is behind a pseudonym, by escrow record, identity envelope or a list of candidates.

    The audit tells who asked, why and which study before anything is shown. The answer goes to a terminal, or where
    --output or --json say.
    """
    from edge_node.service import reidentify as service

    call: Invocation = ctx.obj
    if (escrow_key is not None) + vault + (candidates is not None) != 1:
        raise typer.BadParameter("give one of --escrow-key FILE, --vault, --candidates FILE")
    if (label or key_file) and candidates is None:
        raise typer.BadParameter("--label and --key-file go with --candidates")
    as_json = json or call.json
    if output is None and not as_json and not sys.stdout.isatty():
        raise Stop(
            "reidentify.not-a-terminal",
            "standard output is no terminal: identity would be left wherever it goes",
            hint="--output FILE, or --json if you mean it",
            exit_code=ExitCode.USAGE,
        )
    config, request = call.load().config, service.Request(what, reason)
    place = _reserved(output) if output is not None else None
    try:
        if escrow_key is not None:
            records = service.by_escrow(config, request, _private_key(escrow_key))
        elif candidates is not None:
            site_key = _site_key(key_file) if key_file is not None else None
            listed = service.read_candidates(candidates)
            records = service.by_candidates(config, request, listed, own_labels=label or (), site_key=site_key)
        else:
            records = service.by_vault(config, request)
        _show(records, place, as_json=as_json)
    except BaseException:
        if output is not None:
            output.unlink(missing_ok=True)
        raise
    if output is not None:
        say(f"Written to {output}: delete it when it has served.")


def _show(records: list[Record], place: int | None, *, as_json: bool) -> None:
    text = json_text.dumps(records, indent=2, ensure_ascii=False)
    if place is not None:
        with os.fdopen(place, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    elif as_json:
        print_data(text)
    else:
        for record in records:
            table(("what", "value"), [(k.replace("_", " "), v) for k, v in record.items() if v not in ("", None)])


def _reserved(path: Path) -> int:
    """The file to write, made before anything is opened or audited. Raises Stop("reidentify.output")."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Stop(
            "reidentify.output",
            f"{path}: cannot be made: {error.strerror}",
            hint="name a new file in a folder of yours",
            exit_code=ExitCode.IO,
        ) from None


def _private_key(path: Path) -> bytes:
    from edge_node.config.secrets import read_private_file
    from edge_node.store.seal import NeedsPassphrase, private_key

    pem = read_private_file(path)
    try:
        return private_key(pem)
    except NeedsPassphrase:
        return private_key(pem, typer.prompt("Passphrase of the escrow key", hide_input=True, err=True))


def _site_key(path: Path) -> bytes:
    from edge_node.config.secrets import read_private_file

    return read_private_file(path)
