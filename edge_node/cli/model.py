"""`edge-node model`: the packages of this node: add, prove, promote, retire, roll back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edge_node.cli import model_validate
from edge_node.cli.console import emit, print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.cli.node import clock
from edge_node.domain.model import UNSIGNED, Stage
from edge_node.domain.status import ExitCode

app = typer.Typer(help="Model packages: add, prove, promote, retire, roll back.", no_args_is_help=True)
model_validate.register(app)
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Name = Annotated[str, typer.Argument(help="Name of the model, as in its card.")]
Version = Annotated[str, typer.Argument(help="Its version; without one, the version that decides.")]
By = Annotated[str, typer.Option("--by", help="Who decides this; goes into the audit.")]
Why = Annotated[str, typer.Option("--why", help="Why; goes into the audit. No patient data.")]
_COLOURS = {"live": "bold green", "information": "green", "quarantined": "bold red", "retired": "dim"}


@app.command()
def add(
    ctx: typer.Context,
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A folder, .zip or .tar with card.toml.")],
    by: By,
    why: Why = "added",
    json: Json = False,
) -> None:
    """Check a package and keep it. It does not run until it is promoted."""
    from edge_node.service.models import registry, take_in

    call: Invocation = ctx.obj
    config = call.load().config
    with registry(config) as models:
        taken = take_in(config, models, package, who=by, why=why)
    one = taken.one
    word = "was added" if taken.new else "was here already"
    note = f" This node cannot run it: {taken.runnable}." if taken.runnable else ""
    emit(
        {**_row(one), "new": taken.new, "cannot_run": taken.runnable},
        json=json or call.json,
        human=lambda: say(
            f"{one.name} {one.version} {word} ({one.trust}), {one.stage}.{note}"
            + ("" if note else f" Next: edge-node model promote {one.name} {one.version} --to shadow --by NAME --why …")
        ),
    )


@app.command("list")
def list_models(ctx: typer.Context, json: Json = False) -> None:
    """Every package with its stage. Works with the node down."""
    from edge_node.service.activation import in_words, last_activation
    from edge_node.service.models import registry

    call: Invocation = ctx.obj
    with registry(call.load().config) as models:
        rows = [_row(one) | {"ran_on": last_activation(models, one.package)} for one in models.all()]
    emit(
        rows,
        json=json or call.json,
        human=lambda: table(
            ("model", "version", "stage", "since", "trust", "why it is out, or how it ran beside the CPU"),
            [
                (
                    r["name"],
                    r["version"],
                    Text(r["stage"], _COLOURS.get(r["stage"], "")),
                    clock(r["changed_at"]),
                    Text(r["trust"], "bold red" if r["trust"] == UNSIGNED else ""),
                    f"{r['code']}: {r['message']}" if r["code"] else in_words(r["ran_on"]),
                )
                for r in rows
            ],
            empty="No model is here yet: those of triage.models_dir are taken in at the first start of the node.",
        ),
    )


@app.command()
def show(ctx: typer.Context, name: Name, version: Version = "", json: Json = False) -> None:
    """What the card says, what runs where, and who decided what when."""
    from edge_node.service.activation import in_words, last_activation
    from edge_node.service.models import card_of, registry

    call: Invocation = ctx.obj
    config = call.load().config
    with registry(config) as models:
        one = models.find(name, version)
        ran_on = last_activation(models, one.package)
        changes = [asdict(change) for change in models.changes(name)]
    card = card_of(config, one)
    file = card.file
    told = {**_row(one), "ran_on": ran_on, "card": file.model_dump(mode="json"), "changes": changes}

    def human() -> None:
        points = [
            (variant, finding.short, card.point(variant, finding).threshold)
            for variant in file.variants
            for finding in file.findings
        ]
        table(
            ("what", "value"),
            [
                *((key, one_) for key, one_ in _row(one).items() if one_ and not key.endswith("_at")),
                *((("ran on", in_words(ran_on)),) if ran_on else ()),
                ("label", file.label),
                ("intended use", file.intended_use),
                *(("limit", limit) for limit in file.limits),
                ("regulatory", file.regulatory),
                ("licence", file.licence),
                *(
                    ("finding", f"{f.short}: {f.code.meaning}, ACR category {f.category}")
                    if f.category
                    else ("suggests", f"{f.short}: {f.code.meaning}, never a finding")
                    for f in file.findings
                ),
                ("selection", " ".join(file.selection.rule.split())),
                *(("threshold", f"{short} {value:g} ({variant})") for variant, short, value in points),
                ("trained on", file.training["data"]),
                ("held out", file.held_out["data"]),
            ],
        )
        table(
            ("when", "what", "stages", "who", "why"),
            [(clock(c["at"]), c["kind"], _stages(c["after"]), c["who"], c["why"]) for c in changes],
        )

    emit(told, json=json or call.json, human=human)


@app.command()
def verify(ctx: typer.Context, name: Name, version: Version = "", json: Json = False) -> None:
    """Hashes, signature, card against model, and golden vectors, here and now on the site's device."""
    from edge_node.service.activation import figures_of
    from edge_node.service.models import prove, registry
    from edge_node.triage.agreement import told

    call: Invocation = ctx.obj
    config = call.load().config
    with registry(config) as models:
        one = models.find(name, version)
    started, label, unmeasured = prove(config, one)
    emit(
        {**_row(one), **figures_of(started), "golden_difference": started.worst, "without_radiomics": unmeasured},
        json=json or call.json,
        human=lambda: say(
            f"{label}: whole. Golden vectors differ by {started.worst:.2g} at most."
            + (f" It {told(started.parity)}." if started.parity else "")
            + (f" WITHOUT RADIOMICS: {unmeasured}." if unmeasured else "")
        ),
    )


