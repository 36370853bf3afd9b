"""What may go into a parcel for the trainer, and the last gate each object passes as it leaves.

The gate trusts nothing that came before it: it opens the very bytes that are about to be sent and looks for itself,
with a byte walk of its own (no DICOM library), whether they are the object of the ledger and a de-identified one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_node.domain.errors import Withheld
from edge_node.domain.study import CleanObject
from edge_node.store.digest import is_of

_PREAMBLE = 128
_MAGIC = b"DICM"
_UUID_ROOT = b"2.25."  # every UID of ours is a UUID (PS3.5 B.2)
_IMPLICIT = b"1.2.840.10008.1.2"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = b"1.2.840.10008.1.2.2"
_INFLATE_MOST = 1 << 20  # the header the gate reads lies well within the first MB of a deflated data set

_TRANSFER_SYNTAX_UID = 0x00020010
_META_SOP_INSTANCE_UID = 0x00020003
_SOP_INSTANCE_UID = 0x00080018
_PATIENT_IDENTITY_REMOVED = 0x00120062
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_BURNED_IN_ANNOTATION = 0x00280301
_WANTED = frozenset(
    {_SOP_INSTANCE_UID, _PATIENT_IDENTITY_REMOVED, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID, _BURNED_IN_ANNOTATION}
)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_DEEPEST = 32


def plan(objects: Sequence[CleanObject]) -> tuple[list[CleanObject], dict[str, Withheld]]:
    """Part `objects` into those to send, in order, and those withheld by SOP Instance UID.

    An object whose pixels may still show identity is withheld as ``pixels.uncleaned:<risk>``.
    """
    send = [one for one in objects if not one.pixel_risk]
    held = {one.sop_uid: Withheld(f"pixels.uncleaned:{one.pixel_risk}") for one in objects if one.pixel_risk}
    return send, held


def verify_outgoing(part10: bytes, expected: CleanObject) -> str:
    """The last gate: "" when `part10` may leave, else a stable reason (sent on as ``forward.gate:<reason>``).

    pixels: its pixels were never cleaned · size, hash: not the bytes of the ledger · not-part10, preamble: PS3.10 7.1
    · unreadable: the header cannot be walked · transfer-syntax, sop-uid, study-uid, series-uid: not the object it
    should be or a UID that is not a pseudonym · identity-not-removed: (0012,0062) is not YES · burned-in: (0028,0301)
    is YES.
    """
    if expected.pixel_risk:
        return "pixels"
    if len(part10) != expected.size:
        return "size"
    if not is_of(expected.digest, part10):
        return "hash"
    if part10[_PREAMBLE : _PREAMBLE + 4] != _MAGIC:
        return "not-part10"
    if any(part10[:_PREAMBLE]):
        return "preamble"
    try:
        syntax, meta_uid, found = _header(part10)
    except (struct.error, zlib.error, _Unreadable):
        return "unreadable"
    if syntax != expected.transfer_syntax.encode("ascii", "replace"):
        return "transfer-syntax"
    return _judge(meta_uid, found, expected)


def _judge(meta_uid: bytes, found: dict[int, bytes], expected: CleanObject) -> str:
    sop_uid = expected.sop_uid.encode("ascii", "replace")
    if not sop_uid.startswith(_UUID_ROOT) or found.get(_SOP_INSTANCE_UID) != sop_uid or meta_uid != sop_uid:
        return "sop-uid"
    if found.get(_PATIENT_IDENTITY_REMOVED) != b"YES":
        return "identity-not-removed"
    if not found.get(_STUDY_INSTANCE_UID, b"").startswith(_UUID_ROOT):
        return "study-uid"
    series_uid = expected.series_uid.encode("ascii", "replace")
    if not series_uid.startswith(_UUID_ROOT) or found.get(_SERIES_INSTANCE_UID) != series_uid:
        return "series-uid"
    if found.get(_BURNED_IN_ANNOTATION) == b"YES":
        return "burned-in"
    return ""


class _Unreadable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Coding:
    """How a data set is written: byte order for struct, and whether elements name their VR."""

    order: str
    explicit: bool


_META = _Coding("<", explicit=True)
_NESTED_IN_UN = _Coding("<", explicit=False)


def _header(part10: bytes) -> tuple[bytes, bytes, dict[int, bytes]]:
    """Transfer Syntax UID and SOP Instance UID of the file meta, and the wanted top-level elements of the data set."""
    data = part10
    meta: dict[int, bytes] = {}
    start = _PREAMBLE + 4
    while struct.unpack_from("<H", part10, start)[0] == 0x0002:
        tag, value_at, length, _ = _element(data, start, _META)
        if length == _UNDEFINED or value_at + length > len(data):
            raise _Unreadable
        if tag in (_TRANSFER_SYNTAX_UID, _META_SOP_INSTANCE_UID):
            meta[tag] = data[value_at : value_at + length].rstrip(b"\0 ")
        start = value_at + length
    syntax = meta.get(_TRANSFER_SYNTAX_UID, b"")
    if syntax == _DEFLATED:
        data, start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(part10[start:], _INFLATE_MOST), 0
    coding = _Coding(">" if syntax == _BIG_ENDIAN else "<", explicit=syntax != _IMPLICIT)
    found: dict[int, bytes] = {}
    last = -1
    for tag, value_at, length in _top_level(data, start, coding):
        if tag <= last:  # PS3.5 7.1: ascending; a second PatientIdentityRemoved further down would fool the walk
            raise _Unreadable
        last = tag
        if tag in _WANTED:
            found[tag] = data[value_at : value_at + length].strip(b"\0 ")
    return syntax, meta.get(_META_SOP_INSTANCE_UID, b""), found


def _top_level(data: bytes, at: int, coding: _Coding) -> Iterator[tuple[int, int, int]]:
    """(tag, offset of the value, length) of the top-level elements up to the last one wanted."""
    while at < len(data):
        tag, value_at, length, inner = _element(data, at, coding)
        if tag > _BURNED_IN_ANNOTATION:
            return
        if length == _UNDEFINED:
            at = _past_sequence(data, value_at, inner, 0)
            length = at - value_at
        else:
            at = value_at + length
        if at > len(data):
            raise _Unreadable
        yield tag, value_at, length


def _element(data: bytes, at: int, coding: _Coding) -> tuple[int, int, int, _Coding]:
    """Tag, offset of the value, its length, and the coding of what is nested in it."""
    group, number = struct.unpack_from(coding.order + "HH", data, at)
    tag = group << 16 | number
    if group == 0xFFFE or not coding.explicit:
        return tag, at + 8, struct.unpack_from(coding.order + "I", data, at + 4)[0], coding
    vr = data[at + 4 : at + 6]
    if not vr.isalpha() or not vr.isupper():
        raise _Unreadable
    if vr in _LONG_VRS:
        length = struct.unpack_from(coding.order + "I", data, at + 8)[0]
        # PS3.5 6.2.2: an UN of undefined length holds a sequence in implicit VR little endian
        return tag, at + 12, length, _NESTED_IN_UN if vr == b"UN" and length == _UNDEFINED else coding
    return tag, at + 8, struct.unpack_from(coding.order + "H", data, at + 6)[0], coding


def _past_sequence(data: bytes, at: int, coding: _Coding, depth: int) -> int:
    """Offset behind a sequence of undefined length whose first item begins at `at`."""
    if depth > _DEEPEST:
        raise _Unreadable
    while True:
        tag, value_at, length, _ = _element(data, at, coding)
        if tag == _SEQUENCE_END:
            return value_at
        if tag != _ITEM:
            raise _Unreadable
        at = _past_item(data, value_at, coding, depth) if length == _UNDEFINED else value_at + length


def _past_item(data: bytes, at: int, coding: _Coding, depth: int) -> int:
    while True:
        tag, value_at, length, inner = _element(data, at, coding)
        if tag == _ITEM_END:
            return value_at
        at = _past_sequence(data, value_at, inner, depth + 1) if length == _UNDEFINED else value_at + length
