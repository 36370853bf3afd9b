"""Pixels that stay where they landed: byte for byte what the way through memory gives, and checked as strictly."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from edge_node.deid import apart, samples, study_key_of
from edge_node.deid.verify_apart import Apart, verify_apart
from edge_node.domain.body import Body, Memory, Slice, Source
from edge_node.domain.errors import EdgeNodeError, Quarantine
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive import landing
from edge_node.receive.landing import Arrival, Budget, Landing
from tests.unit.deid.objects import CT, DEIDENTIFIER, KEY, RESEARCH, ct, encoded, from_file, instance_of

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
FILES = sorted(Path(pydicom.data.__file__).parent.glob("test_files/*.dcm"))
INSTANCE = "1.2.826.0.1.3680043.8.498.77.1"


class Crumbs:
    """A source that gives its bytes in small pieces, and never the same object twice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, start: int, stop: int) -> bytes:
        return bytes(bytearray(self._data[start:stop]))

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        stop = min(stop, self.size)
        for at in range(start, stop, 7):
            yield self.read(at, min(at + 7, stop))


@contextmanager
def pixels_apart_from(size: int) -> Iterator[None]:
    was, apart.APART = apart.APART, size
    try:
        yield
    finally:
        apart.APART = was


def outcome(instance: IdentifiedInstance, from_size: int) -> tuple[str, bytes]:
    """(code, "") of a refusal, or ("", the clean file)."""
    with pixels_apart_from(from_size):
        try:
            return "", DEIDENTIFIER.clean(instance).part10
        except EdgeNodeError as error:
            return error.code, b""


def both_ways(instance: IdentifiedInstance) -> str:
    """The code of the refusal, "" if there is none; the same both ways."""
    whole = replace(instance, source=Memory(instance.dataset))
    through_memory = outcome(whole, 1 << 62)
    for source in (whole.source, Crumbs(instance.dataset)):
        assert outcome(replace(instance, source=source), 1) == through_memory
    return through_memory[0]


def items(fragments: list[bytes]) -> bytes:
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in fragments)


def encapsulated(syntax: str, fragments: list[bytes], frames: int, behind: bytes = b"") -> IdentifiedInstance:
    """A CT whose pixel data has these fragments, the offset table first."""
    ds = ct(NumberOfFrames=frames, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    del ds[0x7FE00010]
    head = struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    data = encoded(ds) + head + items(fragments) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) + behind
    return instance_of(data, syntax, CT, INSTANCE)


text = st.sampled_from([b"", b"abc", b"Zorblax^Anna", bytes(40)])
scan = st.binary(max_size=30).map(lambda raw: raw.replace(b"\xff", b"\xff\x00"))


@st.composite
def jpegs(draw: st.DrawFn) -> bytes:
    """A JPEG by its markers: segments that go, segments that stay, scans, something behind the end."""

    def segment(code: int, body: bytes) -> bytes:
        return bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body

    parts = [b"\xff\xd8"]
    needed = {0xDB: bytes(65), 0xC0: b"\x08\0\4\0\4\1\1\x11\0"}
    for code in draw(st.lists(st.sampled_from([0xE0, 0xE1, 0xEE, 0xFE, 0xDB, 0xC0]), max_size=4)):
        sound = code in needed and draw(st.integers(0, 9))
        parts.append(segment(code, needed[code] if sound else draw(text)))
    for _ in range(draw(st.integers(1, 2))):
        parts += [segment(0xDA, b"\1\1\0\0\77\0"), draw(scan)]
    return b"".join((*parts, b"\xff\xd9", draw(st.sampled_from([b"", b"\0", b"\0\0", b"x", b"left behind"]))))


@st.composite
def jpeg_2000s(draw: st.DrawFn) -> bytes:
    parts = [b"\xff\x4f\xff\x51\0\4\0\0"]
    for said in draw(st.lists(text, max_size=3)):
        parts.append(b"\xff\x64" + struct.pack(">HH", len(said) + 4, 1) + said)
    tile = b"\xff\x93" + draw(scan)
    parts.append(b"\xff\x90\0\x0a\0\0" + struct.pack(">L", draw(st.sampled_from([0, 12 + len(tile), 1]))) + b"\0\1")
    return b"".join((*parts, tile, b"\xff\xd9", draw(st.sampled_from([b"", b"\0", b"Zorblax"]))))


