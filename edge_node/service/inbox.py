"""The watched folder: a file that lies still is taken in and removed; what cannot be taken goes to ``rejected``.

Others write to this folder, so nothing in it is trusted: every folder is opened by handle without following links,
and a file is removed only if its name still means the file that was taken. Names that we make hold no identity.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from edge_node.domain.errors import Retry
from edge_node.service.handing import Handed, Sender, hand_in

log = structlog.get_logger()

REJECTED = "rejected"
UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".crdownload")  # of programs that copy, until they are done
DEEPEST = 32
_Seen = tuple[int, int, int, int]


@dataclass(slots=True)
class Counts:
    """What the folder did since it was watched."""

    taken: int = 0
    rejected: int = 0
    waiting: int = 0
    refused: int = 0  # links, pipes and the like that lie there now
    state: str = "watching"


@dataclass(slots=True)
class _Wait:
    seen: _Seen
    since: float
    looked: int = field(default=0)


class Inbox:
    """Watches `folder`. One `look` goes over it once; `still_s` seconds without a change make a file ready."""

    def __init__(self, folder: Path, sender: Sender, still_s: float) -> None:
        self._folder = folder
        self._sender = sender
        self._still_s = still_s
        self._waits: dict[tuple[int, int], _Wait] = {}
        self._look = 0
        self.counts = Counts()

    def watch(self, stop: threading.Event) -> None:
        """Look until told to stop."""
        pause = min(2.0, self._still_s / 2)
        while not stop.wait(pause):
            try:
                self.look(stop)
                self.counts.state = "watching"
            except Retry as error:
                self.counts.state = error.code
                stop.wait(5.0)
            except OSError as error:  # the share is away: it comes back
                if self.counts.state != "import.not-readable":
                    log.warning("inbox.unreadable", code="import.not-readable", reason=os.strerror(error.errno or 0))
                self.counts.state = "import.not-readable"
                stop.wait(5.0)

    def look(self, stop: threading.Event | None = None) -> None:
        """Take in what is ready. Raises Retry when the receiver takes nothing now, OSError when the folder is away."""
        self._look += 1
        self.counts.waiting = self.counts.refused = 0
        root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for folder, name in _entries(root, 0):
                if stop is not None and stop.is_set():
                    return
                self._consider(root, folder, name)
        finally:
            os.close(root)
        self._waits = {key: wait for key, wait in self._waits.items() if wait.looked == self._look}

    def _consider(self, root: int, folder: int, name: str) -> None:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(status.st_mode):
            self.counts.refused += 1
            return
        key, seen = (status.st_dev, status.st_ino), _seen(status)
        wait = self._waits.get(key)
        if wait is None or wait.seen != seen:
            wait = self._waits[key] = _Wait(seen, time.monotonic())
        wait.looked = self._look
        if time.monotonic() - wait.since < self._still_s or name.lower().endswith(UNFINISHED):
            self.counts.waiting += 1
            return
        try:
            handed = hand_in(self._sender, name, folder)
        except Retry as error:
            if error.code != "import.file-changes":
                raise
            self.counts.waiting += 1
            return
        if _now(name, folder) != seen:  # another file of that name, or more of it: it has its own turn
            self.counts.waiting += 1
            return
        del self._waits[key]
        if handed.safe:
            os.unlink(name, dir_fd=folder)
            self.counts.taken += 1
        else:
            self._reject(root, folder, name, handed)

    def _reject(self, root: int, folder: int, name: str, handed: Handed) -> None:
        with suppress(FileExistsError):
            os.mkdir(REJECTED, 0o750, dir_fd=root)
        target = os.open(REJECTED, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        try:
            token = f"{time.strftime('%Y%m%d')}-{secrets.token_hex(6)}"
            os.rename(name, token, src_dir_fd=folder, dst_dir_fd=target)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(f"{token}.reason.txt", flags, 0o640, dir_fd=target), "w", encoding="utf-8") as note:
                note.write(f"{handed.code}: {handed.reason}\n")
        finally:
            os.close(target)
        self.counts.rejected += 1
        log.warning("inbox.rejected", code=handed.code, count=self.counts.rejected)


def _entries(folder: int, depth: int) -> Iterator[tuple[int, str]]:
    """(open folder, name) of everything below that is no folder; hidden names and the rejected are left alone."""
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") or (depth == 0 and name == REJECTED):
            continue
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            yield folder, name
            continue
        try:
            if depth < DEEPEST:
                yield from _entries(inner, depth + 1)
        finally:
            os.close(inner)


def _seen(status: os.stat_result) -> _Seen:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _now(name: str, folder: int) -> _Seen | None:
    try:
        return _seen(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError:
        return None
