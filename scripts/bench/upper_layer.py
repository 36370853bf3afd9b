"""Associations as bytes (PS3.8 9.3), for scripts that speak faster, or worse, than a library would."""

from __future__ import annotations

import struct
from collections.abc import Iterator

LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
CT, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1"
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90"]


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def request(calling: bytes, called: bytes = b"EDGENODE", storage: str = CT) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2): Verification is context 1, a storage class in four syntaxes is 3, 5, 7 and 9."""
    contexts = [(1, VERIFICATION, SYNTAXES[1]), *((3 + 2 * n, storage, syntax) for n, syntax in enumerate(SYNTAXES))]
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16), calling.ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract, transfer in contexts:
        head = bytes((number, 0, 0, 0))
        body += item(0x20, head + item(0x30, abstract.encode()) + item(0x40, transfer.encode()))
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") + item(0x55, b"BENCH")
    return pdu(1, body + item(0x50, user))


def command(number: int, instance: str, storage: str = CT) -> bytes:
    """C-STORE-RQ (PS3.7 9.3.1)."""
    fields = [(0x0002, storage.encode()), (0x0100, struct.pack("<H", 1)), (0x0110, struct.pack("<H", number))]
    fields += [(0x0700, b"\0\0"), (0x0800, b"\1\0"), (0x1000, instance.encode())]
    coded = b"".join(struct.pack("<HHL", 0, e, len(v) + (len(v) & 1)) + v + b"\0" * (len(v) & 1) for e, v in fields)
    return struct.pack("<HHLL", 0, 0, 4, len(coded)) + coded


def data(context: int, control: int, fragment: bytes) -> bytes:
    """P-DATA-TF with one fragment: `control` 1 is a command, 2 the last one."""
    return pdu(4, struct.pack(">LBB", len(fragment) + 2, context, control) + fragment)


def store(number: int, instance: str, body: bytes, context: int = 3) -> list[bytes]:
    """The PDUs of one C-STORE request."""
    cuts = [body[at : at + 4096] for at in range(0, len(body), 4096)] or [b""]
    fragments = [data(context, 2 * (at == len(cuts) - 1), cut) for at, cut in enumerate(cuts)]
    return [data(context, 3, command(number, instance)), *fragments]


def pdus(stream: bytes) -> Iterator[int]:
    """Types of the PDUs in what a peer has sent."""
    at = 0
    while at + 6 <= len(stream):
        yield stream[at]
        at += 6 + int.from_bytes(stream[at + 2 : at + 6], "big")


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One element in explicit little endian; `length` is what it says of its own length."""
    length = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in LONG:
        return head + struct.pack("<2xL", length) + value
    return head + struct.pack("<H", length & 0xFFFF) + value
