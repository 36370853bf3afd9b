"""The check's own reader of data sets (PS3.5 7): written apart from the executor's, so that they do not err alike.

Where the executor builds a tree to change, this notes what stands where, by kind of value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from struct import Struct

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR

from edge_node.deid.stretches import Stretches

_NONE = 0xFFFFFFFF
_FOUR = {code: code.decode() for code in b"OB OW OF OD OL OV SQ UC UN UR UT SV UV".split()}
_TWO = {code: code.decode() for code in b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()}
_DEEPEST = 40
_CHARACTER_SET = 0x00080005
_ESCAPE = re.compile(rb"\x1b(\$?[()]?[@A-Z]|-[A-Z])")
# Escape sequences (PS3.5 6.1.2.5, PS3.3 C.12.1.1.2): code pages, and what Python's codec switches to.
_PAGES = {
    b"-A": "latin-1", b"-B": "iso8859_2", b"-C": "iso8859_3", b"-D": "iso8859_4", b"-F": "iso8859_7",
    b"-G": "iso8859_6", b"-H": "iso8859_8", b"-L": "iso8859_5", b"-M": "iso8859_9", b"-T": "tis_620",
    b")I": "shift_jis", b"$)C": "euc_kr", b"$)A": "gb2312",
}  # fmt: skip
_SWITCHED = (b"$B", b"$@", b"$(D")
_vrs: dict[int, str] = {}

PLAINLY = 63  # of so many objects one is read without memory too; odd, so that both sides have their turn
_read_before = count()
_BULKY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "private"})
_LARGE = 1 << 16  # bytes of such a value that are not copied
Around = tuple[int, ...]  # tag, item number, tag, … of the sequences around a value
# Tag; value, that of a sequence empty; where it begins in the data if it was not copied; sequences around it.
Place = tuple[int, bytes | memoryview, int, Around]


class Unreadable(Exception):
    """These bytes are no data set. Carries no text of theirs."""


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


class Testimony:
    """What a data set says, at any depth: `places` by VR as sent ("private" for private ones in implicit VR).

    A sequence has a place of its own beside those of what is in it. Values are those of `data`.
    """

    __slots__ = ("_encodings", "data", "gap", "gap_bytes", "met", "places")

    def __init__(self, data: bytes, gap: int = -1, gap_bytes: int = 0) -> None:
        self.data = data
        # Where a value of so many bytes is left out of `data`; what was met there: the tag, and whether it is endless.
        self.gap, self.gap_bytes = gap, gap_bytes
        self.met: tuple[int, bool] | None = None
        self.places: dict[str, list[Place]] = {}
        self._encodings: dict[Around, list[str]] | None = None

    def of(self, kinds: Iterable[str]) -> Iterator[Place]:
        """Places of values of some VRs."""
        for vr in kinds:
            yield from self.places.get(vr, ())

    def value(self, place: Place) -> bytes:
        value = place[1]
        return value if value.__class__ is bytes else bytes(value)

    def text(self, place: Place) -> str:
        """A value in the character set that holds where it stands."""
        value = self.value(place)
        if value.isascii() and b"\x1b" not in value:
            return value.decode("ascii")
        encodings = self._declared(place[3])
        if b"\x1b" in value:
            return _switching(value, encodings[0])
        for encoding in encodings:
            try:
                return value.decode(encoding)
            except (UnicodeDecodeError, LookupError):
                continue
        return value.decode("latin-1")

    def _declared(self, around: Around) -> list[str]:
        """Python's names of the character sets that the nearest level around names; never empty."""
        if self._encodings is None:
            named = [p for places in self.places.values() for p in places if p[0] == _CHARACTER_SET]
            self._encodings = {place[3]: _encodings_of(self.value(place)) for place in named}
        while around and around not in self._encodings:
            around = around[:-2]
        return self._encodings.get(around, ["latin-1"])


def witness(data: bytes, *, implicit: bool, big: bool, gap: int = -1, gap_bytes: int = 0) -> Testimony:
    """Everything an encoded data set says. Raises Unreadable.

    At `gap` a value of `gap_bytes` may be left out. It must be the whole value of a top-level element, so the reading
    must come upon it; an element of undefined length must go to its end.
    """
    told = Testimony(data, gap, gap_bytes)
    _Reader(told, big).all(0, implicit, _received[implicit, big])
    if gap >= 0 and told.met is None:
        raise Unreadable
    return told


