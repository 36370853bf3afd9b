"""Code streams written by hand: whole, and segment by segment."""

from __future__ import annotations

import struct

NAME = b"Beeblebrox^Zaphod"


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


TABLE = segment(0xDB, b"\0" + bytes(range(64)))
WIDE = segment(0xDB, b"\x13" + bytes(128))
HUFFMAN = segment(0xC4, bytes(17))
FRAME = segment(0xC0, b"\x08\0\4\0\4\1\1\x11\0")
SCAN = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x12\xff\0\x34\xff\xd0\x56"
SIZES = segment(0x51, bytes(38))
TILE = segment(0x90, b"\0\0" + struct.pack(">L", 14 + 4) + b"\0\1") + b"\xff\x93" + b"tile"


def jpeg(*parts: bytes) -> bytes:
    whole = b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"
    return whole + b"\0" * (len(whole) & 1)


def j2k(*parts: bytes) -> bytes:
    whole = b"\xff\x4f" + SIZES + b"".join(parts) + TILE + b"\xff\xd9"
    return whole + b"\0" * (len(whole) & 1)


PLAIN = jpeg(TABLE, WIDE, FRAME, HUFFMAN, SCAN)


def rle(count: int, *begins: int, data: bytes = b"\3abcd\0") -> bytes:
    return struct.pack("<16L", count, *begins, *[0] * (15 - len(begins))) + data
