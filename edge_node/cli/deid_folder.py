"""`edge-node deid apply`: the node's de-identification over a folder of files."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_node import __version__
from edge_node.cli.console import emit, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode

if TYPE_CHECKING:
    from edge_node.deid import Deidentifier
    from edge_node.deid.series import Tools
    from edge_node.deid.survey import Looked, Survey

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Recipe; default: the site's.")]
Profile = Annotated[
    str | None,
    typer.Option("--profile", help="A shipped profile: alone, or as what the recipe stands on where it says nothing."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="File with the key of the pseudonyms; default: the node's.")
]
Label = Annotated[str, typer.Option("--label", help="Key label: pseudonyms of their own, for one trial.")]
Variables = Annotated[list[str] | None, typer.Option("--var", help="NAME=VALUE for var:NAME in the recipe.")]
MayLeave = Annotated[
    list[str] | None,
    typer.Option(
        "--pixels-may-leave",
        metavar="CLASS",
        help="Images of this risk (ultrasound, secondary-capture …) may leave once masked and looked at again.",
    ),
]
Deface = Annotated[
    bool, typer.Option("--deface", help="Remove faces from head CT; hold head series that no method applies to.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `edge-node deid`."""
    app.command()(apply)
    app.command()(report)
    app.command()(review)


def apply(
    ctx: typer.Context,
    in_dir: Path,
    out_dir: Path,
    recipe: RecipeFile = None,
    key_file: KeyFile = None,
    profile: Profile = None,
    variables: Variables = None,
    label: Label = "",
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Processes; 0: one a core.")] = 0,
    may_leave: MayLeave = None,
    deface: Deface = False,
    uncleaned_pixels: Annotated[
        str, typer.Option("--uncleaned-pixels", help="hold, or write: objects whose pixels may still show identity.")
    ] = "hold",
    json: Json = False,
) -> None:
    """De-identify every file below IN_DIR into OUT_DIR, as the node would; what cannot be cleaned is not written.

    Exit code 0: everything was written; 1: something was held back, with the reason in the answer.
    """
    from edge_node.deid import folder

    call: Invocation = ctx.obj
    if uncleaned_pixels not in ("hold", "write"):
        raise typer.BadParameter("hold or write", param_hint="--uncleaned-pixels")
    path, base = which_recipe(call, recipe, profile)
    variables = with_the_sites(call, recipe or profile, variables)
    work = folder.Work(
        path,
        key_of(call, key_file),
        __version__,
        base,
        variables_of(variables),
        hold_pixels=uncleaned_pixels == "hold",
        label=label,
        leave=risks_of(may_leave),
        deface=deface,
    )
    quiet = json or call.json
    folder.check_folders(in_dir, out_dir)
    total = len(folder.files_in(in_dir))
    jobs = min(jobs or os.cpu_count() or 1, total)
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bar, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("de-identifying", total=total)
        bars = {"header": task, "pixels": progress.add_task("looking at pixels", total=None, visible=False)}

        def tell(what: str, count: int) -> None:
            if what == "pixels due":
                progress.update(bars["pixels"], total=count, visible=True)
            else:
                progress.advance(bars[what], count)

        with _ended_by_signal(), closing(folder.apply(in_dir, out_dir, work, jobs=jobs, tell=tell)) as done:
            outcomes = list(done)
    held = [one for one in outcomes if not one.written]
    identity = work.engine().recipe_id
    written = len(outcomes) - len(held)
    data = {
        "recipe": {"name": identity.name, "sha256": identity.sha256},
        "files": len(outcomes),
        "written": written,
        "quarantined": [{"file": one.source, "code": one.code, "reason": one.reason} for one in held],
        "outputs": [
            {
                "file": one.source,
                "output": one.target,
                **({"note": one.note} if one.note else {}),
                **({"pixels": one.pixels} if one.pixels else {}),
            }
            for one in outcomes
            if one.written
        ],
    }

    def human() -> None:
        if held:
            table(("file", "code", "reason"), [(one.source, one.code, one.reason) for one in held])
        for note, count in Counter(one.note for one in outcomes if one.note).items():
            say(f"{count} × {note}: two files with one SOP Instance UID")
        for done, count in Counter(one.pixels for one in outcomes if one.pixels and one.written).items():
            say(f"{count} × pixels {done.removeprefix('review:')}")
        say(f"{written} of {len(outcomes)} written, {len(held)} held back, by recipe {identity.name}")

    emit(data, json=quiet, human=human)
    raise SystemExit(ExitCode.FOUND_WRONG if held else ExitCode.FINE)


def report(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files as received.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("deid-report.html"),
    recipe: RecipeFile = None,
    profile: Profile = None,
    key_file: KeyFile = None,
    variables: Variables = None,
    label: Label = "",
    may_leave: MayLeave = None,
    deface: Deface = False,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="Objects to show and to validate.")] = 6,
) -> None:
    """Write one self-contained page: what was held back, what left, by attribute, pixels and validity before and after.

    The pictures are of both sides: keep the page where the images may be. Exit code 1 if anything was held back.
    """
    from edge_node.deid.page import Sample, page, sample_of

    call: Invocation = ctx.obj
    engine = engine_of(call, recipe, profile, key_file, variables, label)
    samples: list[Sample] = []
    kinds: Counter[str] = Counter()

    def look(path: Path, seen: Looked) -> None:
        kind = f"{seen.modality} {seen.pixels}"
        if seen.part10 is not None and len(samples) < pictures and not kinds[kind]:
            kinds[kind] += 1
            samples.append(sample_of(path, seen.part10, seen.pixels))

    tools = tools_for(engine, may_leave, deface)
    seen = surveyed(directory, engine, tools, quiet=call.json, look=look)
    identity = engine.recipe_id
    out.write_text(
        page(seen, samples, recipe=identity.name, sha256=identity.sha256, claims=engine.claims), encoding="utf-8"
    )
    say(f"{out}: {seen.clean} of {seen.files} clean, {len(seen.held)} held back")
    raise SystemExit(ExitCode.FOUND_WRONG if seen.held else ExitCode.FINE)


