"""`edge-node model validate | drift`: what a model is worth here, and whether that still holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.cli.node import clock
from edge_node.domain.status import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Name = Annotated[str, typer.Argument(help="Name of the model, as in its card.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `edge-node model`."""
    app.command()(validate)
    app.command()(drift)


def validate(
    ctx: typer.Context,
    name: Name,
    studies: Annotated[Path, typer.Argument(help="Folder of de-identified studies.", exists=True, file_okay=False)],
    truth: Annotated[Path, typer.Option("--truth", help="CSV with study,truth (1 or 0) and, if wanted, kind.")],
    by: Annotated[str, typer.Option("--by", help="Who validates; goes into the audit.")],
    out: Annotated[Path, typer.Option("--out", help="The report, one HTML file.")] = Path("validation.html"),
    version: Annotated[str, typer.Option("--version", help="Its version; default: the one that decides.")] = "",
    finding: Annotated[
        str, typer.Option("--finding", help="Short word of the finding; default: the card's first.")
    ] = "",
    prevalence: Annotated[
        float, typer.Option("--prevalence", min=0.0001, max=0.9999, help="Share of positives among the site's studies.")
    ] = 0.05,
    per_day: Annotated[float, typer.Option("--studies-per-day", min=0.1, help="Studies a day that it will see.")] = 40,
    miss_weighs: Annotated[
        float,
        typer.Option("--miss-weighs", min=0.01, help="False alarms that one miss weighs, for the proposed point."),
    ] = 20,
    variant: Annotated[str, typer.Option("--variant", help="File of the card; default: what runs here.")] = "",
    against: Annotated[str, typer.Option("--against", help="Also compare with this variant, e.g. fp32.")] = "",
    json: Json = False,
) -> None:
    """Run the node's triage over studies with known truth; one report to sign, kept as the reference of the watch.

    Exit code 1: --against found more difference than the card allows.
    """
    from edge_node.service.models import card_of, registry
    from edge_node.service.validating import keep, writable
    from edge_node.service.validating import validate as do
    from edge_node.service.validation_report import render
    from edge_node.triage.validation import Site

    call: Invocation = ctx.obj
    config = call.load().config
    quiet = json or call.json
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    writable(out)
    with registry(config) as models:
        one = models.find(name, version)
        with Progress(*bar, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
            task = progress.add_task("judging", total=None)
            made = do(
                config,
                one,
                studies,
                truth,
                Site(prevalence, per_day, miss_weighs),
                finding=finding,
                variant=variant,
                against=against,
                tell=lambda done, of: progress.update(task, completed=done, total=of),
            )
        card = card_of(config, one)
        code = next(found.code.value for found in card.file.findings if found.short == made.finding)
        out.write_text(render(made), encoding="utf-8")
        keep(models.database, models.actor, made, code, by)
    f = made.figures

    def human() -> None:
        table(
            ("figure", "value", "from", "to"),
            [
                (what, *(f"{part:.{digits}f}" for part in (value.value, value.low, value.high)))
                for what, value, digits in (
                    ("AUROC", f.auroc, 4),
                    ("sensitivity", f.in_force.sensitivity, 4),
                    ("specificity", f.in_force.specificity, 4),
                    (f"PPV at {prevalence:.1%}", f.in_force.ppv, 4),
                    ("alerts a day", f.in_force.alerts_per_day, 1),
                )
            ],
        )
        for remark in made.remarks:
            say(remark)
        if made.parity is not None:
            told = "; ".join(made.parity.breaches) or made.parity.short or "within the card's tolerance"
            say(f"{made.variant} against {made.against}: {told}.")
        say(f"{out} is the report; print and sign it.")

    emit(made.plain(), json=quiet, human=human)
    if made.parity is not None and made.parity.breaches:
        raise SystemExit(ExitCode.FOUND_WRONG)


def drift(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the model; default: all that have results.")] = "",
    json: Json = False,
) -> None:
    """Whether input and answers still are what they were: every look at drift. Exit code 1: an alarm stands."""
    from edge_node.service.watching import watched

    call: Invocation = ctx.obj
    rows = [row for row in watched(call.load().config) if name in ("", row["model"])]
    words = {"alarm": Text("ALARM", "bold red"), "quiet": Text("quiet", "green")}

    def human() -> None:
        table(
            ("model", "variant", "finding", "state", "results", "reference", "last look"),
            [
                (
                    f"{row['model']} {row['version']}",
                    row["variant"],
                    row["finding"],
                    words.get(row["state"], Text(row["state"])),
                    row["results"],
                    row["reference"],
                    clock(row["looked_at"]),
                )
                for row in rows
            ],
            empty="No model has results yet.",
        )
        for row in rows:
            if row["tests"]:
                table(
                    ("what", "was", "is", "change", "p", "alarm at", ""),
                    [
                        (
                            test["what"],
                            test["before"],
                            test["now"],
                            f"{test['size']} (PSI {test['psi']:.2f})",
                            f"{test['p']:.2g}",
                            f"{test['allowed']:.2g}",
                            Text("ALARM", "bold red") if test["alarm"] else "",
                        )
                        for test in row["tests"]
                    ],
                    title=f"{row['model']} {row['version']}",
                )
            say(f"{row['model']} {row['version']}: {row['rule']}")

    emit(rows, json=json or call.json, human=human)
    if any(row["state"] == "alarm" for row in rows):
        raise SystemExit(ExitCode.FOUND_WRONG)
