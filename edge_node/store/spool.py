"""The sealed spool: append-only segments of sealed objects.

An object is (segment, offset, length) in the ledger. Every writer owns its segments alone and begins a new one after a
restart, so a torn tail is never appended to. The bytes are synced before the ledger row that names them commits; a
segment goes when none of its objects is kept any more. A sealed object's deletion is the destruction of its key.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from edge_node.domain.errors import Quarantine, Retry

_SUFFIX = ".seg"
WRITE_AGE_S = 600.0  # a segment is never appended to when older than this...
SWEEP_AGE_S = 3600.0  # ...so one that is older than that has no writer


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed object lies: segment name, byte offset, byte length."""

    segment: str
    offset: int
    length: int


def sync_directory(path: Path) -> None:
    """fsync a directory, so that the names in it survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SpoolWriter:
    """Appends sealed objects; one instance per process and thread.

    `segment_bytes` closes a segment; objects of `large_bytes` or more get a segment of their own, so that
    their room comes back as soon as they are done with.
    """

    def __init__(self, folder: Path, *, segment_bytes: int, large_bytes: int) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._large_bytes = large_bytes
        self._name = ""
        self._handle = -1
        self._offset = 0
        self._opened = 0.0

    def append(self, sealed: bytes) -> Place:
        """Write and sync one sealed object; when this returns it survives a power cut.

        Raises Retry("spool.disk-full") when there is no room (the half-written tail is cut off again).
        """
        try:
            if len(sealed) >= self._large_bytes:
                return self._alone(sealed)
            full = self._offset + len(sealed) > self._segment_bytes
            if self._handle < 0 or full or time.monotonic() - self._opened > WRITE_AGE_S:
                self.close()
                self._name, self._handle = self._create()
                self._offset, self._opened = 0, time.monotonic()
            offset = self._offset
            try:
                _write_all(self._handle, sealed, offset)
                os.fdatasync(self._handle)
            except OSError:
                self.close()  # a failed sync leaves the tail in doubt: never append behind it
                raise
            self._offset = offset + len(sealed)
            return Place(self._name, offset, len(sealed))
        except OSError as error:
            raise Retry(
                "spool.disk-full" if error.errno in (28, 122) else "spool.write-failed",
                f"a sealed object could not be written to the spool: {os.strerror(error.errno or 5)}",
                hint="free space on the data disk; `edge-node status` shows what is kept",
            ) from None

    def _alone(self, sealed: bytes) -> Place:
        name, handle = self._create()
        try:
            _write_all(handle, sealed, 0)
            os.fdatasync(handle)
        except OSError:
            (self.folder / name).unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        return Place(name, 0, len(sealed))

    def _create(self) -> tuple[str, int]:
        name = secrets.token_hex(12) + _SUFFIX
        handle = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            sync_directory(self.folder)
        except OSError:
            os.close(handle)
            raise
        return name, handle

    def close(self) -> None:
        """Close the open segment; the next append begins a new one."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


class SpoolReader:
    """Reads sealed objects by place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, place: Place) -> bytes:
        """The sealed bytes. Raises Quarantine("spool.object-missing") when they are not there."""
        try:
            with (self.folder / place.segment).open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
        except FileNotFoundError:
            data = b""
        if len(data) != place.length:
            raise Quarantine(
                "spool.object-missing",
                f"{place.length} bytes at {place.offset} of segment {place.segment} are not there",
                hint="check the data disk; restore the spool from its backup",
            )
        return data


def free_bytes(folder: Path) -> int:
    """Bytes free for the node on the disk of `folder`."""
    return shutil.disk_usage(folder).free


def idle_segments(folder: Path) -> list[str]:
    """Names of the segments that no writer appends to any more."""
    old = time.time() - SWEEP_AGE_S
    return [e.name for e in os.scandir(folder) if e.name.endswith(_SUFFIX) and e.stat().st_mtime < old]


def remove_segment(folder: Path, name: str) -> int:
    """Delete one segment; returns the bytes it held (0 when it was gone)."""
    path = folder / name
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    sync_directory(folder)
    return size
