"""One proven model on one device: the right variant for it, batches that fit, and only outputs a sound model gives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.errors import Stop
from edge_node.triage.agreement import NoMeasure, Run, agreement
from edge_node.triage.card import Card
from edge_node.triage.card_tables import ToleranceTable, Variant
from edge_node.triage.prepare import CannotJudge
from edge_node.triage.runner import (
    CPU,
    CUDA,
    TENSORRT,
    Arrays,
    Device,
    DeviceLost,
    OutOfDeviceMemory,
    OutOfTime,
    Runtime,
    Session,
    no_gpu,
    providers_for,
)

BATCH: Final = 16
PROOF_S: Final = 60.0
# int8 QDQ has no CUDA kernels for convolutions; TensorRT wants its integers symmetric.
_WISHES: Final[dict[str, tuple[Variant, ...]]] = {
    CPU: ("int8", "fp32", "fp16", "int8-trt"),
    CUDA: ("fp16", "fp32", "int8"),
    TENSORRT: ("int8-trt", "fp16", "fp32"),
}


def _preferred(card: Card) -> Variant:
    """The file of the card that a site without an accelerator runs."""
    return next(one for one in _WISHES[CPU] if one in card.file.variants)


class BadOutput(Exception):
    """The model gave values that no sound model gives, or not the values it promised; the text says which."""


class BadInput(ValueError):
    """The input is not what the model was made for (a NaN would give a confident low score)."""


class Engine:
    """`provider` is where it runs by onnxruntime's own account, `variant` which file of the card."""

    def __init__(self, card: Card, device: Device, runtime: Runtime, *, proof_s: float = PROOF_S) -> None:
        """Load and prove the golden vectors. Raises `Stop` ``triage.model-invalid`` or ``triage.no-gpu``."""
        self.card = card
        self.batch = BATCH
        self._runtime = runtime
        self._named = bool(device.variant)
        wanted = providers_for(device, runtime)
        self.variant, self._session = self._open(wanted, device, runtime)
        if self._session.provider not in wanted or (wanted[0] != CPU and self._session.provider == CPU):
            if device.require_gpu:
                raise no_gpu(f"{wanted[0]} was asked for, but onnxruntime put the model on {self._session.provider}")
            self.variant, self._session = self._open((CPU,), device, runtime)  # the variant made for the CPU
        self.provider = self._session.provider
        self.placement = dict(self._session.placement)
        self.worst = self.prove(proof_s)

    def _open(self, providers: tuple[str, ...], device: Device, runtime: Runtime) -> tuple[Variant, Session]:
        wishes = [v for v in _WISHES[providers[0]] if device.variant in ("", v)]
        variant = next((v for v in wishes if v in self.card.file.variants), None)
        if variant is None:
            what = f" {device.variant}" if device.variant else ""
            raise self.card.wrong(f"there is no variant{what} for {providers[0]}", ("variants",))
        data = self.card.model_bytes(variant)
        try:
            return variant, runtime.open(data, providers, device)
        except Exception as error:  # onnxruntime raises many unrelated types
            if CPU not in providers:
                raise no_gpu(f"onnxruntime cannot load the variant {variant} without the CPU") from error
            raise self.card.wrong(
                f"onnxruntime cannot load the variant {variant}", ("variants", variant, "file")
            ) from error

    def run(self, inputs: Arrays, time_limit_s: float) -> Arrays:
        """Outputs of the card by name for inputs of the card, in batches along the first axis.

        Raises `OutOfTime`, `BadInput`, `BadOutput`, `OutOfDeviceMemory` (not even one fits), `DeviceLost`,
        RuntimeError.
        """
        self._check_inputs(inputs)
        count = len(next(iter(inputs.values())))
        parts: list[Arrays] = []
        at = 0
        end = time.monotonic() + time_limit_s
        while at < count:
            batch = {name: array[at : at + self.batch] for name, array in inputs.items()}
            try:
                parts.append(
                    self._checked(self._session.run(batch, end - time.monotonic()), len(next(iter(batch.values()))))
                )
            except OutOfDeviceMemory:
                if self.batch == 1:
                    raise
                self.batch = max(1, self.batch // 2)  # stays: the next study would meet the same wall
                continue
            at += len(next(iter(batch.values())))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def prove(self, time_limit_s: float = PROOF_S) -> float:
        """The same answer to the golden vectors as when the package was made, within the card's tolerance; returns the
        largest difference. Raises `Stop` ``triage.model-invalid``."""
        inputs, expected = self.card.golden(self.variant)
        here = ("variants", self.variant, "golden_tolerance")
        try:
            got = self.run(inputs, time_limit_s)
        except (RuntimeError, BadInput, BadOutput, OutOfTime, OutOfDeviceMemory, DeviceLost) as error:
            raise self.card.wrong(f"the golden vectors cannot be run on {self.provider}", here) from error
        worst = 0.0
        for name, array in expected.items():
            fits = array.shape == got[name].shape
            off = np.abs(got[name].astype(np.float64) - array.astype(np.float64)).max() if fits else np.inf
            worst = max(worst, float(off))
        tolerance = self.card.file.variants[self.variant].golden_tolerance
        if not worst <= tolerance:
            raise self.card.wrong(
                f"variant {self.variant} on {self.provider} does not answer as it did when it was made: golden vectors "
                f"differ by {worst:.3g}, allowed {tolerance:g}",
                here,
            )
        return worst

    def agree(self, known: Mapping[str, Any] | None, limit_s: float) -> Mapping[str, Any] | None:
        """How far it agrees with the CPU (`Agreement.plain`), None where the CPU itself runs it; `known` is what was
        found of this package before, and holds where the same variant runs on the same provider again. Raises `Stop`
        ``triage.parity``, ``triage.parity-unproven``."""
        # Who asks for a file by its name compares it himself.
        if self.provider == CPU or self._named or self.card.runnable():
            return None
        if known is not None and (known["provider"], known["variant"]) == (self.provider, self.variant):
            return known
        running = self.provider, self.variant, self.run
        usual = _preferred(self.card)
        try:
            same = self._on_cpu(self.variant)
            other = same if usual == self.variant else self._on_cpu(usual)
            found = agreement(self.card, running, same, (usual, other), limit_s)
        except OutOfTime:
            raise self._unproven(f"it was not compared with the CPU within {max(0.0, limit_s):.0f} s") from None
        except NoMeasure as error:
            raise self._unproven(f"the CPU is no measure: {error}") from error
        except (BadOutput, CannotJudge) as error:
            raise self._no_parity([f"it says what no sound model says ({type(error).__name__})"]) from error
        except (OutOfDeviceMemory, DeviceLost, BadInput, RuntimeError) as error:
            raise self._unproven(f"they cannot be compared ({type(error).__name__})") from error
        if breaches := found.breaches(self.card.file.tolerance or ToleranceTable()):
            raise self._no_parity(breaches)
        return found.plain()

    def _on_cpu(self, variant: Variant) -> Run:
        """A variant on one thread of the CPU: several models may be compared at once, and the receiver goes on. Raises
        `NoMeasure`, and `Stop` if the file was changed."""
        data = self.card.model_bytes(variant)
        try:
            session = self._runtime.open(data, (CPU,), Device("cpu", threads=1, variant=variant))
        except Exception as error:  # onnxruntime raises many unrelated types
            raise NoMeasure(f"onnxruntime cannot load the variant {variant} there") from error
        return lambda inputs, limit_s: self._checked(session.run(inputs, limit_s), len(next(iter(inputs.values()))))

    def _no_parity(self, breaches: list[str]) -> Stop:
        return Stop(
            "triage.parity",
            f"{self._here} does not decide as the CPU does: " + "; ".join(breaches),
            hint=self._hint("mend driver or CUDA"),
        )

    def _unproven(self, why: str) -> Stop:
        return Stop(
            "triage.parity-unproven",
            f"{self._here} is not proven to decide as the CPU does: {why}",
            hint=self._hint("give the machine less to do, or mend driver or CUDA"),
        )

    @property
    def _here(self) -> str:
        return f"model {self.card.file.name} {self.card.file.version}: variant {self.variant} on {self.provider}"

    def _hint(self, what: str) -> str:
        again = f"edge-node model verify {self.card.file.name} {self.card.file.version}"
        return f"{what}, or set triage.provider = 'cpu'; look again: {again}; then restart the compute role"

    def _check_inputs(self, inputs: Arrays) -> None:
        for one in self.card.file.inputs:
            array = inputs.get(one.name)
            wanted = tuple(axis for axis in one.shape[1:] if isinstance(axis, int))
            if (
                array is None
                or array.dtype != np.dtype(one.dtype)
                or tuple(array.shape[1:]) != wanted
                or not len(array)
            ):
                raise BadInput(f"input {one.name} is not {one.dtype} {one.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise BadInput("model input must be finite")
            if one.attributes is None and (array.min() < 0 or array.max() > 1):
                raise BadInput("model input must be finite and within 0..1")

    def _checked(self, outputs: Arrays, count: int) -> Arrays:
        return {one.name: self._sound(outputs.get(one.name), one.name, count) for one in self.card.file.outputs}

    def _sound(self, array: NDArray[np.generic] | None, name: str, count: int) -> NDArray[np.generic]:
        one = self.card.output(name)
        if array is None or array.ndim != len(one.shape) or array.dtype != np.dtype(one.dtype):
            raise BadOutput(f"output {name} is not {one.dtype} {one.shape}")
        fixed = all(isinstance(axis, str) or axis == real for axis, real in zip(one.shape, array.shape, strict=True))
        if not fixed or len(array) != count:
            raise BadOutput(f"output {name} has another shape than the card says")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadOutput(f"output {name} holds values that are no numbers")
        if array.size and np.abs(array.astype(np.float64)).max() > one.limit:
            raise BadOutput(f"output {name} is beyond {one.limit:g}, which no sound model reaches")
        return array