rle = st.binary(max_size=90).map(lambda raw: struct.pack("<16L", 1, 64, *[0] * 14) + raw)
STREAMS = {
    str(JPEGBaseline8Bit): jpegs(),
    str(JPEGLSLossless): jpegs(),
    str(JPEG2000Lossless): jpeg_2000s(),
    str(RLELossless): rle,
    "1.2.840.10008.1.2.4.102": st.binary(max_size=60),
}


@st.composite
def fragmented(draw: st.DrawFn) -> IdentifiedInstance:
    """Frames cut into fragments, odd and empty ones too, with a table that may be right, wrong or not there."""
    syntax = draw(st.sampled_from(sorted(STREAMS)))
    frames = draw(st.lists(STREAMS[syntax], min_size=1, max_size=4))
    fragments: list[bytes] = []
    offsets: list[int] = []
    for frame in frames:
        cut = draw(st.integers(0, len(frame))) if draw(st.booleans()) else 0
        offsets.append(sum(8 + len(one) for one in fragments))
        fragments += [frame[:cut], frame[cut:]] if cut else [frame]
    table = draw(st.sampled_from([b"", struct.pack(f"<{len(offsets)}L", *offsets), bytes(4 * len(offsets)), b"odd"]))
    number = draw(st.sampled_from([len(frames), len(frames), 1, 9]))
    behind = draw(st.sampled_from([b"", struct.pack("<HH2s2xL", 0xFFFC, 0xFFFC, b"OB", 4) + b"\0\0\0\0", b"torn"]))
    return encapsulated(syntax, [table, *fragments], number, behind)


@settings(max_examples=400, deadline=None)
@given(fragmented())
def test_fragments_by_reference_come_out_as_they_do_through_memory(instance: IdentifiedInstance) -> None:
    both_ways(instance)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([IMPLICIT, EXPLICIT, BIG]),
    st.sampled_from([0x7FE00010, 0x7FE00008, 0x7FE00009]),
    st.integers(-3, 40),
    st.integers(1, 5),
    st.booleans(),
)
def test_native_pixels_by_reference_come_out_as_they_do_through_memory(
    syntax: str, tag: int, more: int, rows: int, behind: bool
) -> None:
    width, vr = {0x7FE00010: (2, "OW"), 0x7FE00008: (4, "OF"), 0x7FE00009: (8, "OD")}[tag]
    ds = ct(Rows=rows, Columns=3)
    del ds[0x7FE00010]
    ds.add_new(tag, vr, os.urandom(max(0, rows * 3 * width + more)))
    if behind:
        ds.add_new(0xFFFCFFFC, "OB", b"Beeblebrox")
    data = encoded(ds, implicit=syntax == IMPLICIT, big=syntax == BIG)
    both_ways(instance_of(data, syntax, CT, INSTANCE))


