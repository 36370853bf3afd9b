"""Unpacks what somebody sends as a model package, and believes nothing of it: no paths, no links, no bombs.

A package is flat: one folder of plain files. Whatever is anything else is refused before a byte of it is written.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final, TypeVar, cast

from edge_node.domain.errors import Quarantine

MOST_ENTRIES: Final = 64  # files and folders
MOST_BYTES: Final = 8 << 30
MOST_RATIO: Final = 200  # of unpacked to packed bytes; weights hardly shrink
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BLOCK: Final = 1 << 20
_HEADERS: Final = 1 << 20  # bytes of names, attributes and maps that are read before the next file, or of a whole zip
_OPEN: Final = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\x00", lzma.open), (b"BZh", bz2.open))
_Entry = TypeVar("_Entry")


def unpack(source: Path, into: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Copy the files of a folder, .zip or .tar(.gz, .xz) into the empty folder `into`, each synced.

    Raises Quarantine ``model.archive``.
    """
    try:
        if source.is_dir():
            members: Iterator[tuple[str, IO[bytes]]] = _of_folder(source)
            budget = most_bytes
        else:
            packed = source.stat().st_size
            budget = min(most_bytes, max(packed * MOST_RATIO, _BLOCK))
            members = _of_zip(source) if zipfile.is_zipfile(source) else _of_tar(source)
        for name, stream in members:
            budget = _copy(stream, into / name, budget)
    except _TooMuch:
        raise _refused("its own description is far larger than a model package needs") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, *_PACKED) as error:
        raise _refused(f"it cannot be read ({type(error).__name__})") from None
    except OSError as error:
        raise _refused(f"it cannot be read ({error.strerror or type(error).__name__})") from None


_PACKED: Final = (zlib.error, lzma.LZMAError)


class _TooMuch(Exception):
    """What an archive says of itself, before its files, has no end."""


class _Frugal:
    """A file of which only so many bytes may be read: whoever parses an archive believes the sizes it names."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left: float = _HEADERS
        self.seekable, self.seek, self.tell = file.seekable, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > self.left:
            raise _TooMuch
        data = self._file.read(int(self.left) + 1 if size < 0 and math.isfinite(self.left) else size)
        self.left -= len(data)
        if self.left < 0:
            raise _TooMuch
        return data


def _few(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    for count, entry in enumerate(entries, 1):
        if count > MOST_ENTRIES:
            raise _refused(f"more than {MOST_ENTRIES} files and folders")
        yield entry


def _copy(stream: IO[bytes], target: Path, budget: int) -> int:
    """Write one file; counts real bytes, whatever the archive claims. Returns what is left of the budget."""
    if target.exists():
        raise _refused("two files have one name")
    with stream, target.open("xb") as out:
        while block := stream.read(_BLOCK):
            budget -= len(block)
            if budget < 0:
                raise _refused("unpacked it is far larger than a model package may be")
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    target.chmod(0o440)
    return budget


def _flat(name: str) -> str:
    """The plain file name of a member, one common folder allowed."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts or not 1 <= len(parts) <= 2:
        raise _refused("a name in it leads out of the package")
    if not all(_NAME.fullmatch(part) for part in parts):
        raise _refused("a name in it is not plain: letters, digits, dot, dash and underscore only")
    return parts[-1]


def _of_folder(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for item in sorted(_few(source.iterdir())):
        if item.is_symlink() or not item.is_file():
            raise _refused("it holds something that is no plain file")
        yield _flat(item.name), item.open("rb")


def _of_zip(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with source.open("rb") as file:
        frugal = _Frugal(file)
        archive = zipfile.ZipFile(frugal)
        frugal.left = float("inf")
        for info in _few(archive.infolist()):
            if info.is_dir():
                _flat(info.filename.rstrip("/"))
                continue
            kind = (info.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000):
                raise _refused("it holds something that is no plain file")
            if info.flag_bits & 1:
                raise _refused("it is encrypted")
            yield _flat(info.filename), archive.open(info)


def _of_tar(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with source.open("rb") as packed:
        start = packed.peek(8)
        opener = next((opener for magic, opener in _OPEN if start.startswith(magic)), None)
        file = _Frugal(cast(IO[bytes], packed if opener is None else opener(packed, "rb")))
        archive = tarfile.TarFile(fileobj=cast(IO[bytes], file))
        for info in _few(archive):
            if info.isdir():
                if info.name not in (".", "./"):
                    _flat(info.name.removeprefix("./"))
                continue
            if not info.isreg() or info.issparse():
                raise _refused("it holds something that is no plain file")
            stream = archive.extractfile(info)
            if stream is None:
                raise _refused("it holds something that is no plain file")
            file.left = float("inf")  # what is copied is counted there
            yield _flat(info.name.removeprefix("./")), stream
            file.left = _HEADERS


def _refused(why: str) -> Quarantine:
    return Quarantine(
        "model.archive",
        f"the model package is refused: {why}",
        hint="a package is a folder, .zip or .tar of plain files: `edge-node docs models`",
    )
