"""Objects to send in bytes, and the little of an association that the senders of the benchmarks need."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from scripts.bench.upper_layer import element

PDU = 65536  # of what a sender puts into one PDU, if the receiver takes that much
PLACE = b"1.2.826.0.1.3680043.10.1511.0000000000."  # beginning of every SOP Instance UID: 10 digits name the run


@dataclass(frozen=True)
class Kind:
    storage: str
    rows: int
    columns: int
    frames: int
    objects: int  # of each association


KINDS = {
    "ct": Kind("1.2.840.10008.5.1.4.1.1.2", 512, 512, 1, 60),
    "cr": Kind("1.2.840.10008.5.1.4.1.1.1", 2500, 2048, 1, 6),
    "mf": Kind("1.2.840.10008.5.1.4.1.1.2.1", 512, 512, 200, 2),
    "small": Kind("1.2.840.10008.5.1.4.1.1.2", 128, 128, 1, 200),
    "tiny": Kind("1.2.840.10008.5.1.4.1.1.2", 8, 8, 1, 200),
}


def template(kind: Kind, study: str) -> bytes:
    """A data set in explicit little endian as a modality sends it, with `PLACE` and 8 digits as SOP Instance UID."""
    texts = [
        (0x00080005, b"CS", "ISO_IR 100"),
        (0x00080008, b"CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        (0x00080016, b"UI", kind.storage),
        (0x00080018, b"UI", PLACE.decode() + "00000000"),
        (0x00080020, b"DA", "20260102"),
        (0x00080021, b"DA", "20260102"),
        (0x00080030, b"TM", "101112.345"),
        (0x00080050, b"SH", "ACC-4711-22"),
        (0x00080060, b"CS", "CT"),
        (0x00080070, b"LO", "BENCHMARK"),
        (0x00080080, b"LO", "General Hospital"),
        (0x00080090, b"PN", "Referrer^Rita"),
        (0x00081030, b"LO", "CT head without contrast"),
        (0x0008103E, b"LO", "Axial 5 mm soft tissue"),
        (0x00081050, b"PN", "Performer^Paul"),
        (0x00100010, b"PN", "Doe^Josephine^Maria"),
        (0x00100020, b"LO", "PID-0815-4242"),
        (0x00100030, b"DA", "19610504"),
        (0x00100040, b"CS", "F"),
        (0x00101010, b"AS", "064Y"),
        (0x00180015, b"CS", "HEAD"),
        (0x00180050, b"DS", "5.0"),
        (0x00180060, b"DS", "120"),
        (0x00181000, b"LO", "SERIAL-9917"),
        (0x00181030, b"LO", "HEAD ROUTINE"),
        (0x0020000D, b"UI", study),
        (0x0020000E, b"UI", study + ".1"),
        (0x00200010, b"SH", "77421"),
        (0x00200013, b"IS", "1"),
        (0x00200032, b"DS", "-125\\-125\\30.5"),
        (0x00200037, b"DS", "1\\0\\0\\0\\1\\0"),
        (0x00200052, b"UI", study + ".2"),
        (0x00280004, b"CS", "MONOCHROME2"),
        (0x00280008, b"IS", str(kind.frames)),
        (0x00280030, b"DS", "0.488\\0.488"),
        (0x00281052, b"DS", "-1024"),
        (0x00281053, b"DS", "1"),
    ]
    numbers = [(2, 1), (0x10, kind.rows), (0x11, kind.columns), (0x100, 16), (0x101, 12), (0x102, 11), (0x103, 0)]
    found = [(tag, vr, text.encode()) for tag, vr, text in texts]
    found += [(0x00280000 | number, b"US", struct.pack("<H", value)) for number, value in numbers]
    found.sort()
    pixels = os.urandom(4096) * (kind.rows * kind.columns * kind.frames * 2 // 4096 + 1)
    found.append((0x7FE00010, b"OW", pixels[: kind.rows * kind.columns * kind.frames * 2]))
    spaced = {b"UI": b"\0", b"OW": b"\0", b"US": b"\0"}
    return b"".join(element(t, vr, v + spaced.get(vr, b" ") * (len(v) & 1)) for t, vr, v in found)


def read_pdu(line: socket.socket) -> bytes:
    head = _exactly(line, 6)
    return head + _exactly(line, int.from_bytes(head[2:], "big"))


def status_of(answer: bytes) -> int | None:
    """Status (0000,0900), US (PS3.7 E.1), of a response; None where it has none."""
    at = answer.find(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    return int.from_bytes(answer[at + 8 : at + 10], "little") if at >= 0 else None


def is_success(answer: bytes) -> bool:
    """Whether a C-STORE response has the status Success."""
    return status_of(answer) == 0


def _exactly(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = line.recv(size - len(found))
        if not piece:
            raise RuntimeError("the receiver has closed the association")
        found += piece
    return found


def largest(accepted: bytes) -> int:
    """Maximum length of an A-ASSOCIATE-AC (PS3.8 D.1); 0 means no limit."""
    at = accepted.find(b"\x51\x00\x00\x04")
    return int.from_bytes(accepted[at + 4 : at + 8], "big") or PDU
