"""Objects of hundreds of megabytes through a whole node: durable, the same byte for byte, and no process holds them."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_node.config.load import load
from edge_node.domain.status import Status
from edge_node.domain.study import Role
from edge_node.service.node import open_node
from edge_node.store.digest import is_of
from tests.e2e.site import Site
from tests.integration.raw_peer import CT, EXPLICIT, RawPeer, pdv, store
from tests.unit.deid.objects import ct, encoded

MB = 1 << 20
RLE, JPEG = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"
NOISE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(MB // 32)).replace(b"\xff", b"\xfe")
NAME = b"Beeblebrox"


def pieces(syntax: str, frames: int, uid: str) -> Iterator[bytes]:
    """A multi-frame of `frames` frames of 1 MB, a piece at a time; each JPEG has a comment that must go."""
    ds = ct(NumberOfFrames=frames, Rows=1024, Columns=512, SOPInstanceUID=uid)
    del ds[0x7FE00010]
    yield encoded(ds)
    if syntax == EXPLICIT:
        yield struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", frames * MB)
        yield from (NOISE for _ in range(frames))
        return
    yield struct.pack("<HH2s2xLHHL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF, 0xFFFE, 0xE000, 0)
    if syntax == RLE:
        frame = struct.pack("<16L", 1, 64, *[0] * 14) + NOISE[64:-1]  # of odd length, against the rule
    else:
        said = b"\xff\xfe" + struct.pack(">H", 2 + len(NAME)) + NAME
        frame = b"\xff\xd8" + said + b"\xff\xda\0\x08\1\1\0\0\77\0" + NOISE[64:-1] + b"\xff\xd9"
    for _ in range(frames):
        yield struct.pack("<HHL", 0xFFFE, 0xE000, len(frame)) + frame
    yield struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def say(peer: RawPeer, syntax: str, frames: int, uid: str) -> None:
    peer.socket.sendall(store(uid))
    for piece in pieces(syntax, frames, uid):
        for at in range(0, len(piece), 130_000):
            peer.socket.sendall(pdv(0, piece[at : at + 130_000]))
    peer.socket.sendall(pdv(2, b""))


def line(site: Site, syntax: str) -> RawPeer:
    return RawPeer(site.port, patience_s=60).associate(contexts={1: (CT, [syntax])})


def processes(site: Site) -> list[Path]:
    """Every process of the node, by its session."""
    assert site.process is not None
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            except (OSError, IndexError):
                continue
            if session == site.process.pid:
                found.append(folder)
    return found


def resident(process: Path, what: str) -> float:
    """MB: VmRSS, or VmHWM, the most since the peaks were cleared."""
    [row] = [row for row in (process / "status").read_text().splitlines() if row.startswith(what)]
    return int(row.split()[1]) / 1024


def grown(site: Site, work: Callable[[], object]) -> float:
    """MB that all processes of the node together had more at their peaks, memory they share counted in each."""
    before = {}
    for process in processes(site):
        (process / "clear_refs").write_text("5")
        before[process] = resident(process, "VmRSS")
    work()
    assert set(before) <= set(processes(site)), "a process died"
    return sum(resident(process, "VmHWM") - was for process, was in before.items())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node for all of it; starting one takes longer than any of the tests."""
    extra = {"triage": {"enabled": False}, "settle": {"quiet_s": 600.0}, "receive": {"memory_mb": 32}}
    one = Site(tmp_path_factory.mktemp("large"), None, None, extra=extra)
    one.start()
    with line(one, EXPLICIT) as peer:  # warm: what every process loads for the first object it sees
        say(peer, EXPLICIT, 1, "1.2.3.1")
        assert peer.status() == Status.SUCCESS
    before = 0.0
    while (now := sum(resident(process, "VmRSS") for process in processes(one))) > before + 1:
        before = now  # some process of the node is still starting
        time.sleep(2)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.kill()


def kept_objects(site: Site) -> int:
    return sum(study["instances"] for study in site.ask("study", "list"))


def test_large_multi_frames_cost_no_memory_and_are_kept_byte_for_byte(large: Site) -> None:
    sizes = {"1.2.3.2": (EXPLICIT, 300), "1.2.3.3": (RLE, 60), "1.2.3.4": (JPEG, 60), "1.2.3.5": (EXPLICIT, 9)}

    def send() -> None:
        for uid, (syntax, frames) in sizes.items():
            with line(large, syntax) as peer:
                say(peer, syntax, frames, uid)
                assert peer.status() == Status.SUCCESS

    assert grown(large, send) < 100
    with line(large, EXPLICIT) as peer:
        say(peer, EXPLICIT, 300, "1.2.3.2")
        assert peer.status() == Status.SUCCESS
    status = large.ask("status")
    assert status["quarantine"] == []
    assert kept_objects(large) == len(sizes) + 1
    [study] = large.ask("study", "list")
    node = open_node(load(large.config).config, Role.COMPUTE)
    kept = {one.transfer_syntax: one for one in node.clean.study(study["study"]).objects if one.size > 20 * MB}
    native = kept[EXPLICIT].read()
    assert native.endswith(NOISE)
    assert native.count(NOISE) == 300
    assert is_of(kept[EXPLICIT].digest, native)
    assert NAME not in kept[JPEG].read()
    assert kept[RLE].read().count(NOISE[64:-1] + b"\0") == 60


def test_a_sender_that_leaves_before_its_answer_harms_nobody(large: Site) -> None:
    before = kept_objects(large)
    with line(large, EXPLICIT) as peer:
        say(peer, EXPLICIT, 60, "1.2.3.8")
    with line(large, EXPLICIT) as peer:
        say(peer, EXPLICIT, 60, "1.2.3.8")
        assert peer.status() == Status.SUCCESS
    assert kept_objects(large) == before + 1
    assert "worker.replaced" not in large.log()


def test_a_large_object_that_cannot_be_deidentified_is_held_without_memory_too(large: Site) -> None:
    def send() -> None:
        with line(large, EXPLICIT) as peer:
            peer.socket.sendall(store("1.2.3.7"))
            for piece in pieces(EXPLICIT, 100, "1.2.3.77"):  # not what the request calls it
                for at in range(0, len(piece), 130_000):
                    peer.socket.sendall(pdv(0, piece[at : at + 130_000]))
            peer.socket.sendall(pdv(2, b""))
            assert peer.status() == Status.SUCCESS

    assert grown(large, send) < 100
    [held] = large.ask("status")["quarantine"]
    assert held["code"] == "deid.uid-mismatch"


def test_a_kill_in_the_midst_of_a_large_object_leaves_nothing_of_it_and_it_can_be_sent_again(large: Site) -> None:
    known = {path for path in large.folder.rglob("*") if path.is_file()}
    with line(large, EXPLICIT) as peer:
        peer.socket.sendall(store("1.2.3.9"))
        sent = 0
        for piece in pieces(EXPLICIT, 60, "1.2.3.9"):
            peer.socket.sendall(b"".join(pdv(0, piece[at : at + 130_000]) for at in range(0, len(piece), 130_000)))
            sent += len(piece)
            if sent > 40 * MB:
                break
        time.sleep(0.3)
        large.kill()
    assert sum(path.stat().st_size for path in large.folder.rglob("*") if path.is_file() and path not in known) < MB
    large.start()
    with line(large, EXPLICIT) as peer:
        say(peer, EXPLICIT, 60, "1.2.3.9")
        assert peer.status() == Status.SUCCESS
