"""The check of pixels: is what will be written, sample for sample, what was received?

Part of the independent check (`verify`), for pixels of any size: both sides are read where they are, piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from edge_node.deid.witness import Unreadable
from edge_node.domain.body import Body, Buffer, Memory, Slice
from edge_node.domain.errors import Quarantine

_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_AT_ONCE = 1 << 17
LARGEST_FRAME = 256 << 20
_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"  # how code streams begin
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # of JPEG, among entropy-coded data
_TILE_PART = re.compile(rb"\xff[\x90\xd9]")  # of JPEG 2000, behind the data of another, or the end
_ALONE = frozenset([0x01, 0x4F, *range(0xD0, 0xD9)])  # markers without a segment
_HEAD = 64  # bytes: an RLE header (PS3.5 G.3)
_SCANS = re.compile(rb"\xff\xda.*?(?=\xff[\xc0-\xcf\xd8-\xfe])", re.DOTALL)


def compare(
    before: Body, after: Body, samples: int, *, endless: bool, closed: bool = True, words: bool = False
) -> list[bytes]:
    """Compare the value of pixel data as received with that of the clean object; what the latter says beside its
    samples is given back. `samples`: bytes that native pixels have, 0 if unknown; `words`: they stand in words of big
    endian; `endless`: these are fragments, `closed`: with the delimiter behind them.

    Raises Quarantine("deid.pixel-data"), Unreadable when fragments do not fill the value.
    """
    if not endless:
        if samples:
            _same_samples(before, after, samples, turned=words and samples % 2 == 1)
        elif before.size != after.size or not _equal(before, after, before.size):
            _other()
        return []
    if not closed:
        before, after = (Body([*one.parts, _DELIMITER]) for one in (before, after))
    if before.size != after.size or not _equal(before, after, before.size):
        _same_places(before, after)
    table, *places = _places(after)
    found = {_read(after, table): None}  # of offsets, if nobody has put anything else there
    first = after.read(places[0][0], places[0][0] + 4) if places else b""
    whole = first.startswith((_JPEG, _JPEG_2000))  # of others, video above all, only how they begin is known
    for start, stop in places:
        piece = _read(after, (start, stop if whole else min(stop, start + _HEAD)))
        found.update(dict.fromkeys(asides_of(piece, first)))
    return list(found)


def _other() -> NoReturn:
    raise Quarantine("deid.pixel-data", "the pixel data is not what was received", hint="edge-node study show")


def _same_samples(before: Body, after: Body, samples: int, *, turned: bool) -> None:
    """Each of native pixels is there, and what makes their number even is zero, whatever it was.

    It stands behind them. `turned`: before the last, which is the low byte of its word (PS3.5 7.3, 8.2).
    """
    if after.size > samples + 1:
        raise Quarantine("deid.pixel-data", "something stands behind the pixels", hint="edge-node study show")
    first = samples - 1 if turned else samples  # so many stand where they were counted
    if min(before.size, after.size) < samples + turned or not _equal(before, after, first):
        _other()
    if turned and before.read(samples, samples + 1) != after.read(samples, samples + 1):
        _other()
    if after.read(first, samples if turned else after.size).strip(b"\0"):
        raise Quarantine(
            "deid.pixel-data", "the byte that makes the pixels' number even is not zero", hint="edge-node study show"
        )


def _equal(one: Body, other: Body, size: int) -> bool:
    """Whether the first `size` bytes are the same.

    Where both refer to the same bytes of the same source they are the same by that: what is written is read from the
    very place that was received, and a source does not change while it is used. All else is compared byte for byte.
    """
    if size > min(one.size, other.size):
        return False
    ours, theirs = _slices(one, size), _slices(other, size)
    left, right = next(ours, None), next(theirs, None)
    while left and right:
        length = min(len(left), len(right))
        if not _is_same_place(left, right, length) and not _same_bytes(left, right, length):
            return False
        left = _behind(left, length) or next(ours, None)
        right = _behind(right, length) or next(theirs, None)
    return not left and not right


def _slices(body: Body, size: int) -> Iterator[Slice]:
    for part in body.slices(0, size):
        yield part if isinstance(part, Slice) else Slice(Memory(part), 0, len(part))


def _behind(one: Slice, length: int) -> Slice:
    return Slice(one.source, one.start + length, one.stop)


def _is_same_place(one: Slice, other: Slice, length: int) -> bool:
    return one.source is other.source and one.start == other.start and one.start + length <= one.source.size


def _same_bytes(one: Slice, other: Slice, size: int) -> bool:
    """Compared where they lie, pieces against pieces."""
    ours = one.source.chunks(one.start, one.start + size)
    theirs = other.source.chunks(other.start, other.start + size)
    left = right = memoryview(b"")
    done = 0
    while done < size:
        left = left or _next(ours)
        right = right or _next(theirs)
        length = min(len(left), len(right), _AT_ONCE)
        if not length or not _alike(left[:length], right[:length]):
            return False
        left, right, done = left[length:], right[length:], done + length
    return True


def _alike(one: memoryview, other: memoryview) -> bool:
    words = len(one) // 8
    same = np.frombuffer(one, np.uint64, words) == np.frombuffer(other, np.uint64, words)
    return bool(same.all()) and one[8 * words :] == other[8 * words :]


def _next(chunks: Iterator[Buffer]) -> memoryview:
    return memoryview(next(chunks, b""))


def _places(value: Body) -> list[tuple[int, int]]:
    """Where the offset table and the fragments are. Raises Unreadable."""
    found: list[tuple[int, int]] = []
    at = 0
    while True:
        head = value.read(at, at + 8)
        length = int.from_bytes(head[4:], "little")
        at += 8
        if head[:4] == b"\xfe\xff\xdd\xe0" and at == value.size:
            if not found:
                raise Unreadable
            return found
        if head[:4] != b"\xfe\xff\x00\xe0" or len(head) < 8 or at + length > value.size:
            raise Unreadable
        found.append((at, at + length))
        at += length


def _read(value: Body, place: tuple[int, int]) -> bytes:
    if place[1] - place[0] > LARGEST_FRAME:
        raise Unreadable
    return value.read(*place)


def _begins(value: Body, place: tuple[int, int]) -> bool:
    return value.read(place[0], min(place[1], place[0] + 4)).startswith((_JPEG, _JPEG_2000))


def _frames(value: Body) -> Iterator[bytes]:
    """The code streams of JPEG and JPEG 2000: each begins where a fragment begins like one."""
    frame: list[tuple[int, int]] = []
    for place in _places(value)[1:]:
        if frame and _begins(value, place):
            yield b"".join(_read(value, one) for one in frame)
            frame = []
        frame.append(place)
    if frame:
        yield b"".join(_read(value, one) for one in frame)


def _same_places(before: Body, after: Body) -> None:
    """One by one, if nothing but padding came to them; else those of each JPEG or JPEG 2000 frame together."""
    old, new = _places(before)[1:], _places(after)[1:]
    if len(old) != len(new) or not all(_padded(before, one, after, other) for one, other in zip(old, new, strict=True)):
        if not old or not _begins(before, old[0]):
            _other()
        _same_frames(before, after)


def _padded(before: Body, one: tuple[int, int], after: Body, other: tuple[int, int]) -> bool:
    """Whether a fragment is the same but for a zero that makes its length even."""
    length = one[1] - one[0]
    more = other[1] - other[0] - length
    if more not in (0, length & 1) or after.read(other[1] - more, other[1]).strip(b"\0"):
        return False
    return _equal(Body(before.slices(*one)), Body(after.slices(other[0], other[0] + length)), length)


def _same_frames(before: Body, after: Body) -> None:
    ours, theirs = _frames(after), _frames(before)
    while True:
        new, old = next(ours, None), next(theirs, None)
        if new is None and old is None:
            return
        if new is None or old is None or not _same_streams(old, new):
            _other()


def _same_streams(before: bytes, after: bytes) -> bool:
    """Every scan of a JPEG is there, in order; of JPEG 2000 all but blanked comments and what is behind its end."""
    if before.startswith(b"\xff\x4f"):
        length = min(len(after), len(before))
        gone = before[length:].rstrip(b"\0")
        if gone and (not after.rstrip(b"\0").endswith(b"\xff\xd9") or b"\xff\x4f\xff\x51" in gone):
            return False  # what went was part of this image, or another
        old, new = np.frombuffer(before, np.uint8, length), np.frombuffer(after, np.uint8, length)
        changed = new[: length - 1][old[: length - 1] != new[: length - 1]]
        return len(after) <= len(before) + 1 and bool((changed == ord(" ")).all()) and len(changed) <= 65536
    old_scans, new_scans = _SCANS.findall(before), _SCANS.findall(after)
    if not old_scans:  # no JPEG: nothing but padding may have gone
        return before.rstrip(b"\0") == after.rstrip(b"\0")
    return bool(old_scans == new_scans)


def asides_of(fragment: bytes, first: bytes) -> Iterator[bytes]:
    """What stands in a fragment beside its samples; `first`, how the first fragment begins, tells the kind.

    Of JPEG and JPEG 2000 everything but entropy-coded data; of what has no such places the head of the frame.
    """
    if first.startswith(_JPEG):
        return _beside(fragment, b"\xff\xd8", 0xDA, _MARKER)
    if first.startswith(_JPEG_2000):
        return _beside(fragment, b"\xff\x4f", 0x93, _TILE_PART)
    return iter([fragment[:_HEAD]])


def _beside(data: bytes, begin: bytes, samples: int, marker: re.Pattern[bytes]) -> Iterator[bytes]:
    """Segments by their lengths; behind the marker `samples` entropy-coded data up to the next that is a `marker`.

    A fragment that does not begin like a stream begins among samples. What is no segment is given whole.
    """
    at = 0 if data.startswith(begin) else _next_marker(data, 0, marker)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
        code = data[at + 1]
        if code == 0xFF:  # fill byte
            at += 1
            continue
        alone = code in _ALONE or code == samples == 0x93
        end = at + 2 + (0 if alone else int.from_bytes(data[at + 2 : at + 4], "big"))
        yield data[at:end]
        at = _next_marker(data, end, marker) if code == samples else end
    yield data[at:]


def _next_marker(data: bytes, at: int, marker: re.Pattern[bytes]) -> int:
    found = marker.search(data, at)
    return found.start() if found else len(data)
