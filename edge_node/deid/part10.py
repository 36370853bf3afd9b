"""DICOM files (PS3.10) as instances, read without decoding a value; and back again for readers that want a file."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from edge_node.deid import bitstream, wire
from edge_node.deid.wire import Element, Malformed, Node, Syntax
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance

_HEAD = 1 << 16  # bytes that nearly always hold file meta information
_SYNTAX, _CLASS, _INSTANCE = 0x00020010, 0x00080016, 0x00080018


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
            start, transfer_syntax = _file_meta(data)
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
    start, transfer_syntax = _file_meta(data)
    return _instance(data[start:], transfer_syntax)


def _instance(dataset: bytes, transfer_syntax: str) -> IdentifiedInstance:
    syntax = bitstream.syntax_of(transfer_syntax)
    try:
        head = wire.inflate_some(dataset) if syntax.deflated else dataset[:_HEAD]
        some = wire.parse_some(head, syntax, _INSTANCE)
    except (RecursionError, ValueError, struct.error):
        some = {}
    sop_class, sop_instance = wire.ascii_text(some, _CLASS), wire.ascii_text(some, _INSTANCE)
    if not sop_class or not sop_instance:
        raise Quarantine("deid.no-uid", "SOP Class or SOP Instance UID is missing: this is no composite object")
    return IdentifiedInstance(
        dataset=dataset,
        transfer_syntax=transfer_syntax,
        sop_class=sop_class,
        sop_instance=sop_instance,
        calling_ae="FILE",
        called_ae="EDGENODE",
        peer="",
        received_at=time.time(),
    )


def _goes_on(head: bytes) -> bool:
    """Whether the file meta group may go on behind the beginning of a file."""
    try:
        return wire.group_end(head, 132, 0x0002, {}) + 8 > len(head)
    except Malformed:
        return True


def _file_meta(data: bytes) -> tuple[int, str]:
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
    return start, transfer_syntax


def part10_of(instance: IdentifiedInstance) -> bytes:
    """The received data set as a DICOM file in memory, for readers that need one."""
    meta = wire.encode({_SYNTAX: Element(_SYNTAX, "UI", instance.transfer_syntax.encode())}, Syntax())
    length = wire.encode({0x00020000: Element(0x00020000, "UL", struct.pack("<L", len(meta)))}, Syntax())
    return b"".join((bytes(128), b"DICM", length, meta, instance.dataset))
