"""Sessions of onnxruntime, and where they truly run. The only importer of onnxruntime in this house.

onnxruntime lists CUDA as available on machines without a GPU, and silently goes on with the CPU when a provider fails:
the driver is asked before, the placement of every node after, and its own fall-back is off.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.errors import Stop

Arrays = dict[str, NDArray[np.generic]]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
_OWNERS: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "ort-nightly")
_NO_MEMORY: Final = ("out of memory", "failed to allocate memory", "alloc_failed", "cuda failure 2:", "bfcarena")
_DEVICE_LOST: Final = (
    "cuda failure",
    "cuda error",
    "cudnn_status",
    "cublas_status",
    "no cuda-capable device",
    "illegal memory access",
    "unspecified launch failure",
    "device lost",
)


class OutOfTime(Exception):
    """The model was stopped because the study's time limit was reached."""


class OutOfDeviceMemory(Exception):
    """The device had no room for this batch; a smaller one may fit."""


class DeviceLost(Exception):
    """The device does not answer any more: this process must not be used again."""


@dataclass(frozen=True, slots=True)
class Device:
    """What the site asks for. `threads` 0 lets onnxruntime choose; `memory_mb` 0 is without limit; `variant` names the
    file of the card that must run, "" lets the device choose."""

    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    require_gpu: bool = False
    threads: int = 0
    memory_mb: int = 0
    variant: str = ""


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


class Session:
    """One loaded model. `provider` is where its nodes were put, `placement` how many of them where."""

    def __init__(self, session: Any, wanted: tuple[str, ...]) -> None:
        self._session = session
        self.placement = self._placed()
        chosen = [one for one in wanted if self.placement.get(one)]
        self.provider = chosen[0] if chosen else str(session.get_providers()[0])
        self.outputs = [str(one.name) for one in session.get_outputs()]

    def _placed(self) -> dict[str, int]:
        count: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            count[str(part.ep_name)] += len(part.get_nodes())
        return dict(count)

    def run(self, inputs: Mapping[str, NDArray[np.generic]], time_limit_s: float) -> Arrays:
        """Outputs by name. Raises `OutOfTime`, `OutOfDeviceMemory`, `DeviceLost`, RuntimeError (without the text of
        onnxruntime, which may show values)."""
        import onnxruntime as ort

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
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for name in self.outputs:
                binding.bind_output(name)
            self._session.run_with_iobinding(binding, options)
            return dict(zip(self.outputs, binding.copy_outputs_to_cpu(), strict=True))
        except Exception as error:
            if stopped.is_set():
                raise OutOfTime from None
            raise failure(str(error), type(error).__name__) from None
        finally:
            timer.cancel()


def failure(text: str, kind: str) -> Exception:
    """What a failed run means, from onnxruntime's words: there are no codes."""
    words = text.lower()
    if any(sign in words for sign in _NO_MEMORY):
        return OutOfDeviceMemory()
    if any(sign in words for sign in _DEVICE_LOST):
        return DeviceLost()
    return RuntimeError(f"onnxruntime failed ({kind})")


class Runtime:
    """onnxruntime on this machine: what there is to run on, and sessions on it."""

    def gpus(self) -> int:
        """Devices that the driver answers for."""
        return cuda_devices()

    def available(self) -> tuple[str, ...]:
        """Providers this onnxruntime was built with."""
        import onnxruntime as ort

        return tuple(ort.get_available_providers())

    def open(self, model: bytes, providers: tuple[str, ...], device: Device) -> Session:
        """Load a model for these providers, the first preferred. Raises whatever onnxruntime raises."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4  # its messages go to stderr past the log; errors are raised anyway
        options.intra_op_num_threads = device.threads
        # Its threads would look for more work in a loop after each run: three times the processor time, and no sooner
        # done. The receiver and the next study want those cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if CPU not in providers:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = ort.InferenceSession(
            model,
            options,
            providers=list(providers),
            provider_options=[self._options(one, device) for one in providers],
        )
        session.disable_fallback()
        return Session(session, providers)

    def _options(self, provider: str, device: Device) -> dict[str, str]:
        if provider == CUDA:
            limit = {"gpu_mem_limit": str(device.memory_mb << 20)} if device.memory_mb else {}
            # As much as is asked for, not the next power of two: several models share the device.
            return {"arena_extend_strategy": "kSameAsRequested", **limit}
        if provider == TENSORRT:
            # No cache of engines: an engine on the disk is not the file that was signed.
            limit = {"trt_max_workspace_size": str(device.memory_mb << 20)} if device.memory_mb else {}
            return {"trt_int8_enable": "1", "trt_fp16_enable": "1", "trt_engine_cache_enable": "0", **limit}
        return {}


def providers_for(device: Device, runtime: Runtime) -> tuple[str, ...]:
    """What to ask onnxruntime for, the preferred first; CPU is not among them when a GPU is required.

    Raises `Stop` ``triage.no-gpu``.
    """
    wish = device.provider
    if wish == "cpu" and not device.require_gpu:
        return (CPU,)
    gpu = TENSORRT if wish == "tensorrt" else CUDA
    why = ""
    if wish == "cpu":
        why = "[triage] require_gpu is set, but provider is cpu"
    elif gpu not in runtime.available():
        why = f"this onnxruntime is built without {gpu.removesuffix('ExecutionProvider')}"
    elif runtime.gpus() == 0:
        why = "the NVIDIA driver (libcuda.so.1) answers for no device"
    if not why:
        return ((TENSORRT, CUDA) if gpu == TENSORRT else (CUDA,)) + (() if device.require_gpu else (CPU,))
    if device.require_gpu or wish in ("cuda", "tensorrt"):
        raise no_gpu(why)
    return (CPU,)


def no_gpu(why: str) -> Stop:
    """The error of a site that wants a GPU and has none."""
    return Stop(
        "triage.no-gpu",
        f"no GPU to run on: {why}",
        hint="check nvidia-smi, install edge-node[cuda], or set [triage] provider = 'cpu' and require_gpu = false",
        exit_code=69,
    )
