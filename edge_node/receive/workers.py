"""The de-identifying worker processes: handles of memory go over, receipts come back.

Processes, not threads: one busy Python thread beside the receiver would slow it by a factor of ten and more.
Forked, not from the receiver but from a process of their own that has no threads and sees no instance; a worker that
dies is replaced, and another tries its instances once more. Instances that wait are handed over together, so that they
share one sync and one commit; senders take turns. Announcements go alone and
behind instances.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from dataclasses import replace as changed
from multiprocessing.process import BaseProcess
from typing import Any

import structlog

from edge_node.domain.announcement import IdentifiedSignal
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive.landing import Arrival
from edge_node.store.receipt import Receipt

log = structlog.get_logger()

AcceptAll = Callable[[Sequence[IdentifiedInstance | IdentifiedSignal]], list[Receipt | EdgeNodeError]]
START_S = 60.0
AGAIN_S = 2.0  # after a replacement that did not start
WORK_S = 600.0  # a worker that takes longer over a batch is taken for dead
FORGET_S = 60.0  # after its last instance a worker is replaced: what it has seen is gone with it
BATCH = 16
BATCH_BYTES = 32 << 20
SIGNAL_PATIENCE_S = 2.0  # so long an announcement lets instances go first; then they take turns
_MESSAGE = 1 << 18  # a batch of questions or answers; each is a few hundred bytes


def _serve(pipe: socket.socket, make_accept: Callable[..., AcceptAll], arguments: tuple[Any, ...]) -> None:
    """The worker's main: build once, then answer until the pipe closes (the receiver went away)."""
    accept = make_accept(*arguments)
    pipe.send(b"ready")
    while True:
        try:
            message, handles, _, _ = socket.recv_fds(pipe, _MESSAGE, 2 * BATCH)
        except OSError:
            return
        if not message:
            return
        try:
            with ExitStack() as open_ones:
                arrivals = _with_handles(pickle.loads(message), handles)  # noqa: S301  from our parent, over a private pipe
                answers = accept([a.signal() if a.command else open_ones.enter_context(a.opened()) for a in arrivals])
                plain = [_plain(answer) for answer in answers]
                del answers  # errors hold what they were raised over, and the next batch may be hours away
        except Exception as error:
            log.exception("worker.unexpected")
            failed = Retry("receive.worker-failed", f"a worker failed on a batch ({type(error).__name__})")
            plain = [_plain(failed)] * BATCH
        finally:
            for handle in handles:
                os.close(handle)
        pipe.send(pickle.dumps(plain))


def _with_handles(arrivals: list[Arrival], handles: list[int]) -> list[Arrival]:
    """The arrivals with the handles as they are numbered in this process."""
    left = iter(handles)
    return [changed(a, memory=next(left), file=next(left) if a.spilled else -1) for a in arrivals]


def _plain(answer: Receipt | EdgeNodeError) -> tuple[str, ...]:
    if isinstance(answer, Receipt):
        return ("receipt", answer.received, answer.study_key, answer.code)
    return ("retry" if isinstance(answer, Retry) else "error", answer.code, answer.message, answer.hint)


def _answer(kind: str, *words: Any) -> Receipt | EdgeNodeError:
    if kind == "receipt":
        return Receipt(*words)
    code, message, hint = words
    return (Retry if kind == "retry" else EdgeNodeError)(code, message, hint=hint)


def _not_ready(why: str) -> Retry:
    return Retry(
        "receive.worker-not-ready", why, hint="see the log above; `edge-node doctor` checks recipe, keys and ledger"
    )


