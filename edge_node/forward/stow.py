"""Delivery of clean objects to the trainer by STOW-RS (PS3.18 10.5): batches, accounting, one pass at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event

from edge_node.config.schema import Forward
from edge_node.domain.errors import Retry
from edge_node.domain.study import CleanObject, DeliveryState
from edge_node.forward.answer import Account, Fate
from edge_node.forward.exchange import Exchange, Reply

OnResult = Callable[[str, DeliveryState, str], None]

_TRIES = 6  # times one instance is sent in a pass: halving 16 down to 1 takes five
_BROKEN_MOST = 6  # requests in a row without a usable answer: the line is down, not the batch too big
TOO_LARGE = "trainer.too-large"


@dataclass(frozen=True, slots=True)
class SendReport:
    """One pass: `rejected`, `withheld` and `remaining` give a stable code by SOP Instance UID.

    `remaining` is still to be delivered; `retry` says how (None when nothing remains): a passing condition with the
    peer's own wish for the delay, not counted when the peer was merely busy.
    """

    delivered: int
    rejected: dict[str, str]
    withheld: dict[str, str]
    remaining: dict[str, str]
    retry: Retry | None


class StowTrainer:
    """The trainer behind one STOW-RS endpoint. Keep one for the life of the process: it learns what the line bears.

    Not for use by several threads at once (`send` has its own), but for `drain`.
    """

    def __init__(self, config: Forward) -> None:
        """Raise `Stop` (``forward.url``, ``forward.tls``) when `config` cannot be used; nothing is contacted yet."""
        self._exchange = Exchange(config)
        self._in_flight = config.in_flight
        self._batch = _BatchSize(config.batch_instances, int(config.batch_mb * 1e6))
        self._draining = Event()

    def send(self, objects: Iterable[CleanObject], *, on_result: OnResult) -> SendReport:
        """Try once to deliver `objects`; a study takes as many passes as the line and the trainer need.

        `on_result(sop_uid, state, code)` is called in the caller's thread as soon as an instance's fate is known:
        DELIVERED, REJECTED (the trainer will never take it) or WITHHELD (the last gate stopped it). The call is where
        the caller commits: what was reported is never sent again by a later pass. Re-sending after a crash is
        harmless, the bytes are the same. Raises `Stop` from the spool and whatever `on_result` raises.
        """
        line = _Pass(objects, self._batch, on_result)
        if ended := self._exchange.greet():
            line.end(ended)
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="stow") as threads:
            running: dict[Future[Reply], list[CleanObject]] = {}
            while True:
                if self._draining.is_set():
                    line.end(Retry("forward.draining", "the node is stopping; sending goes on after it", counts=False))
                while len(running) < self._in_flight and (batch := line.next_batch()):
                    running[threads.submit(self._exchange.post, batch)] = batch
                if not running:
                    return line.report()
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    line.take(running.pop(done), done.result())

    def drain(self) -> None:
        """Begin no further request: a pass under way ends when those in flight are answered. From any thread."""
        self._draining.set()

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()


@dataclass(slots=True)
class _BatchSize:
    """How much one request may carry: halved by a broken line, one more with each success; 413 lowers it for good."""

    most_instances: int
    most_bytes: int
    instances: int = field(init=False)

    def __post_init__(self) -> None:
        self.instances = self.most_instances

    def grow(self) -> None:
        self.instances = min(self.most_instances, self.instances + 1)

    def halve(self, batch: list[CleanObject]) -> None:
        self.instances = max(1, min(self.instances, len(batch) // 2))

    def too_large(self, batch: list[CleanObject]) -> None:
        if len(batch) > 1:  # a single instance too large says nothing about smaller ones
            self.most_bytes = min(self.most_bytes, max(1, sum(one.size for one in batch) // 2))


class _Pass:
    """The books of one pass: what waits, what was tried how often, what became of it. One thread only."""

    def __init__(self, objects: Iterable[CleanObject], size: _BatchSize, on_result: OnResult) -> None:
        self._fresh: Iterator[CleanObject] = _once_each(objects)
        self._again: deque[CleanObject] = deque()
        self._ahead: CleanObject | None = None
        self._tries: dict[str, int] = {}
        self._size = size
        self._on_result = on_result
        self._broken_in_a_row = 0
        self._retry: Retry | None = None
        self._delivered = 0
        self._rejected: dict[str, str] = {}
        self._withheld: dict[str, str] = {}
        self._remaining: dict[str, str] = {}

    def next_batch(self) -> list[CleanObject]:
        """The next objects to send in one request; empty when there are none or the pass has ended."""
        batch: list[CleanObject] = []
        room = self._size.most_bytes
        while self._retry is None and len(batch) < self._size.instances and (one := self._peek()):
            if batch and one.size > room:
                break
            room -= one.size
            self._ahead = None
            batch.append(one)
        return batch

    def take(self, batch: list[CleanObject], reply: Reply) -> None:
        """Enter what became of `batch`."""
        if reply.end:
            self.end(reply.end)
            self._keep(batch, reply.end.code)
        elif reply.not_sent:
            uid, code = reply.not_sent
            self._withheld[uid] = code
            self._again.extend(one for one in batch if one.sop_uid != uid)
            self._on_result(uid, DeliveryState.WITHHELD, code)
        elif reply.too_large:
            self._size.too_large(batch)
            if len(batch) == 1:
                self._settle(batch[0].sop_uid, Account(Fate.NEVER, TOO_LARGE))
            else:
                self._size.halve(batch)
                self._again.extend(batch)
        elif reply.broken:
            self._broken(batch, reply.broken)
        else:
            self._broken_in_a_row = 0
            self._size.grow()
            for one in batch:
                self._settle(one.sop_uid, reply.accounts[one.sop_uid])

    def end(self, why: Retry) -> None:
        """Let nothing more begin; the first reason given is the one reported."""
        self._retry = self._retry or why

    def report(self) -> SendReport:
        """The books, closed: what was never sent remains under the reason that ended the pass."""
        if self._retry:
            ahead = [self._ahead] if self._ahead else []
            self._keep([*ahead, *self._fresh, *self._again], self._retry.code)
        elif self._remaining:
            message = f"{len(self._remaining)} instances are not yet accepted by the trainer"
            self._retry = Retry("forward.incomplete", message, hint="edge-node queue")
        return SendReport(self._delivered, self._rejected, self._withheld, self._remaining, self._retry)

    def _peek(self) -> CleanObject | None:
        """What was tried comes after what was not, so that one bad object does not hold up the others."""
        if self._ahead is None:
            self._ahead = next(self._fresh, None) or (self._again.popleft() if self._again else None)
        return self._ahead

    def _broken(self, batch: list[CleanObject], code: str) -> None:
        self._broken_in_a_row += 1
        self._size.halve(batch)
        for one in batch:
            tried = self._tries[one.sop_uid] = self._tries.get(one.sop_uid, 0) + 1
            if tried < _TRIES:
                self._again.append(one)
            else:
                self._remaining[one.sop_uid] = code
        if self._broken_in_a_row >= _BROKEN_MOST:
            message = f"{self._broken_in_a_row} requests in a row brought no usable answer, the last: {code}"
            self.end(Retry("forward.line", message, hint="check the line and the trainer; sending goes on by itself"))

    def _settle(self, uid: str, account: Account) -> None:
        if account.fate is Fate.DELIVERED:
            self._delivered += 1
            self._on_result(uid, DeliveryState.DELIVERED, account.code)
        elif account.fate is Fate.NEVER:
            self._rejected[uid] = account.code
            self._on_result(uid, DeliveryState.REJECTED, account.code)
        else:
            self._remaining[uid] = account.code

    def _keep(self, objects: Iterable[CleanObject], code: str) -> None:
        for one in objects:
            self._remaining.setdefault(one.sop_uid, code)


def _once_each(objects: Iterable[CleanObject]) -> Iterator[CleanObject]:
    seen: set[str] = set()
    for one in objects:
        if one.sop_uid not in seen:
            seen.add(one.sop_uid)
            yield one
