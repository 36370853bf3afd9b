"""What the check says of two objects that a test has written by hand."""

from __future__ import annotations

import struct

from edge_node.deid.verify import verify
from edge_node.domain.errors import Quarantine
from tests.unit.deid.elements import BIG, EXPLICIT, IMPLICIT, sent

UIDS = {EXPLICIT: "1.2.840.10008.1.2.1", IMPLICIT: "1.2.840.10008.1.2", BIG: "1.2.840.10008.1.2.2"}
NOBODY = frozenset[int]()
Elements = list[tuple[int, str, bytes]]


def a_file(data: bytes, meta: bytes = b"", preamble: bytes = bytes(128)) -> bytes:
    group = meta or sent(EXPLICIT, 0x00020010, "UI", b"1.2\0")
    return preamble + b"DICM" + sent(EXPLICIT, 0x00020000, "UL", struct.pack("<L", len(group))) + group + data


def verdict(
    was: Elements,
    now: Elements,
    kept: frozenset[int] = NOBODY,
    private: frozenset[tuple[int, str, int]] = frozenset(),
    syntax: str = UIDS[EXPLICIT],
) -> str:
    form = next((form for form, uid in UIDS.items() if uid == syntax), EXPLICIT)
    source, clean = (b"".join(sent(form, *one) for one in elements) for elements in (was, now))
    return said_of(source, a_file(clean), syntax, kept, private)


def said_of(
    source: bytes,
    part10: bytes,
    syntax: str = UIDS[EXPLICIT],
    kept: frozenset[int] = NOBODY,
    private: frozenset[tuple[int, str, int]] = frozenset(),
) -> str:
    try:
        verify(source, syntax, part10, kept, private)
    except Quarantine as error:
        where = error.message.partition(" is still in ")[2].removesuffix(" of the clean one")
        return error.code.removeprefix("deid.") + (f" in {where}" if where else "")
    return "passed"
