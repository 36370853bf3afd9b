"""Offset tables of encapsulated pixel data (PS3.5 A.4, PS3.3 C.7.6.3.1.8): kept only if they are nothing else.

A table is a place where anything could stand unread. One that does not name beginnings of fragments, in order, goes: it
is optional, and readers find the frames without it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence, Sized
from itertools import pairwise

from edge_node.deid.wire import Node

OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002


def begins_of(fragments: Sequence[Sized]) -> list[int]:
    """Where each fragment begins, counted from the first (behind the basic offset table)."""
    begins, position = [], 0
    for fragment in fragments:
        begins.append(position)
        position += 8 + len(fragment) + (len(fragment) & 1)
    return begins


def basic_table(table: bytes, fragments: Sequence[Sized]) -> bytes:
    """The table as it is if it holds offsets of these fragments, ascending from 0; else empty."""
    if not table or len(table) % 4 or len(table) > 4 * len(fragments):
        return b""
    return table if _are_begins(struct.unpack(f"<{len(table) // 4}L", table), fragments) else b""


def keep_extended(clean: Node, fragments: Sequence[Sized]) -> None:
    """Take the extended offset table out of `clean` unless it says of each of these fragments where it begins and how
    long it is; `fragments` is empty for pixel data that has none."""
    values = [clean[tag].value for tag in (OFFSETS, OFFSET_LENGTHS) if tag in clean]
    if len(values) == 2 and fragments and all(len(value) == 8 * len(fragments) for value in values):
        offsets, lengths = (struct.unpack(f"<{len(fragments)}Q", value) for value in values)
        # A length is that of the code stream: the fragment may have a byte more that makes it even.
        fits = all(length <= len(one) <= length + (length & 1) for one, length in zip(fragments, lengths, strict=True))
        if fits and list(offsets) == begins_of(fragments):
            return
    drop_extended(clean)


def drop_extended(clean: Node) -> None:
    """For pixel data whose fragments have changed."""
    clean.pop(OFFSETS, None)
    clean.pop(OFFSET_LENGTHS, None)


def _are_begins(offsets: Sequence[int], fragments: Sequence[Sized]) -> bool:
    return offsets[0] == 0 and all(a < b for a, b in pairwise(offsets)) and set(offsets) <= set(begins_of(fragments))