@dataclass(slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: socket.socket
    handle: int  # of the process itself: what it was forked from may be gone, and multiprocessing kills nobody then
    used: float = 0.0  # when it last answered; 0: never
    leaving: bool = False  # somebody sees to its successor

    def leave(self, *, within_s: float = 0.0, kill: bool = False) -> None:
        """Let it end with its pipe, and wait for that; or see to it that it has ended."""
        self.pipe.close()
        if within_s:
            self.process.join(within_s)
        if kill:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        os.close(self.handle)


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Ticket:
    """One instance that waits, until `wake` comes with an answer, or with a worker to lead."""

    arrival: Arrival
    _sleep: threading.Lock = field(default_factory=_taken)  # an event costs four times as much
    answer: Receipt | EdgeNodeError | None = None
    worker: _Worker | None = None
    tries: int = 0
    since: float = field(default_factory=time.monotonic)

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake, or was told already
            self._sleep.release()

    def wait(self, timeout_s: float = -1) -> bool:
        """Whether somebody woke it before the time was over."""
        return self._sleep.acquire(timeout=timeout_s)


class _Queue:
    """Who waits, by sender: each sender in turn; announcements apart. Its owner holds the lock."""

    def __init__(self) -> None:
        self._senders: dict[str, deque[_Ticket]] = {}
        self._signals: deque[_Ticket] = deque()
        self._was_signal = False

    def tickets(self) -> list[_Ticket]:
        return [ticket for tickets in (*self._senders.values(), self._signals) for ticket in tickets]

    def add(self, ticket: _Ticket) -> None:
        arrival = ticket.arrival
        if arrival.command:
            self._signals.append(ticket)
            return
        self._senders.setdefault(f"{arrival.calling_ae} {arrival.peer}", deque()).append(ticket)

    def first(self) -> _Ticket:
        return next(iter(self._senders.values()))[0]

    def remove(self, ticket: _Ticket) -> bool:
        """Whether it was still waiting."""
        if ticket in self._signals:
            self._signals.remove(ticket)
            return True
        for sender, tickets in self._senders.items():
            if ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self._senders[sender]
                return True
        return False

    def batch(self) -> list[_Ticket]:
        """The next tickets, one of each sender in turn; one that lost its worker before goes alone.

        So does an announcement, and only when no instance waits or it has waited long enough, never two in a row then:
        nobody who sends an instance shall wait for more than one of them.
        """
        self._was_signal = self._signal_is_next()
        if self._was_signal:
            return [self._signals.popleft()]
        taken: list[_Ticket] = []
        size = 0
        while self._senders and len(taken) < BATCH:
            ticket = self.first()
            size += ticket.arrival.size
            if taken and (ticket.tries or size > BATCH_BYTES):
                break
            sender = next(iter(self._senders))
            tickets = self._senders.pop(sender)
            tickets.popleft()
            if tickets:
                self._senders[sender] = tickets  # to the end of the line
            taken.append(ticket)
            if ticket.tries:
                break
        return taken

    def _signal_is_next(self) -> bool:
        if not self._signals or not self._senders:
            return bool(self._signals)
        return not self._was_signal and time.monotonic() - self._signals[0].since > SIGNAL_PATIENCE_S


class WorkerPool:
    """`count` workers; `accept` hands one instance over and waits for its receipt.

    No thread of its own: whoever finds a worker idle leads it through what waits, and hands it on.
    """

    def __init__(
        self,
        count: int,
        make_accept: Callable[..., AcceptAll],
        arguments: tuple[Any, ...],
        *,
        wait_s: float,
        spawning: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._make_accept = make_accept
        self._arguments = arguments
        self._wait_s = wait_s
        self._spawning = spawning
        self._count = count
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._waiting = _Queue()
        self._closing = threading.Event()

    def start(self) -> None:
        """Start all workers and wait until they are ready. Raises Retry("receive.worker-not-ready")."""
        workers = [self._spawn() for _ in range(self._count)]
        for worker in workers:
            self._wait_ready(worker)
            self._free(worker)

    def _spawn(self) -> _Worker:
        """A worker that begins. Raises Retry("receive.worker-not-ready") where the system has none to give."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, self._spawning():
                process = self._begin(theirs)
            return _Worker(process, ours, os.pidfd_open(process.pid or 0))
        except OSError as error:  # no memory, no process, no handle
            raise _not_ready(f"a de-identifying worker cannot be started: {error.strerror}") from None

    def _begin(self, theirs: socket.socket) -> BaseProcess:
        """Forked; else, as where a full disk has no folder for the socket that asks for it, a process from nothing."""
        work = {"target": _serve, "args": (theirs, self._make_accept, self._arguments), "name": "deid", "daemon": True}
        try:
            process: BaseProcess = multiprocessing.get_context("forkserver").Process(**work)  # type: ignore[arg-type]
            process.start()
        except (OSError, EOFError):
            process = multiprocessing.get_context("spawn").Process(**work)  # type: ignore[arg-type]
            process.start()
        return process

    def _wait_ready(self, worker: _Worker) -> None:
        worker.pipe.settimeout(START_S)
        try:
            if worker.pipe.recv(_MESSAGE):
                worker.pipe.settimeout(WORK_S)
                return
        except OSError:
            pass
        raise _not_ready("a de-identifying worker did not start")

    def _fresh(self) -> _Worker:
        """A worker that is ready. Raises Retry("receive.worker-not-ready")."""
        worker = self._spawn()
        try:
            self._wait_ready(worker)
        except Retry:
            worker.leave(kill=True)
            raise
        return worker

    def accept(self, arrival: Arrival) -> Receipt:
        """Block until the instance is durable. Raises what the worker raised; Retry when two died or all are busy.

        Intake is idempotent, so a second worker tries before the sender hears of a failure that is not its own.
        """
        ticket = _Ticket(arrival)
        with self._lock:
            self._waiting.add(ticket)
            ticket.worker = self._idle.pop() if self._idle else None
        if ticket.worker is None and not ticket.wait(self._wait_s):
            with self._lock:
                if ticket.worker is None and self._waiting.remove(ticket):
                    raise Retry("receive.busy", "all de-identifying workers are busy")
        while True:
            if ticket.worker is not None:
                self._lead(ticket)
            if ticket.answer is not None:
                break
            ticket.wait()
        if isinstance(ticket.answer, EdgeNodeError):
            raise ticket.answer
        return ticket.answer

    def _lead(self, leader: _Ticket) -> None:
        """Take the leader's worker through one batch, then hand it to the next who waits."""
        worker, leader.worker = leader.worker, None
        assert worker is not None
        with self._lock:
            batch = self._waiting.batch()
        if batch:
            try:
                answers = self._exchange(worker, [changed(one.arrival, again=one.tries > 0) for one in batch])
            except Exception as error:  # whatever it was: nobody of the batch may wait for ever
                log.error("worker.lost", reason=type(error).__name__)  # noqa: TRY400  its words may repeat the object
                worker.leave(within_s=1.0, kill=True)  # before another one works on the same
                self._again(batch)
                self._replace(worker)
                return
            for ticket, answer in zip(batch, answers, strict=False):
                ticket.answer = answer
                ticket.wake()
        self._free(worker)

    def _free(self, worker: _Worker) -> None:
        with self._lock:
            if worker.leaving:
                worker.leave()
                return
            heir = next((ticket for ticket in self._waiting.tickets() if ticket.worker is None), None)
            if heir is None:
                self._idle.append(worker)
                return
            heir.worker = worker
        heir.wake()

    def _exchange(self, worker: _Worker, arrivals: list[Arrival]) -> list[Receipt | EdgeNodeError]:
        handles = [h for a in arrivals for h in ((a.memory, a.file) if a.spilled else (a.memory,))]
        socket.send_fds(worker.pipe, [pickle.dumps(arrivals)], handles)
        message = worker.pipe.recv(_MESSAGE)
        if not message:
            raise EOFError
        answers = [_answer(*plain) for plain in pickle.loads(message)]  # noqa: S301  our own child, a private pipe
        worker.used = time.monotonic()
        if len(answers) < len(arrivals):
            raise EOFError
        return answers

    def forget(self, idle_s: float = FORGET_S) -> None:
        """Replace one worker that has had nothing to do for so long since its last instance; called now and then.

        The new one is ready before the old one goes. Raises Retry("receive.worker-not-ready"); the old one stays then.
        """
        with self._lock:
            before = time.monotonic() - idle_s
            done = next((worker for worker in self._idle if 0 < worker.used < before), None)
        if done is None or self._closing.is_set():
            return
        fresh = self._fresh()
        with self._lock:
            replaced, done.leaving = done.leaving, True
            idle = done in self._idle
            if idle:
                self._idle.remove(done)
        if replaced:  # it died meanwhile, and has its successor
            fresh.leave()
            return
        self._free(fresh)
        if idle:  # else it goes when it is free
            done.leave(within_s=5.0)

    def _again(self, batch: list[_Ticket]) -> None:
        """After a worker's death: every one of its instances once more, alone, because one of them may be why."""
        with self._lock:
            for ticket in batch:
                ticket.tries += 1
                if ticket.tries > 1:
                    ticket.answer = Retry("receive.worker-died", "two de-identifying workers died on one instance")
                    ticket.wake()
                else:
                    self._waiting.add(ticket)
            idle = [self._idle.pop() for _ in range(min(len(self._idle), len(batch)))]
        for worker in idle:
            self._free(worker)

    def _replace(self, worker: _Worker) -> None:
        with self._lock:
            replaced, worker.leaving = worker.leaving, True
        if replaced or self._closing.is_set():
            return
        log.error("worker.replaced", code=str(worker.process.exitcode))

        def again() -> None:
            while not self._closing.is_set():
                try:
                    self._free(self._fresh())
                    return
                except Retry:
                    self._closing.wait(AGAIN_S)

        try:
            threading.Thread(target=again, name="worker-restart", daemon=True).start()
        except RuntimeError:  # no memory for a thread, or too many: then this one, which waits for an answer as it is
            again()

    def close(self) -> None:
        """Let idle workers end; busy ones end with their pipe."""
        self._closing.set()
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.leave(within_s=5.0)
