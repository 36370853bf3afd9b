"""The same de-identification over a folder of files: what is clean is written, what is not is named.

Names of files and folders hold identity as often as headers do, so the output is named by pseudonymous UIDs:
``STUDY/SERIES/INSTANCE.dcm``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from edge_node.deid.door import Deidentifier
from edge_node.deid.part10 import instance_from_file
from edge_node.domain.errors import Quarantine, Stop

_DRAFT = ".edge-node-draft-"
_CHUNK = 8  # files a worker takes at once


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to build the same engine; see `Deidentifier`. `hold_pixels`: objects whose pixels may show
    identity are held back, since nothing here looks at pixels."""

    recipe: Path
    key: bytes = field(repr=False)
    version: str
    base: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    hold_pixels: bool = True
    label: str = ""

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `source` and `target` are relative to the two folders; `target` "" if it was held back,
    then `code` and `reason` say why. `note` is "duplicate" for bytes already written, "conflict" for another object of
    the same SOP Instance UID, which gets a name with a number. `risk` is the pixels' reason code or ""."""

    source: str
    target: str = ""
    code: str = ""
    reason: str = ""
    modality: str = ""
    risk: str = ""
    note: str = ""
    sha256: str = ""

    @property
    def written(self) -> bool:
        return not self.code


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


def apply(source: Path, target: Path, work: Work, *, jobs: int = 1) -> Iterator[Outcome]:
    """De-identify every file below `source` into `target`, one outcome a file in the order of `files_in`.

    Nothing that was held back leaves anything in `target`. Raises Stop before anything is written if recipe, key or
    folders cannot be used, Stop("deid.out-unwritable") and Stop("deid.worker-died") on the way.
    """
    check_folders(source, target)
    paths = files_in(source)
    work.engine()
    try:
        target.mkdir(parents=True, exist_ok=True)
        yield from _named(_outcomes(paths, source, target, work, jobs), target)
    except OSError as error:
        raise Stop("deid.out-unwritable", f"{target}: {error.strerror}", exit_code=74) from None
    except BrokenProcessPool:
        raise Stop("deid.worker-died", "a worker process ended", hint="fewer --jobs: memory?", exit_code=70) from None
    finally:
        for draft in target.glob(_DRAFT + "*"):
            draft.unlink(missing_ok=True)


def _outcomes(paths: list[Path], source: Path, target: Path, work: Work, jobs: int) -> Iterator[Outcome]:
    numbered = list(enumerate(paths))
    if jobs == 1:
        engine = work.engine()
        for number, path in numbered:
            yield _one(engine, work, number, path, source, target)
        return
    chunks = [numbered[at : at + _CHUNK] for at in range(0, len(numbered), _CHUNK)]
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start, (work, source, target)) as pool:
        for done in pool.map(_chunk, chunks):
            yield from done


_mine: list[tuple[Deidentifier, Work, Path, Path]] = []  # of a worker process: set once by its initializer


def _start(work: Work, source: Path, target: Path) -> None:
    _mine.append((work.engine(), work, source, target))


def _chunk(numbered: list[tuple[int, Path]]) -> list[Outcome]:
    engine, work, source, target = _mine[0]
    return [_one(engine, work, number, path, source, target) for number, path in numbered]


def _one(engine: Deidentifier, work: Work, number: int, path: Path, source: Path, target: Path) -> Outcome:
    name = str(path.relative_to(source))
    try:
        made = engine.deidentify(instance_from_file(path)).instance
    except Quarantine as error:
        return Outcome(name, code=error.code, reason=error.message)
    if work.hold_pixels and made.pixel_risk:
        reason = f"the pixels may show identity ({made.pixel_risk}) and were not looked at"
        return Outcome(name, code="deid.pixels-uncleaned", reason=reason, modality=made.modality, risk=made.pixel_risk)
    draft = target / f"{_DRAFT}{number}"
    draft.write_bytes(made.part10)
    place = f"{made.study_uid}/{made.series_uid}/{made.sop_uid}"
    return Outcome(name, place, modality=made.modality, risk=made.pixel_risk, note=str(number), sha256=made.sha256)


def _named(outcomes: Iterator[Outcome], target: Path) -> Iterator[Outcome]:
    """Give each draft its name, in order, so that two objects of one UID get the same names in every run."""
    taken: dict[str, list[str]] = {}
    for one in outcomes:
        if not one.written:
            yield one
            continue
        draft = target / f"{_DRAFT}{one.note}"
        seen = taken.setdefault(one.target, [])
        note, place = "", f"{one.target}.dcm"
        if one.sha256 in seen:
            draft.unlink()
            note = "duplicate"
            place = f"{one.target}{_suffix(seen.index(one.sha256))}.dcm"
        else:
            note = "conflict" if seen else ""
            place = f"{one.target}{_suffix(len(seen))}.dcm"
            seen.append(one.sha256)
            path = target / place
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(path)
        yield Outcome(one.source, place, modality=one.modality, risk=one.risk, note=note, sha256=one.sha256)


def _suffix(number: int) -> str:
    return f"-{number + 1}" if number else ""
