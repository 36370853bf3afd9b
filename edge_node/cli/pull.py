"""`edge-node pull`: ask the PACS for studies, see how far it is, give it up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edge_node.cli.console import emit, print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.cli.node import clock
from edge_node.config.schema import Config
from edge_node.domain.errors import Stop
from edge_node.domain.pull import Wanted
from edge_node.domain.status import ExitCode
from edge_node.domain.study import Role
from edge_node.service.node import existing_ledger, ledger_path
from edge_node.store.database import Database

app = typer.Typer(help="Ask the PACS for studies; they come in as all others do.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Again = Annotated[bool, typer.Option("--again", help="Also studies that are here whole already.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until the job ends.")]
Modality = Annotated[str, typer.Option("--modality", help="Only studies with this modality.")]
Day = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")]
POLL_S = 1.0


@app.command()
def studies(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Study Instance UIDs or accession numbers, one a line; - is stdin.")],
    again: Again = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Pull the studies of a list."""
    from edge_node.service.pull_requests import studies_in

    _ask(ctx, studies_in(_lines(file)), "a list of studies", again=again, wait=wait, json=json)


@app.command("range")
def date_range(
    ctx: typer.Context,
    first: Day,
    last: Day,
    modality: Modality = "",
    again: Again = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Pull all studies of these days, the newest first."""
    from edge_node.service.pull_requests import days_between

    what = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}" + (f", {modality}" if modality else "")
    _ask(ctx, days_between(first.date(), last.date(), modality), what, again=again, wait=wait, json=json)


@app.command()
def priors(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Patient IDs, one a line, behind a tab the issuer; - is stdin.")
    ] = None,
    study: Annotated[str, typer.Option("--study", help="Of the patient of this study of the node instead.")] = "",
    modality: Modality = "",
    again: Again = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Pull what the PACS has of patients."""
    from edge_node.service.node import open_node
    from edge_node.service.pull_requests import patient_of_study, patients_in

    if (file is None) == (not study):
        raise typer.BadParameter("give a file of Patient IDs, or --study", param_hint="FILE")
    call: Invocation = ctx.obj
    if file is not None:
        wanted: Iterable[Wanted] = patients_in(_lines(file), modality)
    else:
        node = open_node(call.load().config, Role.DICOM)
        wanted = [patient_of_study(node, study, modality)]
        node.database.close()
    _ask(ctx, wanted, f"priors of {study}" if study else "priors of patients", again=again, wait=wait, json=json)


@app.command()
def status(
    ctx: typer.Context, job: Annotated[str, typer.Argument(help="One job in detail.")] = "", json: Json = False
) -> None:
    """How far the pulls are. Works with the node down."""
    from edge_node.store import pulls

    call: Invocation = ctx.obj
    config = call.load().config
    database = Database(ledger_path(config), read_only=True)
    with database.read() as connection:
        one = pulls.job(connection, job) if job else None
        rows = [one] if one else [] if job else pulls.jobs(connection)
    if job and one is None:
        raise _unknown(job)
    emit({"state": _state(config), "jobs": rows}, json=json or call.json, human=lambda: _show(rows, bool(job), config))


@app.command()
def cancel(ctx: typer.Context, job: Annotated[str, typer.Argument(help="A job, or all.")], json: Json = False) -> None:
    """Give up what is not here yet; what is here stays."""
    from edge_node.store import pulls

    call: Invocation = ctx.obj
    config = call.load().config
    database = existing_ledger(config)
    with database.write() as connection:
        known = pulls.open_jobs(connection)
        if job != "all" and pulls.job(connection, job) is None:
            raise _unknown(job)
        names = known if job == "all" else [one for one in known if one == job]
        count = sum(pulls.cancel(connection, name, f"{config.node.name}/admin") for name in names)
    database.shred_journal()
    emit(
        {"jobs": names, "cancelled": count},
        json=json or call.json,
        human=lambda: say(f"{count} requests of {len(names)} jobs are given up."),
    )


def _unknown(job: str) -> Stop:
    return Stop("pull.unknown-job", f"there is no job {job}", hint="edge-node pull status", exit_code=ExitCode.USAGE)


def _lines(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Stop(
            "pull.list-unreadable", f"{file}: {reason}", hint="give a readable text file", exit_code=ExitCode.USAGE
        ) from None
    return text.splitlines()


def _ask(ctx: typer.Context, wanted: Iterable[Wanted], what: str, *, again: bool, wait: bool, json: bool) -> None:
    from edge_node.service.node import open_node
    from edge_node.service.pull_requests import named
    from edge_node.store.pulls import Pulls

    call: Invocation = ctx.obj
    config = call.load().config
    if config.pull.method == "off":
        raise Stop(
            "pull.off", "the node may not pull", hint="set pull.method and pull.pacs, then restart the dicom role"
        )
    requests = list(wanted)
    from edge_node.service.vault_key import refuse_without_key

    refuse_without_key(config, "send the studies from the PACS: what is asked for is sealed under the vault key")
    node = open_node(config, Role.DICOM)
    key = node.keys.key("pseudonym")
    queue = Pulls(node.database, node.keyring, f"{config.node.name}/admin")
    job, count = queue.ask([named(key, one) for one in requests], what[:64], again=again)
    node.database.close()
    quiet = json or call.json
    if not wait:
        emit(
            {"job": job, "requests": count},
            json=quiet,
            human=lambda: say(f"{job}: {count} requests wait. edge-node pull status {job}"),
        )
        return
    told = _follow(config, job, quiet=quiet)
    emit(told, json=quiet, human=lambda: _show([told], True, config))
    raise SystemExit(ExitCode.FOUND_WRONG if told["failed"] or told["cancelled"] else ExitCode.FINE)


def _follow(config: Config, job: str, *, quiet: bool) -> dict[str, Any]:
    from edge_node.store import pulls

    database = Database(ledger_path(config), read_only=True)
    columns = (
        TextColumn(job),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[word]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task(job, total=None, word="")
        while True:
            with database.read() as connection:
                told = pulls.job(connection, job)
            assert told is not None
            ended = told["done"] + told["failed"] + told["cancelled"]
            word = f"{told['instances']} instances" + (f", {told['failed']} failed" if told["failed"] else "")
            if told["state"] == "ACTIVE" and (state := _state(config)) not in ("pulling", "idle"):
                word += f", waits: {state}"
            progress.update(bar, total=ended + told["waiting"] + told["running"], completed=ended, word=word)
            if told["state"] != "ACTIVE":
                database.close()
                return told
            time.sleep(POLL_S)


def _state(config: Config) -> str:
    """What the pulling process says of itself, ``node-down`` when nobody says anything; or why it cannot start."""
    from edge_node.service.snapshot import snapshot

    shot = snapshot(config)
    role = next((one for one in shot.roles if one["role"] == Role.DICOM), {})
    failing = next((str(one["code"]) for one in shot.failing if one["process"] == "pull"), "")
    if role.get("alive") and failing:
        return failing
    return str(role.get("pull", {}).get("state", "starting")) if role.get("alive") else "node-down"


def _show(rows: list[dict[str, Any]], one: bool, config: Config) -> None:
    table(
        ("job", "what", "state", "waiting", "running", "done", "failed", "cancelled", "instances", "asked"),
        [
            (
                row["job"],
                row["what"],
                row["state"],
                *(row[name] for name in ("waiting", "running", "done", "failed", "cancelled", "instances")),
                clock(row["asked_at"]),
            )
            for row in rows
        ],
        empty="Nothing was ever pulled.",
    )
    if one and rows and rows[0]["told"]:
        print_data("")
        table(
            ("number", "study", "state", "code", "why"),
            [(t["number"], t["study"], t["state"], t["code"], t["why"]) for t in rows[0]["told"]],
        )
    if any(row["state"] == "ACTIVE" for row in rows):
        say(f"The node: {_state(config)}")
