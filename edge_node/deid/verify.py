"""The independent check before anything is kept: does the clean object still say who it was?

Shares no code with the plan: it reads both objects with a reader of its own (`witness`), collects by its own list what
identifies in the object as received (`needles`), and looks for it in everything but the pixels of the object as made.
A hit means Quarantine, and the message names the attribute that came through, never its value.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NoReturn

from edge_node.deid.needles import Needle, name_of, names_as_sent, needles, squeezed, telling
from edge_node.deid.said import PIXELS, STRINGS, Said, in_words, pixel_places
from edge_node.deid.samples import compare as compare_samples
from edge_node.deid.witness import Place, Testimony, Unreadable, vr_of, witness, witness_file
from edge_node.domain.body import Body
from edge_node.domain.errors import Quarantine

_DESCRIBE = frozenset([0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100])
# UIDs that name a kind of thing, and what the node itself has written.
_CLASS_UIDS = frozenset(
    [0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x00081150, 0x0008115A, 0x00080117, 0x00080118, 0x0008010C]
)
_META = frozenset([0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013])
_MACHINE = frozenset([0x00080070, 0x00081090, 0x00181020])  # manufacturer, model, software
_MANY = 64  # UIDs to look for one by one
_UID = re.compile(r"\d+(?:\.\d+)+")
_RAW_UID = re.compile(rb"\d+(?:\.\d+)+")
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
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


def verify(
    source: bytes,
    transfer_syntax: str,
    part10: bytes,
    kept: frozenset[int],
    kept_private: frozenset[tuple[int, str, int]] = frozenset(),
) -> None:
    """Compare an object as received (data set without Part 10 header) with the clean Part 10 object.

    `kept` are attributes that the recipe keeps on purpose, `kept_private` private ones as (group, creator, offset).
    Raises Quarantine: ``deid.unverifiable`` (either cannot be read), ``deid.residual-identifier``,
    ``deid.residual-date``, ``deid.residual-uid``, ``deid.residual-private``, ``deid.pixel-data`` (the samples are not
    what was received).
    """
    implicit, big = transfer_syntax == "1.2.840.10008.1.2", transfer_syntax == "1.2.840.10008.1.2.2"
    try:
        if transfer_syntax == "1.2.840.10008.1.2.1.99":
            source = zlib.decompress(source, -zlib.MAX_WBITS)
            end = 144 + int.from_bytes(part10[140:144], "little")
            part10 = part10[:end] + _inflated(part10[end:])
        was = witness(source, implicit=implicit, big=big)
        now = witness_file(part10, implicit=implicit, big=big)
        compare(was, now, transfer_syntax, kept, kept_private)
    except UNVERIFIABLE:
        raise unverifiable() from None


def compare(
    was: Testimony,
    now: Testimony,
    transfer_syntax: str,
    kept: frozenset[int],
    kept_private: frozenset[tuple[int, str, int]],
    apart: Callable[[int], list[bytes]] | None = None,
) -> None:
    """What `verify` does with what both objects say. Raises Quarantine, and what `UNVERIFIABLE` names.

    `apart` compares pixels that are not in memory: it is given how many bytes native ones have, and gives back what
    stands beside the samples.
    """
    native, big = transfer_syntax in _NATIVE, transfer_syntax == "1.2.840.10008.1.2.2"
    _same_pixels(was, now, big, native)
    asides = apart(_sample_bytes(now, big)) if apart is not None else ()
    _structure(now, kept_private)
    _dates(was, now, kept)
    said = Said(now, native, asides)
    _uids(was, said, kept)
    _identifiers(was, said, kept)


UNVERIFIABLE = (Unreadable, ValueError, struct.error, zlib.error, RecursionError)


def unverifiable() -> Quarantine:
    """What becomes of an object that the check cannot read."""
    return Quarantine(
        "deid.unverifiable",
        "the object before or after de-identification cannot be read",
        hint="edge-node study show",
    )


def _inflated(data: bytes) -> bytes:
    """The deflated data set, behind which nothing may stand but one byte that makes its length even."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = engine.decompress(data)
    if not engine.eof or engine.unused_data not in (b"", b"\0"):
        raise Unreadable
    return plain


