"""DICOM files (PS3.10) as instances, read without decoding a value; and back again for readers that want a file."""

from __future__ import annotations

import re
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from edge_node.deid import bitstream, wire
from edge_node.deid.wire import Element, Malformed, Node, Syntax
from edge_node.domain.body import Memory
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance

_HEAD = 1 << 16  # bytes that nearly always hold file meta information
_SYNTAX, _CLASS, _INSTANCE = 0x00020010, 0x00080016, 0x00080018
_STUDY = 0x0020000D
_META_CLASS, _META_INSTANCE = 0x00020002, 0x00020003
_UID_SHAPE = re.compile(r"[0-9.]{1,64}")
HEAD_BYTES = 1 << 18  # of a file, for `file_head`


@dataclass(frozen=True, slots=True, repr=False)
class FileHead:
    """What the beginning of a DICOM file says: where the data set starts, how it is encoded, what it is."""

    start: int
    transfer_syntax: str
    sop_class: str
    sop_instance: str
    study: str = ""

    def __repr__(self) -> str:
        return "<FileHead>"


def file_head(data: bytes, *, with_study: bool = False) -> FileHead:
    """From the first HEAD_BYTES of a file. The UIDs are the data set's, file meta's where it does not say them.

    The Study Instance UID lies further in and is looked for only if asked for.

    Raises Quarantine ``deid.not-dicom``, ``deid.malformed`` (file meta), ``deid.no-uid``.
    """
    start, transfer_syntax, meta = _file_meta(data)
    if not _UID_SHAPE.fullmatch(transfer_syntax):
        raise Quarantine("deid.malformed", "the file meta information cannot be read")
    try:
        last = _STUDY if with_study else _INSTANCE
        some = _identification(data[start : start + _HEAD], bitstream.syntax_of(transfer_syntax), last)
    except Quarantine:  # a transfer syntax that nobody reads is for the door behind to judge
        some = {}
    sop_class = _uid(some, _CLASS) or _uid(meta, _META_CLASS)
    sop_instance = _uid(some, _INSTANCE) or _uid(meta, _META_INSTANCE)
    if not sop_class or not sop_instance:
        raise _no_uid()
    return FileHead(start, transfer_syntax, sop_class, sop_instance, _uid(some, _STUDY))


def instance_from_file(path: Path) -> IdentifiedInstance:
    """The object of a DICOM file as if it had been received; its UIDs are those of the data set, not of file meta.

    Raises Quarantine ``deid.not-readable`` (the file system says so), ``deid.not-dicom`` (no PS3.10 file),
    ``deid.unsupported-transfer-syntax``, ``deid.malformed``, ``deid.no-uid``. No message carries a value.
    """
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read(_HEAD)
            whole = len(data) < _HEAD
            if not whole and _goes_on(data):
                data += file.read()
                whole = True
            start, transfer_syntax, _ = _file_meta(data)
            if whole:
                dataset = data[start:]
            else:
                file.seek(start)  # pixels are read once, and to where they stay
                dataset = file.read()
    except OSError as error:
        raise Quarantine("deid.not-readable", f"the file cannot be read: {error.strerror}") from None
    return _instance(dataset, transfer_syntax)


def instance_from_bytes(data: bytes) -> IdentifiedInstance:
    """Like `instance_from_file`, of the bytes of a file."""
    start, transfer_syntax, _ = _file_meta(data)
    return _instance(data[start:], transfer_syntax)


def _instance(dataset: bytes, transfer_syntax: str) -> IdentifiedInstance:
    some = _identification(dataset, bitstream.syntax_of(transfer_syntax))
    sop_class, sop_instance = wire.ascii_text(some, _CLASS), wire.ascii_text(some, _INSTANCE)
    if not sop_class or not sop_instance:
        raise _no_uid()
    return IdentifiedInstance(
        source=Memory(dataset),
        transfer_syntax=transfer_syntax,
        sop_class=sop_class,
        sop_instance=sop_instance,
        calling_ae="FILE",
        called_ae="EDGENODE",
        peer="",
        received_at=time.time(),
    )


def _identification(dataset: bytes, syntax: Syntax, last: int = _INSTANCE) -> Node:
    try:
        head = wire.inflate_some(dataset) if syntax.deflated else dataset[:_HEAD]
        return wire.parse_some(head, syntax, last)
    except (RecursionError, ValueError, struct.error):
        return {}


def _uid(node: Node, tag: int) -> str:
    text = wire.ascii_text(node, tag)
    return text if _UID_SHAPE.fullmatch(text) else ""


def _no_uid() -> Quarantine:
    return Quarantine("deid.no-uid", "SOP Class or SOP Instance UID is missing: this is no composite object")


def _goes_on(head: bytes) -> bool:
    """Whether the file meta group may go on behind the beginning of a file."""
    try:
        return wire.group_end(head, 132, 0x0002, {}) + 8 > len(head)
    except Malformed:
        return True


def _file_meta(data: bytes) -> tuple[int, str, Node]:
    """Where the data set starts and how it is encoded. The group length is not believed: the group is walked."""
    if data[128:132] != b"DICM":
        raise Quarantine("deid.not-dicom", "this is no DICOM file (PS3.10): the prefix DICM is missing")
    found: Node = {}
    try:
        start = wire.group_end(data, 132, 0x0002, found)
    except Malformed:
        raise Quarantine("deid.malformed", "the file meta information cannot be read") from None
    transfer_syntax = wire.ascii_text(found, _SYNTAX)
    if not transfer_syntax:
        raise Quarantine("deid.not-dicom", "the file meta information names no transfer syntax")
    return start, transfer_syntax, found


def part10_of(instance: IdentifiedInstance) -> bytes:
    """The received data set as a DICOM file in memory, for readers that need one."""
    meta = wire.encode({_SYNTAX: Element(_SYNTAX, "UI", instance.transfer_syntax.encode())}, Syntax())
    length = wire.encode({0x00020000: Element(0x00020000, "UL", struct.pack("<L", len(meta)))}, Syntax())
    return b"".join((bytes(128), b"DICM", length, meta, instance.dataset))
