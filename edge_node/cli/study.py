"""`edge-node study`: what became of each study; retry, release of masked images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edge_node.cli.console import emit, print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.cli.node import clock
from edge_node.domain.errors import Quarantine
from edge_node.domain.model import Stage
from edge_node.domain.status import ExitCode
from edge_node.domain.study import TaskState
from edge_node.service.node import ledger_path
from edge_node.store.database import Database
from edge_node.store.dead import RETRIED

app = typer.Typer(help="What became of each study.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
_HASH = re.compile(r"[0-9a-f]{64}")


def verdict_of(row: dict[str, Any]) -> Text:
    """The triage verdict of a study row, coloured."""
    result = row["result"]
    if result is None:
        return Text("prior, not judged" if row["prior"] else "", "dim")
    if result["outcome"] != "FINDING":
        return Text(f"{result['outcome'].lower()} ({result['reason']})", "dim")
    told = [f for f in result["findings"] if f["model"].get("stage") != Stage.SHADOW]
    best = max(told or result["findings"], key=lambda f: (f["verdict"] == "FLAGGED", f["probability"]))
    words = best["verdict"].replace("_", " ").lower()
    if not told:  # nobody else is told of it
        return Text(f"{words} {best['probability']:.2f} (shadow)", "dim")
    return Text(f"{words} {best['probability']:.2f}", "bold red" if best["verdict"] == "FLAGGED" else "")


def suggested(one: dict[str, Any]) -> str:
    """What a recogniser of body parts suggests, beside what the header says."""
    header = one["said"] or "none"
    model = f"{one['model']['name']} {one['model']['version']}, {one['model']['stage']}"
    return f"header {header}, pixels suggest {one['value']} {one['probability']:.2f} ({model})"


def figures(result: dict[str, Any] | None) -> Iterator[str]:
    """What was measured of flagged regions, a line each: finding, name and code, value, unit; and what they are of, or
    why there are none."""
    for finding in (result or {}).get("findings", ()):
        for note in finding.get("quality", ()):
            if note.startswith("radiomics."):
                yield f"{finding['code']['meaning']}: {note.partition(': ')[2]}"
        for one in finding.get("radiomics", ()):
            said, unit = one["code"], "" if one["unit"] == "1" else f" {one['unit']}"
            yield f"{finding['code']['meaning']}: {said['meaning']} ({said['value']}) {one['value']:.6g}{unit}"


@app.command("list")
def list_studies(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option("--state", help="RECEIVING, SETTLED, TRIAGED, DELIVERED …")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 50,
    json: Json = False,
) -> None:
    """Studies, newest first. Works with the node down."""
    from edge_node.service.snapshot import study_rows

    call: Invocation = ctx.obj
    database = Database(ledger_path(call.load().config), read_only=True)
    with database.read() as connection:
        rows = study_rows(connection, state=state.upper() if state else None, limit=limit)
    emit(
        rows,
        json=json or call.json,
        human=lambda: table(
            ("study", "state", "rev", "modality", "instances", "last received", "triage", "trainer"),
            [
                (
                    r["study"],
                    r["state"],
                    r["revision"],
                    r["modalities"],
                    r["instances"],
                    clock(r["last_received_at"]),
                    verdict_of(r),
                    ", ".join(f"{s.lower()} {n}" for s, n in r["trainer"].items()),
                )
                for r in rows
            ],
            empty="No study was received yet.",
        ),
    )


@app.command()
def show(ctx: typer.Context, study: str, json: Json = False) -> None:
    """One study: state, result, work, deliveries."""
    detail = _detail(ctx, study)
    call: Invocation = ctx.obj

    def human() -> None:
        for key, value in detail.items():
            if key in ("work", "deliveries", "timeline", "result"):
                continue
            text = ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else value
            print_data(f"{key:18}{clock(value) if key.endswith('_at') else text}")
        print_data("triage            " + verdict_of(detail).plain)
        for one in (detail["result"] or {}).get("suggestions", ()):
            print_data("body part         " + suggested(one))
        for one in figures(detail["result"]):
            print_data("radiomics         " + one)
        table(
            ("step", "target", "rev", "state", "tries", "outcome"),
            [(w["step"], w["target"], w["revision"], w["state"], w["attempts"], w["code"]) for w in detail["work"]],
        )
        table(
            ("to", "state", "why", "instances"),
            [(d["to"], d["state"], d["code"], d["instances"]) for d in detail["deliveries"]],
        )

    emit(detail, json=json or call.json, human=human)


@app.command()
def timeline(ctx: typer.Context, study: str, json: Json = False) -> None:
    """Everything the audit says about one study, in order: when, who, what, why."""
    detail = _detail(ctx, study)
    call: Invocation = ctx.obj
    emit(
        detail["timeline"],
        json=json or call.json,
        human=lambda: table(
            ("when", "who", "what", "detail"),
            [(clock(e["at"]), e["actor"], e["action"], _words(e["detail"])) for e in detail["timeline"]],
        ),
    )


def _words(detail: dict[str, Any]) -> str:
    """The detail of an audit entry for people: the reason first, hashes cut (--json has them whole)."""
    first = sorted(detail.items(), key=lambda pair: (pair[0] not in ("reason", "complete"), pair[0] != "reason"))
    return ", ".join(f"{k}={v[:12]}…" if _HASH.fullmatch(str(v)) else f"{k}={v}" for k, v in first)


def _detail(ctx: typer.Context, study: str) -> dict[str, Any]:
    from edge_node.service.snapshot import study_detail

    call: Invocation = ctx.obj
    database = Database(ledger_path(call.load().config), read_only=True)
    with database.read() as connection:
        return study_detail(connection, study)


@app.command()
def retry(ctx: typer.Context, study: str) -> None:
    """Try again, at once, what waits for a human or for its back-off."""
    from edge_node.store import audit, tasks

    call: Invocation = ctx.obj
    config = call.load().config
    database = Database(ledger_path(config))
    with database.write() as connection:
        count = tasks.requeue(connection, study, steps=RETRIED, states=(TaskState.DEAD, TaskState.READY))
        if count:
            audit.append(connection, f"{config.node.name}/admin", "study.retried", study, {"rows": count})
    say(f"{count} pieces of work are due again." if count else "Nothing of this study waits.")
    raise SystemExit(ExitCode.FINE if count else ExitCode.FOUND_WRONG)


@app.command()
def release(
    ctx: typer.Context,
    study: str,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", help="Write the masked images here as PNG, release nothing."),
    ] = None,
    json: Json = False,
) -> None:
    """Let a study's masked images leave. Look at them first: --pictures writes them to a folder of yours."""
    from edge_node.service.release import is_quarantined
    from edge_node.service.review import release_masked, write_pictures

    call: Invocation = ctx.obj
    config = call.load().config
    if is_quarantined(study):
        raise Quarantine(
            "study.unknown",
            f"{study} is a quarantined object, not a study",
            hint=f"edge-node quarantine release {study}",
        )
    if pictures is not None:
        paths = [str(path) for path in write_pictures(config, study, pictures)]
        emit({"study": study, "pictures": paths}, json=json or call.json, human=lambda: print_data("\n".join(paths)))
        return
    count = release_masked(config, study)
    emit(
        {"study": study, "released": count},
        json=json or call.json,
        human=lambda: say(f"{count} masked images of {study} may leave."),
    )