def _residual(code: str, attribute: str, where: int) -> NoReturn:
    place = name_of(where) or f"({where >> 16:04X},{where & 0xFFFF:04X})" if where else "a binary value"
    raise Quarantine(
        code, f"{attribute} of the received object is still in {place} of the clean one", hint="edge-node deid lint"
    )


def _sample_bytes(told: Testimony, big: bool) -> int:
    """How many bytes native pixel data has at least; 0 for an object without pixels."""
    top = {p[0]: told.value(p) for p in told.of(("US", "IS", "CS")) if p[0] in _DESCRIBE and not p[3]}
    if 0x00280010 not in top or 0x00280100 not in top:
        return 0

    def number(tag: int, otherwise: int) -> int:
        return int.from_bytes(top[tag][:2], "big" if big else "little") if top.get(tag) else otherwise

    frames = int(top.get(0x00280008, b"").strip(b" \0") or 1)
    samples = number(0x00280002, 1)
    if samples == 3 and top.get(0x00280004, b"").strip(b" \0") == b"YBR_FULL_422":
        samples = 2
    return -(-number(0x00280010, 0) * number(0x00280011, 0) * samples * frames * number(0x00280100, 0) // 8)


def _same_pixels(was: Testimony, now: Testimony, big: bool, native: bool) -> None:
    old, new = pixel_places(was), pixel_places(now)
    if old.keys() != new.keys():
        raise Quarantine("deid.pixel-data", "pixel data was lost or made", hint="edge-node study show")
    for tag, (_, made, _, _) in new.items():
        _, sent, start, _ = old[tag]
        words = big and in_words(now, tag)
        if big and words != in_words(was, tag):  # the same bytes would be other pixels
            raise Quarantine("deid.pixel-data", "the pixels have another order of bytes", hint="edge-node study show")
        samples = _sample_bytes(now, big) if made else 0
        filled = native and (samples % 2 == 1 or samples not in (0, len(made)))  # not every byte is a pixel
        copied = isinstance(sent, bytes) or isinstance(made, bytes)
        same = sent == made if copied else len(made) == len(sent) and was.data.startswith(made, start)
        if same and not filled:
            continue
        before, after = (Body([told.value(place[tag])]) for told, place in ((was, old), (now, new)))
        compare_samples(before, after, samples, endless=not native and tag == PIXELS[0], closed=False, words=words)


def _structure(now: Testimony, kept_private: frozenset[tuple[int, str, int]]) -> None:
    if now.data[:128].strip(b"\0"):
        _residual("deid.residual-private", "the preamble", 0)
    tags = {place[0] for places in now.places.values() for place in places}
    odd = [tag for tag in tags if tag < 0x00030000 or tag & 0x10000 or tag >> 24 in (0x50, 0x60)]
    for tag in odd:
        if tag < 0x00030000 and tag not in _META:
            _residual("deid.residual-private", "command or file meta information", tag)
    if "UN" not in now.places and _META.issuperset(odd):
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
            if group & 1 and vr not in ("UN", "SQ"):
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
    old = {(place[3], place[0]): place for place in _sent_as(was, "DA", "DT")}
    for place in now.of(("DA", "DT")):
        tag, around = place[0], place[3]
        if tag in kept or not place[1] or (around, tag) not in old:
            continue
        values = was.value(old[around, tag]).split(b"\\")
        for before, after in zip(values, now.value(place).split(b"\\"), strict=False):
            if len(after.strip(b" \0")) >= 8 and before.strip(b" \0") == after.strip(b" \0"):
                _residual("deid.residual-date", name_of(tag), tag)


def _uids(was: Testimony, said: Said, kept: frozenset[int]) -> None:
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
        said_uids = _UID.findall(said.text) + _UID.findall(said.numbers)
        there = {begin for uid in said_uids for begin in _beginnings(uid) if begin in old}
        raw = old.keys() & {uid.decode() for uid in _RAW_UID.findall(said.binary)}
    else:
        there = {uid for uid in old if uid in said.numbers or uid in said.text}
        raw = {uid for uid in old if uid.encode("latin-1") in said.binary} if said.binary else set()
    for uid in raw:
        if uid.count(".") > 3:
            _residual("deid.residual-uid", name_of(old[uid]), 0)
    if not there:
        return
    for vr in STRINGS:
        for place in said.told.places.get(vr, ()):
            for uid in _UID.findall(said.told.value(place).decode("latin-1")):
                for begin in _beginnings(uid):
                    if begin in there and ((vr == "UI" and begin == uid) or begin.count(".") > 3):
                        _residual("deid.residual-uid", name_of(old[begin]), place[0])


def _beginnings(uid: str) -> Iterator[str]:
    """The UID itself, and what it may have been made from by adding to it."""
    while uid:
        yield uid
        uid = uid.rpartition(".")[0]


def _identifiers(was: Testimony, said: Said, kept: frozenset[int]) -> None:
    told = telling(was)
    for needle in needles(was, told, kept).values():
        number = needle.text.isdigit()
        if needle.text in said.text:
            _find(needle, said)
        if needle.bare and needle.bare in said.squeezed:
            _find_bare(needle, said)
        binary = said.binary and not needle.day and (not number or len(needle.text) >= 7)
        if binary and any(form in said.binary for form in needle.forms):
            _residual("deid.residual-identifier", needle.attribute, 0)
        if number and needle.bare and not needle.day:
            _find_number(needle, said)
    if not said.binary and not said.raw:
        return
    if any(part in said.binary or part in said.raw for part in names_as_sent(was, told, kept)):
        _residual("deid.residual-identifier", "A person's name", 0)


def _find_bare(needle: Needle, said: Said) -> None:
    for tag, _, text in said.pieces():
        bare = squeezed(text)
        at = bare.find(needle.bare)
        while at >= 0:
            before, after = bare[:at].rstrip("0")[-1:], bare[at + len(needle.bare) :][:1]
            if not needle.bare.isdigit() or not (before.isdigit() or after.isdigit()):
                _residual("deid.residual-identifier", needle.attribute, tag)
            at = bare.find(needle.bare, at + 1)


def _find_number(needle: Needle, said: Said) -> None:
    """An identifier that is a number, as a number: a whole value, or a whole component of a UID."""
    digits, value = needle.bare.encode(), int(needle.bare)
    if needle.bare in said.numbers:
        for place in said.told.of(("IS", "DS", "UI")):
            for part in said.told.value(place).split(b"\\"):
                whole, _, fraction = part.strip(b" \0").lstrip(b"+").partition(b".")
                if whole.lstrip(b"0") == digits and not fraction.strip(b"0"):
                    _residual("deid.residual-identifier", needle.attribute, place[0])
                if digits in part.strip(b" \0").split(b".")[1:] and part.count(b".") > 1:
                    _residual("deid.residual-identifier", needle.attribute, place[0])
    kinds = [kind for kind, bits in (("f", 24), ("L", 32), ("d", 53), ("Q", 64)) if not value >> bits]
    for mark in "<>" if said.single_numbers else "":
        for kind in kinds:
            tag = said.single_numbers.get(struct.pack(mark + kind, value))
            if tag is not None:
                _residual("deid.residual-identifier", needle.attribute, tag)


def _find(needle: Needle, said: Said) -> None:
    if not needle.anywhere and not _alone(needle.text, said.text):
        return
    for tag, vr, text in said.pieces_with(needle.text):
        if needle.text in text and _says(needle, tag, vr, text):
            _residual("deid.residual-date" if needle.day else "deid.residual-identifier", needle.attribute, tag)


def _says(needle: Needle, tag: int, vr: str, text: str) -> bool:
    if tag in _MACHINE and needle.attribute in ("StationName", "InstitutionName"):
        return False  # named after the machine or its maker
    if needle.person and needle.text in _TRADE and (vr == "CS" or tag in _MACHINE):
        return False
    if needle.text.isdigit() and len(needle.text) < 5:
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