def witness_file(part10: bytes, *, implicit: bool, big: bool, gap: int = -1, gap_bytes: int = 0) -> Testimony:
    """File meta information and data set of a Part 10 file, as one; `gap` as in `witness`. Raises Unreadable."""
    if part10[128:132] != b"DICM" or part10[132:138] != b"\2\0\0\0UL":
        raise Unreadable
    end = 144 + int.from_bytes(part10[140:144], "little")
    if end > len(part10):
        raise Unreadable
    told = Testimony(part10, gap, gap_bytes)
    _Reader(told, False).level(132, end, False, False, ())
    _Reader(told, big).all(end, implicit, _made[implicit, big])
    if gap >= 0 and (told.met is None or gap <= end):
        raise Unreadable
    return told


# By whether it is big endian: tag, VR and short length; tag and long length; length.
_HEADS = {big: [Struct((">" if big else "<") + layout) for layout in ("HH2sH", "HHL", "L")] for big in (True, False)}


class _Reader:
    def __init__(self, told: Testimony, big: bool) -> None:
        self.told = told
        self.data = told.data
        self.explicit, self.implicit, self.length = [head.unpack_from for head in _HEADS[big]]
        self.big = big

    def all(self, at: int, implicit: bool, known: Stretches[_Told]) -> None:
        """Note the elements from `at` to the end of the data, those in stretches that are `known` as they were noted
        when they came first."""
        places, end = self.told.places, len(self.data)
        plain = self._plainly(at, end, implicit) if next(_read_before) % PLAINLY == 0 else None

        def one(begin: int) -> int:
            return self.level(begin, end, implicit, False, (), once=True)

        def take(stretch: _Told) -> None:
            for vr, some in stretch:
                try:
                    places[vr] += some
                except KeyError:
                    places[vr] = list(some)

        behind = known.walk(self.data, at, end, one, take, self.told.gap)
        if behind < end:
            self.level(behind, end, implicit, False, ())
        if plain is not None and plain.places != places:
            raise Unreadable

    def _plainly(self, at: int, end: int, implicit: bool) -> Testimony:
        """What the same bytes say to who remembers nothing."""
        plain = Testimony(self.data, self.told.gap, self.told.gap_bytes)
        plain.places = {vr: list(places) for vr, places in self.told.places.items()}
        _Reader(plain, self.big).level(at, end, implicit, False, ())
        return plain

    def level(self, at: int, end: int, implicit: bool, open_ended: bool, around: Around, *, once: bool = False) -> int:
        """Note the elements of one level, or the first of them; gives the position behind."""
        if len(around) > 2 * _DEEPEST:
            raise Unreadable
        data, places, read = self.data, self.told.places, self.implicit if implicit else self.explicit
        two = _TWO.get
        while at < end:
            if end - at < 8:
                raise Unreadable
            if implicit:
                group, number, length = read(data, at)
                at += 8
                vr = _vrs.get(group << 16 | number) or vr_of(group << 16 | number)
            else:
                group, number, code, length = read(data, at)
                at += 8
                vr = two(code, "")
                if vr and group != 0xFFFE:
                    after = at + length
                    if after > end:
                        raise Unreadable
                    try:
                        places[vr].append((group << 16 | number, data[at:after], 0, around))
                    except KeyError:
                        places[vr] = [(group << 16 | number, data[at:after], 0, around)]
                    at = after
                    if once:
                        return at
                    continue
                if group != 0xFFFE:
                    vr = _FOUR.get(code, "")
                    if not vr or end - at < 4:
                        raise Unreadable
                    (length,) = self.length(data, at)
                    at += 4
            if group == 0xFFFE:
                if number == 0xE00D and open_ended and data[at - 4 : at] == b"\0\0\0\0":
                    return at
                raise Unreadable
            tag = group << 16 | number
            if at == self.told.gap and not around and length in (self.told.gap_bytes, _NONE):
                self.told.met = tag, length == _NONE
                self.note(vr, tag, at, at, around)
            elif length == _NONE:
                at = self.endless(tag, vr, at, end, implicit, around)
            else:
                after = at + length
                if after > end:
                    raise Unreadable
                self.note(vr, tag, at, after, around)
                if vr == "SQ":
                    self.items(at, after, implicit, False, (*around, tag))
                at = after
            if once:
                return at
        if open_ended:
            raise Unreadable
        return at

    def note(self, vr: str, tag: int, at: int, after: int, around: Around) -> None:
        if vr == "SQ":
            place: Place = tag, b"", 0, around  # what is in it has places of its own
        elif after - at > _LARGE and vr in _BULKY:
            place = tag, memoryview(self.data)[at:after], at, around
        else:
            place = tag, self.data[at:after], 0, around
        self.told.places.setdefault(vr, []).append(place)

    def endless(self, tag: int, vr: str, at: int, end: int, implicit: bool, around: Around) -> int:
        if vr in ("SQ", "UN", "private"):
            self.note("SQ", tag, at, at, around)
            if vr == "SQ":
                return self.items(at, end, implicit, True, (*around, tag))
            little = _Reader(self.told, False) if self.big else self
            return little.items(at, end, True, True, (*around, tag))
        start = at
        while True:  # encapsulated: items of bytes up to the delimiter
            if end - at < 8:
                raise Unreadable
            group, number, length = self.implicit(self.data, at)
            if (group, number) == (0xFFFE, 0xE0DD):
                self.note(vr, tag, start, at, around)
                return at + 8
            if (group, number) != (0xFFFE, 0xE000) or at + 8 + length > end:
                raise Unreadable
            at += 8 + length

    def items(self, at: int, end: int, implicit: bool, open_ended: bool, around: Around) -> int:
        """Note the items of a sequence, `around` ends with its tag; gives the position behind it."""
        item = 0
        while at < end:
            if end - at < 8:
                raise Unreadable
            group, number, length = self.implicit(self.data, at)
            at += 8
            if (group, number) == (0xFFFE, 0xE0DD) and open_ended:
                return at
            if (group, number) != (0xFFFE, 0xE000) or (length != _NONE and at + length > end):
                raise Unreadable
            stop = end if length == _NONE else at + length
            at = self.level(at, stop, implicit, length == _NONE, (*around, item))
            item += 1
        if open_ended:
            raise Unreadable
        return at


