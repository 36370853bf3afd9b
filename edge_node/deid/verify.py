"""The independent check before anything is kept: does the clean object still say who it was?

Shares no code with the plan: it reads both objects with a reader of its own (`witness`), collects by its own list what
identifies in the object as received, and looks for it in everything but the pixels of the object as made. A hit means
Quarantine, and the message names the attribute that came through, never its value.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

import numpy as np
from pydicom.datadict import keyword_for_tag

from edge_node.deid.witness import Seen as _Seen
from edge_node.deid.witness import Unreadable, vr_of, witness, witness_file
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
_STRINGS = _SAYS_TEXT | frozenset(["DA", "DS", "DT", "IS", "TM", "UI"])
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
        meta, now = witness_file(part10, implicit=implicit, big=big)
        pixels = [(_bytes_of(was, tag), _bytes_of(now, tag)) for tag in _PIXELS]
        samples = _sample_bytes(now, big)
    except (Unreadable, ValueError, struct.error, zlib.error, RecursionError):
        raise Quarantine(
            "deid.unverifiable",
            "the object before or after de-identification cannot be read",
            hint="edge-node study show",
        ) from None
    was = [seen for seen in was if seen.tag not in _PIXELS]
    now = [seen for seen in now if seen.tag not in _PIXELS]
    _same_pixels(pixels, samples)
    _structure(now, kept_private)
    _dates(was, now, kept)
    _uids(was, [*now, *meta], kept)
    _identifiers(was, [*now, *meta], kept)


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


def _bytes_of(seen: list[_Seen], tag: int) -> bytes | None:
    return next((one.value for one in reversed(seen) if one.path == (tag,)), None)


def _text(seen: _Seen) -> str:
    try:
        return seen.value.decode(seen.encoding or "latin-1")
    except (UnicodeDecodeError, LookupError):
        return seen.value.decode("latin-1")


def _sample_bytes(seen: list[_Seen], big: bool) -> int:
    """How many bytes native pixel data has at least; 0 for an object without pixels."""
    top = {one.tag: one.value for one in seen if len(one.path) == 1 and one.tag >> 16 == 0x0028}
    if 0x00280010 not in top or 0x00280100 not in top:
        return 0

    def number(tag: int, otherwise: int) -> int:
        return int.from_bytes(top[tag][:2], "big" if big else "little") if top.get(tag) else otherwise

    frames = int(top.get(0x00280008, b"").strip(b" \0") or 1)
    samples = number(0x00280002, 1)
    if samples == 3 and top.get(0x00280004, b"").strip(b" \0") == b"YBR_FULL_422":
        samples = 2
    return number(0x00280010, 0) * number(0x00280011, 0) * samples * frames * number(0x00280100, 0) // 8


def _same_pixels(pairs: list[tuple[bytes | None, bytes | None]], samples: int) -> None:
    for before, after in pairs:
        if (before is None) != (after is None):
            raise Quarantine("deid.pixel-data", "pixel data was lost or made", hint="edge-node study show")
        if before is None or after is None or before == after:
            continue
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


def _structure(now: list[_Seen], kept_private: frozenset[tuple[int, str, int]]) -> None:
    odd = [s for s in now if s.tag >> 16 & 1 or s.vr == "UN" or s.tag >> 24 in (0x50, 0x60) or len(s.path) > 1]
    reserving = [s for s in odd if s.tag >> 16 & 1 and s.tag & 0xFFFF < 0x100]
    creators = {s.path: s.value.decode("latin-1").strip(" \0") for s in reserving}
    allowed = {(group, creator) for group, creator, _ in kept_private}
    for seen in odd:
        if seen.tag >> 16 & 1 and len(seen.path) % 2 and not any(step >> 16 & 1 for step in seen.path[:-1:2]):
            group, number = seen.tag >> 16, seen.tag & 0xFFFF
            if seen.path in creators and (group, creators[seen.path]) in allowed:
                continue
            creator = creators.get((*seen.path[:-1], group << 16 | number >> 8), "")
            if (group, creator, number & 0xFF) in kept_private and seen.vr != "UN":
                continue
        if any(step >> 16 & 1 for step in seen.path[::2]) or seen.vr == "UN" or seen.tag >> 24 in (0x50, 0x60):
            _residual("deid.residual-private", "a private, unknown, curve or overlay element", seen.tag)


def _sent_as(seen: _Seen) -> str:
    return vr_of(seen.tag) if seen.vr == "UN" else seen.vr


def _dates(was: list[_Seen], now: list[_Seen], kept: frozenset[int]) -> None:
    old = {s.path: s.value.strip(b" \0") for s in was if _sent_as(s) in ("DA", "DT")}
    for seen in now:
        value = seen.value.strip(b" \0")
        if seen.vr in ("DA", "DT") and len(value) >= 8 and seen.tag not in kept and old.get(seen.path) == value:
            _residual("deid.residual-date", _keyword(seen.tag), seen.tag)


def _uids(was: list[_Seen], now: list[_Seen], kept: frozenset[int]) -> None:
    old: dict[str, int] = {}
    for seen in was:
        if _sent_as(seen) == "UI" and seen.tag not in _CLASS_UIDS and seen.tag not in kept:
            for uid in seen.value.decode("latin-1").split("\\"):
                bare = uid.strip(" \0")
                if len(bare) > 3 and not bare.startswith("1.2.840.10008."):
                    old[bare] = seen.tag
    for seen in was:  # kept under one tag on purpose: kept wherever it refers to the same thing
        if seen.vr == "UI" and seen.tag in kept:
            for uid in seen.value.decode("latin-1").split("\\"):
                old.pop(uid.strip(" \0"), None)
    for seen in now:
        if seen.tag in _CLASS_UIDS or seen.vr not in _STRINGS:
            continue
        for uid in re.findall(r"\d+(?:\.\d+)+", seen.value.decode("latin-1")) if b"." in seen.value else ():
            if uid in old and (seen.vr == "UI" or uid.count(".") > 3):
                _residual("deid.residual-uid", _keyword(old[uid]), seen.tag)


def _needles(was: list[_Seen], kept: frozenset[int]) -> dict[str, _Needle]:
    found: dict[str, _Needle] = {}
    for seen in was:
        if seen.tag in kept or not seen.value or len(seen.value) > 10_240:
            continue
        name = _keyword(seen.tag)
        if seen.vr == "PN" or vr_of(seen.tag) == "PN":
            for part in re.findall(r"[^\W_]+", _text(seen).lower()):
                if len(part) >= 3 and part not in _NO_ONE and not (part.isdigit() and len(part) < 4):
                    found.setdefault(part, _Needle(name, part, len(part) >= 5 and not part.isdigit(), True))
        elif seen.tag == _BIRTH_DATE:
            digits = re.sub(r"\D", "", _text(seen))
            if len(digits) == 8:
                y, m, d = digits[:4], digits[4:6], digits[6:]
                for form in (digits, f"{y}-{m}-{d}", f"{d}.{m}.{y}", f"{m}/{d}/{y}", f"{d}/{m}/{y}"):
                    found.setdefault(form, _Needle(name, form, False, False))
        elif seen.tag in _IDS or seen.tag in _PLACES:
            for value in _text(seen).lower().split("\\"):
                text = value.strip(" \0")
                plain = seen.tag in _PLACES and re.fullmatch(r"[^\W\d_]+", text)
                if len(text) < 3 or text in _NO_ONE or plain or (text.isdigit() and len(text) < 4):
                    continue
                found.setdefault(text, _Needle(name, text, len(text) >= 6 and not text.isdigit(), False))
    return found


def _identifiers(was: list[_Seen], now: list[_Seen], kept: frozenset[int]) -> None:
    needles = _needles(was, kept)
    if not needles:
        return
    places = [
        (seen, _text(seen).lower(), seen.value)
        for seen in now
        if seen.value
        and seen.tag not in _OURS
        and (len(seen.path) == 1 or not any(step in _OURS for step in seen.path))
        and seen.tag >> 16 != 0xFFFE
    ]
    said = "\n".join(text for seen, text, _ in places if seen.vr in _SAYS_TEXT)
    rest = b"\n".join(value.lower() for seen, _, value in places if seen.vr not in _STRINGS)
    for needle in needles.values():
        if needle.text in said:
            for seen, text, _ in places:
                if seen.vr in _SAYS_TEXT and _says(needle, seen, text):
                    _residual("deid.residual-identifier", needle.attribute, seen.tag)
        long = len(needle.text) >= 6 and not needle.text.isdigit()
        if long and any(form in rest for form in _forms(needle.text)):
            _residual("deid.residual-identifier", needle.attribute, 0)
        if needle.text.isdigit() and len(needle.text) >= 7:
            for seen, _, value in places:
                if seen.vr in ("IS", "DS") and value.strip(b" \0") == needle.text.encode():
                    _residual("deid.residual-identifier", needle.attribute, seen.tag)


def _says(needle: _Needle, seen: _Seen, text: str) -> bool:
    if seen.tag in _MACHINE and needle.attribute in ("StationName", "InstitutionName"):
        return False  # named after the machine or its maker
    if needle.person and needle.text in _TRADE and (seen.vr == "CS" or seen.tag in _MACHINE):
        return False
    if needle.text.isdigit() and len(needle.text) < 6:
        return needle.text in [part.strip(" \0") for part in text.split("\\")]
    if needle.anywhere:
        return needle.text in text
    return re.search(rf"(?<![^\W_]){re.escape(needle.text)}(?![^\W_])", text) is not None


def _forms(text: str) -> tuple[bytes, ...]:
    swapped = text.encode("utf-8")
    swapped += b" " * (len(swapped) & 1)
    pairs = bytes(b for i in range(0, len(swapped), 2) for b in (swapped[i + 1], swapped[i]))
    return text.encode("utf-8"), text.encode("utf-16-le"), text.encode("utf-16-be"), pairs.strip()
