"""Which pixel data stays where it landed, and what of it is copied: nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from edge_node.deid import apart, wire
from edge_node.deid.apart import Pixels, clean_pixels, read
from edge_node.deid.bitstream import syntax_of
from edge_node.deid.wire import PIXEL_DATA, Element, Malformed, Node, TooLarge
from edge_node.domain.body import Body, Memory, Slice
from edge_node.domain.errors import Quarantine
from tests.unit.deid.objects import ct, encoded
from tests.unit.deid.streams import FRAME, HUFFMAN, NAME, PLAIN, SCAN, TABLE, WIDE, jpeg, segment
from tests.unit.deid.test_apart import encapsulated, pixels_apart_from

EXPLICIT, RLE = syntax_of(ExplicitVRLittleEndian), struct.pack("<16L", 1, 64, *[0] * 14)
FLOATS = 0x7FE00008


@pytest.fixture(autouse=True)
def apart_from_twenty_bytes() -> Iterator[None]:
    with pixels_apart_from(20):
        yield


def parted(data: bytes, syntax: str = ExplicitVRLittleEndian) -> tuple[Node, Pixels | bytes]:
    return read(Memory(data), syntax_of(str(syntax)))


def kept_apart(data: bytes, syntax: str = ExplicitVRLittleEndian) -> tuple[Node, Pixels]:
    node, pixels = parted(data, syntax)
    assert isinstance(pixels, Pixels)
    return node, pixels


def test_native_pixels_stay_and_their_element_is_empty() -> None:
    data = encoded(ct())
    node, pixels = kept_apart(data)
    assert (pixels.tag, pixels.vr, pixels.fragments, pixels.samples) == (PIXEL_DATA, "OW", None, 32)
    assert pixels.value.read() == bytes(range(32))
    assert node[PIXEL_DATA] == Element(PIXEL_DATA, "OW")
    assert {**node, PIXEL_DATA: Element(PIXEL_DATA, "OW", bytes(range(32)))} == wire.parse(data, EXPLICIT)


def test_fragments_stay_and_are_counted_without_their_heads() -> None:
    instance = encapsulated(str(RLELossless), [b"", RLE, RLE], 2)
    _, pixels = kept_apart(instance.dataset, RLELossless)
    assert pixels.vr == "OB"
    assert [one.read() for one in pixels.fragments or []] == [b"", RLE, RLE]
    assert pixels.samples == 2 * len(RLE)
    assert pixels.value.read() == instance.dataset[-(2 * len(RLE) + 3 * 8 + 8) :]


def test_what_is_smaller_or_deflated_comes_through_memory() -> None:
    data = encoded(ct())
    with pixels_apart_from(32):
        assert isinstance(parted(data)[1], Pixels)
    with pixels_apart_from(33):
        assert parted(data) == (wire.parse(data, EXPLICIT), data)
    with pixels_apart_from(len(data)):
        assert parted(data)[1] == data
    with pixels_apart_from(len(data) + 1):
        assert parted(data)[1] == data
    assert isinstance(read(Memory(b"\3\0"), syntax_of(str(DeflatedExplicitVRLittleEndian)))[1], bytes)


def test_a_header_is_read_on_until_the_pixels_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = ct()
    ds.add_new(0x00204000, "LT", "long " * 500)
    data = encoded(ds)
    for first in (1, 10, 100, 1000, len(data), 10 * len(data)):
        monkeypatch.setattr(apart, "_FIRST_READ", first)
        assert kept_apart(data)[1].value.read() == bytes(range(32))
    monkeypatch.setattr(apart, "_FIRST_READ", 10)
    monkeypatch.setattr(apart, "MOST_IN_MEMORY", 2000)
    with pytest.raises(TooLarge):
        parted(data)


def test_a_data_set_without_pixels_and_a_broken_one_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = ct()
    del ds[PIXEL_DATA]
    data = encoded(ds)
    for first in (10, len(data) - 1, len(data), len(data) + 1):
        monkeypatch.setattr(apart, "_FIRST_READ", first)
        node, whole = parted(data)
        assert (node, bytes(whole) if isinstance(whole, bytes) else whole) == (wire.parse(data, EXPLICIT), data)
        with pytest.raises((Malformed, struct.error)):
            parted(data[:-3])


def test_what_stands_behind_the_pixels_is_read_with_the_header() -> None:
    behind = struct.pack("<HH2s2xL", 0xFFFC, 0xFFFC, b"OB", 4) + b"abcd"
    node, pixels = kept_apart(encoded(ct()) + behind)
    assert node[0xFFFCFFFC].value == b"abcd"
    assert pixels.value.read() == bytes(range(32))


def test_a_second_pixel_data_behind_the_first_sends_all_through_memory() -> None:
    again = struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", 32) + bytes(32)
    data = encoded(ct()) + again
    node, whole = parted(data)
    assert whole == data
    assert node == wire.parse(data, EXPLICIT)


def test_more_behind_the_pixels_than_memory_has_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = struct.pack("<HH2s2xL", 0xFFFC, 0xFFFC, b"OB", 4000) + bytes(4000)
    data = encoded(ct())
    monkeypatch.setattr(apart, "MOST_IN_MEMORY", len(behind))
    assert kept_apart(data + behind)[1].value.read() == bytes(range(32))
    monkeypatch.setattr(apart, "MOST_IN_MEMORY", len(behind) - 1)
    with pytest.raises(TooLarge):
        parted(data + behind)


def test_more_fragments_than_are_counted_come_through_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encapsulated(str(RLELossless), [b"", RLE, RLE], 2).dataset
    monkeypatch.setattr(apart, "MOST_FRAGMENTS", 3)
    assert isinstance(parted(data, RLELossless)[1], Pixels)
    monkeypatch.setattr(apart, "MOST_FRAGMENTS", 2)
    assert parted(data, RLELossless)[1] == data


HEAD = struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def item(data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(data) if length is None else length) + data


@pytest.mark.parametrize(
    "value",
    [
        HEAD + item(b"") + item(RLE),
        HEAD + item(b"") + item(RLE) + DELIMITER[:7],
        HEAD + item(b"") + item(RLE, 0xFFFFFFFF) + DELIMITER,
        HEAD + item(b"") + item(RLE, 1000) + DELIMITER,
        HEAD + item(b"") + struct.pack("<HHL", 0xFFFE, 0xE001, 4) + b"abcd" + DELIMITER,
        HEAD + item(b"") + struct.pack("<HHL", 0xFFFD, 0xE000, 4) + b"abcd" + DELIMITER,
        struct.pack("<HH2s2xL", 0x7FE0, 0x0008, b"OF", 0xFFFFFFFF) + item(b"") + DELIMITER,
        struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", 400) + bytes(399),
    ],
)
def test_broken_fragments_are_malformed(value: bytes) -> None:
    ds = ct()
    del ds[PIXEL_DATA]
    with pytest.raises(Malformed):
        parted(encoded(ds) + value, RLELossless)


def test_fragments_that_end_with_the_object_are_whole() -> None:
    ds = ct()
    del ds[PIXEL_DATA]
    data = encoded(ds) + HEAD + item(b"") + item(RLE) + DELIMITER
    assert kept_apart(data, RLELossless)[1].value.stop == len(data)


def header(frames: int = 1) -> Node:
    ds = ct(NumberOfFrames=frames)
    del ds[PIXEL_DATA]
    return wire.parse(encoded(ds), EXPLICIT)


def written(data: bytes, fragments: list[bytes] | None, syntax: str, frames: int = 1) -> tuple[Body, Node]:
    """The value that pixels of these bytes get in the clean object."""
    source, pieces = Memory(data), None
    if fragments is not None:
        places = [data.index(one, at * 8) for at, one in enumerate(fragments)]
        pieces = [Slice(source, place, place + len(one)) for place, one in zip(places, fragments, strict=True)]
    clean: Node = {}
    pixels = Pixels(PIXEL_DATA, "OB", Slice(source, 0, len(data)), pieces)
    body = clean_pixels(header(frames), clean, pixels, syntax_of(str(syntax)), str(syntax))
    return body, clean


def test_what_stays_is_one_piece_by_reference_and_what_changes_gets_heads_of_its_own() -> None:
    value = item(b"") + item(RLE) + DELIMITER
    body, clean = written(value, [b"", RLE], RLELossless)
    assert [type(part) for part in body.parts] == [Slice]
    assert body.whole() == value
    assert (clean[PIXEL_DATA].tag, clean[PIXEL_DATA].vr) == (PIXEL_DATA, "OB")
    odd = item(b"") + item(RLE + b"x") + DELIMITER
    assert written(odd, [b"", RLE + b"x"], RLELossless)[0].whole() == item(b"") + item(RLE + b"x\0") + DELIMITER
    other = value[:-8] + struct.pack("<HHL", 0xFFFE, 0xE0DD, 7)
    assert written(other, [b"", RLE], RLELossless)[0].whole() == value
    wrong = item(b"abc\0") + item(RLE) + DELIMITER
    assert written(wrong, [b"abc\0", RLE], RLELossless)[0].whole() == value
    loud = jpeg(segment(0xFE, NAME), TABLE, WIDE, FRAME, HUFFMAN, SCAN)
    clean_stream = written(item(b"") + item(loud) + DELIMITER, [b"", loud], JPEGBaseline8Bit)[0].whole()
    assert clean_stream == item(b"") + item(PLAIN.rstrip(b"\0") + b"\0" * (len(PLAIN.rstrip(b"\0")) & 1)) + DELIMITER


def test_a_table_that_is_longer_than_the_frames_are_many_is_not_read() -> None:
    long = struct.pack("<2L", 0, 8)
    assert written(item(long) + item(RLE) + DELIMITER, [long, RLE], RLELossless)[0].whole().startswith(item(b""))
    right = struct.pack("<L", 0)
    assert written(item(right) + item(RLE) + DELIMITER, [right, RLE], RLELossless)[0].whole().startswith(item(right))


def test_a_frame_that_would_fill_the_memory_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    value = item(b"") + item(PLAIN) + DELIMITER
    monkeypatch.setattr(apart, "MOST_IN_MEMORY", len(PLAIN))
    assert written(value, [b"", PLAIN], JPEGBaseline8Bit)[0].whole() == value
    monkeypatch.setattr(apart, "MOST_IN_MEMORY", len(PLAIN) - 1)
    with pytest.raises(TooLarge):
        written(value, [b"", PLAIN], JPEGBaseline8Bit)


def test_pixels_apart_are_in_fragments_where_the_transfer_syntax_says_so_and_nowhere_else() -> None:
    with pytest.raises(Quarantine, match="not in fragments"):
        written(bytes(32), None, JPEGBaseline8Bit)
    with pytest.raises(Quarantine, match="it is not"):
        written(item(b"") + item(RLE) + DELIMITER, [b"", RLE], ExplicitVRLittleEndian)
    for none in ([], [b""]):
        with pytest.raises(Quarantine, match="no fragments"):
            written(b"".join(map(item, none)) + DELIMITER, none, RLELossless)
    floats = Pixels(FLOATS, "OF", Slice(Memory(bytes(64)), 0, 64))
    clean: Node = {}
    body = clean_pixels(header(), clean, floats, syntax_of(str(RLELossless)), str(RLELossless))
    assert (body.whole(), clean[FLOATS]) == (bytes(64), Element(FLOATS, "OF"))