def review(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `deid apply` has written.")],
    most: Annotated[int, typer.Option("--most", min=1, help="Values shown of one attribute.")] = 20,
    json: Json = False,
) -> None:
    """List the distinct values of every text that clean objects hold, with counts, for a human to look through."""
    from edge_node.deid import folder, survey

    call: Invocation = ctx.obj
    paths = [path for path in folder.files_in(directory) if path.suffix == ".dcm"]
    found = survey.review(paths, directory)
    rows = [
        (attribute.name, attribute.kind, count, value)
        for attribute, values in found.items()
        for value, count in values.most_common(most)
    ]
    emit(
        [{"attribute": a.name, "class": a.kind, "values": dict(values.most_common())} for a, values in found.items()],
        json=json or call.json,
        human=lambda: table(("attribute", "class", "count", "value"), rows, empty="no text in any object"),
    )


def engine_of(
    call: Invocation,
    recipe: Path | None,
    profile: str | None,
    key_file: Path | None,
    variables: list[str] | None,
    label: str,
) -> Deidentifier:
    """An engine for looking: with the key given, the node's key, or if there is none a throw-away key."""
    from edge_node.deid import Deidentifier

    path, base = which_recipe(call, recipe, profile)
    variables = with_the_sites(call, recipe or profile, variables)
    try:
        key = key_of(call, key_file)
    except Stop:
        if key_file is not None:
            raise
        key = os.urandom(32)
    return Deidentifier(path, key, version=__version__, variables=variables_of(variables), base=base, label=label)


def surveyed(
    directory: Path,
    engine: Deidentifier,
    tools: Tools,
    *,
    quiet: bool,
    look: Callable[[Path, Looked], None] = lambda _path, _looked: None,
) -> Survey:
    """Survey a folder (or one file) under a progress bar; `look` is shown every file."""
    from edge_node.deid import folder
    from edge_node.deid.survey import Survey, survey

    paths = [directory] if directory.is_file() else folder.files_in(directory)
    seen = Survey()
    with Progress(console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("looking", total=len(paths))
        root = directory.parent if directory.is_file() else directory
        for path, looked in survey(paths, root, engine, tools, seen):
            look(path, looked)
            progress.advance(task)
    return seen


def risks_of(given: list[str] | None) -> frozenset[str]:
    """The classes of `--pixels-may-leave`. Raises BadParameter for one that does not exist."""
    from edge_node.config.schema import PIXEL_RISKS

    for word in given or ():
        if word not in PIXEL_RISKS:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(PIXEL_RISKS)}", param_hint="--pixels-may-leave")
    return frozenset(given or ())


def tools_for(engine: Deidentifier, may_leave: list[str] | None, deface: bool) -> Tools:
    """What pixels would be cleaned with by `apply`."""
    from edge_node.deid.series import load_finder, tools_of

    recipes = {engine.recipe_id.sha256: engine.recipe}
    return tools_of(recipes, load_finder(), vendor_boxes=True, deface=deface, leave=risks_of(may_leave))


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM ends the run like an error does: workers finish, drafts go."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def which_recipe(call: Invocation, recipe: Path | None, profile: str | None) -> tuple[Path, Path | None]:
    """`Work`'s recipe and base: the recipe given, the profile given, or one on top of the other; else the site's.

    Raises Stop("deid.unknown-profile").
    """
    from edge_node.deid.profiles import profile_text
    from edge_node.service.node import recipe_path, shipped

    shipped_path = None
    if profile is not None:
        profile_text(profile)
        shipped_path = shipped("recipes", f"{profile}.deid")
    if recipe is not None:
        return recipe, shipped_path
    return shipped_path or recipe_path(call.load().config), None


def key_of(call: Invocation, key_file: Path | None) -> bytes:
    """The key of the pseudonyms: the bytes of a file, or the node's. Raises Stop."""
    from edge_node.config.secrets import load_key

    if key_file is None:
        return load_key("pseudonym", call.load().config)
    try:
        key = key_file.read_bytes()
    except OSError as error:
        raise Stop("deid.site-key", f"{key_file}: the key cannot be read: {error.strerror}") from None
    if key_file.stat().st_mode & 0o077:
        say(f"{key_file}: other users may read this key; chmod 0400 {key_file}")
    return key


def with_the_sites(call: Invocation, named: Path | str | None, given: list[str] | None) -> list[str]:
    """NAME=VALUE words; those of the site's own recipe, which it is unless one is `named`, before those given."""
    if named is not None:
        return given or []
    return [*(f"{name}={value}" for name, value in call.load().config.deid.variables.items()), *(given or [])]


def variables_of(given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE words as a mapping. Raises BadParameter."""
    found = {}
    for word in given or ():
        name, separator, value = word.partition("=")
        if not separator or not name.isidentifier() or not value.isascii() or not value.isprintable():
            raise typer.BadParameter(f"{word!r} is not NAME=VALUE in printable ASCII", param_hint="--var")
        found[name] = value
    return found
