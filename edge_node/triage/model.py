"""A model at work: its card, its worker process, and what is done when it crashes, loses its device or errs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import structlog

from edge_node.domain.errors import Retry, Stop
from edge_node.domain.finding import ModelIdentity
from edge_node.domain.model import SHIPPED, UNSIGNED, Stage
from edge_node.triage.card import Card, load_card
from edge_node.triage.card_tables import Variant
from edge_node.triage.companion import Companion
from edge_node.triage.engine import PROOF_S, BadInput, BadOutput, Engine
from edge_node.triage.prepare import CannotJudge
from edge_node.triage.process import Make, ModelProcess, NeverReady, Started, WorkerDied
from edge_node.triage.rule import Rule, parse
from edge_node.triage.runner import Arrays, Device, DeviceLost, OutOfTime, Runtime

log = structlog.get_logger()

PER_RUN: Final = 16  # items handed over at once: between two runs a more urgent study may come first
RUN_BYTES: Final = 64 << 20


class ModelFault(CannotJudge):
    """The model must not run on: it crashed twice, or does not give its golden answers any more."""


@dataclass(frozen=True, slots=True)
class Source:
    """A package that shall run: where it lies and how far it may speak. `address` is what the registry calls it (""
    outside of a registry), `trust` whose word it had when it was taken in ("" to ask the package itself)."""

    folder: Path
    stage: Stage = Stage.LIVE
    address: str = ""
    trust: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the site allows: keys it trusts (ed25519, base64), whether unsigned packages may run, whose thresholds of
    the card, and its own by NAME/FINDING."""

    trusted: tuple[str, ...] = ()
    unsigned: bool = False
    site: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)


def make_engine(card: Card, device: Device, prepare: Callable[[], None] | None) -> Engine:
    """In the worker: read the package once more (what is hashed here is what runs), load and prove it, at the
    thresholds in force. Raises `Stop`, also of a package that is another than `card` by now."""
    if prepare is not None:
        prepare()
    fresh = load_card(card.folder, card.site)
    if fresh.package != card.package:
        raise fresh.wrong("it is another package than was checked before (its address differs)")
    return Engine(replace(fresh, thresholds=card.thresholds), device, Runtime())


def admitted(source: Source, terms: Terms) -> tuple[Card, str]:
    """The checked card of a package and whose word it has.

    Raises `Stop` ``triage.model-invalid``, ``triage.model-signature``, ``triage.model-unsigned``.
    """
    card = replace(load_card(source.folder, terms.site), thresholds=terms.thresholds)
    if source.address and card.package != source.address:
        raise card.wrong("it is not the package that was taken in (its address differs)")
    trust = card.trust(terms.trusted)
    if trust == UNSIGNED and source.address and source.trust == SHIPPED:
        trust = SHIPPED  # came with an earlier edge-node; the address says that no byte was changed
    if trust == UNSIGNED and not terms.unsigned:
        raise Stop(
            "triage.model-unsigned",
            f"model package {card.file.name} {card.file.version} is not signed",
            hint="ask its maker for a signed one; for a trial in shadow set triage.unsigned_models = true",
        )
    return card, trust


