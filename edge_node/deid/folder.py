"""The same de-identification over a folder of files: what is clean is written, what is not is named.

Names of files and folders hold identity as often as headers do, so the output is named by pseudonymous UIDs:
``STUDY/SERIES/INSTANCE.dcm``.

Two passes. The first cleans header after header; what needs nothing more is written. What the pixel step must look at
is only noted, and made again from its source when its series is due: so nothing whose pixels may show identity ever
lies in the output folder, not even for a moment, and memory does not grow with the folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from edge_node.deid.door import Deidentifier
from edge_node.deid.part10 import instance_from_file
from edge_node.deid.series import Tools, asks_for_work, judge_series, load_finder, tools_of, why_held
from edge_node.domain.body import Body
from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import CleanObject, DeidentifiedInstance

_DRAFTS = ".edge-node-drafts-"
_CHUNK = 8  # files a worker takes at once
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to build the same engine and tools; see `Deidentifier` and `tools_of`.

    `leave` are the risks whose objects may leave once their pixels were looked at; with `hold_pixels` False objects
    leave whatever became of their pixels.
    """

    recipe: Path
    key: bytes = field(repr=False)
    version: str
    base: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    hold_pixels: bool = True
    label: str = ""
    leave: frozenset[str] = frozenset()
    vendor_boxes: bool = True
    deface: bool = False

    def engine(self) -> Deidentifier:
        """Raises Stop for a recipe or key that cannot be used."""
        return Deidentifier(
            self.recipe,
            self.key,
            version=self.version,
            variables=dict(self.variables),
            base=self.base,
            label=self.label,
        )

    def tools(self, engine: Deidentifier) -> Tools:
        """What pixels are cleaned with, still without a text detector. Raises Stop."""
        recipes = {engine.recipe_id.sha256: engine.recipe}
        return tools_of(recipes, None, vendor_boxes=self.vendor_boxes, deface=self.deface, leave=self.leave)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `source` and `target` are relative to the two folders; `target` "" if it was held back,
    then `code` and `reason` say why. `note` is "duplicate" for bytes already written, "conflict" for another object of
    the same SOP Instance UID, which gets a name with a number. `risk` is the pixels' reason code or ""; `pixels` what
    the pixel step did (`CleanObject.pixel_work`), "" where it had nothing to do."""

    source: str
    target: str = ""
    code: str = ""
    reason: str = ""
    modality: str = ""
    risk: str = ""
    note: str = ""
    pixels: str = ""

    @property
    def written(self) -> bool:
        return not self.code


@dataclass(frozen=True, slots=True)
class Noted:
    """One file after a pass. `made` is the object with its header clean, without its bytes; None if it was held back.
    While it `waits` nothing was written of it; else a draft is there unless it was held back."""

    number: int
    outcome: Outcome
    made: DeidentifiedInstance | None = None
    sha256: str = ""
    waits: bool = False


def files_in(folder: Path) -> list[Path]:
    """All regular files below `folder`, sorted, links to folders not followed. Raises Stop("deid.no-input")."""
    found = sorted(
        Path(root) / name for root, _, names in os.walk(folder) for name in names if (Path(root) / name).is_file()
    )
    if not found:
        raise Stop("deid.no-input", f"{folder}: there is no file", hint="name the folder that holds them", exit_code=2)
    return found


def check_folders(source: Path, target: Path) -> None:
    """Raise Stop unless `source` is a folder and `target` is empty or absent, and neither is in the other."""
    if not source.is_dir():
        raise Stop("deid.no-input", f"{source}: this is no folder", hint="name the folder that holds them", exit_code=2)
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise Stop("deid.folders-overlap", "one folder lies in the other", hint="choose another OUT_DIR", exit_code=2)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Stop("deid.out-not-empty", f"{target}: there is something in it", hint="choose a new folder", exit_code=2)


def _silent(_what: str, _count: int) -> None:
    """Nobody wants to know how far it is."""


def apply(
    source: Path, target: Path, work: Work, *, jobs: int = 1, tell: Callable[[str, int], None] = _silent
) -> Generator[Outcome, None, None]:
    """De-identify every file below `source` into `target`, one outcome a file in the order of `files_in`.

    `tell` hears ("header", 1) for each file read, ("pixels due", n) once, and ("pixels", 1) for each file of the second
    pass. The outcome does not depend on `jobs`. Nothing that was held back leaves anything in `target`.

    Raises Stop before anything is written if recipe, key or folders cannot be used, Stop("deid.out-unwritable") and
    Stop("deid.worker-died") on the way.
    """
    check_folders(source, target)
    paths = files_in(source)
    work.tools(work.engine())
    drafts = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        drafts = Path(tempfile.mkdtemp(prefix=_DRAFTS, dir=target))  # for its owner alone
        with _Crew(work, source, drafts, jobs) as crew:
            noted = []
            for one in crew.do(_header, list(enumerate(paths)), _CHUNK):
                noted.append(one)
                tell("header", 1)
            due = _series(noted)
            tell("pixels due", sum(map(len, due)))
            for one in crew.do(_pixels, due, 1):
                noted[one.number] = one
                tell("pixels", 1)
        yield from _named(noted, target, drafts)
    except OSError as error:
        raise Stop("deid.out-unwritable", f"{target}: {error.strerror}", exit_code=74) from None
    except BrokenProcessPool:
        raise Stop("deid.worker-died", "a worker process ended", hint="fewer --jobs: memory?", exit_code=70) from None
    finally:
        if drafts is not None:
            shutil.rmtree(drafts, ignore_errors=True)


def _series(noted: Iterable[Noted]) -> list[list[Noted]]:
    """What waits for its pixels, by series in the order of files; bytes that are there twice only once."""
    found: dict[tuple[str, str], dict[str, Noted]] = defaultdict(dict)
    for one in noted:
        if one.waits and one.made is not None:
            found[one.made.study_uid, one.made.series_uid].setdefault(one.sha256, one)
    return [list(series.values()) for series in found.values()]


@dataclass(slots=True)
class _Bench:
    """What a process works with; the text detector is loaded when the first pixels are due."""

    work: Work
    engine: Deidentifier
    tools: Tools
    paths: tuple[Path, Path]  # source, drafts
    can_see: bool = False

    def seeing(self) -> Tools:
        if not self.can_see:
            self.tools, self.can_see = replace(self.tools, finder=load_finder()), True
        return self.tools


class _Crew:
    """This process, or `jobs` others."""

    def __init__(self, work: Work, source: Path, drafts: Path, jobs: int) -> None:
        self._given = (work, source, drafts)
        self._pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start, self._given) if jobs > 1 else None

    def __enter__(self) -> _Crew:
        if self._pool is None:
            _start(*self._given)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is None:
            _mine.clear()
        else:
            self._pool.shutdown(cancel_futures=True)

    def do(self, step: Callable[[_Bench, _T], Iterator[Noted]], works: list[_T], at_once: int) -> Iterator[Noted]:
        """What `step` yields for each of `works`, in their order."""
        if self._pool is None:
            for one in works:
                yield from step(_mine[-1], one)
        else:
            chunks = [works[at : at + at_once] for at in range(0, len(works), at_once)]
            for done in self._pool.map(partial(_chunk, step), chunks):
                yield from done


_mine: list[_Bench] = []  # of this process


def _start(work: Work, source: Path, drafts: Path) -> None:
    engine = work.engine()
    _mine.append(_Bench(work, engine, work.tools(engine), (source, drafts)))


def _chunk(step: Callable[[_Bench, _T], Iterator[Noted]], chunk: list[_T]) -> list[Noted]:
    return [noted for one in chunk for noted in step(_mine[-1], one)]


def _header(bench: _Bench, numbered: tuple[int, Path]) -> Iterator[Noted]:
    number, path = numbered
    source, drafts = bench.paths
    outcome = Outcome(str(path.relative_to(source)))
    try:
        made = bench.engine.clean(instance_from_file(path))
    except Quarantine as error:
        yield Noted(number, replace(outcome, code=error.code, reason=error.message))
        return
    outcome = replace(outcome, modality=made.modality, risk=made.pixel_risk)
    waits = asks_for_work(made.part10, made.pixel_risk, bench.tools)
    if not waits:
        (drafts / str(number)).write_bytes(made.part10)
    yield Noted(number, outcome, replace(made, body=Body(())), made.sha256, waits)


def _pixels(bench: _Bench, series: list[Noted]) -> Iterator[Noted]:
    source, drafts = bench.paths
    waiting = {str(one.number): one for one in series}
    objects = [
        clean_object(made, one.sha256, name, partial(read_again, bench.engine, source / one.outcome.source, one.sha256))
        for name, one in waiting.items()
        if (made := one.made) is not None
    ]
    for judged in judge_series(objects, bench.seeing()):
        one = waiting[judged.was.sop_uid]
        outcome = replace(one.outcome, pixels=judged.pixel_work)
        held = why_held(judged) if bench.work.hold_pixels else None
        if held is not None:
            outcome = replace(outcome, code=held.code, reason=held.message)
        else:
            (drafts / judged.was.sop_uid).write_bytes(judged.was.read() if judged.part10 is None else judged.part10)
        yield Noted(one.number, outcome, one.made, one.sha256)


def clean_object(made: DeidentifiedInstance, sha256: str, name: str, read: Callable[[], bytes]) -> CleanObject:
    """An object of a folder as the pixel engine takes it, without its bytes but with the hash of them.

    It goes by `name`: files may share a SOP Instance UID.
    """
    return CleanObject(
        sop_uid=name,
        series_uid=made.series_uid,
        sop_class=made.sop_class,
        transfer_syntax=made.transfer_syntax,
        modality=made.modality,
        size=0,
        digest=sha256,
        pixel_risk=made.pixel_risk,
        read=read,
    )


def read_again(engine: Deidentifier, path: Path, sha256: str) -> bytes:
    """The clean object of a file once more, in memory. Raises Quarantine("deid.source-changed") for other bytes."""
    made = engine.clean(instance_from_file(path))
    if made.sha256 != sha256:
        raise Quarantine("deid.source-changed", "the file changed while it was read", hint="apply again")
    return made.part10


def _named(noted: Iterable[Noted], target: Path, drafts: Path) -> Iterator[Outcome]:
    """Give each draft its name, in order, so that two objects of one UID get the same names in every run."""
    taken: dict[str, list[str]] = {}
    judged: dict[str, Outcome] = {}
    for one in noted:
        if one.made is None:
            yield one.outcome
            continue
        made, outcome = one.made, judged.setdefault(one.sha256, one.outcome)
        outcome = replace(outcome, source=one.outcome.source)
        if not outcome.written:
            yield outcome
            continue
        place = f"{made.study_uid}/{made.series_uid}/{made.sop_uid}"
        seen = taken.setdefault(place, [])
        draft = drafts / str(one.number)
        if one.sha256 in seen:
            draft.unlink(missing_ok=True)
            name, note = f"{place}{_suffix(seen.index(one.sha256))}.dcm", "duplicate"
        else:
            name, note = f"{place}{_suffix(len(seen))}.dcm", "conflict" if seen else ""
            seen.append(one.sha256)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            draft.rename(target / name)
        yield replace(outcome, target=name, note=note)


def _suffix(number: int) -> str:
    return f"-{number + 1}" if number else ""