@app.command()
def bench(
    ctx: typer.Context,
    name: Name,
    version: Version = "",
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000)] = 20,
    items: Annotated[int, typer.Option("--items", min=1, max=1024, help="Slabs or patches a call.")] = 40,
    json: Json = False,
) -> None:
    """Time of the model on this machine, in a worker as triage runs it."""
    from edge_node.service.models import measure, registry

    call: Invocation = ctx.obj
    config = call.load().config
    with registry(config) as models:
        one = models.find(name, version)
    told = measure(config, one, rounds=rounds, items=items)
    emit(
        asdict(told),
        json=json or call.json,
        human=lambda: say(
            f"{told.label}: {told.items} items in {told.median_s * 1000:.0f} ms (p95 {told.p95_s * 1000:.0f} ms);"
            f" start and proof {told.start_s:.1f} s"
        ),
    )


@app.command()
def promote(
    ctx: typer.Context,
    name: Name,
    version: Annotated[str, typer.Argument(help="The version.")],
    to: Annotated[Stage, typer.Option("--to", help="shadow, information or live: one step at a time.")],
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """Prove a version on this machine and let it speak as far as --to; the version it replaces is retired."""
    from edge_node.domain.model import RUNNING
    from edge_node.service.models import promote as do
    from edge_node.service.models import registry

    if to not in RUNNING:
        raise typer.BadParameter("shadow, information or live", param_hint="--to")
    call: Invocation = ctx.obj
    config = call.load().config
    with registry(config) as models:
        one = do(config, models, name, version, to, who=by, why=why)
    emit(
        _row(one),
        json=json or call.json,
        human=lambda: say(f"{one.name} {one.version} is {one.stage}; studies that begin from now on see it."),
    )


@app.command()
def retire(
    ctx: typer.Context,
    name: Name,
    version: Annotated[str, typer.Argument(help="The version.")],
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """Take a version out of service; its package is kept."""
    from edge_node.service.models import registry

    call: Invocation = ctx.obj
    with registry(call.load().config) as models:
        one = models.retire(name, version, who=by, why=why)
    emit(_row(one), json=json or call.json, human=lambda: say(f"{one.name} {one.version} is {one.stage}."))


@app.command()
def rollback(ctx: typer.Context, name: Name, by: By, why: Why, json: Json = False) -> None:
    """Back to what decided before the last promotion or retirement of this model."""
    from edge_node.service.models import registry
    from edge_node.service.models import rollback as do

    call: Invocation = ctx.obj
    config = call.load().config
    with registry(config) as models:
        do(config, models, name, who=by, why=why)
        now = {one.version: str(one.stage) for one in models.all(name)}
    emit({"name": name, "stages": now}, json=json or call.json, human=lambda: say(f"{name}: {_stages(now)}."))


@app.command()
def skeleton(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file or a MONAI bundle (folder or .zip).")],
    into: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the package.")],
    json: Json = False,
) -> None:
    """Begin a package from a model: what can be read is filled in, what only its maker knows is marked."""
    from edge_node.service.packages import skeleton as do

    call: Invocation = ctx.obj
    open_points = do(source, into)
    emit(
        {"package": str(into), "open": open_points},
        json=json or call.json,
        human=lambda: say(
            f"{into}/card.toml is written. {len(open_points)} places say FILL IN:\n  " + "\n  ".join(open_points)
        ),
    )


@app.command()
def golden(
    ctx: typer.Context,
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A folder with card.toml that you are making.")],
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help=".npz with input.NAME arrays; default: noise.")
    ] = None,
    json: Json = False,
) -> None:
    """Write golden vectors from what the variants answer here, and every hash into the card."""
    from edge_node.service.packages import make_golden

    call: Invocation = ctx.obj
    hashes = make_golden(package, inputs)
    emit(
        hashes, json=json or call.json, human=lambda: say(f"{package}: golden vectors made, {len(hashes)} hashes set.")
    )


@app.command()
def sign(
    ctx: typer.Context,
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A folder with a finished card.toml.")],
    key: Annotated[Path, typer.Option("--key", help="ed25519 private key in PEM; made if there is none.")],
    json: Json = False,
) -> None:
    """Sign a package. The public key it prints is what sites put into triage.trusted_keys."""
    from edge_node.service.packages import sign_package

    call: Invocation = ctx.obj
    public, made = sign_package(package, key)
    emit({"public_key": public, "key_made": made}, json=json or call.json, human=lambda: print_data(public))
    if made:
        say(f"{key} is a new private key: keep it off the nodes.")


@app.command()
def check(
    ctx: typer.Context,
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A folder, .zip or .tar.")],
    json: Json = False,
) -> None:
    """Check a package that is not on the node: archive, card, hashes, card against model, golden vectors."""
    from edge_node.service.packages import examine

    call: Invocation = ctx.obj
    told = examine(package, call.load().config)
    emit(told, json=json or call.json, human=lambda: table(("what", "value"), list(told.items())))
    if told["cannot_run"]:
        raise SystemExit(ExitCode.FOUND_WRONG)


def _row(one: Any) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Stage) else value for key, value in asdict(one).items()}


def _stages(stages: Any) -> str:
    return ", ".join(f"{version} {stage}" for version, stage in stages.items()) or "-"
