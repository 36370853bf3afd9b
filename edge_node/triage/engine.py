"""One proven model on one device: the right variant for it, batches that fit, and only outputs a sound model gives."""

from __future__ import annotations

import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.errors import Stop
from edge_node.triage.agreement import LIMIT_S, Agreement, agreement
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
    """`provider` is where it runs by onnxruntime's own account, `variant` which file of the card; `parity` is how far
    it agrees with the CPU, None where the CPU itself runs it."""

    def __init__(self, card: Card, device: Device, runtime: Runtime, *, proof_s: float = PROOF_S) -> None:
        """Load and prove the golden vectors, and the agreement with the CPU on any other device. Raises `Stop`
        ``triage.model-invalid``, ``triage.parity`` or ``triage.no-gpu``."""
        self.card = card
        self.batch = BATCH
        wanted = providers_for(device, runtime)
        self.variant, self._session = self._open(wanted, device, runtime)
        if self._session.provider not in wanted or (wanted[0] != CPU and self._session.provider == CPU):
            if device.require_gpu:
                raise no_gpu(f"{wanted[0]} was asked for, but onnxruntime put the model on {self._session.provider}")
            self.variant, self._session = self._open((CPU,), device, runtime)  # the variant made for the CPU
        self.provider = self._session.provider
        self.placement = dict(self._session.placement)
        self.worst = self.prove(proof_s)
        # A second session only where another device decides. Who asks for a file by its name compares it himself.
        served = not device.variant and not card.runnable()
        self.parity = self._agrees(device, runtime) if self.provider != CPU and served else None

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

    def _agrees(self, device: Device, runtime: Runtime) -> Agreement:
        """Raises `Stop` ``triage.parity``."""
        began = time.monotonic()
        running = self.provider, self.variant, self.run
        try:
            same = self._on_cpu(device.threads, self.variant, runtime)
            usual = same if _preferred(self.card) == self.variant else self._on_cpu(device.threads, "", runtime)
            found = agreement(self.card, running, same.run, (usual.variant, usual.run), began)
        except OutOfTime as error:
            raise self._no_parity([f"not compared within {LIMIT_S:g} s"]) from error
        except Stop as error:
            raise self._no_parity([f"the CPU is no measure: {error.message}"]) from error
        except (OutOfDeviceMemory, DeviceLost, BadInput, BadOutput, CannotJudge, RuntimeError) as error:
            raise self._no_parity([f"they cannot be compared ({type(error).__name__})"]) from error
        if breaches := found.breaches(self.card.file.tolerance or ToleranceTable()):
            raise self._no_parity(breaches)
        return found

    def _on_cpu(self, threads: int, variant: str, runtime: Runtime) -> Engine:
        return Engine(self.card, Device("cpu", threads=threads, variant=variant), runtime, proof_s=LIMIT_S / 3)

    def _no_parity(self, breaches: list[str]) -> Stop:
        name, version = self.card.file.name, self.card.file.version
        return Stop(
            "triage.parity",
            f"model {name} {version}: variant {self.variant} on {self.provider} does not decide as the CPU does: "
            + "; ".join(breaches),
            hint=f"mend driver or CUDA and look again: edge-node model verify {name} {version}; or set triage.provider "
            f"= 'cpu' and restart; then edge-node model promote {name} {version} --to shadow",
        )

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
