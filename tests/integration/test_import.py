"""Files of a folder through the local door: every file has an outcome, none leaves a copy."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from edge_node.config.load import load
from edge_node.config.schema import Config
from edge_node.domain.body import Memory
from edge_node.domain.errors import EdgeNodeError, Retry, Stop
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive.landing import Arrival
from edge_node.receive.local import MOST_CALLERS, SOCKET, LocalDoor, LocalSender, nameless_memory
from edge_node.service.handing import Handed, Outcome
from edge_node.service.importing import files_below, import_files
from edge_node.store.receipt import Receipt, Received

CT = Path(str(get_testdata_file("CT_small.dcm")))
DICOMDIR = Path(str(get_testdata_file("DICOMDIR")))


class Node:
    """A receiver's local door whose acceptance the test decides, in a folder with a long name."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / ("d" * 120)
        self.data.mkdir()
        self.config: Config = load(environ={}, flags={"node.data_dir": str(self.data)}).config
        self.received: list[IdentifiedInstance] = []
        self.told: dict[str, Any] = {}
        self.room = True
        self.accept: Callable[[IdentifiedInstance], Receipt] = lambda _one: Receipt(Received.STORED, "STUDY")
        self.door = LocalDoor(
            self.data,
            self._accept,
            has_room=lambda: self.room,
            largest=30_000_000,
            tell=lambda about, facts: self.told.update({about: facts}),
        )
        self.door.start()

    def _accept(self, arrival: Arrival) -> Receipt:
        with arrival.opened() as landed:
            instance = replace(landed, source=Memory(landed.dataset))
        self.received.append(instance)
        return self.accept(instance)

    def take(self, folder: Path, **options: Any) -> list[Handed]:
        return list(import_files(self.config, files_below(folder), **options))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    yield one
    one.door.stop(1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def outcomes(handed: list[Handed]) -> dict[str, str]:
    return {Path(one.name).name: f"{one.outcome} {one.code}".strip() for one in handed}


def test_a_file_arrives_with_its_data_set_byte_for_byte(node: Node, folder: Path) -> None:
    (folder / "a.dcm").write_bytes(CT.read_bytes())
    [handed] = node.take(folder)
    assert (handed.outcome, handed.study) == (Outcome.STORED, "STUDY")
    [instance] = node.received
    assert CT.read_bytes().endswith(instance.dataset)
    assert instance.dataset[:4] == b"\x08\x00\x05\x00"
    assert (instance.calling_ae, instance.transfer_syntax) == ("IMPORT", "1.2.840.10008.1.2.1")
    assert instance.sop_instance == "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


def test_every_kind_of_thing_in_a_folder_has_an_outcome(node: Node, folder: Path, tmp_path: Path) -> None:
    whole = CT.read_bytes()
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "good").write_bytes(whole)
    (folder / "DICOMDIR").write_bytes(DICOMDIR.read_bytes())
    (folder / "notes.txt").write_text("no image")
    (folder / "empty").touch()
    (folder / "noise").write_bytes(os.urandom(5000))
    (folder / "cut-in-meta").write_bytes(whole[:200])
    (folder / "meta-only").write_bytes(whole[: whole.index(b"\x08\x00\x05\x00CS")])
    (folder / "huge").write_bytes(whole)
    os.truncate(folder / "huge", 40_000_000)
    (folder / "link").symlink_to(CT)
    (folder / "broken-link").symlink_to(tmp_path / "nowhere")
    (folder / "linked-folder").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(folder, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        found = outcomes(node.take(folder))
    assert found == {
        "good": "stored",
        "meta-only": "stored",  # its UIDs are in the file meta: the workers judge what is left of it
        "DICOMDIR": "skipped import.directory",
        "notes.txt": "skipped deid.not-dicom",
        "empty": "skipped deid.not-dicom",
        "noise": "skipped deid.not-dicom",
        "cut-in-meta": "failed deid.malformed",
        "huge": "failed receive.too-large",
        "link": "skipped import.not-a-file",
        "broken-link": "skipped import.not-a-file",
        "fifo": "skipped import.not-a-file",
        "socket": "skipped import.not-a-file",
    }


def test_the_corpus_of_pydicom_comes_in_or_says_why_not(node: Node) -> None:
    found = Counter(f"{one.outcome} {one.code}".strip() for one in node.take(CT.parent))
    assert found["stored"] > 60
    assert set(found) <= {
        "stored",
        "skipped import.directory",
        "skipped deid.not-dicom",
        "failed deid.no-uid",
        "failed deid.malformed",
        "failed receive.too-large",
    }


def test_what_the_receiver_says_of_a_file_is_told(node: Node, folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(CT.read_bytes())
    answers = iter(
        [
            Receipt(Received.DUPLICATE, "S"),
            Receipt(Received.QUARANTINED, "S", "deid.malformed"),
            EdgeNodeError("store.key-churn", "churned"),
        ]
    )

    def accept(_one: IdentifiedInstance) -> Receipt:
        answer = next(answers)
        if isinstance(answer, EdgeNodeError):
            raise answer
        return answer

    node.accept = accept
    assert sorted(outcomes(node.take(folder, senders=1)).values()) == [
        "duplicate",
        "failed store.key-churn",
        "quarantined deid.malformed",
    ]


def test_a_receiver_that_is_full_is_waited_for(node: Node, folder: Path) -> None:
    (folder / "a").write_bytes(CT.read_bytes())
    node.room = False
    threading.Timer(0.6, lambda: setattr(node, "room", True)).start()
    assert outcomes(node.take(folder)) == {"a": "stored"}
    node.room = False
    with pytest.raises(Retry, match=r"receive\.no-room"):
        node.take(folder, patience_s=0.3)


def test_without_a_running_node_the_next_command_is_named(tmp_path: Path, folder: Path) -> None:
    (folder / "a").write_bytes(CT.read_bytes())
    config = load(environ={}, flags={"node.data_dir": str(tmp_path)}).config
    with pytest.raises(Stop, match=r"import\.node-down.*edge-node run") as caught:
        list(import_files(config, files_below(folder)))
    assert caught.value.exit_code == 69


def test_a_receiver_that_restarts_in_the_middle_is_waited_for(node: Node, folder: Path) -> None:
    for number in range(6):
        (folder / str(number)).write_bytes(CT.read_bytes())
    node.accept = lambda _one: (time.sleep(0.15), Receipt(Received.STORED, "S"))[1]

    def restart() -> None:
        node.door.stop(5.0)
        node.door = LocalDoor(node.data, node._accept, has_room=lambda: True, largest=30_000_000, tell=lambda *_: None)
        time.sleep(0.3)
        node.door.start()

    threading.Timer(0.2, restart).start()
    assert set(outcomes(node.take(folder, senders=1)).values()) == {"stored"}


def test_the_socket_is_for_the_nodes_user_alone(node: Node) -> None:
    assert (node.data / SOCKET).stat().st_mode & 0o777 == 0o600


def test_broken_calls_end_only_themselves(node: Node, folder: Path) -> None:
    here = os.open(node.data, os.O_RDONLY)
    name = f"/proc/self/fd/{here}/{SOCKET}"
    for noise in (b"", b"{}", b"[]", b"\xff\xfe", b"{" * 5000, b'{"about": 1}', b'{"transfer_syntax": "x"}', b"1"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.connect(name)
            caller.send(noise)
            caller.settimeout(5)
            assert caller.recv(100) == b""
    os.close(here)
    with nameless_memory() as memory, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        here = os.open(node.data, os.O_RDONLY)
        caller.connect(f"/proc/self/fd/{here}/{SOCKET}")
        os.close(here)
        words = b'{"transfer_syntax":"1","sop_class":"1","sop_instance":"1","calling_ae":"","called_ae":"","peer":""}'
        socket.send_fds(caller, [words], [memory])  # memory that could still change
        caller.settimeout(5)
        assert caller.recv(100) == b""
    assert node.received == []
    line = LocalSender(node.data)
    line.tell("inbox", {"taken": 1})
    line.close()
    assert node.told == {"inbox": {"taken": 1}}


def test_callers_beyond_the_limit_are_refused_and_handles_are_given_back(node: Node) -> None:
    before = handles()
    lines = [LocalSender(node.data) for _ in range(MOST_CALLERS + 5)]
    refused = 0
    for line in lines:
        try:
            line.tell("x", {"n": 1})
        except Retry:
            refused += 1
    assert refused == 5
    for line in lines:
        line.close()
    end = time.monotonic() + 5
    while handles() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert handles() <= before
