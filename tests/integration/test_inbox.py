"""The watched folder: whole files are taken and removed, everything else stays or is set aside with a reason."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.data import get_testdata_file

from edge_node.domain.body import Memory
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive.landing import Arrival
from edge_node.receive.local import LocalDoor, LocalSender
from edge_node.service import inbox
from edge_node.service.handing import Sender
from edge_node.service.inbox import REJECTED, Inbox
from edge_node.store.receipt import Receipt, Received

CT = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
STILL_S = 0.2


class Watched:
    def __init__(self, folder: Path) -> None:
        self.folder, data = folder / "in", folder / "data"
        self.folder.mkdir()
        data.mkdir()
        self.received: list[IdentifiedInstance] = []
        self.room = True
        self.accept: Callable[[IdentifiedInstance], Receipt] = lambda _one: Receipt(Received.STORED, "S")
        self.door = LocalDoor(
            data, self._accept, has_room=lambda: self.room, largest=1_000_000, tell=lambda _about, _facts: None
        )
        self.door.start()
        self.line = LocalSender(data)
        self.inbox = Inbox(self.folder, Sender(self.line, "INBOX", "EDGENODE", 1_000_000), STILL_S)

    def _accept(self, arrival: Arrival) -> Receipt:
        with arrival.opened() as landed:
            instance = replace(landed, source=Memory(landed.dataset))
        self.received.append(instance)
        return self.accept(instance)

    def look_twice(self) -> None:
        self.inbox.look()
        time.sleep(STILL_S + 0.05)
        self.inbox.look()

    def left(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    one = Watched(tmp_path)
    yield one
    one.line.close()
    one.door.stop(1.0)


def test_a_whole_file_is_taken_once_and_removed(watched: Watched) -> None:
    (watched.folder / "deep").mkdir()
    (watched.folder / "deep" / "DOE^JANE.dcm").write_bytes(CT)
    watched.inbox.look()
    assert watched.received == []
    watched.look_twice()
    watched.look_twice()
    assert [one.calling_ae for one in watched.received] == ["INBOX"]
    assert CT.endswith(watched.received[0].dataset)
    assert watched.left() == set()
    assert watched.inbox.counts.taken == 1


def test_a_file_that_still_grows_is_left_until_it_lies_still(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(inbox, "time", SimpleNamespace(monotonic=lambda: now))
    path = watched.folder / "slow"
    for size in (1000, 20_000, len(CT)):
        path.write_bytes(CT[:size])
        now += STILL_S
        watched.inbox.look()
    now += STILL_S / 2
    watched.inbox.look()
    assert watched.received == []
    now += STILL_S
    watched.inbox.look()
    assert len(watched.received) == 1


def test_names_of_files_under_way_and_hidden_names_are_left_alone(watched: Watched) -> None:
    for name in (".hidden", "a.part", "b.TMP"):
        (watched.folder / name).write_bytes(CT)
    watched.look_twice()
    assert watched.left() == {".hidden", "a.part", "b.TMP"}
    assert watched.received == []


def test_what_cannot_be_taken_is_set_aside_with_a_reason_and_a_name_of_ours(watched: Watched) -> None:
    (watched.folder / "DOE^JANE.txt").write_text("no image")
    (watched.folder / "DOE^JANE.big").write_bytes(CT)
    os.truncate(watched.folder / "DOE^JANE.big", 2_000_000)
    watched.look_twice()
    notes = sorted(path.read_text() for path in (watched.folder / REJECTED).glob("*.reason.txt"))
    assert [note.split(":")[0] for note in notes] == ["deid.not-dicom", "receive.too-large"]
    assert len(watched.left()) == 4
    assert not any("DOE" in name for name in watched.left())
    watched.look_twice()
    assert watched.inbox.counts.rejected == 2


@pytest.mark.parametrize("short", [errno.EMFILE, errno.ENOMEM])
def test_a_file_that_the_node_has_no_memory_for_now_is_left_until_it_has(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(short, os.strerror(short))

    (watched.folder / "a").write_bytes(CT)
    with monkeypatch.context() as now, pytest.raises(Retry, match=r"import\.no-memory"):
        now.setattr(os, "memfd_create", none_left)
        watched.look_twice()
    assert watched.left() == {"a"}
    watched.inbox.look()
    assert watched.left() == set()
    assert len(watched.received) == 1


def test_links_pipes_and_linked_folders_are_neither_followed_nor_removed(watched: Watched, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "x.dcm").write_bytes(CT)
    (watched.folder / "link").symlink_to(secret / "x.dcm")
    (watched.folder / "folder").symlink_to(secret)
    os.mkfifo(watched.folder / "fifo")
    watched.look_twice()
    assert watched.received == []
    assert (secret / "x.dcm").exists()
    assert watched.inbox.counts.refused == 3


def test_a_rejected_folder_that_is_a_link_moves_nothing_out(watched: Watched, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (watched.folder / REJECTED).symlink_to(outside)
    (watched.folder / "notes").write_text("no image")
    with pytest.raises(OSError, match=r"(?i)not a directory|symbolic"):
        watched.look_twice()
    assert list(outside.iterdir()) == []
    assert (watched.folder / "notes").exists()


def test_nothing_is_removed_while_the_receiver_has_no_room_or_fails(watched: Watched) -> None:
    (watched.folder / "a").write_bytes(CT)
    watched.room = False
    with pytest.raises(Retry, match=r"receive\.no-room"):
        watched.look_twice()
    assert watched.left() == {"a"}
    watched.room = True
    watched.inbox.look()
    assert watched.left() == set()

    def fail(_one: IdentifiedInstance) -> Receipt:
        raise EdgeNodeError("store.key-churn", "churned")

    watched.accept = fail
    (watched.folder / "b").write_bytes(CT)
    watched.look_twice()
    assert len([name for name in watched.left() if not name.endswith(".txt")]) == 1


def test_a_file_that_is_replaced_while_it_is_taken_is_taken_too(watched: Watched) -> None:
    path = watched.folder / "a"
    path.write_bytes(CT)
    other = bytes(reversed(CT[-1000:]))

    def replace(_one: IdentifiedInstance) -> Receipt:
        if len(watched.received) == 1:
            (watched.folder / "new.part").write_bytes(CT[:-1000] + other)
            (watched.folder / "new.part").rename(path)
        return Receipt(Received.STORED, "S")

    watched.accept = replace
    watched.look_twice()
    watched.look_twice()
    assert [one.dataset[-1000:] == other for one in watched.received] == [False, True]
    assert watched.left() == set()


def test_the_watch_outlives_a_folder_that_goes_away(watched: Watched) -> None:
    stop = threading.Event()
    away = watched.folder.with_name("away")
    watched.folder.rename(away)
    thread = threading.Thread(target=watched.inbox.watch, args=(stop,))
    thread.start()
    end = time.monotonic() + 5
    while watched.inbox.counts.state != "import.not-readable":
        assert time.monotonic() < end
        time.sleep(0.02)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
