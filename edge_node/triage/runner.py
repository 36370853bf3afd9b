"""Runs one ONNX model and says truthfully where. The only importer of onnxruntime in this house."""

from __future__ import annotations

import ctypes
import threading
from importlib.metadata import distributions
from typing import Final, Literal

import numpy as np

from edge_node.domain.errors import Retry, Stop
from edge_node.triage.card import Card, invalid
from edge_node.triage.prepare import Floats

Variant = Literal["int8", "fp32", "fp16"]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
_OWNERS: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "ort-nightly")


class OutOfTime(Exception):
    """The model was stopped because the study's time limit was reached."""


def check_onnxruntime_owner() -> None:
    """Exactly one distribution may own the package `onnxruntime`: with two, the last installed wins and removing one
    breaks the other. Raises `Stop` ``triage.onnxruntime-owner`` with the repair command.
    """
    owners = sorted({name for d in distributions() if (name := (d.metadata["Name"] or "").lower()) in _OWNERS})
    if len(owners) == 1:
        return
    if owners:
        names = " ".join(owners)
        raise Stop(
            "triage.onnxruntime-owner",
            f"{len(owners)} distributions own the package onnxruntime: {names}",
            hint=f"pip uninstall -y {names} && pip install --no-cache-dir onnxruntime-gpu",
        )
    raise Stop("triage.onnxruntime-owner", "onnxruntime is not installed", hint="pip install onnxruntime-gpu")


def cuda_devices() -> int:
    """Number of CUDA devices the driver really answers for, 0 without one. Never raises."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0


def wants_cuda(provider: str, require_gpu: bool) -> bool:
    """Whether to ask for CUDA. `provider` is auto, cpu or cuda. Raises `Stop` ``triage.no-gpu``.

    `onnxruntime` lists CUDA as available on machines without a GPU, so the driver is asked first.
    """
    import onnxruntime as ort

    if provider == "cpu" and not require_gpu:
        return False
    why = ""
    if provider == "cpu":
        why = "[triage] require_gpu is set, but provider is cpu"
    elif CUDA not in ort.get_available_providers():
        why = "this onnxruntime is built without CUDA"
    elif cuda_devices() == 0:
        why = "the NVIDIA driver (libcuda.so.1) answers for no device"
    if not why:
        return True
    if require_gpu or provider == "cuda":
        raise Stop(
            "triage.no-gpu",
            f"no GPU to run on: {why}",
            hint="check nvidia-smi, install edge-node[cuda], or set [triage] provider = 'cpu' and require_gpu = false",
            exit_code=69,
        )
    return False


class Runner:
    """One session. `provider` is what onnxruntime reports, `variant` which file of the card runs."""

    def __init__(self, card: Card, *, cuda: bool, require_gpu: bool, threads: int) -> None:
        """Load, then prove the golden vectors. Raises `Stop` ``triage.model-invalid`` or ``triage.no-gpu``."""
        import onnxruntime as ort

        self._card = card
        # int8 QDQ has no CUDA kernels for convolutions: a GPU takes half precision, else single.
        wish: tuple[Variant, ...] = ("fp16", "fp32", "int8") if cuda else ("int8", "fp32", "fp16")
        self.variant: Variant = next(v for v in wish if v in card.file.variants)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its messages go to stderr past the log; errors are raised anyway
        options.intra_op_num_threads = threads
        if cuda and require_gpu:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = ([CUDA] if cuda else []) + ([] if cuda and require_gpu else [CPU])
        try:
            self._session = ort.InferenceSession(card.model_bytes(self.variant), options, providers=providers)
        except Stop:
            raise
        except Exception as error:  # onnxruntime raises many unrelated types
            raise invalid(card.folder, f"onnxruntime cannot load the variant {self.variant}") from error
        self._session.disable_fallback()
        self.provider = str(self._session.get_providers()[0])
        if cuda and self.provider != CUDA and require_gpu:
            raise Stop(
                "triage.no-gpu",
                "CUDA was asked for, but onnxruntime runs on the CPU",
                hint="edge-node doctor shows which CUDA library is missing",
                exit_code=69,
            )
        self._check_signature()
        self._prove()

    def run(self, tensor: Floats, time_limit_s: float) -> Floats:
        """Logits (n, cells, cells) of float32 (n, channels, size, size) in 0..1.

        Raises `OutOfTime`; `Retry` ``triage.inference-failed`` when the run fails (device lost, out of memory);
        `Stop` ``triage.output-invalid`` when the output is not finite or beyond the card's limit;
        ValueError when the input is not finite or out of range (a NaN would give a confident low score).
        """
        import onnxruntime as ort

        if not np.isfinite(tensor).all() or tensor.min() < 0 or tensor.max() > 1:
            raise ValueError("model input must be finite and within 0..1")
        if time_limit_s <= 0:
            raise OutOfTime
        options = ort.RunOptions()
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            options.terminate = True

        timer = threading.Timer(time_limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            (output,) = self._session.run(None, {self._input: tensor}, options)
        except Exception as error:
            if stopped.is_set():
                raise OutOfTime from error
            raise Retry(
                "triage.inference-failed",
                f"onnxruntime failed on {self.provider} ({type(error).__name__})",
                hint="edge-node doctor checks device and model",
            ) from error
        finally:
            timer.cancel()
        logits = np.asarray(output, np.float32)
        expected = (len(tensor), 1, self._card.file.output.cells, self._card.file.output.cells)
        if (
            logits.shape != expected
            or not np.isfinite(logits).all()
            or np.abs(logits).max() > self._card.file.output.limit
        ):
            raise Stop(
                "triage.output-invalid",
                f"model {self._card.file.name} gave values no sound model gives",
                hint="edge-node doctor verifies the model package; memory or device may be faulty",
                exit_code=70,
            )
        return logits[:, 0]

    def _check_signature(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        p = self._card.file.preprocessing
        shape = [len(p.channels), p.size, p.size]
        if (
            len(inputs) != 1
            or len(outputs) != 1
            or list(inputs[0].shape[1:]) != shape
            or inputs[0].type != "tensor(float)"
            or outputs[0].type != "tensor(float)"
        ):
            raise invalid(
                self._card.folder, f"inputs or outputs of the variant {self.variant} are not what the card says"
            )
        self._input = str(inputs[0].name)

    def _prove(self) -> None:
        """Golden vectors: the same answer as when the package was made, within the card's tolerance."""
        tensor, expected = self._card.golden(self.variant)
        try:
            got = self.run(tensor, 60.0)
        except (Stop, Retry, ValueError, OutOfTime) as error:
            raise invalid(self._card.folder, f"the golden vectors cannot be run on {self.provider}") from error
        off = float(np.abs(got - expected[:, 0]).max()) if expected[:, 0].shape == got.shape else float("inf")
        tolerance = self._card.file.variants[self.variant].golden_tolerance
        if not off <= tolerance:
            raise invalid(
                self._card.folder,
                f"variant {self.variant} on {self.provider} does not answer as it did when it was made: golden vectors "
                f"differ by {off:.3g}, allowed {tolerance:g}",
            )