@dataclass(slots=True, eq=False)
class LoadedModel:
    """A proven model with a warm worker. Thread-safe; the most urgent study runs first.

    `fault` is the reason why it runs no more. Identity and provider are what the worker said when it started last.
    """

    card: Card
    stage: Stage
    trust: str
    rule: Rule
    process: ModelProcess
    fault: str = ""

    def broken(self) -> str:
        """Why it runs no more, "" if it does."""
        return self.fault

    @property
    def started(self) -> Started:
        """What the worker found when it started."""
        assert self.process.started is not None
        return self.process.started

    @property
    def variant(self) -> Variant:
        """Which file of the card runs."""
        return cast(Variant, self.started.variant)

    @property
    def provider(self) -> str:
        """Where it runs, by onnxruntime's own account."""
        return self.started.provider

    @property
    def identity(self) -> ModelIdentity:
        """As it stands in results; that a package is not signed is part of its name."""
        file = self.card.file
        label = f"UNSIGNED PACKAGE; {file.label}"[:128] if self.trust == UNSIGNED else file.label
        return ModelIdentity(
            file.name,
            file.version,
            file.variants[self.variant].sha256,
            self.variant,
            label,
            str(self.stage),
            self.card.package,
            self.trust,
        )

    @property
    def unmeasured(self) -> str:
        """Why the radiomics that its card asks for are not measured, "" if they are or none are asked for."""
        return self.process.companion.why if self.process.companion is not None else ""

    @property
    def label(self) -> str:
        """One line for people: what it is, where it runs, how far it speaks."""
        elsewhere = sum(count for where, count in self.started.placement.items() if where != self.provider)
        parts = f", {elsewhere} of {sum(self.started.placement.values())} nodes elsewhere" if elsewhere else ""
        unsigned = ", UNSIGNED" if self.trust == UNSIGNED else ""
        name = f"{self.card.file.name} {self.card.file.version}"
        return f"{name} ({self.variant} on {self.provider}{parts}; {self.stage}{unsigned})"

    def run(self, inputs: Arrays, deadline: float, urgency: float) -> Arrays:
        """Outputs of the card for all items of the inputs (first axis), all of one variant; `deadline` is monotonic.

        Raises `OutOfTime`; `ModelFault`; `CannotJudge` ``model.output``; `Retry`; `Stop` ``triage.no-gpu``.
        """
        size = max(1, sum(a.nbytes for a in inputs.values()) // max(1, len(next(iter(inputs.values())))))
        step = max(1, min(PER_RUN, RUN_BYTES // size))
        count = len(next(iter(inputs.values())))
        parts: list[Arrays] = []
        variant, at = self.variant, 0
        while at < count:
            batch = {name: array[at : at + step] for name, array in inputs.items()}
            parts.append(self._once_more(batch, deadline, urgency))
            at += step
            if self.variant != variant:  # the device changed in the middle: two variants must not share one answer
                variant, at, parts = self.variant, 0, []
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _once_more(self, batch: Arrays, deadline: float, urgency: float) -> Arrays:
        for last in (False, True):
            variant = self.variant
            try:
                return self.process.run(batch, deadline - time.monotonic(), urgency)
            except NeverReady as error:
                raise self._fault("model.crashed", f"its worker cannot be started again: {error}") from error
            except WorkerDied as error:
                if self.process.closed:  # by us: the role stops, or another study found the fault
                    raise Retry("triage.inference-failed", "the worker was ended while the study was judged") from None
                if last:
                    raise self._fault("model.crashed", f"its worker died twice on one study: {error}") from error
            except Stop as error:  # of a worker that had to be started first
                raise self._unfit(error) from error
            except DeviceLost as error:
                if last:
                    raise self._fault("model.device-lost", "its device was lost twice on one study") from error
            except BadOutput as error:
                if not self._proven(deadline):
                    raise self._fault(
                        "model.unproven", f"{error}, nor are the golden vectors right any more"
                    ) from error
                raise CannotJudge("model.output", str(error)) from error
            except BadInput as error:
                raise CannotJudge("model.input", str(error)) from error
            self._restart(deadline)
            if self.variant != variant:
                log.error("model.device-changed", model=self.card.file.name, provider=self.provider)
        raise AssertionError("unreachable")

    def _restart(self, deadline: float) -> None:
        """A fresh worker, proven anew; a provider that is gone is found out here. Raises `OutOfTime` when the time of
        the study is over before."""
        try:
            self.process.start(deadline - time.monotonic())
        except WorkerDied as error:
            raise self._fault("model.crashed", f"its worker cannot be started again: {error}") from error
        except Stop as error:
            raise self._unfit(error) from error

    def _unfit(self, error: Stop) -> Stop | ModelFault:
        """What a worker that refuses to start says about the role, or about this model."""
        return error if error.code == "triage.no-gpu" else self._fault(error.code, error.message)

    def _proven(self, deadline: float) -> bool:
        """Raises `OutOfTime` when the time of the study is over before: the worker is ended then, and proven anew when
        it starts again."""
        try:
            return self.process.prove(min(PROOF_S, deadline - time.monotonic()))
        except WorkerDied:
            return False

    def _fault(self, reason: str, text: str) -> ModelFault:
        self.fault = f"{reason}: {text}"
        self.process.close()
        return ModelFault(reason, text)


def load_model(
    source: Source,
    terms: Terms,
    device: Device,
    *,
    make: Make = make_engine,
    prepare: Callable[[], None] | None = None,
) -> LoadedModel:
    """Check a package, start its worker and prove it. `prepare` runs first in the worker.

    Raises `Stop`: as `admitted`, ``triage.no-gpu``, ``triage.parity``, ``triage.parity-unproven``,
    ``triage.model-crashed``.
    Radiomics refuse no model: what measures them starts beside it.
    """
    card, trust = admitted(source, terms)
    if why := card.runnable():
        raise card.wrong(why)
    process = ModelProcess(card.file.name, make, (card, device, prepare))
    if (asked := card.file.radiomics) is not None:
        process.companion = Companion(card.file.name, asked.features, prepare)
    try:
        process.start()
    except (WorkerDied, OutOfTime) as error:
        process.close()
        raise Stop(
            "triage.model-crashed",
            f"the worker of model {card.file.name} {card.file.version} died while it was proven: {error}",
            hint="edge-node model verify NAME tells more; edge-node model rollback NAME goes back",
        ) from error
    except Stop:
        process.close()
        raise
    if process.companion is not None:
        process.companion.start()
    return LoadedModel(card, source.stage, trust, parse(card.file.selection.rule), process)


def speaking_first(models: Sequence[LoadedModel]) -> tuple[LoadedModel, ...]:
    """Models in the order they judge: what may decide is not kept waiting by what is on trial."""
    order = (Stage.LIVE, Stage.INFORMATION, Stage.SHADOW)
    return tuple(sorted(models, key=lambda m: (order.index(m.stage), m.card.file.name, m.card.file.version)))