def odd_in_words(filling: bytes, behind: bytes) -> IdentifiedInstance:
    """3 x 3 pixels of 8 bits in words of big endian: the ninth stands behind what fills its word (PS3.5 7.3)."""
    ds = ct(Rows=3, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.add_new(0x7FE00010, "OW", b"\2\1\4\3\6\5\x08\7" + filling + b"\x09" + behind)
    return instance_of(encoded(ds, big=True), BIG, CT, INSTANCE)


@pytest.mark.parametrize("behind", [b"", b"AB"])
def test_the_last_of_an_odd_number_of_pixels_in_words_of_big_endian_is_kept(behind: bytes) -> None:
    instance = odd_in_words(b"\0", behind)
    assert both_ways(instance) == ""
    kept = dcmread(BytesIO(DEIDENTIFIER.clean(instance).part10))
    assert kept.PixelData == b"\2\1\4\3\6\5\x08\7\0\x09"


@pytest.mark.parametrize("behind", [b"", b"AB"])
def test_what_fills_the_last_word_of_the_pixels_says_nothing_in_what_leaves(behind: bytes) -> None:
    assert both_ways(odd_in_words(b"A", behind)) == ""
    kept = dcmread(BytesIO(DEIDENTIFIER.clean(odd_in_words(b"A", behind)).part10))
    assert kept.PixelData == b"\2\1\4\3\6\5\x08\7\0\x09"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_pydicom_comes_out_as_it_does_through_memory(path: Path) -> None:
    try:
        instance = from_file(str(path))
    except Exception:  # no composite object: nothing to compare
        pytest.skip("no composite object")
    both_ways(instance)


def test_a_second_pixel_data_counts_as_it_does_in_memory() -> None:
    data = encoded(ct()) + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", 32) + bytes(range(32, 64))
    assert both_ways(instance_of(data, EXPLICIT, CT, INSTANCE)) == ""


def test_pixels_that_end_too_early_are_malformed_both_ways() -> None:
    assert both_ways(instance_of(encoded(ct())[:-1], EXPLICIT, CT, INSTANCE)) == "deid.malformed"


def test_a_spilled_arrival_is_read_like_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_WINDOW", "WINDOW", "MOST"):
        monkeypatch.setattr(landing, name, 1000)
    ds = ct(Rows=64, Columns=64)
    ds[0x7FE00010].value = os.urandom(8192)
    data = encoded(ds)
    place, written = Landing(tmp_path, Budget(0)), 0
    while written < len(data):
        with place.room(len(data) - written) as room:
            room[:] = data[written : written + len(room)]
            length = len(room)
        place.took(length)
        written += length
    arrival = Arrival(EXPLICIT, CT, INSTANCE, "CT1", "EDGENODE", "", 0.0, *place.handles())
    assert arrival.spilled is not None
    with arrival.opened() as instance:
        assert instance.dataset == data
        assert instance.source.read(1990, 3010) == data[1990:3010]
        assert outcome(instance, 1) == outcome(instance_of(data, EXPLICIT, CT, INSTANCE), 1 << 62)
    place.close()


def parted(data: bytes, start: int, length: int) -> Apart:
    return Apart(data[:start], Body([Slice(Memory(data), start, start + length)]), data[start + length :])


def test_the_check_believes_no_cut_that_is_not_the_whole_pixel_data() -> None:
    """A value that the cleaner cut out must be the pixels, all of them: whatever else was cut was not looked at."""
    source, made = encoded(ct()), DEIDENTIFIER.clean(instance_of(encoded(ct()), EXPLICIT, CT, INSTANCE)).part10
    pixels, there = source.rindex(bytes(range(32))), made.rindex(bytes(range(32)))
    verify_apart(parted(source, pixels, 32), EXPLICIT, parted(made, there, 32), frozenset())
    for start, length in ((there - 2, 34), (there, 30), (there + 2, 30), (there, 0)):
        with pytest.raises(Quarantine) as caught:
            verify_apart(parted(source, pixels, 32), EXPLICIT, parted(made, start, length), frozenset())
        assert caught.value.code == "deid.unverifiable"
    # The name cut out of both: nobody would have looked at it.
    name = source.index(b"Beeblebrox^Zaphod")
    leaking = made[:there] + made[there:]
    with pytest.raises(Quarantine) as caught:
        verify_apart(parted(source, name, 18), EXPLICIT, parted(leaking, there, 32), frozenset())
    assert caught.value.code == "deid.unverifiable"


def test_the_check_believes_no_cut_of_anything_but_pixels_even_if_it_is_the_same_on_both_sides() -> None:
    document = struct.pack("<HH2s2xL", 0x0042, 0x0011, b"OB", 32)
    source = encoded(ct()) + document + bytes(32)
    made = DEIDENTIFIER.clean(instance_of(encoded(ct()), EXPLICIT, CT, INSTANCE)).part10 + document + bytes(32)
    with pytest.raises(Quarantine) as caught:
        verify_apart(parted(source, len(source) - 32, 32), EXPLICIT, parted(made, len(made) - 32, 32), frozenset())
    assert caught.value.code == "deid.unverifiable"


@pytest.mark.parametrize("at", [0, 15, 31])
def test_the_check_sees_one_changed_byte_of_pixels_that_it_reads_where_they_are(at: int) -> None:
    source, made = encoded(ct()), DEIDENTIFIER.clean(instance_of(encoded(ct()), EXPLICIT, CT, INSTANCE)).part10
    pixels, there = source.rindex(bytes(range(32))), made.rindex(bytes(range(32)))
    changed = bytearray(made)
    changed[there + at] ^= 1
    with pytest.raises(Quarantine) as caught:
        verify_apart(parted(source, pixels, 32), EXPLICIT, parted(bytes(changed), there, 32), frozenset())
    assert caught.value.code == "deid.pixel-data"


def test_the_check_reads_what_stands_behind_pixels_that_it_reads_where_they_are() -> None:
    source, made = encoded(ct()), DEIDENTIFIER.clean(instance_of(encoded(ct()), EXPLICIT, CT, INSTANCE)).part10
    pixels, there = source.rindex(bytes(range(32))), made.rindex(bytes(range(32)))
    name = b"Beeblebrox^Zaphod "
    made += struct.pack("<HH2s2xL", 0xFFFC, 0xFFFC, b"OB", len(name)) + name
    with pytest.raises(Quarantine, match="residual"):
        verify_apart(parted(source, pixels, 32), EXPLICIT, parted(made, there, 32), frozenset())


def test_the_check_looks_beside_the_samples_of_frames_that_it_reads_where_they_are() -> None:
    samples = b"\xff\xda\0\6\0\0\x3f\0\1\2\xff\xd9"
    named, clean = (b"\xff\xd8" + extra + samples for extra in (b"\xff\xfe\0\x14Beeblebrox^Zaphod\0", b""))
    syntax = str(JPEGBaseline8Bit)
    received = encapsulated(syntax, [b"", named], 1)
    source, made = received.dataset, DEIDENTIFIER.clean(encapsulated(syntax, [b"", clean], 1)).part10
    head = struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OB", 0xFFFFFFFF)
    begin, there = source.rindex(head) + len(head), made.rindex(head) + len(head)
    verify_apart(
        parted(source, begin, len(source) - begin), syntax, parted(made, there, len(made) - there), frozenset()
    )
    leaking = made[:there] + source[begin:]
    with pytest.raises(Quarantine) as caught:
        verify_apart(
            parted(source, begin, len(source) - begin), syntax, parted(leaking, there, len(source) - begin), frozenset()
        )
    assert caught.value.code == "deid.residual-identifier"


def test_the_check_finds_a_name_behind_a_jpeg_that_it_reads_where_it_is() -> None:
    jpeg = b"\xff\xd8\xff\xda\0\10\1\1\0\0\77\0scan\xff\xd9"
    said = jpeg + b"Beeblebrox"
    before, after = (
        Body([items([b"", one + b"\0" * (len(one) & 1)]) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)])
        for one in (jpeg, said)
    )
    assert b"Beeblebrox" in b"".join(samples.compare(after, after, 0, endless=True))
    assert b"Beeblebrox" not in b"".join(samples.compare(after, before, 0, endless=True))


