"""The de-identifying worker processes: bytes go over in memory, a receipt comes back.

Processes, not threads: one busy Python thread beside the receiver would slow it by a factor of ten and more.
Spawned, not forked; a worker that dies is replaced, and another tries its instance once more.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import structlog

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.store.intake import Receipt

log = structlog.get_logger()

Accept = Callable[[IdentifiedInstance], Receipt]
START_S = 60.0


def _serve(pipe: Connection, make_accept: Callable[..., Accept], arguments: tuple[Any, ...]) -> None:
    """The worker's main: build once, then answer until the pipe closes (the receiver went away)."""
    accept = make_accept(*arguments)
    pipe.send(None)  # ready
    while True:
        try:
            head: tuple[Any, ...] = pipe.recv()
            dataset = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        answer: Receipt | EdgeNodeError
        try:
            answer = accept(IdentifiedInstance(dataset, *head))
        except Retry as error:
            answer = Retry(error.code, error.message, hint=error.hint)
        except EdgeNodeError as error:
            answer = EdgeNodeError(error.code, error.message, hint=error.hint)
        except Exception as error:
            log.exception("worker.unexpected")
            answer = Retry("receive.worker-failed", f"a worker failed on one instance ({type(error).__name__})")
        finally:
            del dataset
        pipe.send_bytes(pickle.dumps(_plain(answer)))


def _plain(answer: Receipt | EdgeNodeError) -> tuple[Any, ...]:
    if isinstance(answer, Receipt):
        return ("receipt", answer.received, answer.study_key, answer.code)
    return ("retry" if isinstance(answer, Retry) else "error", answer.code, answer.message, answer.hint)


class _WorkerDied(Exception):
    """The pipe to a worker broke before its receipt came."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


class WorkerPool:
    """`count` workers; `accept` hands one instance to an idle one and waits for its receipt."""

    def __init__(
        self, count: int, make_accept: Callable[..., Accept], arguments: tuple[Any, ...], *, wait_s: float
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._make_accept = make_accept
        self._arguments = arguments
        self._wait_s = wait_s
        self._idle: queue.Queue[_Worker] = queue.Queue()
        self._count = count
        self._closing = threading.Event()

    def start(self) -> None:
        """Start all workers and wait until they are ready. Raises Retry("receive.worker-not-ready")."""
        workers = [self._spawn() for _ in range(self._count)]
        for worker in workers:
            self._wait_ready(worker)
            self._idle.put(worker)

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._make_accept, self._arguments), name="deid", daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _wait_ready(self, worker: _Worker) -> None:
        try:
            if worker.pipe.poll(START_S):
                worker.pipe.recv()
                return
        except EOFError:
            pass
        raise Retry(
            "receive.worker-not-ready",
            "a de-identifying worker did not start",
            hint="see the log above; `edge-node doctor` checks recipe, keys and ledger",
        )

    def accept(self, instance: IdentifiedInstance) -> Receipt:
        """Block until the instance is durable. Raises what the worker raised; Retry when two died or all are busy.

        Intake is idempotent, so a second worker tries before the sender hears of a failure that is not its own.
        """
        try:
            return self._accept(instance)
        except _WorkerDied:
            pass
        try:
            return self._accept(instance)
        except _WorkerDied:
            raise Retry("receive.worker-died", "two de-identifying workers died on one instance") from None

    def _accept(self, instance: IdentifiedInstance) -> Receipt:
        try:
            worker = self._idle.get(timeout=self._wait_s)
        except queue.Empty:
            raise Retry("receive.busy", "all de-identifying workers are busy") from None
        try:
            worker.pipe.send(
                (
                    instance.transfer_syntax,
                    instance.sop_class,
                    instance.sop_instance,
                    instance.calling_ae,
                    instance.called_ae,
                    instance.peer,
                    instance.received_at,
                )
            )
            worker.pipe.send_bytes(instance.dataset)
            kind, *words = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301  our own child, over a private pipe
        except (EOFError, OSError):
            self._replace(worker)
            raise _WorkerDied from None
        self._idle.put(worker)
        if kind == "receipt":
            return Receipt(*words)
        code, message, hint = words
        raise (Retry if kind == "retry" else EdgeNodeError)(code, message, hint=hint)

    def _replace(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join(1.0)
        if self._closing.is_set():
            return
        log.error("worker.replaced", code=str(worker.process.exitcode))

        def again() -> None:
            while not self._closing.is_set():
                fresh = self._spawn()
                try:
                    self._wait_ready(fresh)
                except Retry:
                    fresh.process.kill()
                    self._closing.wait(2.0)
                    continue
                self._idle.put(fresh)
                return

        threading.Thread(target=again, name="worker-restart", daemon=True).start()

    def close(self) -> None:
        """Let idle workers end; busy ones end with their pipe."""
        self._closing.set()
        while True:
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                return
            worker.pipe.close()
            worker.process.join(5.0)
