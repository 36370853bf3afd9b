"""The model packages of a node: taken in, proven, promoted and rolled back by an administrator."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError, Stop
from edge_node.domain.model import RUNNING, Stage
from edge_node.service.node import existing_ledger, models_path
from edge_node.service.process import harden
from edge_node.service.speaking import check_parity
from edge_node.store.models import Change, Models, Registered
from edge_node.triage.archive import unpack
from edge_node.triage.card import CARD, Card, load_card
from edge_node.triage.model import LoadedModel, Source, Terms, admitted, load_model
from edge_node.triage.process import Started
from edge_node.triage.runner import Device, check_onnxruntime_owner

KEPT = "models"
RADIOMICS_S = 60.0  # what measures them imports for seconds
_INCOMING = ".incoming-"


def kept_path(config: Config) -> Path:
    """The folder of packages below `node.data_dir`, each under its address."""
    return config.node.data_dir / KEPT


def device_of(config: Config) -> Device:
    """What the site wants the models to run on."""
    options = config.triage
    return Device(options.provider, options.require_gpu, options.threads, options.gpu_memory_mb)


def terms_of(config: Config) -> Terms:
    """Which packages the site admits, and whose thresholds."""
    options = config.triage
    return Terms(tuple(options.trusted_keys), options.unsigned_models, options.site, options.thresholds)


def source_of(config: Config, one: Registered) -> Source:
    """A registered package as triage runs it."""
    return Source(kept_path(config) / one.package, one.stage, one.package, one.trust)


@contextlib.contextmanager
def registry(config: Config) -> Iterator[Models]:
    """The registry of this node, for an administrator. Raises Stop("ledger.missing")."""
    database = existing_ledger(config)
    try:
        yield Models(database, f"{config.node.name}/admin")
    finally:
        database.close()


def packaged(config: Config) -> list[Path]:
    """Packages that lie in `triage.models_dir`, by default those that come with edge-node."""
    return sorted(card.parent for card in models_path(config).glob(f"*/{CARD}"))


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking a package in: `new` is False when it was there already."""

    one: Registered
    new: bool
    runnable: str


def take_in(config: Config, models: Models, source: Path, *, who: str, why: str, first: Stage = Stage.ADDED) -> Taken:
    """Unpack, check and keep a package; it does not run yet, unless it is the first of its name and `first` says so.
    Durable when this returns; whoever dies in the middle leaves nothing that the next one does not clear or finish.

    Raises Quarantine ``model.archive``, ``model.version-taken``; Stop ``triage.model-invalid``,
    ``triage.model-signature``, ``triage.model-unsigned``, ``model.unwritable``.
    """
    home = kept_path(config)
    with _unwritable(home), _staging(home) as staging:
        inside = staging / (source.name or "package")  # messages name it as the administrator does
        inside.mkdir(mode=0o750)
        unpack(source, inside)
        card, trust = admitted(Source(inside), terms_of(config))
        target = home / card.package
        if not _intact(target, card.package):
            _remove(target)
            _sync(inside)
            inside.rename(target)
            target.chmod(0o550)
            _sync(home)
        size = sum(item.stat().st_size for item in target.iterdir())
        name, version = card.file.name, card.file.version
        new = models.add(card.package, name, version, trust=trust, size=size, who=who, why=why, first=first)
        return Taken(models.find(name, version), new, card.runnable())