@pytest.mark.parametrize("from_size", [1, 1 << 62])
def test_private_elements_that_a_recipe_keeps_stay_beside_pixels_wherever_those_are(from_size: int) -> None:
    ds = ct()
    ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x27, "SH", "1.375:1")
    with pixels_apart_from(from_size):
        made = dcmread(BytesIO(RESEARCH.clean(instance_of(encoded(ds), EXPLICIT, CT, INSTANCE)).part10))
    assert made.private_block(0x0043, "GEMS_PARM_01")[0x27].value == "1.375:1"


def test_what_must_be_in_memory_and_is_too_large_is_held_with_that_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MOST_IN_MEMORY", 2000)
    monkeypatch.setattr(apart, "_FIRST_READ", 100)
    ds = ct()
    ds.add_new(0x00420011, "OB", bytes(4000))  # an encapsulated document
    large = instance_of(encoded(ds), EXPLICIT, CT, INSTANCE)
    assert outcome(large, 100)[0] == "deid.too-large"
    with pixels_apart_from(100), pytest.raises(Quarantine) as caught:
        DEIDENTIFIER.deidentify(large)
    assert caught.value.study == study_key_of(KEY, str(ds.StudyInstanceUID))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(1, 30), st.data())
def test_a_body_is_the_bytes_of_its_parts_however_it_is_read(
    parts: list[bytes], block: int, data: st.DataObject
) -> None:
    sources: list[Source] = [Crumbs(b"<" + part + b">") for part in parts]
    pieces = [
        part if data.draw(st.booleans()) else Slice(source, 1, 1 + len(part))
        for part, source in zip(parts, sources, strict=True)
    ]
    body, whole = Body(pieces), b"".join(parts)
    assert body.whole() == whole == b"".join(body.chunks())
    blocks = list(body.blocks(block))
    assert b"".join(blocks) == whole
    assert {len(one) for one in blocks[:-1]} <= {block}
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert body.read(start, stop) == whole[start:stop] == Body(body.slices(start, stop)).whole()
    assert body.sha256 == hashlib.sha256(whole).hexdigest()
    assert body == Body([whole])
