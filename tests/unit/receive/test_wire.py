"""The socket of an association: what is read ahead is neither lost nor left behind."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.receive.wire import READ_AHEAD, Closed, TooSlow, Wire


@contextmanager
def wired() -> Iterator[tuple[Wire, socket.socket]]:
    """A wire and the peer's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        peer = socket.create_connection(door.getsockname())
        ours, _ = door.accept()
    association = SimpleNamespace(dul=SimpleNamespace(event_queue=queue.SimpleQueue()), network_timeout=5.0)
    wire = Wire(association, ours, 0.05)
    try:
        yield wire, peer
    finally:
        peer.close()
        wire.finish()


def soon() -> float:
    return time.monotonic() + 5.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([1, 6, 12, 100, READ_AHEAD - 1, READ_AHEAD, READ_AHEAD + 1, 131_078])),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 200_000),
)
def test_every_byte_comes_once_and_in_order_however_it_is_asked_for(asked: list[tuple[bool, int]], piece: int) -> None:
    sent = random.Random(piece).randbytes(sum(count for _, count in asked))
    with wired() as (wire, peer):

        def send() -> None:
            for at in range(0, len(sent), piece):
                peer.sendall(sent[at : at + piece])

        sender = threading.Thread(target=send)
        sender.start()
        got = bytearray()
        for into, count in asked:
            if into:
                room = bytearray(count)
                wire.read_into(memoryview(room), soon())
                got += room
            else:
                got += wire.read(count, soon())
        sender.join(5)
        assert bytes(got) == sent


def test_a_peer_that_stops_inside_is_given_up_and_one_that_closes_is_told_from_it() -> None:
    with wired() as (wire, peer):
        peer.sendall(b"abc")
        with pytest.raises(TooSlow):
            wire.read_into(memoryview(bytearray(10)), time.monotonic() + 0.2)
    with wired() as (wire, peer):
        peer.sendall(b"abc")
        peer.close()
        with pytest.raises(Closed):
            wire.read_into(memoryview(bytearray(10)), soon())


def test_nothing_that_was_read_ahead_stays_in_memory() -> None:
    with wired() as (wire, peer):
        peer.sendall(b"DOE^JANE" * 100)
        wire.read(8, soon())
        kept = wire._ahead
        assert bytes(kept[:16]) == b"DOE^JANE" * 2
    assert not any(kept)
