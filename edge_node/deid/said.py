"""What a clean object says outside its pixels, made ready for the check to search in."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate

from edge_node.deid.needles import fold, squeezed
from edge_node.deid.samples import asides_of
from edge_node.deid.witness import Place, Testimony

PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
OURS = frozenset([0x00120062, 0x00120063, 0x00120064, 0x00280303])
_SAYS_TEXT = frozenset(["AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
_SAYS_NUMBERS = ("DA", "DS", "DT", "IS", "TM", "UI")
STRINGS = _SAYS_TEXT.union(_SAYS_NUMBERS)
_BULK = ("OB", "OW", "OF", "OD", "OL", "OV", "UN")
_NO_NUMBER = re.compile(r"[^0-9.+\-eE: \\\0\n]")  # in no date, time, number or UID
_PRINTABLE = re.compile(rb"[\t\n\f\r\x1b -~\x80-\xff]+\0?")


class Said:
    """What the clean object says outside its pixels: all at once to search in, piece by piece where there is a find.

    The pieces leave out what the node itself has written about its method.
    """

    def __init__(self, told: Testimony, native: bool, asides: Iterable[bytes] = ()) -> None:
        """`asides`: what stands beside the samples in pixels that are not in memory."""
        self.told = told
        places = told.places
        texts = [(vr, place) for vr in places if vr in _SAYS_TEXT for place in places[vr]]
        # private elements of implicit VR: of a kind that nobody told us
        texts += [(vr, p) for vr in ("private",) for p in places.get(vr, ()) if _PRINTABLE.fullmatch(p[1])]
        numbers = [place[1] for vr in _SAYS_NUMBERS for place in places.get(vr, ())]
        self.numbers = b"\n".join(numbers).decode("latin-1")
        if _NO_NUMBER.search(self.numbers):
            odd = [(vr, place) for vr in _SAYS_NUMBERS for place in places.get(vr, ())]
            texts += [(vr, p) for vr, p in odd if _NO_NUMBER.search(told.value(p).decode("latin-1"))]
        raw = b"\n".join([place[1] for _, place in texts])
        self._texts = texts
        if raw.isascii() and b"\x1b" not in raw:
            self.text, self.raw = raw.decode("ascii").lower(), b""
            self._lengths = [len(place[1]) for _, place in texts]
        else:
            folded = [fold(told.text(place)) for _, place in texts]
            self.text, self.raw = "\n".join(folded), raw.lower()
            self._lengths = [len(text) for text in folded]
        # No needle that is looked for in binary values is shorter than five bytes.
        binary = [
            value
            for vr in places
            if vr not in STRINGS and vr != "SQ"
            for tag, value, _, around in places[vr]
            if len(value) >= 5 and (around or tag not in PIXELS)
        ]
        if not native:
            for place in pixel_places(told).values():
                binary += _asides(told.value(place))
        binary += asides
        self.binary = b"\n".join(binary).lower()

    @cached_property
    def _starts(self) -> list[int]:
        """Where in `text` each value starts, and where one more would."""
        return list(accumulate((length + 1 for length in self._lengths), initial=0))

    def _piece(self, number: int) -> Iterator[tuple[int, str, str]]:
        vr, (tag, _, _, around) = self._texts[number]
        if tag not in OURS and OURS.isdisjoint(around):
            start = self._starts[number]
            yield tag, vr, self.text[start : start + self._lengths[number]]

    def pieces(self) -> Iterator[tuple[int, str, str]]:
        """Tag, VR and folded text of every value that says text."""
        for number in range(len(self._texts)):
            yield from self._piece(number)

    def pieces_with(self, text: str) -> Iterator[tuple[int, str, str]]:
        """Those of `pieces` in which a text begins."""
        at = self.text.find(text)
        while at >= 0:
            number = bisect_right(self._starts, at) - 1
            yield from self._piece(number)
            at = self.text.find(text, self._starts[number + 1])

    @cached_property
    def squeezed(self) -> str:
        """All text without what people put between the digits of a number."""
        return squeezed(self.text)

    @cached_property
    def single_numbers(self) -> dict[bytes, int]:
        """Binary values of one number, and where they stand."""
        kinds = ("UL", "SL", "UV", "SV", "FL", "FD")
        return {self.told.value(place): place[0] for place in self.told.of(kinds) if len(place[1]) in (4, 8)}


def _asides(encapsulated: bytes) -> Iterator[bytes]:
    """The offset table, and of each fragment what stands beside its samples."""
    table, *fragments = _items(encapsulated) or [b""]
    yield table
    for fragment in fragments:
        yield from asides_of(fragment, fragments[0][:4])


def pixel_places(told: Testimony) -> dict[int, Place]:
    """Where the pixels are; of two elements with one tag the last counts."""
    return {place[0]: place for place in told.of(_BULK) if place[0] in PIXELS and not place[3]}


def in_words(told: Testimony, tag: int) -> bool:
    """Whether pixels stand in words of 16 bits, which big endian turns (PS3.5 7.3)."""
    place = pixel_places(told)[tag]
    return any(one is place for one in told.places.get("OW", ()))


def _items(data: bytes) -> list[bytes]:
    """Offset table and fragments of encapsulated pixel data."""
    found, position = [], 0
    while position + 8 <= len(data) and data[position : position + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        found.append(data[position + 8 : position + 8 + length])
        position += 8 + length
    return found
