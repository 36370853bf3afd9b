"""The pool of de-identifying worker processes: memory goes over, receipts come back, nobody starves."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal as signals
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest

from edge_node.domain.announcement import IdentifiedSignal
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive import workers
from edge_node.receive.landing import Arrival
from edge_node.receive.workers import WorkerPool
from edge_node.store.receipt import Receipt, Received
from tests.integration.no_thread import no_thread_for


def accept_or_die():  # type: ignore[no-untyped-def]
    """A worker that dies on one kind of instance; at module level because workers find it by its name."""

    def accept(batch: Sequence[IdentifiedInstance | IdentifiedSignal]) -> list[Receipt | EdgeNodeError]:
        if any(isinstance(one, IdentifiedSignal) and one.sop_instance == "die" and not one.again for one in batch):
            os._exit(1)
        if any(one.dataset == b"die" for one in batch):
            os._exit(1)
        if any(one.dataset == b"slow" for one in batch):
            time.sleep(0.5)
        return [Receipt(Received.STORED, f"{one.sop_instance} {len(one.dataset)} {len(batch)}") for one in batch]

    return accept


def say_who():  # type: ignore[no-untyped-def]
    """A worker that gives its process number in its receipts."""

    def accept(batch: Sequence[IdentifiedInstance]) -> list[Receipt | EdgeNodeError]:
        return [Receipt(Received.STORED, f"1.2.3 {os.getpid()}") for _ in batch]

    return accept


@contextmanager
def working(
    *, count: int = 1, make: Callable[..., workers.AcceptAll] = accept_or_die, wait_s: float = 20
) -> Iterator[WorkerPool]:
    """A pool of workers that are ready."""
    pool = WorkerPool(count, make, (), wait_s=wait_s)
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def arrival(body: bytes, calling: str = "CT1") -> Iterator[Arrival]:
    """An object that came whole, as the receiver holds it."""
    memory = os.memfd_create("test")
    try:
        os.pwrite(memory, body, 0)
        yield Arrival("1.2", "1.2", "1.2.3", calling, "EDGENODE", "", 0.0, len(body), memory)
    finally:
        os.close(memory)


@contextmanager
def signal(name: str = "step") -> Iterator[Arrival]:
    """An announcement, as the receiver holds it."""
    with arrival(b"") as one:
        yield replace(one, sop_instance=name, command="N-CREATE")


def accept(pool: WorkerPool, body: bytes, calling: str = "CT1") -> Receipt:
    with arrival(body, calling) as one:
        return pool.accept(one)


def test_an_instance_that_kills_two_workers_is_refused_and_the_next_one_is_taken() -> None:
    with working() as pool:
        with pytest.raises(Retry, match=r"receive\.worker-died"):
            accept(pool, b"die")
        assert accept(pool, b"live").study_key == "1.2.3 4 1"


def test_the_sender_never_hears_of_a_worker_that_was_killed_while_idle() -> None:
    with working() as pool:
        for child in multiprocessing.active_children():
            child.kill()
            child.join(5)
        assert accept(pool, b"live").received is Received.STORED


def test_instances_of_any_size_go_through_to_the_worker_and_back() -> None:
    with working(count=2) as pool:
        for size in (0, 1, 100_000, 20_000_000):
            assert accept(pool, bytes(size)).received is Received.STORED


def test_instances_that_wait_share_a_batch_and_no_sender_waits_for_another_ones_queue() -> None:
    order, threads = list[tuple[str, str]](), []
    with working() as pool:

        def send(calling: str, body: bytes = b"quick") -> None:
            order.append((calling, accept(pool, body, calling).study_key.split()[-1]))

        for calling in ("FIRST", *["GREEDY"] * 24, "MODEST"):
            threads.append(threading.Thread(target=send, args=(calling, b"slow" if calling == "FIRST" else b"quick")))
            threads[-1].start()
            time.sleep(0.01)
        for thread in threads:
            thread.join(20)
        assert len(order) == 26
        assert ("MODEST", "16") in order  # in the first batch after the slow one, though it came last
        assert {batch for calling, batch in order if calling == "GREEDY"} == {"16", "9"}


def test_neighbours_of_an_instance_that_kills_its_worker_are_taken() -> None:
    answers = dict[bytes, object]()
    with working() as pool:

        def send(body: bytes) -> None:
            try:
                answers[body] = accept(pool, body)
            except Retry as error:
                answers[body] = error.code

        threads = [threading.Thread(target=send, args=(body,)) for body in (b"slow", b"a", b"die", b"b")]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(40)
        assert answers.pop(b"die") == "receive.worker-died"
        assert len(answers) == 3
        assert all(isinstance(answer, Receipt) for answer in answers.values())


def process_of(pool: WorkerPool) -> str:
    return accept(pool, b"who").study_key.split()[1]


def until_one_is_left() -> None:
    deadline = time.monotonic() + 10
    while len(multiprocessing.active_children()) > 1:
        assert time.monotonic() < deadline, "a worker is left over"
        time.sleep(0.05)


def test_a_worker_that_has_seen_instances_is_replaced_when_it_rests_and_one_that_has_not_stays() -> None:
    with working(make=say_who) as pool:
        [unused] = multiprocessing.active_children()
        pool.forget(0)
        assert [child.pid for child in multiprocessing.active_children()] == [unused.pid]
        first = process_of(pool)
        pool.forget(3600)
        assert process_of(pool) == first
        pool.forget(0)
        assert process_of(pool) not in (first, "")
        assert not Path(f"/proc/{first}").exists()


def test_nobody_waits_for_the_replacement_of_a_worker() -> None:
    with working(make=say_who) as pool:
        first = process_of(pool)
        replacing = threading.Thread(target=pool.forget, args=(0,))
        replacing.start()
        while_it_starts = set()
        while replacing.is_alive():
            while_it_starts.add(process_of(pool))
        replacing.join()
        assert first in while_it_starts
        assert process_of(pool) != first
        until_one_is_left()


def test_a_worker_that_dies_while_its_successor_starts_has_one_successor_and_not_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with working(make=say_who) as pool:
        fresh, first = pool._fresh, process_of(pool)

        def while_it_dies() -> workers._Worker:
            monkeypatch.setattr(pool, "_fresh", fresh)
            made = fresh()
            os.kill(int(first), signals.SIGKILL)
            assert process_of(pool) not in (first, str(made.process.pid))
            return made

        monkeypatch.setattr(pool, "_fresh", while_it_dies)
        pool.forget(0)
        assert len(pool._idle) == 1
        until_one_is_left()


def received_though_all_workers_died(pool: WorkerPool) -> bool:
    """Whether the next object is, in a time that is not for ever."""
    answers = list[Receipt]()
    for child in multiprocessing.active_children():
        child.kill()
        child.join(5)
    sending = threading.Thread(target=lambda: answers.append(accept(pool, b"live")), daemon=True)
    sending.start()
    sending.join(20)
    return [answer.received for answer in answers] == [Received.STORED]


def kill_what_workers_are_forked_from() -> None:
    os.kill(forkserver._forkserver._forkserver_pid, signals.SIGKILL)  # type: ignore[attr-defined]


def is_running(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # whoever inherits it may not have looked yet


def test_workers_outlive_what_they_are_forked_from_and_have_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "AGAIN_S", 0.05)
    with working(make=say_who) as pool:
        first = process_of(pool)
        kill_what_workers_are_forked_from()
        assert process_of(pool) == first
        os.kill(int(first), signals.SIGKILL)
        assert process_of(pool) not in (first, "")
        second = process_of(pool)
        kill_what_workers_are_forked_from()
        pool.forget(0)
        assert process_of(pool) not in (first, second)


def test_workers_begin_without_what_they_are_forked_from_where_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_folder(_handles: Sequence[int]) -> tuple[int, int]:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(forkserver, "connect_to_new_process", no_folder)
    with working(make=say_who) as pool:
        first = process_of(pool)
        os.kill(int(first), signals.SIGKILL)
        assert process_of(pool) not in (first, "")


def test_a_worker_that_hangs_is_ended_before_another_takes_its_instance_even_when_nobody_can_tell_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "WORK_S", 0.5)
    with working(make=say_who) as pool:
        first = process_of(pool)
        kill_what_workers_are_forked_from()
        deadline = time.monotonic() + 20
        while multiprocessing.active_children():  # this is when multiprocessing takes its children for ended
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(int(first), signals.SIGSTOP)
        assert process_of(pool) != first
        assert not is_running(first)


def test_a_system_that_has_no_process_to_give_now_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "AGAIN_S", 0.05)
    pair, left = socket.socketpair, [OSError(errno.EMFILE, "x"), OSError(errno.EAGAIN, "x")]

    def none_left(*words: int) -> tuple[socket.socket, socket.socket]:
        if left:
            raise left.pop()
        return pair(*words)

    with working() as pool:
        monkeypatch.setattr(workers.socket, "socketpair", none_left)
        assert received_though_all_workers_died(pool)
    assert not left


def test_nobody_waits_for_ever_where_not_even_a_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with working() as pool:
        left = no_thread_for(monkeypatch, "worker-restart")
        assert received_though_all_workers_died(pool)
    assert not left


def test_what_fails_on_our_side_of_the_pipe_is_tried_once_more_with_another_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with working() as pool:
        exchange = pool._exchange

        def out_of_memory(*_: object) -> list[Receipt]:
            monkeypatch.setattr(pool, "_exchange", exchange)
            raise MemoryError

        monkeypatch.setattr(pool, "_exchange", out_of_memory)
        assert accept(pool, b"live").received is Received.STORED


def test_announcements_go_alone_and_no_instance_waits_for_more_than_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drained(*, patience_s: float) -> list[str]:
        monkeypatch.setattr(workers, "SIGNAL_PATIENCE_S", patience_s)
        queue = workers._Queue()
        with signal() as step, arrival(b"one") as one:
            for ticket in [workers._Ticket(step) for _ in range(3)]:
                queue.add(ticket)
            for number in range(2):
                queue.add(workers._Ticket(replace(one, calling_ae=f"CT{number}", in_memory=workers.BATCH_BYTES)))
        batches = []
        while queue.tickets():
            batches.append([ticket.arrival.command or "object" for ticket in queue.batch()])
        assert all(len(batch) == 1 for batch in batches)
        return [word for batch in batches for word in batch]

    assert drained(patience_s=60.0) == ["object", "object", "N-CREATE", "N-CREATE", "N-CREATE"]
    # All have waited long enough.
    assert drained(patience_s=-1.0) == ["N-CREATE", "object", "N-CREATE", "object", "N-CREATE"]


def test_a_worker_is_told_when_another_one_died_on_an_announcement() -> None:
    with working() as pool, signal("die") as one:
        assert pool.accept(one).study_key == "die 0 1"


def test_an_announcement_that_nobody_has_time_for_is_given_back() -> None:
    with working(wait_s=0.2) as pool:
        busy = threading.Thread(target=accept, args=(pool, b"slow"))
        busy.start()
        time.sleep(0.1)
        with signal() as one, pytest.raises(Retry, match=r"receive\.busy"):
            pool.accept(one)
        busy.join(10)
        with signal() as one:
            assert pool.accept(one).study_key == "step 0 1"
