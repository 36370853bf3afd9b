"""Stretches of bytes that come again in the next object, and what was made of them.

The instances of a series have most of their header in common, but for a UID, a number, a position here and there. This
keeps what lies between those: how it is divided is learned from the objects themselves. It knows nothing of DICOM: who
uses it reads single elements, and makes of a stretch whatever depends on nothing but its bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Generic, TypeVar

Made = TypeVar("Made")
Place = tuple[int, int]  # first byte, first byte behind it

SHORTEST = 3  # elements of a stretch: fewer are read as quickly as they are found
LONGEST_ELEMENT = 4096  # bytes: a longer one is in no stretch
LONGEST = 1 << 14  # bytes of a stretch
MOST_BYTES = 1 << 17  # of all stretches: some dozens of series
MOST_READ = 512  # elements of one object that are read one by one: more are read at once, and not learned from
MOST_ALIKE = 8  # stretches that begin with the same tag, kind and length
MOST_SEEN = 1024
EVERY = 8
_HEAD = 8  # bytes of an element that say what it is


class _Stretch(Generic[Made]):
    __slots__ = ("elements", "made", "raw", "used")

    def __init__(self, raw: bytes, elements: list[bytes], made: Made) -> None:
        self.raw = raw
        self.elements = elements
        self.made = made
        self.used = False


class Stretches(Generic[Made]):
    """What was made of stretches, by their bytes. Safe to share between threads; never shows what it keeps.

    `make` gets the bytes of a stretch and the number of its elements; it gives None for one that shall not be kept.
    """

    def __init__(self, make: Callable[[bytes, int], Made | None]) -> None:
        self._make = make
        self._known: dict[bytes, tuple[_Stretch[Made], ...]] = {}  # empty for a beginning that never comes again
        self._bytes = 0
        self._seen: dict[int, int] = {}
        self._learning = threading.Lock()

    def __repr__(self) -> str:
        return f"<Stretches, {self._bytes} bytes>"

    def walk(
        self, data: bytes, at: int, end: int, one: Callable[[int], int], take: Callable[[Made], None], stop: int = -1
    ) -> int:
        """Go through `data` from `at` to `end`, at least: `take` gets what is known of a stretch, `one` reads the
        element at a place and gives the place behind it, or the same place to stop there. No stretch touches `stop`.

        Gives the place behind the last, which is before `end` too where so much was read one by one that the rest had
        better be read at once. Raises what `one` raises.
        """
        known, read = self._known.get, list[Place]()
        missed: dict[_Stretch[Made], None] = {}
        alone = 0
        while at < end:
            alike = known(data[at : at + _HEAD])
            if alike:
                for stretch in alike:
                    if data.startswith(stretch.raw, at):
                        behind = at + len(stretch.raw)
                        break
                else:
                    behind = 0
                    missed.update(dict.fromkeys(alike))
                if behind and behind <= end and not at <= stop <= behind:
                    stretch.used = True
                    take(stretch.made)
                    at = behind
                    continue
            if alone == MOST_READ:
                return at
            alone += 1
            behind = one(at)
            if behind <= at:
                break
            if not at <= stop <= behind:
                read.append((at, behind))
            at = behind
        if len(read) >= SHORTEST and self._may_learn(data, read):
            with self._learning:
                self._learn(data, read, missed)
        return at

    def _may_learn(self, data: bytes, read: list[Place]) -> bool:
        """Whether to learn from what was read one by one: if it begins as it often did, only one time in `EVERY`.

        What differs in each object of a series is read each time, and nothing is to be learned from it any more.
        """
        key = hash(b"".join([data[at : at + _HEAD] for at, _ in read]))
        times = self._seen.get(key, 0) + 1
        if times == 1 and len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen[key] = times
        return times <= SHORTEST or times % EVERY == 0

    def _learn(self, data: bytes, read: list[Place], missed: dict[_Stretch[Made], None]) -> None:
        """Keep what was read one by one; where something like it was known, divide both where they differ."""
        same: set[bytes] = set()
        if missed:
            elements = {data[at:behind] for at, behind in read if behind - at <= LONGEST_ELEMENT}
            for stretch in missed:
                if any(len(piece) >= SHORTEST for equal, piece in _pieces(stretch, elements) if equal):
                    same.update(elements.intersection(stretch.elements))
                    self._divide(stretch, elements)
        piece: list[bytes] = []
        was_same, last, size = False, read[0][0], 0
        for at, behind in read:
            element = data[at:behind] if behind - at <= LONGEST_ELEMENT else b""
            is_same = element in same
            if at != last or not element or is_same is not was_same or size + len(element) > LONGEST:
                self._keep(piece)
                piece, size = [], 0
            if element:
                piece.append(element)
                size += len(element)
            was_same, last = is_same, behind
        self._keep(piece)

    def _divide(self, stretch: _Stretch[Made], there: set[bytes]) -> None:
        head = stretch.raw[:_HEAD]
        alike = self._known.get(head, ())
        if stretch in alike:
            self._bytes -= len(stretch.raw)
            others = tuple(one for one in alike if one is not stretch)
            if others:
                self._known[head] = others
            else:
                self._known.pop(head, None)
        for equal, piece in _pieces(stretch, there):
            if not equal:
                self._keep(piece)

    def _keep(self, elements: list[bytes]) -> None:
        first = 0
        while len(elements) - first >= SHORTEST and self._known.get(elements[first][:_HEAD]) == ():
            first += 1
        elements = elements[first:]
        if len(elements) < SHORTEST:
            return
        raw, head = b"".join(elements), elements[0][:_HEAD]
        alike = self._known.get(head, ())
        made = None if any(one.raw == raw for one in alike) else self._make(raw, len(elements))
        if made is None:
            return
        if self._bytes + len(raw) > MOST_BYTES:
            self._known.clear()
            self._bytes, alike = 0, ()
        if len(alike) >= MOST_ALIKE:
            alike = self._used(alike)
            if not alike:  # what begins like this is another one each time
                self._known[head] = ()
                return
        self._known[head] = (*alike, _Stretch(raw, elements, made))
        self._bytes += len(raw)

    def _used(self, alike: tuple[_Stretch[Made], ...]) -> tuple[_Stretch[Made], ...]:
        """Those that came again since this was asked last, without the oldest if all did."""
        used = tuple(one for one in alike if one.used)
        used = used[1:] if len(used) == len(alike) else used
        for one in used:
            one.used = False
        self._bytes -= sum(len(one.raw) for one in alike) - sum(len(one.raw) for one in used)
        return used


def _pieces(stretch: _Stretch[Made], there: set[bytes]) -> Iterator[tuple[bool, list[bytes]]]:
    """Runs of elements that are `there`, and of those that are not."""
    for equal, piece in groupby(stretch.elements, there.__contains__):
        yield equal, list(piece)
