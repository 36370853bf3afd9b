"""The models of the compute role as the registry says: warm, proven, exchanged between studies, never within one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import structlog

from edge_node.domain.errors import EdgeNodeError, Stop
from edge_node.domain.model import RUNNING, SPEAKING, Stage
from edge_node.service.activation import activated
from edge_node.service.models import device_of, source_of, take_in_packaged, terms_of
from edge_node.service.node import Node
from edge_node.service.process import harden
from edge_node.store.models import Models, Registered
from edge_node.triage.ahead import Ahead
from edge_node.triage.judge import Triage
from edge_node.triage.model import LoadedModel, load_model
from edge_node.triage.process import Started
from edge_node.triage.runner import check_onnxruntime_owner
from edge_node.triage.turns import Precedence

log = structlog.get_logger()

_UNPROVEN = "triage.parity-unproven"
AGAIN_S = 1800.0  # after that it is tried to prove what could not be: the machine may have been busy
# What the site has to settle, not the package: it waits in its stage, with the reason, and not in quarantine.
_SITE = ("triage.model-unsigned", "triage.model-signature", "triage.parity", _UNPROVEN)
LOADED_AT_ONCE = 4
_ROLE = ("triage.no-gpu", "triage.onnxruntime-owner")


class ModelsInForce:
    """`begin` gives a study the models in force; they stay as they are until it ends, whatever is promoted."""

    def __init__(self, node: Node, ahead: Ahead | None = None, precedence: Precedence | None = None) -> None:
        """Take in what lies in `triage.models_dir`, then load what shall speak; what is on trial beside it is left for
        the first `refresh`, so that no study waits for it. Raises `Stop` ``triage.no-gpu``,
        ``triage.onnxruntime-owner``; a package that fails does not stop the role, it goes into quarantine."""
        check_onnxruntime_owner()
        self._node = node
        self._ahead = ahead
        # One for all generations: a study that began before a promotion gives way to those that began after it.
        self._precedence = precedence or Precedence()
        self._models = Models(node.database, node.actor)
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: dict[str, LoadedModel] = {}
        self._old: list[LoadedModel] = []
        self._noted: dict[str, Started] = {}  # by package
        self._generation = -1
        self._again = math.inf  # monotonic
        for error in take_in_packaged(node.config, self._models):
            log.error("model.refused", code=error.code, message=error.message, hint=error.hint)
        self._triage = self._of([])
        self.refresh(trials=False)

    @contextmanager
    def begin(self) -> Iterator[Triage]:
        """The models of one study."""
        with self._lock:
            triage = self._triage
            for model in triage.models:
                model.process.users += 1
        try:
            yield triage
        finally:
            with self._lock:
                for model in triage.models:
                    model.process.users -= 1
            for model in triage.models:  # its worker may have started anew, perhaps elsewhere
                if not model.fault:
                    self._note(model)
            self._close_unused()

    def want_priors(self) -> bool:
        """Whether the card of a model asks for earlier studies."""
        with self._lock:
            return any(model.card.file.priors is not None for model in self._triage.models)

    def labels(self) -> list[str]:
        """One line a model, for `status`."""
        with self._lock:
            return [_line(model) for model in self._triage.models] + list(self._triage.absent)

    def refresh(self, *, trials: bool = True) -> bool:
        """Load what the registry says now; True when something changed. Studies that run keep what they have. Without
        `trials` models in shadow are left for the next time, if any speaks."""
        with self._loading:
            generation = self._models.generation()
            if generation == self._generation and time.monotonic() < self._again:
                return False
            self._again = math.inf
            wanted = [one for one in self._models.all() if one.stage in (*RUNNING, Stage.QUARANTINED)]
            later: list[Registered] = []
            if not trials and any(one.stage in SPEAKING for one in wanted):
                later = [one for one in wanted if one.stage == Stage.SHADOW]
                wanted = [one for one in wanted if one.stage != Stage.SHADOW]
            loaded: dict[str, LoadedModel] = {}
            starting = "model.starting: in shadow, starts after those that speak"
            absent = [f"{one.name} {one.version}: {starting}" for one in later]
            # Each worker takes seconds to start and to be proven, most of them in a process of its own.
            with ThreadPoolExecutor(LOADED_AT_ONCE, "models") as pool:
                made = list(pool.map(self._attempt, wanted))
            for one, model in zip(wanted, made, strict=True):
                if isinstance(model, LoadedModel):
                    loaded[one.package] = model
                elif model is None:
                    absent.append(f"{one.name} {one.version}: {one.code}: {one.message}")
                else:
                    absent.append(f"{one.name} {one.version}: {model.code}: {model.message}")
                    if model.code == _UNPROVEN:
                        self._again = time.monotonic() + AGAIN_S
                    if model.code not in _SITE:
                        self._models.quarantine(one.package, model.code, model.message)
            with self._lock:
                kept = {id(model.process) for model in loaded.values()}
                self._old += [model for model in self._loaded.values() if id(model.process) not in kept]
                self._loaded = loaded
                self._triage = self._of(absent)
                # As it was before the first was loaded: what changed meanwhile, also what was put into quarantine just
                # now, is news when it is looked at next.
                if not later:
                    self._generation = generation
            log.info("models.loaded", count=len(loaded))
        self._close_unused()
        return True

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._old += self._loaded.values()
            self._loaded = {}
        self._close_unused(force=True)

    def _attempt(self, one: Registered) -> LoadedModel | Stop | None:
        """A model that runs, why it must not, or None for one in quarantine. Raises `Stop` that stops the role."""
        if one.stage == Stage.QUARANTINED:
            return None
        try:
            return self._load(one)
        except Stop as error:
            if error.code in _ROLE:
                raise
            log.error("model.refused", model=one.name, code=error.code, message=error.message)  # noqa: TRY400
            return error

    def _load(self, one: Registered) -> LoadedModel:
        running = self._loaded.get(one.package)
        if running is not None and not running.fault:
            # The same worker; a study that has begun keeps the stage it began with.
            return LoadedModel(running.card, one.stage, running.trust, running.rule, running.process)
        config = self._node.config
        model = load_model(source_of(config, one), terms_of(config), device_of(config), prepare=harden)
        self._note(model)
        return model

    def _note(self, model: LoadedModel) -> None:
        """Remember what it runs on, once for each start of its worker."""
        package, started = model.card.package, model.started
        with self._lock:
            news = self._noted.get(package) is not started
            self._noted[package] = started
        if news:
            activated(self._models, package, started)

    def _of(self, absent: list[str]) -> Triage:
        options = self._node.config.triage
        return Triage(
            list(self._loaded.values()),
            time_limit_s=options.time_limit_s,
            threads=options.threads,
            absent=absent,
            on_fault=self._faulty,
            ahead=self._ahead,
            precedence=self._precedence,
        )

    def _faulty(self, model: LoadedModel) -> None:
        code, _, message = model.fault.partition(": ")
        if code in _SITE:
            log.error("model.waits", model=model.card.file.name, code=code, message=message)
            self._again = time.monotonic() + AGAIN_S if code == _UNPROVEN else self._again
            return
        log.error("model.quarantined", model=model.card.file.name, code=code, message=message)
        try:
            self._models.quarantine(model.card.package, code, message)
        except EdgeNodeError as error:  # the ledger is busy: the model runs no more all the same
            log.warning("model.quarantine-unwritten", code=error.code)

    def _close_unused(self, *, force: bool = False) -> None:
        with self._lock:
            done = [model for model in self._old if force or not model.process.users]
            self._old = [model for model in self._old if model not in done]
        for model in done:
            model.process.close()


def _line(model: LoadedModel) -> str:
    if model.fault:
        return f"{model.label} OUT OF SERVICE: {model.fault}"
    return f"{model.label}, WITHOUT RADIOMICS: {model.unmeasured}" if model.unmeasured else model.label
