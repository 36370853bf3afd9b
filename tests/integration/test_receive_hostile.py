"""The receiver against peers that break the protocol, lie, stall or flood."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_node.domain.status import Status
from edge_node.store.receipt import Receipt
from tests.integration.raw_peer import (
    ABORT,
    ABORTED,
    ACCEPTED,
    CT,
    EXPLICIT,
    REJECTED,
    RELEASE,
    RELEASED,
    RawPeer,
    item,
    pdv,
    request,
    store,
)
from tests.integration.receiver import STORED, Door

MB = 1_000_000
Make = Callable[..., Door]


@pytest.fixture
def door() -> Iterator[Make]:
    doors: list[Door] = []

    def make(**options: object) -> Door:
        doors.append(Door(**options))
        return doors[-1]

    yield make
    for one in doors:
        one.close()


def still_serves(door: Door, calling: str = "GOOD") -> bool:
    """Whether a peer that behaves is served and released."""
    with RawPeer(door.scp.port) as peer:
        status = peer.associate(calling=calling).say(store(), pdv(2, b"good")).status()
        return status == Status.SUCCESS and peer.say(RELEASE).ending() == [RELEASED]


def ended(door: Door) -> bool:
    """Whether every association is gone soon."""
    until = time.monotonic() + 5
    while door.scp._open and time.monotonic() < until:
        time.sleep(0.02)
    return not door.scp._open


OUT_OF_PROTOCOL = {
    "an unknown PDU type": (False, b"\x99\0\0\0\0\4abcd", "not-dicom"),
    "a browser": (False, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not-dicom"),
    "a TLS hello": (False, bytes.fromhex("16030100a5010000a10303") + bytes(160), "not-dicom"),
    "data before an association": (False, store(), "unexpected-pdu"),
    "a second association request": (True, request(), "unexpected-pdu"),
    "an answer nobody asked for": (True, struct.pack(">BBLL", 6, 0, 4, 0), "unexpected-pdu"),
    "a PDU of 4 GiB": (True, b"\4\0\xff\xff\xff\xff" + bytes(1000), "pdu-too-long"),
    "a request of 4 GiB": (False, b"\1\0\xff\xff\xff\xff" + bytes(1000), "pdu-too-long"),
    "a PDV that is longer than its PDU": (
        True,
        struct.pack(">BBLLBB", 4, 0, 10, 5000, 1, 0) + b"abcd",
        "pdv-malformed",
    ),
    "a PDV without content": (True, struct.pack(">BBLL", 4, 0, 4, 0), "pdv-malformed"),
    "a PDV of one byte": (True, struct.pack(">BBLLB", 4, 0, 5, 1, 1), "pdv-malformed"),
    "an empty data PDU": (True, struct.pack(">BBL", 4, 0, 0), "pdv-malformed"),
    "a context that was not accepted": (True, store().replace(b"\1\3", b"\x63\3", 1), "context-not-accepted"),
    "data without a command": (True, pdv(2, b"data"), "data-without-command"),
    "a command inside data": (True, store() + pdv(0, b"data") + store(), "command-inside-data"),
    "data in another context": (True, store() + pdv(0, b"data") + pdv(0, b"data", 3), "context-changed"),
    "a command of noise": (True, pdv(3, bytes(range(1, 121))), "command-malformed"),
    "a command without its field": (True, pdv(3, struct.pack("<HHL", 0, 2, 2) + b"1\0"), "command-malformed"),
    "an endless command": (True, b"".join(pdv(1, bytes(16_000)) for _ in range(6)), "command-too-long"),
    "a malformed request": (
        False,
        struct.pack(">BBL", 1, 0, 80) + b"\0\1" + bytes(66) + b"\x10\0\xff\xff12345678",
        "pdu-malformed",
    ),
}


@pytest.mark.parametrize("case", OUT_OF_PROTOCOL)
def test_a_peer_that_breaks_the_protocol_is_aborted_and_counted(door: Make, case: str) -> None:
    one = door()
    associated, words, reason = OUT_OF_PROTOCOL[case]
    with RawPeer(one.scp.port) as peer:
        if associated:
            peer.associate()
        assert peer.say(words).ending() in ([ABORTED], [])  # nothing, when our last word met the peer's reset
    assert one.refused() == {("CT1" if associated else "(none)", reason): 1}
    assert still_serves(one)
    assert ended(one)
    assert [i.dataset for i in one.received] == [b"good"]


@pytest.mark.parametrize("last_words", [ABORT, b""], ids=["aborts", "hangs up"])
def test_what_a_peer_leaves_in_the_middle_is_not_taken(door: Make, last_words: bytes) -> None:
    one = door()
    with RawPeer(one.scp.port) as peer:
        peer.associate().say(store(), pdv(0, bytes(9000)), pdv(0, bytes(9000))[:4000], last_words)
    assert still_serves(one)
    assert ended(one)
    assert len(one.received) == 1


def test_a_request_without_a_data_set_is_answered_by_name(door: Make) -> None:
    one = door()
    with RawPeer(one.scp.port) as peer:
        assert peer.associate().say(store(data_set=False)).status() == Status.CANNOT_UNDERSTAND
        assert peer.say(store(), pdv(2, b"next")).status() == Status.SUCCESS


@pytest.mark.parametrize("name", ["../../../../tmp/EVIL", "1." + "9" * 300, "\\\\host\\share", ""])
def test_the_name_of_an_object_is_never_a_path_and_never_long(door: Make, name: str) -> None:
    one = door()
    with RawPeer(one.scp.port) as peer:
        assert peer.associate().say(store(name), pdv(2, b"data")).status() == Status.SUCCESS
    [instance] = one.received
    assert instance.sop_instance == name[:64]
    assert list(Path(one.folder.name).rglob("*")) == []


def test_an_object_that_is_too_large_is_refused_as_it_arrives_and_the_next_one_is_taken(door: Make) -> None:
    one = door(max_object_mb=1)
    with RawPeer(one.scp.port) as peer:
        peer.associate().say(store(), *[pdv(0, bytes(100_000))] * 15, pdv(2, b"end"))
        assert peer.status() == Status.OUT_OF_RESOURCES
        assert peer.say(store(), pdv(2, b"small")).status() == Status.SUCCESS
    assert one.refused() == {("CT1", "object-too-large"): 1}
    assert [i.dataset for i in one.received] == [b"small"]


def test_an_object_that_never_ends_is_cut_off(door: Make) -> None:
    one = door(max_object_mb=1)
    with RawPeer(one.scp.port) as peer:
        peer.associate().say(store(), *[pdv(0, bytes(100_000))] * 40)
        assert peer.ending() in ([ABORTED], [])
    assert one.refused() == {("CT1", "object-too-large"): 1, ("CT1", "object-endless"): 1}
    assert ended(one)


def test_a_large_object_is_sealed_outside_memory_and_arrives_whole(door: Make) -> None:
    one = door(memory_mb=16)
    body = os.urandom(1 << 20) * 45
    with RawPeer(one.scp.port, patience_s=20) as peer:
        peer.associate().say(store())
        parts = [pdv(0, body[at : at + 130_000]) for at in range(0, len(body), 130_000)]
        before = memory_mb()
        for part in parts:
            peer.say(part)
        time.sleep(0.2)
        assert memory_mb() - before < 30
        assert peer.say(pdv(2, b"")).status() == Status.SUCCESS
    assert one.received[0].dataset == body
    assert list(Path(one.folder.name).rglob("*")) == []


def memory_mb() -> float:
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


def test_a_peer_that_drips_is_cut_off_in_time(door: Make) -> None:
    one = door(network_timeout_s=1)
    with RawPeer(one.scp.port) as peer:
        peer.associate().say(store())
        begun = time.monotonic()
        for byte in pdv(0, bytes(5000))[:40]:
            peer.say(bytes([byte]))
            time.sleep(0.1)
        assert ABORTED in peer.ending() or time.monotonic() - begun < 6
    assert one.refused() == {("CT1", "too-slow"): 1}


@pytest.mark.parametrize(("words", "reason"), [(b"", "no-association-request"), (b"\1\0\0", "too-slow")])
def test_a_silent_connection_ends(door: Make, words: bytes, reason: str) -> None:
    one = door(network_timeout_s=1)
    with RawPeer(one.scp.port) as peer:
        peer.say(words).ending()
    assert one.refused() == {("(none)", reason): 1}


def test_a_silent_association_is_aborted(door: Make) -> None:
    one = door(network_timeout_s=1)
    with RawPeer(one.scp.port) as peer:
        assert peer.associate().ending() == [ABORTED]
    assert one.refused() == {("CT1", "silent"): 1}


def test_a_hundred_and_ten_stalled_peers_hold_nobody_up(door: Make) -> None:
    one = door(max_associations=64, network_timeout_s=30)
    peers = [RawPeer(one.scp.port).say(request()[:60]) for _ in range(110)]
    try:
        assert still_serves(one)
        assert len(one.scp._open) <= 65
        assert one.refused()[("(none)", "too-many-silent-connections")] >= 40
    finally:
        for peer in peers:
            peer.socket.close()


def test_one_sender_cannot_take_every_place(door: Make) -> None:
    one = door(max_associations=16)
    peers = [RawPeer(one.scp.port).associate(calling="GREEDY") for _ in range(14)]
    try:
        with RawPeer(one.scp.port) as late:
            kind, body = late.say(request(calling="GREEDY")).hear()
        assert (kind, tuple(body[1:4])) == (REJECTED, (2, 3, 2))
        assert still_serves(one, "MODEST")
        for peer in peers:
            assert peer.say(RELEASE).ending() == [RELEASED]
        assert still_serves(one, "GREEDY")
        assert one.refused() == {("GREEDY", "too-many-associations-of-sender"): 1}
    finally:
        for peer in peers:
            peer.socket.close()


def test_one_association_for_each_image_at_thousands_a_minute(door: Make) -> None:
    one = door()
    begun = time.monotonic()
    assert all(still_serves(one) for _ in range(150))
    assert time.monotonic() - begun < 6  # 1,500 a minute at the very least, on a busy machine
    assert ended(one)


def test_fifty_idle_associations_cost_next_to_nothing(door: Make) -> None:
    one = door(max_associations=64)
    peers = [RawPeer(one.scp.port).associate() for _ in range(50)]
    try:
        before, begun = time.process_time(), time.monotonic()
        time.sleep(2)
        assert (time.process_time() - before) / (time.monotonic() - begun) < 0.05
        assert threading.active_count() < 50 + 20
    finally:
        for peer in peers:
            peer.socket.close()


def test_more_than_a_thousand_handles_are_no_matter(door: Make) -> None:
    one = door()
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)] if os.sysconf("SC_OPEN_MAX") > 1300 else []
    if not held:
        pytest.skip("this system allows too few handles")
    try:
        assert still_serves(one)
    finally:
        for handle in held:
            os.close(handle)


def test_a_flood_of_presentation_contexts_is_answered(door: Make) -> None:
    contexts = {2 * i + 1: (f"{CT}.{i}" if i else CT, [EXPLICIT] * 40) for i in range(128)}
    with RawPeer(door().scp.port) as peer:
        kind, body = peer.say(request(contexts=contexts)).hear()
    assert kind == ACCEPTED
    assert body.count(item(0x40, EXPLICIT.encode())) == 128


def test_a_disk_that_runs_low_turns_associations_away_first_and_then_instances(door: Make) -> None:
    one = door()
    with RawPeer(one.scp.port) as peer:
        peer.associate()
        one.free = 3 << 19  # below low, above the reserve
        with RawPeer(one.scp.port) as late:
            kind, body = late.say(request()).hear()
        assert (kind, tuple(body[1:4])) == (REJECTED, (2, 3, 1))
        assert peer.say(store(), pdv(2, b"taken")).status() == Status.SUCCESS
        one.free = 1 << 19
        assert peer.say(store(), pdv(2, b"refused")).status() == Status.OUT_OF_RESOURCES
        one.free = 1 << 40
        assert peer.say(store(), pdv(2, b"taken again")).status() == Status.SUCCESS
    assert one.refused() == {("CT1", "disk-low"): 1, ("CT1", "disk-full"): 1}


def test_the_disk_is_asked_for_each_instance_only_where_it_runs_low(door: Make) -> None:
    one = door()

    def taken(count: int) -> int:
        before = one.asked
        for _ in range(count):
            assert peer.say(store(), pdv(2, b"taken")).status() == Status.SUCCESS
        return one.asked - before

    with RawPeer(one.scp.port) as peer:
        peer.associate()
        begun = time.monotonic()
        often = taken(200)
        assert 1 <= often <= 2 + (time.monotonic() - begun) / 0.1
        one.free = 8 << 20
        time.sleep(0.2)  # until what was known of it is old
        assert taken(5) == 10


def test_a_sender_that_is_too_fast_waits_for_its_answer_and_others_do_not(door: Make) -> None:
    one = door(sender_mb_per_s=1)
    with RawPeer(one.scp.port) as fast, RawPeer(one.scp.port) as slow:
        fast.associate(calling="FAST")
        slow.associate(calling="SLOW")
        begun = time.monotonic()
        for _ in range(3):
            assert fast.say(store(), *[pdv(0, bytes(100_000))] * 10, pdv(2, b"")).status() == Status.SUCCESS
        assert 0.8 < time.monotonic() - begun < 4
        begun = time.monotonic()
        assert slow.say(store(), pdv(2, b"data")).status() == Status.SUCCESS
        assert time.monotonic() - begun < 0.5


def test_a_message_in_many_small_fragments_arrives_whole(door: Make) -> None:
    one = door()
    body = bytes(range(256)) * 20
    command = store()[12:]
    with RawPeer(one.scp.port) as peer:
        peer.associate().say(*(pdv(1, command[at : at + 7]) for at in range(0, len(command) - 7, 7)))
        left = len(command) % 7 or 7
        peer.say(pdv(3, command[-left:]), *(pdv(0, body[at : at + 9]) for at in range(0, len(body), 9)), pdv(2, b""))
        assert peer.status() == Status.SUCCESS
    assert one.received[0].dataset == body


def test_a_peer_that_pipelines_gets_an_answer_to_each(door: Make) -> None:
    one = door()
    with RawPeer(one.scp.port) as peer:
        peer.associate().say(*(store(f"1.2.{n}") + pdv(2, bytes(n)) for n in range(20)), RELEASE)
        assert [peer.status() for _ in range(20)] == [Status.SUCCESS] * 20
        assert peer.ending() == [RELEASED]
    assert [len(i.dataset) for i in one.received] == list(range(20))


def test_an_acceptance_that_takes_longer_than_the_network_timeout_ends_well(door: Make) -> None:
    one = door(network_timeout_s=1)

    def slowly(_instance: object) -> Receipt:
        time.sleep(1.5)
        return STORED

    one.accept = slowly
    with RawPeer(one.scp.port) as peer:
        assert peer.associate().say(store(), pdv(2, b"data")).status() == Status.SUCCESS
        assert peer.say(RELEASE).ending() == [RELEASED]
