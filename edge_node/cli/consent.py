"""`edge-node consent`: the keyed hashes consent lists are made of."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edge_node.cli.console import emit, print_data, say
from edge_node.cli.context import Invocation
from edge_node.config.secrets import load_key
from edge_node.consent import source_for

app = typer.Typer(help="Consent: who may be forwarded.", no_args_is_help=True)


@app.command("hash")
def hash_ids(
    ctx: typer.Context, consent: Annotated[str, typer.Option("--consent", help="allow or deny.")] = "allow"
) -> None:
    """Read Patient IDs from standard input and print the rows of a consent list.

    One patient a line: the Patient ID, or Patient ID and Issuer separated by a tab. Identifiers never appear on the
    command line, and the list that comes out carries keyed hashes only.
    """
    from edge_node.deid import patient_key

    if consent not in ("allow", "deny"):
        raise typer.BadParameter("allow or deny", param_hint="--consent")
    call: Invocation = ctx.obj
    site_key = load_key("pseudonym", call.load().config)
    if sys.stdin.isatty():
        say("Patient IDs, one a line, end with Ctrl-D:")
    print_data("patient_key,consent")
    for line in sys.stdin:
        patient_id, _, issuer = line.rstrip("\r\n").partition("\t")
        if patient_id.strip():
            print_data(f"{patient_key(site_key, patient_id, issuer)},{consent}")


@app.command()
def check(
    ctx: typer.Context, key: str, json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False
) -> None:
    """What the configured source says about one patient key (as in `study show --json`)."""
    call: Invocation = ctx.obj
    decision = source_for(call.load().config.consent).decide(key)
    emit(
        {"allowed": decision.allowed, "reason": decision.reason, "source": decision.source},
        json=json or call.json,
        human=lambda: say(f"{'allowed' if decision.allowed else 'withheld'}: {decision.reason} ({decision.source})"),
    )
