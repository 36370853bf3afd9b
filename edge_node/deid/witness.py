"""The check's own reader of data sets (PS3.5 7): written apart from the executor's, so that they do not err alike.

Where the executor builds a tree to change, this lists what is said where. Values stay bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR

_NONE = 0xFFFFFFFF
_FOUR = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"))
_TWO = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_DEEPEST = 40
_vrs: dict[int, str] = {}


class Unreadable(Exception):
    """These bytes are no data set. Carries no text of theirs."""


class Seen(NamedTuple):
    """One value where it stands: `path` is tag, item number, tag, … of the sequences around it and its own tag."""

    path: tuple[int, ...]
    tag: int
    vr: str
    value: bytes
    encoding: str  # Python's name for the character set that holds here, "" if none is declared


def vr_of(tag: int) -> str:
    """VR of a tag by the data dictionary, two letters; "private" or "UN" where it has none."""
    vr = _vrs.get(tag)
    if vr is None:
        try:
            vr = "private" if tag >> 16 & 1 else str(dictionary_VR(tag))[:2]
        except KeyError:
            vr = "UN"
        if len(_vrs) < 20_000:
            _vrs[tag] = vr
    return vr


def witness(data: bytes, *, implicit: bool, big: bool) -> list[Seen]:
    """Everything an encoded data set says, at any depth. Raises Unreadable."""
    found: list[Seen] = []
    reader = _Reader(data, big)
    reader.list_level(reader.level(0, len(data), implicit, False, 0)[0], (), "", found)
    return found


def witness_file(part10: bytes, *, implicit: bool, big: bool) -> tuple[list[Seen], list[Seen]]:
    """File meta information and data set of a Part 10 file. Raises Unreadable."""
    if part10[128:132] != b"DICM" or part10[132:138] != b"\2\0\0\0UL":
        raise Unreadable
    end = 144 + int.from_bytes(part10[140:144], "little")
    if end > len(part10):
        raise Unreadable
    return witness(part10[132:end], implicit=False, big=False), witness(part10[end:], implicit=implicit, big=big)


# tag, VR, first and last byte of the value, items of a sequence
_Raw = tuple[int, str, int, int, "list[list[_Raw]] | None"]


class _Reader:
    def __init__(self, data: bytes, big: bool) -> None:
        self.data = data
        mark = ">" if big else "<"
        self.tag = Struct(mark + "HH").unpack_from
        self.explicit = Struct(mark + "HH2sH").unpack_from
        self.implicit = Struct(mark + "HHL").unpack_from
        self.length = Struct(mark + "L").unpack_from
        self.big = big

    def level(self, at: int, end: int, implicit: bool, open_ended: bool, depth: int) -> tuple[list[_Raw], int]:
        if depth > _DEEPEST:
            raise Unreadable
        data = self.data
        found: list[_Raw] = []
        while at < end:
            if end - at < 8:
                raise Unreadable
            if implicit:
                group, number, length = self.implicit(data, at)
                tag = group << 16 | number
                vr = vr_of(tag)
                at += 8
            else:
                group, number, code, length = self.explicit(data, at)
                tag = group << 16 | number
                if group == 0xFFFE:
                    (length,) = self.length(data, at + 4)
                elif code in _FOUR:
                    if end - at < 12:
                        raise Unreadable
                    (length,) = self.length(data, at + 8)
                    at += 4
                elif code not in _TWO:
                    raise Unreadable
                vr = code.decode("latin-1")
                at += 8
            if group == 0xFFFE:
                if tag == 0xFFFEE00D and open_ended and not length:
                    return found, at
                raise Unreadable
            if length == _NONE:
                items, stop, at_next = self.endless(at, end, vr, implicit, depth)
                found.append((tag, vr, at, stop, items))
                at = at_next
                continue
            if at + length > end:
                raise Unreadable
            items = self.items(at, at + length, implicit, False, depth)[0] if vr == "SQ" else None
            found.append((tag, vr, at, at + length, items))
            at += length
        if open_ended:
            raise Unreadable
        return found, at

    def endless(
        self, at: int, end: int, vr: str, implicit: bool, depth: int
    ) -> tuple[list[list[_Raw]] | None, int, int]:
        if vr == "SQ":
            items, after = self.items(at, end, implicit, True, depth)
            return items, after, after
        if vr in ("UN", "private"):
            items, after = (_Reader(self.data, False) if self.big else self).items(at, end, True, True, depth)
            return items, after, after
        while True:  # encapsulated: items of bytes up to the delimiter
            if end - at < 8:
                raise Unreadable
            group, number, length = self.implicit(self.data, at)
            if (group, number) == (0xFFFE, 0xE0DD):
                return None, at, at + 8
            if (group, number) != (0xFFFE, 0xE000) or at + 8 + length > end:
                raise Unreadable
            at += 8 + length

    def items(self, at: int, end: int, implicit: bool, open_ended: bool, depth: int) -> tuple[list[list[_Raw]], int]:
        found: list[list[_Raw]] = []
        while at < end:
            if end - at < 8:
                raise Unreadable
            group, number, length = self.implicit(self.data, at)
            at += 8
            if (group, number) == (0xFFFE, 0xE0DD) and open_ended:
                return found, at
            if (group, number) != (0xFFFE, 0xE000) or (length != _NONE and at + length > end):
                raise Unreadable
            stop = end if length == _NONE else at + length
            level, at = self.level(at, stop, implicit, length == _NONE, depth + 1)
            found.append(level)
        if open_ended:
            raise Unreadable
        return found, at

    def list_level(self, level: list[_Raw], path: tuple[int, ...], encoding: str, found: list[Seen]) -> None:
        for tag, _, start, stop, _ in level:
            if tag == 0x00080005:
                encoding = _encoding(self.data[start:stop])
                break
        for tag, vr, start, stop, items in level:
            if items is None:
                found.append(Seen((*path, tag), tag, vr, self.data[start:stop], encoding))
            else:
                for number, item in enumerate(items):
                    self.list_level(item, (*path, tag, number), encoding, found)


def _encoding(value: bytes) -> str:
    names = [python_encoding.get(term.strip(" \0"), "") for term in value.decode("latin-1").split("\\")]
    return next((str(name) for name in reversed(names) if name), "latin-1")