@contextlib.contextmanager
def _unwritable(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stop(
            "model.unwritable",
            f"{home} cannot be written: {error.strerror or type(error).__name__}",
            hint="run as the node's user, and look whether the disk is full: edge-node doctor",
            exit_code=77,
        ) from None


@contextlib.contextmanager
def _staging(home: Path, *, wait: bool = True) -> Iterator[Path]:
    """A folder to unpack in, for one process at a time: what another left there died. Raises OSError, when it shall not
    `wait` also BlockingIOError."""
    home.mkdir(mode=0o750, exist_ok=True)
    lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in home.glob(f"{_INCOMING}*"):
            _remove(left)
        staging = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=home))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Delete a folder and what is in it, though nobody may write in it. Raises OSError."""
    if folder.exists():
        folder.chmod(0o750)
        shutil.rmtree(folder)


def _intact(folder: Path, package: str) -> bool:
    """Whether the package is there already, with every byte."""
    try:
        return folder.is_dir() and load_card(folder).package == package
    except Stop:
        return False


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_in_packaged(config: Config, models: Models) -> list[EdgeNodeError]:
    """Packages of `triage.models_dir` that this node does not know: kept, and, if no version of their name was here
    before, brought to `triage.packaged_stage`. A new version never replaces what decides. Returns what was refused."""
    refused: list[EdgeNodeError] = []
    with contextlib.suppress(OSError), _staging(kept_path(config), wait=False):
        pass  # what a process that died had unpacked is gone now, also where there is nothing to take in
    stage = Stage(config.triage.packaged_stage)
    first = stage if stage in RUNNING else Stage.ADDED
    for folder in packaged(config):
        try:
            card = load_card(folder)
            known = {one.version for one in models.all(card.file.name)}
            if card.file.version in known:
                continue
            take_in(config, models, folder, who="configuration", why="triage.packaged_stage", first=first)
        except EdgeNodeError as error:
            refused.append(error)
    return refused


def start(config: Config, one: Registered) -> LoadedModel:
    """A registered package, proven and warm in a worker of its own. Raises Stop."""
    check_onnxruntime_owner()
    return load_model(source_of(config, one), terms_of(config), device_of(config), prepare=harden)


def prove(config: Config, one: Registered) -> tuple[Started, str, str]:
    """Run the golden vectors of a package on this machine: what the worker found, the label of the model, and why it
    goes without the radiomics of its card ("" if it does not)."""
    model = start(config, one)
    try:
        companion = model.process.companion
        return model.started, model.label, companion.ready(RADIOMICS_S) if companion is not None else ""
    finally:
        model.process.close()


def promote(config: Config, models: Models, name: str, version: str, to: Stage, *, who: str, why: str) -> Registered:
    """Prove the package on this machine, then let it speak as far as `to`, in one transaction.

    Raises Stop of a package that fails here; Quarantine ``model.parity`` and as `Models.promote`.
    """
    one = models.find(name, version)
    started, _, _ = prove(config, one)
    check_parity(models, one, card_of(config, one), started.variant, to)
    return models.promote(name, version, to, who=who, why=why)


def rollback(config: Config, models: Models, name: str, *, who: str, why: str) -> Change:
    """Go back to what decided before the last promotion or retirement, after proving that it still can.

    Raises Stop of a package that fails here; Quarantine as `Models.rollback`.
    """
    change, after = models.before_last(name)
    for one in models.all(name):
        if after[one.package] in RUNNING and one.stage not in RUNNING:
            prove(config, one)
    models.rollback(name, change.id, who=who, why=why)
    return change


@dataclass(frozen=True, slots=True)
class Bench:
    """Time of one model on this machine: seconds a call (median and 95th percentile) for `items` at once."""

    label: str
    variant: str
    provider: str
    start_s: float
    items: int
    median_s: float
    p95_s: float


def measure(config: Config, one: Registered, *, rounds: int, items: int) -> Bench:
    """Run a model on its golden inputs, repeated to `items`, through its worker as triage does."""
    began = time.monotonic()
    model = start(config, one)
    start_s = time.monotonic() - began
    try:
        inputs, _ = model.card.golden(model.variant)
        many = {name: np.resize(array, (items, *array.shape[1:])) for name, array in inputs.items()}
        model.run(many, time.monotonic() + 600, 0)
        times = []
        for _ in range(rounds):
            began = time.monotonic()
            model.run(many, began + 600, 0)
            times.append(time.monotonic() - began)
        median, p95 = (float(np.percentile(times, q)) for q in (50, 95))
        return Bench(model.label, model.variant, model.provider, start_s, items, median, p95)
    finally:
        model.process.close()


def card_of(config: Config, one: Registered) -> Card:
    """The card of a registered package, its hashes checked. Raises Stop ``triage.model-invalid``."""
    card = replace(load_card(kept_path(config) / one.package, config.triage.site), thresholds=config.triage.thresholds)
    if card.package != one.package:
        raise card.wrong("it is not the package that was taken in (its address differs)")
    return card
