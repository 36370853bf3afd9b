"""The independent check before anything is kept: does the clean object still say who it was?

Shares no code with the plan: it reads both objects with a reader of its own (`witness`), collects by its own list what
identifies in the object as received, and looks for it in everything but the pixels of the object as made. A hit means
Quarantine, and the message names the attribute that came through, never its value.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NoReturn

import numpy as np
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag

from edge_node.deid.witness import Place, Testimony, Unreadable, vr_of, witness, witness_file
from edge_node.domain.errors import Quarantine

_PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
# Values that name one person, order or device: the whole value must be gone.
# fmt: off
_IDS = frozenset([
    0x00080050, 0x00100020, 0x00101000, 0x00101001, 0x00101090, 0x00181000, 0x00200010, 0x00321032, 0x00380010,
    0x00380060, 0x00400009, 0x00400253, 0x00401001, 0x00402016, 0x00402017, 0x00102154, 0x00102155, 0x00080094,
    0x00100050, 0x00081010, 0x00400242, 0x00080080, 0x00081070, 0x0008009C, 0x00321031,
])
# fmt: on
# Places and circumstances: only values that are more than one plain word, or a clinic's word would stop its studies.
# fmt: off
_PLACES = frozenset([
    0x00080081, 0x00081040, 0x00080092, 0x00100021, 0x00101040, 0x00101080, 0x00102150, 0x00102152, 0x00102180,
    0x001021F0, 0x00104000, 0x00321033, 0x00380300, 0x00380400, 0x00400241, 0x00400243,
])
# fmt: on
_BIRTH_DATE = 0x00100030
# UIDs that name a kind of thing, and what the node itself has written.
_CLASS_UIDS = frozenset(
    [0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x00081150, 0x0008115A, 0x00080117, 0x00080118, 0x0008010C]
)
_OURS = frozenset([0x00120062, 0x00120063, 0x00120064, 0x00280303])
_MACHINE = frozenset([0x00080070, 0x00081090, 0x00181020])  # manufacturer, model, software
_SAYS_TEXT = frozenset(["AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
_SAYS_NUMBERS = ("DA", "DS", "DT", "IS", "TM", "UI")
_STRINGS = _SAYS_TEXT.union(_SAYS_NUMBERS)
_TELLING = frozenset([_BIRTH_DATE, *_IDS, *_PLACES, *(tag for tag in DicomDictionary if vr_of(tag) == "PN")])
# Values of these are not read as text, whatever stands under their tags.
_MUTE = frozenset(["AT", "FD", "FL", "OD", "OF", "OL", "OV", "SL", "SQ", "SS", "SV", "UL", "US", "UV"])
_BULK = ("OB", "OW", "OF", "OD", "OL", "OV", "UN")
_MANY = 64  # UIDs to look for one by one
_WORD = re.compile(r"[^\W_]+")
_NO_DIGIT = re.compile(r"\D")
_UID = re.compile(r"\d+(?:\.\d+)+")
_NO_ONE = frozenset(
    re.findall(
        r"\S+",
        """
    anonymized anonymous anonymised anon none unknown nobody removed hidden test demo noname null
    """,
    )
)
# Names of people that are also words of the trade; found in coded terms or the maker's name they mean the trade.
_TRADE = frozenset(
    re.findall(
        r"\S+",
        """
    siemens philips canon toshiba hitachi fuji fujifilm agfa kodak carestream hologic samsung shimadzu elekta
    varian general electric medical systems healthcare head neck chest hand foot arm leg knee hip shoulder
    breast heart brain skull spine elbow ankle wrist finger thumb toe rib jaw eye ear nose liver abdomen pelvis
    thorax original primary secondary derived axial localizer average phantom standard bone lung soft other left
    right upper lower volume mixed perfusion diffusion angio stroke reformatted static dynamic gated cine
    """,
    )
)


@dataclass(frozen=True, slots=True)
class _Needle:
    attribute: str
    text: str  # lower case
    anywhere: bool  # also inside a longer word
    person: bool


def verify(
    source: bytes,
    transfer_syntax: str,
    part10: bytes,
    kept: frozenset[int],
    kept_private: frozenset[tuple[int, str, int]] = frozenset(),
) -> None:
    """Compare an object as received (data set without Part 10 header) with the clean Part 10 object.

    `kept` are attributes that the recipe keeps on purpose, `kept_private` private ones as (group, creator, offset).
    Raises Quarantine: ``deid.unverifiable`` (either cannot be
    read), ``deid.residual-identifier``, ``deid.residual-date``, ``deid.residual-uid``, ``deid.residual-private``,
    ``deid.pixel-data`` (the samples are not what was received).
    """
    implicit, big = transfer_syntax == "1.2.840.10008.1.2", transfer_syntax == "1.2.840.10008.1.2.2"
    try:
        if transfer_syntax == "1.2.840.10008.1.2.1.99":
            source = zlib.decompress(source, -zlib.MAX_WBITS)
            end = 144 + int.from_bytes(part10[140:144], "little")
            part10 = part10[:end] + zlib.decompress(part10[end:], -zlib.MAX_WBITS)
        was = witness(source, implicit=implicit, big=big)
        now = witness_file(part10, implicit=implicit, big=big)
        _same_pixels(was, now, big)
    except (Unreadable, ValueError, struct.error, zlib.error, RecursionError):
        raise Quarantine(
            "deid.unverifiable",
            "the object before or after de-identification cannot be read",
            hint="edge-node study show",
        ) from None
    _structure(now, kept_private)
    _dates(was, now, kept)
    said = _Said(now)
    _uids(was, said, kept)
    _identifiers(was, said, kept)


@cache
def _name_of(tag: int) -> str:
    return str(keyword_for_tag(tag))


def _keyword(tag: int) -> str:
    return _name_of(tag) if not tag >> 16 & 1 else ""


def _residual(code: str, attribute: str, where: int) -> NoReturn:
    place = _keyword(where) or (f"({where >> 16:04X},{where & 0xFFFF:04X})" if where else "a binary value")
    raise Quarantine(
        code, f"{attribute} of the received object is still in {place} of the clean one", hint="edge-node deid lint"
    )


def _sample_bytes(told: Testimony, big: bool) -> int:
    """How many bytes native pixel data has at least; 0 for an object without pixels."""
    described = told.of(("US", "IS", "CS"))
    top = {place[0]: told.value(place) for place in described if not place[3] and place[0] >> 16 == 0x0028}
    if 0x00280010 not in top or 0x00280100 not in top:
        return 0

    def number(tag: int, otherwise: int) -> int:
        return int.from_bytes(top[tag][:2], "big" if big else "little") if top.get(tag) else otherwise

    frames = int(top.get(0x00280008, b"").strip(b" \0") or 1)
    samples = number(0x00280002, 1)
    if samples == 3 and top.get(0x00280004, b"").strip(b" \0") == b"YBR_FULL_422":
        samples = 2
    return number(0x00280010, 0) * number(0x00280011, 0) * samples * frames * number(0x00280100, 0) // 8


def _pixels(told: Testimony) -> dict[int, Place]:
    """Where the pixels are; of two elements with one tag the last counts."""
    return {place[0]: place for place in told.of(_BULK) if place[0] in _PIXELS and not place[3]}


def _same_pixels(was: Testimony, now: Testimony, big: bool) -> None:
    old, new = _pixels(was), _pixels(now)
    if old.keys() != new.keys():
        raise Quarantine("deid.pixel-data", "pixel data was lost or made", hint="edge-node study show")
    for tag, (_, first, end, _) in new.items():
        _, start, stop, _ = old[tag]
        if end - first == stop - start and was.data.startswith(memoryview(now.data)[first:end], start):
            continue
        before, after, samples = was.value(old[tag]), now.value(new[tag]), _sample_bytes(now, big)
        # Trimmed at the end (padding), or a JPEG header without its comments: the samples must be the same.
        if samples and len(after) >= samples and before[:samples] == after[:samples] and len(after) <= samples + 1:
            continue
        ours, theirs = _fragments(after), _fragments(before)
        if ours is None or theirs is None or not _same_streams(b"".join(theirs), b"".join(ours)):
            raise Quarantine("deid.pixel-data", "the pixel data is not what was received", hint="edge-node study show")


def _fragments(data: bytes) -> list[bytes] | None:
    """Fragments without the offset table, None if these are none."""
    found, position = [], 0
    while position + 8 <= len(data) and data[position : position + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        found.append(data[position + 8 : position + 8 + length])
        position += 8 + length
    return found[1:] or None


def _same_streams(before: bytes, after: bytes) -> bool:
    """Every scan of a JPEG is there, in order; of JPEG 2000 everything but blanked comments."""
    if before.startswith(b"\xff\x4f"):
        length = min(len(after), len(before))
        old, new = np.frombuffer(before, np.uint8, length), np.frombuffer(after, np.uint8, length)
        changed = new[: length - 1][old[: length - 1] != new[: length - 1]]
        return len(after) <= len(before) + 1 and bool((changed == ord(" ")).all()) and len(changed) <= 65536
    scans = re.compile(rb"\xff\xda.*?(?=\xff[\xc0-\xcf\xd8-\xfe])", re.DOTALL)
    return [m.group() for m in scans.finditer(before)] == [m.group() for m in scans.finditer(after)]


def _structure(now: Testimony, kept_private: frozenset[tuple[int, str, int]]) -> None:
    groups = {place[0] >> 16 for places in now.places.values() for place in places}
    if "UN" not in now.places and not any(group & 1 or group >> 8 in (0x50, 0x60) for group in groups):
        return
    creators = {
        (place[3], place[0]): now.value(place).decode("latin-1").strip(" \0")
        for place in now.of(now.places)
        if place[0] >> 16 & 1 and place[0] & 0xFFFF < 0x100
    }
    reserved = {(group, creator) for group, creator, _ in kept_private}
    for vr, places in now.places.items():
        for place in places:
            tag, around = place[0], place[3]
            group, number = tag >> 16, tag & 0xFFFF
            if group & 1 and vr not in ("UN", "SQ") and not any(step >> 16 & 1 for step in around[::2]):
                if (group, creators.get((around, tag), "")) in reserved:
                    continue
                creator = creators.get((around, group << 16 | number >> 8), "")
                if (group, creator, number & 0xFF) in kept_private:
                    continue
            if group & 1 or vr == "UN" or group >> 8 in (0x50, 0x60):
                _residual("deid.residual-private", "a private, unknown, curve or overlay element", tag)


def _sent_as(told: Testimony, *kinds: str) -> list[Place]:
    """Places of some VRs, as sent or, where that was UN, by the data dictionary."""
    unknown = [place for place in told.places.get("UN", ()) if vr_of(place[0]) in kinds]
    return [*told.of(kinds), *unknown]


def _dates(was: Testimony, now: Testimony, kept: frozenset[int]) -> None:
    old = {(place[3], place[0]): was.value(place).strip(b" \0") for place in _sent_as(was, "DA", "DT")}
    for place in now.of(("DA", "DT")):
        tag, around = place[0], place[3]
        value = now.value(place).strip(b" \0")
        if len(value) >= 8 and tag not in kept and old.get((around, tag)) == value:
            _residual("deid.residual-date", _keyword(tag), tag)


class _Said:
    """What the clean object says outside its pixels: all at once to search in, piece by piece where there is a find.

    The pieces leave out what the node itself has written about its method.
    """

    def __init__(self, told: Testimony) -> None:
        self.told = told
        data, places = told.data, told.places
        texts = [place for vr in places if vr in _SAYS_TEXT for place in places[vr]]
        raw = b"\n".join([data[start:stop] for _, start, stop, _ in texts])
        if raw.isascii() and b"\x1b" not in raw:
            self.text = raw.decode("ascii").lower()
        else:
            self.text = "\n".join(map(told.text, texts)).lower()
        numbers = [data[start:stop] for vr in _SAYS_NUMBERS for _, start, stop, _ in places.get(vr, ())]
        self.numbers = b"\n".join(numbers).decode("latin-1")
        # No needle that is looked for in binary values is shorter than six bytes.
        binary = [
            (start, stop)
            for vr in places
            if vr not in _STRINGS and vr != "SQ"
            for tag, start, stop, around in places[vr]
            if stop - start >= 6 and (around or tag not in _PIXELS)
        ]
        self.binary = b"\n".join([data[start:stop].lower() for start, stop in binary])

    @cached_property
    def pieces(self) -> list[tuple[int, str, str]]:
        """Tag, VR and lower-case text of every value that says text."""
        places, text = self.told.places, self.told.text
        return [
            (place[0], vr, text(place).lower())
            for vr in _SAYS_TEXT
            for place in places.get(vr, ())
            if place[0] not in _OURS and _OURS.isdisjoint(place[3])
        ]


def _uids(was: Testimony, said: _Said, kept: frozenset[int]) -> None:
    old: dict[str, int] = {}
    spared: set[str] = set()  # kept under one tag on purpose: kept wherever it refers to the same thing
    for place in _sent_as(was, "UI"):
        tag = place[0]
        if tag in _CLASS_UIDS and tag not in kept:
            continue
        for uid in was.value(place).decode("latin-1").split("\\"):
            bare = uid.strip(" \0")
            if tag in kept:
                spared.add(bare)
            elif len(bare) > 3 and not bare.startswith("1.2.840.10008."):
                old[bare] = tag
    for uid in spared:
        old.pop(uid, None)
    if len(old) > _MANY:
        there = old.keys() & set(_UID.findall(said.text) + _UID.findall(said.numbers))
    else:
        there = {uid for uid in old if uid in said.numbers or uid in said.text}
    if not there:
        return
    for vr in _STRINGS:
        for place in said.told.places.get(vr, ()):
            for uid in _UID.findall(said.told.value(place).decode("latin-1")) if place[0] not in _CLASS_UIDS else ():
                if uid in there and (vr == "UI" or uid.count(".") > 3):
                    _residual("deid.residual-uid", _keyword(old[uid]), place[0])


def _needles(was: Testimony, kept: frozenset[int]) -> dict[str, _Needle]:
    found: dict[str, _Needle] = {}
    for vr, places in was.places.items():
        if vr in _MUTE:
            continue
        for place in places:
            tag, start, stop, _ = place
            if (vr == "PN" or tag in _TELLING) and tag not in kept and 0 < stop - start <= 10_240:
                for needle in _needles_of(tag, vr == "PN" or vr_of(tag) == "PN", was.text(place).lower()):
                    found.setdefault(needle.text, needle)
    return found


def _needles_of(tag: int, person: bool, value: str) -> Iterator[_Needle]:
    """What to look for, of one value in lower case."""
    name = _keyword(tag)
    if person:
        for part in _WORD.findall(value):
            if len(part) >= 3 and part not in _NO_ONE and not (part.isdigit() and len(part) < 4):
                yield _Needle(name, part, len(part) >= 5 and not part.isdigit(), True)
    elif tag == _BIRTH_DATE:
        digits = _NO_DIGIT.sub("", value)
        if len(digits) == 8:
            y, m, d = digits[:4], digits[4:6], digits[6:]
            for form in (digits, f"{y}-{m}-{d}", f"{d}.{m}.{y}", f"{m}/{d}/{y}", f"{d}/{m}/{y}"):
                yield _Needle(name, form, False, False)
    else:
        for part in value.split("\\"):
            text = part.strip(" \0")
            plain = tag in _PLACES and text.isalpha()
            if len(text) < 3 or text in _NO_ONE or plain or (text.isdigit() and len(text) < 4):
                continue
            yield _Needle(name, text, len(text) >= 6 and not text.isdigit(), False)


def _identifiers(was: Testimony, said: _Said, kept: frozenset[int]) -> None:
    for needle in _needles(was, kept).values():
        number = needle.text.isdigit()
        if needle.text in said.text:
            _find(needle, said)
        if said.binary and len(needle.text) >= 6 and not number and any(f in said.binary for f in _forms(needle.text)):
            _residual("deid.residual-identifier", needle.attribute, 0)
        if number and len(needle.text) >= 7 and needle.text in said.numbers:
            for place in said.told.of(("IS", "DS")):
                if said.told.value(place).strip(b" \0") == needle.text.encode():
                    _residual("deid.residual-identifier", needle.attribute, place[0])


def _find(needle: _Needle, said: _Said) -> None:
    if not needle.anywhere and not _alone(needle.text, said.text):
        return
    for tag, vr, text in said.pieces:
        if needle.text in text and _says(needle, tag, vr, text):
            _residual("deid.residual-identifier", needle.attribute, tag)


def _says(needle: _Needle, tag: int, vr: str, text: str) -> bool:
    if tag in _MACHINE and needle.attribute in ("StationName", "InstitutionName"):
        return False  # named after the machine or its maker
    if needle.person and needle.text in _TRADE and (vr == "CS" or tag in _MACHINE):
        return False
    if needle.text.isdigit() and len(needle.text) < 6:
        return needle.text in [part.strip(" \0") for part in text.split("\\")]
    if needle.anywhere:
        return needle.text in text
    return _alone(needle.text, text)


def _alone(word: str, text: str) -> bool:
    """Whether it is somewhere in the text without being part of a longer word.

    By hand: a pattern would have to be compiled for every patient anew.
    """
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not text[at - 1 : at].isalnum() and not text[end : end + 1].isalnum():
            return True
        at = text.find(word, at + 1)
    return False


def _forms(text: str) -> tuple[bytes, ...]:
    """A text as it may stand in binary values: UTF-8, UTF-16, bytes swapped in pairs."""
    plain = text.encode("utf-8")
    swapped = bytearray(plain + b" " * (len(plain) & 1))
    swapped[::2], swapped[1::2] = swapped[1::2], swapped[::2]
    return plain, text.encode("utf-16-le"), text.encode("utf-16-be"), bytes(swapped).strip()