# The check's own memory of what it read: places by the bytes that say them, whoever wrote these, in what encoding. What
# the executor read or made never gets in here. As received and as made are apart, so that neither crowds out the other.
# Which bytes are taken as read is decided by code that the executor uses too (`stretches`): therefore objects in their
# turn (`PLAINLY`) are read without memory as well, and nothing passes where the two differ.
_Told = list[tuple[str, list[Place]]]


def _told_by(raw: bytes, _elements: int, implicit: bool, big: bool) -> _Told:
    told = Testimony(raw)
    _Reader(told, big).level(0, len(raw), implicit, False, ())
    return list(told.places.items())


def _memory() -> dict[tuple[bool, bool], Stretches[_Told]]:
    kinds = ((True, False), (False, False), (False, True), (True, True))
    return {kind: Stretches(partial(_told_by, implicit=kind[0], big=kind[1])) for kind in kinds}


_received, _made = _memory(), _memory()


def _encodings_of(value: bytes) -> list[str]:
    terms = [term.strip(" \0") for term in value.decode("latin-1").split("\\")]
    return [str(python_encoding.get(term, "") or "latin-1") for term in terms]


def _switching(value: bytes, page: str) -> str:
    """Text with escape sequences. A code page holds until the next, ASCII is part of all of them."""
    start, *parts = _ESCAPE.split(value)
    said = [_either(start, page)]
    for escape, piece in zip(parts[::2], parts[1::2], strict=True):
        page = _PAGES.get(escape, page)
        said.append(_either(b"\x1b" + escape + piece, "iso2022_jp_2") if escape in _SWITCHED else _either(piece, page))
    return "".join(said)


def _either(piece: bytes, encoding: str) -> str:
    try:
        return piece.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return piece.decode("latin-1")
