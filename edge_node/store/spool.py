"""The sealed spool: append-only segments of sealed objects.

An object is (segment, offset, length) in the ledger. Every writer owns its segments alone and begins a new one after a
restart, so a torn tail is never appended to. The bytes are synced before the ledger row that names them commits; a
segment goes when none of its objects is kept any more. A sealed object's deletion is the destruction of its key.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_node.domain.errors import Quarantine, Retry

_SUFFIX = ".seg"
WRITE_AGE_S = 600.0  # a segment is never appended to when older than this...
SWEEP_AGE_S = 3600.0  # ...so one that is older than that has no writer
_STEP = 2 << 20  # bytes after which the disk begins with what is there
_PAGE = 4096
_WRITE_OUT = 2  # SYNC_FILE_RANGE_WRITE
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed object lies: segment name, byte offset, byte length."""

    segment: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed object piece by piece, so that a large one is never in memory twice; `length` is the sum in bytes."""

    length: int
    chunks: Iterable[bytes]


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
        self._unsynced = False

    def append(self, sealed: bytes) -> Place:
        """Write and sync one sealed object; errors as `append_all`."""
        return self.append_all([Sealed(len(sealed), (sealed,))])[0]

    def append_all(self, objects: Sequence[Sealed]) -> list[Place]:
        """Write sealed objects and sync them together; when this returns they survive a power cut.

        Raises Retry("spool.disk-full") when there is no room (what was half written is never named, nor appended to).
        """
        alone: list[str] = []
        try:
            places = []
            for one in objects:
                if one.length >= self._large_bytes:
                    name, handle = self._create()
                    alone.append(name)
                    try:
                        _write_all(handle, one, 0)
                        os.fdatasync(handle)
                    finally:
                        os.close(handle)
                    places.append(Place(name, 0, one.length))
                    continue
                full = self._offset + one.length > self._segment_bytes
                if self._handle < 0 or full or time.monotonic() - self._opened > WRITE_AGE_S:
                    self._sync()
                    self.close()
                    self._name, self._handle = self._create()
                    self._offset, self._opened = 0, time.monotonic()
                self._unsynced = True
                _write_all(self._handle, one, self._offset)
                places.append(Place(self._name, self._offset, one.length))
                self._offset += one.length
            self._sync()
            return places
        except OSError as error:
            self.close()  # a failed sync leaves the tail in doubt: never append behind it
            for name in alone:
                (self.folder / name).unlink(missing_ok=True)
            raise Retry(
                "spool.disk-full" if error.errno in (28, 122) else "spool.write-failed",
                f"a sealed object could not be written to the spool: {os.strerror(error.errno or 5)}",
                hint="free space on the data disk; `edge-node status` shows what is kept",
            ) from None

    def _sync(self) -> None:
        if self._unsynced:
            os.fdatasync(self._handle)
            self._unsynced = False

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
        self._unsynced = False
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _write_all(handle: int, sealed: Sealed, offset: int) -> None:
    """Each part of a large object is begun with on the disk while the rest is sealed: the sync, which alone promises
    anything, finds little left to wait for."""
    begun, end = offset, offset + sealed.length
    for chunk in sealed.chunks:
        view = memoryview(chunk)
        while view:
            written = os.pwrite(handle, view, offset)
            view, offset = view[written:], offset + written
        if offset - begun >= _STEP:
            begun = _write_out(handle, begun, offset)
    if offset != end:
        raise ValueError("a sealed object is not as long as it was said to be")


def _write_out(handle: int, begin: int, end: int) -> int:
    """Let the disk begin with the whole pages from `begin` on, or the last one would be written twice; gives where
    they end. What goes wrong is told by the sync."""
    whole = end - end % _PAGE
    if _sync_file_range is not None and whole > begin:
        _sync_file_range(handle, begin, whole - begin, _WRITE_OUT)
    return whole


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
