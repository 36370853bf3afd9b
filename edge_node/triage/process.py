"""The worker process of one model: what crashes, hangs or leaks in it takes nothing else along.

Tensors go through memory that both sides hold (memfd, never the disk), questions and answers as JSON over a socket:
the worker has run somebody else's model, so nothing it says is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_node.domain.errors import EdgeNodeError, Retry, Stop
from edge_node.triage.engine import BadInput, BadOutput
from edge_node.triage.runner import Arrays, DeviceLost, OutOfDeviceMemory, OutOfTime
from edge_node.triage.turns import Turns

if TYPE_CHECKING:
    from edge_node.triage.companion import Companion

log = structlog.get_logger()

START_S: Final = 180.0  # a GPU library may take long the first time
GRACE_S: Final = 2.0  # for the soft stop, before the hard one
SPARE_S: Final = 10.0  # of a start, to tell what came of it
KEPT: Final = 64 << 20  # bytes of shared memory that stay for the next question
_MESSAGE: Final = 1 << 16
_DTYPES: Final = frozenset(
    {"float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool"}
)
_MOST: Final = 8 << 30  # bytes of outputs that are believed


class Runs(Protocol):
    """What a worker process runs: a proven model on one device, or a decoder."""

    @property
    def variant(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def placement(self) -> Mapping[str, int]: ...
    @property
    def worst(self) -> float: ...

    def agree(self, known: Mapping[str, Any] | None, limit_s: float, /) -> Mapping[str, Any] | None: ...

    def run(self, inputs: Arrays, time_limit_s: float, /) -> Arrays: ...

    def prove(self) -> float: ...


Make = Callable[..., Runs]


class WorkerDied(Exception):
    """The worker is gone; the text says by what exit code or signal."""


class NeverReady(WorkerDied):
    """It had all the time it may have to start."""


@dataclass(frozen=True, slots=True)
class Started:
    """What the worker found: the variant, where it truly runs, how many nodes where, the golden difference, and on
    another device than the CPU how far it agrees with the CPU (`Agreement.plain`)."""

    variant: str
    provider: str
    placement: Mapping[str, int]
    worst: float
    parity: Mapping[str, Any] | None = None


class _Memory:
    """Arrays one after the other in an anonymous file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, arrays: Arrays) -> list[list[Any]]:
        """Layout: name, dtype, shape and offset of each array."""
        layout: list[list[Any]] = []
        at = 0
        for name, array in arrays.items():
            data = _bytes(np.ascontiguousarray(array))
            sent = 0
            while sent < len(data):
                sent += os.pwrite(self.fd, data[sent : sent + (1 << 30)], at + sent)
            layout.append([name, str(array.dtype), list(array.shape), at])
            at += -(-len(data) // 64) * 64
        return layout

    def read(self, layout: list[list[Any]]) -> Arrays:
        """The arrays of a layout, once: they may be gone then. Raises ValueError when it does not fit the memory."""
        size, arrays = os.fstat(self.fd).st_size, {}
        for name, dtype, shape, at in layout:
            if dtype not in _DTYPES or not all(isinstance(axis, int) and axis >= 0 for axis in shape):
                raise ValueError("strange layout")
            bytes_ = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            if not isinstance(at, int) or at < 0 or bytes_ > _MOST or at + bytes_ > size:
                raise ValueError("layout beyond the memory")
            array = np.empty(shape, dtype)
            view, got = _bytes(array), 0
            while got < bytes_:
                got += os.preadv(self.fd, [view[got : got + (1 << 30)]], at + got)
            arrays[str(name)] = array
        if size > KEPT:  # one large study shall not hold memory for ever
            os.ftruncate(self.fd, 0)
        return arrays


def _bytes(array: NDArray[np.generic]) -> memoryview:
    """The memory of a contiguous array."""
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")  # type: ignore[arg-type]


def _serve(pipe: socket.socket, make: Make, arguments: tuple[Any, ...]) -> None:
    """The worker's main: build and prove the model once, then answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the role, which then ends this process
    with contextlib.suppress(OSError):  # if memory runs out, this process goes, not the role
        Path("/proc/self/oom_score_adj").write_text("500")
    message, handles, _, _ = socket.recv_fds(pipe, _MESSAGE, 2)
    told = json.loads(message)
    given, made = (_Memory(handle) for handle in handles)
    try:
        engine = make(*arguments)
        parity = engine.agree(told["parity"], told["until"] - SPARE_S - time.monotonic())
    except EdgeNodeError as error:
        code = error.exit_code if isinstance(error, Stop) else 0
        _tell(pipe, ["stop", error.code, error.message, error.hint, code])
        return
    _tell(pipe, ["ready", engine.variant, engine.provider, engine.placement, engine.worst, parity])
    while message := pipe.recv(_MESSAGE):
        question = json.loads(message)
        try:
            if question["ask"] == "prove":
                answer = ["proven", engine.prove()]
            else:
                answer = ["outputs", made.write(engine.run(given.read(question["inputs"]), question["limit_s"]))]
        except DeviceLost:
            _tell(pipe, ["device-lost"])
            return  # nothing in this process can be trusted any more
        except EdgeNodeError as error:
            answer = ["unproven", error.message]
        except (OutOfTime, OutOfDeviceMemory, BadInput, BadOutput, RuntimeError) as error:
            answer = [type(error).__name__, str(error)]
        _tell(pipe, answer)


def _tell(pipe: socket.socket, answer: list[Any]) -> None:
    pipe.send(json.dumps(answer).encode())


class ModelProcess:
    """Parent's side: starts the worker, hands it work by urgency, stops it hard at the limit, replaces it when it died.

    Thread-safe; one run at a time. `make(*arguments)` builds the engine in the worker (spawned: both are pickled).
    """

    def __init__(self, name: str, make: Make, arguments: tuple[Any, ...]) -> None:
        self.name, self._make, self._arguments = name, make, arguments
        self._turns = Turns()
        self._given, self._made = (_Memory(os.memfd_create(f"{which}")) for which in ("given", "made"))
        self._process: BaseProcess | None = None
        self._pipe: socket.socket | None = None
        self._ready = False
        self._since = 0.0  # when the worker was started (monotonic)
        self.started: Started | None = None
        self.closed = False
        self.restarts = -1
        self.users = 0  # studies that have begun with it; counted by whoever hands it out
        self.companion: Companion | None = None  # measures what this one flags; closed with it

    @property
    def pid(self) -> int:
        """Of the worker, 0 when there is none."""
        return self._process.pid or 0 if self._process is not None else 0

    def start(self, limit_s: float = START_S) -> Started:
        """Start and prove the model, if there is no worker. Raises the `Stop` of the engine; `WorkerDied`; `OutOfTime`
        when it takes longer than `limit_s`: then it goes on starting, for whoever comes next."""
        with self._turn(0.0, limit_s) as left:
            return self._start(left)

    @contextlib.contextmanager
    def _turn(self, urgency: float, limit_s: float) -> Iterator[float]:
        with contextlib.ExitStack() as turn:
            try:
                left = turn.enter_context(self._turns.take(urgency, limit_s))
            except TimeoutError:
                raise OutOfTime from None
            yield left

    def _start(self, limit_s: float) -> Started:
        if self.closed:
            raise WorkerDied("it is out of service")
        if self._pipe is not None and self._ready and self.started is not None:
            return self.started
        if self._pipe is None:
            self._spawn()
        if not self._told_within(min(limit_s, self._since + START_S - time.monotonic())):
            if time.monotonic() < self._since + START_S:
                raise OutOfTime
            raise NeverReady(str(self._dead(f"it was not ready after {START_S:g} s")))
        answer = self._answer(0.0)
        if answer[0] == "stop":
            self._end()
            _, code, message, hint, exit_code = answer
            raise Stop(code, message, hint=hint, exit_code=exit_code or 78)
        if answer[0] != "ready":
            raise self._dead("it did not start")
        self.started = Started(str(answer[1]), str(answer[2]), dict(answer[3]), float(answer[4]), answer[5])
        self._ready = True
        return self.started

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, self._make, self._arguments), name=self.name, daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._pipe, self._ready, self._since = process, ours, False, time.monotonic()
        # What agreed with the CPU is not asked again in the middle of the work, as long as it runs where it ran. The
        # clock is the machine's, the same in both processes.
        told = {"parity": self.started.parity if self.started else None, "until": self._since + START_S}
        socket.send_fds(ours, [json.dumps(told).encode()], [self._given.fd, self._made.fd])
        self.restarts += 1

    def _told_within(self, limit_s: float) -> bool:
        """Whether the worker has said something, or is gone, before the time is over."""
        pipe = self._pipe
        if pipe is None or pipe.fileno() < 0:  # closed by another thread
            return True
        news = select.poll()
        news.register(pipe, select.POLLIN)
        return bool(news.poll(max(0.0, limit_s) * 1000))

    def run(self, inputs: Arrays, time_limit_s: float, urgency: float = 100.0) -> Arrays:
        """Outputs by name. Raises `OutOfTime`, `BadInput`, `BadOutput`, `WorkerDied`, `DeviceLost`; `Retry`
        ``triage.inference-failed`` and ``triage.gpu-memory``."""
        with self._turn(urgency, time_limit_s) as left:
            if left <= 0:
                raise OutOfTime
            end = time.monotonic() + left
            self._start(left)
            question = {"ask": "run", "inputs": self._given.write(inputs), "limit_s": end - time.monotonic()}
            answer = self._ask(question, end - time.monotonic() + GRACE_S)
            return self._understood(answer)

    def prove(self, time_limit_s: float = 60.0) -> bool:
        """Whether the model still gives its golden answers. Raises `WorkerDied`, `OutOfTime`."""
        with self._turn(0.0, time_limit_s) as left:
            end = time.monotonic() + left
            self._start(left)
            return bool(self._ask({"ask": "prove"}, end - time.monotonic() + GRACE_S)[0] == "proven")

    def close(self) -> None:
        """End the worker for good; may be called again, also while another thread waits for an answer."""
        self.closed = True
        if self.companion is not None:
            self.companion.close()
        self._end()
        with self._turns.take(0.0):
            self._end()
            for memory in (self._given, self._made):
                if memory.fd >= 0:
                    os.close(memory.fd)
                    memory.fd = -1

    def _understood(self, answer: list[Any]) -> Arrays:
        kind, rest = answer[0], answer[1:]
        if kind == "outputs":
            try:
                return self._made.read(rest[0])
            except (ValueError, TypeError) as error:
                raise self._dead("its answer makes no sense") from error
        if kind == "device-lost":
            self._end()
            raise DeviceLost
        if kind == "OutOfTime":
            raise OutOfTime
        if kind == "BadInput":
            raise BadInput(rest[0])
        if kind == "BadOutput":
            raise BadOutput(rest[0])
        where = self.started.provider if self.started else ""
        if kind == "OutOfDeviceMemory":
            self._end()  # gives back what the arena holds
            raise Retry(
                "triage.gpu-memory",
                f"{where} has no memory for a single slab of {self.name}",
                hint="give the models less each (triage.gpu_memory_mb), or run fewer of them",
            )
        raise Retry(
            "triage.inference-failed",
            f"onnxruntime failed on {where}",
            hint="edge-node doctor checks device and model",
        )

    def _ask(self, question: dict[str, Any], limit_s: float) -> list[Any]:
        pipe = self._pipe
        if pipe is None:
            raise self._dead("it was gone")
        try:
            pipe.send(json.dumps(question).encode())
        except OSError:
            raise self._dead("it was gone") from None
        return self._answer(limit_s)

    def _answer(self, limit_s: float) -> list[Any]:
        pipe = self._pipe
        if pipe is None:  # closed by another thread
            raise self._dead("it was gone")
        try:
            pipe.settimeout(max(limit_s, 0.01))
            message = pipe.recv(_MESSAGE)
        except TimeoutError:
            self._end()  # the hard stop: it did not heed the soft one
            raise OutOfTime from None
        except OSError:
            message = b""
        if not message:
            raise self._dead("it died")
        try:
            answer = json.loads(message)
            assert isinstance(answer, list)
            assert answer
        except (ValueError, AssertionError):
            raise self._dead("its answer makes no sense") from None
        return answer

    def _dead(self, what: str) -> WorkerDied:
        process = self._process
        if process is not None:
            process.join(2.0)
        code = process.exitcode if process is not None else None
        self._end()
        log.error("model.worker-died", process=self.name, exit_code=code)
        return WorkerDied(f"{what} (exit code {code})")

    def _end(self) -> None:
        pipe, process, self._pipe, self._process = self._pipe, self._process, None, None
        if process is not None and process.is_alive():
            process.kill()
            process.join(5.0)
        if pipe is not None:
            pipe.close()
