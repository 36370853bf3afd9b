"""What makes the number of pixels even says nothing, wherever it stands; the pixels are all there, and only they."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.deid import apart
from edge_node.deid.verify import verify
from edge_node.deid.verify_apart import Apart, verify_apart
from edge_node.domain.body import Body, Memory, Slice
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.objects import CT, DEIDENTIFIER, ct, encoded, instance_of

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class Sent:
    """An image of one row: `pixels` as they are counted, what fills them up to an even number, what comes behind."""

    syntax: str
    vr: str
    bits: int
    columns: int
    pixels: bytes
    filling: bytes = b"\0"
    behind: bytes = b""

    @property
    def in_words(self) -> bool:
        return self.syntax == BIG and self.vr == "OW" and self.bits <= 8

    def laid(self, filling: bytes) -> bytes:
        """The pixels up to the end of the last word; the low byte of a word, the first of two, comes last in words of
        big endian (PS3.5 7.3, 8.1.1)."""
        even = self.pixels + filling[: len(self.pixels) % 2]
        if not self.in_words:
            return even
        return b"".join(even[at : at + 2][::-1] for at in range(0, len(even), 2))

    def instance(self) -> IdentifiedInstance:
        ds = ct(Rows=1, Columns=self.columns, BitsAllocated=self.bits, BitsStored=self.bits, HighBit=self.bits - 1)
        ds.PixelRepresentation = 0
        ds.add_new(0x7FE00010, self.vr, self.laid(self.filling) + self.behind)
        data = encoded(ds, implicit=self.syntax == IMPLICIT, big=self.syntax == BIG)
        return instance_of(data, self.syntax, CT, str(ds.SOPInstanceUID))


@st.composite
def images(draw: st.DrawFn) -> Sent:
    syntax = draw(st.sampled_from([BIG, EXPLICIT, IMPLICIT]))
    vr = "OW" if syntax == IMPLICIT else draw(st.sampled_from(["OB", "OW"]))
    bits = draw(st.sampled_from([1, 8, 16]))
    columns = draw(st.integers(1, 40))
    size = (columns * bits + 7) // 8
    most = max(1, columns * bits // 8 - 1) - size % 2  # a frame more is no image of this header
    behind = draw(st.integers(0, most // 2).flatmap(lambda half: st.binary(min_size=2 * half, max_size=2 * half)))
    return Sent(
        syntax, vr, bits, columns, draw(st.binary(min_size=size, max_size=size)),
        draw(st.binary(min_size=1, max_size=1)), behind,
    )  # fmt: skip


@pytest.fixture(params=["in memory", "where they landed"])
def wherever(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "APART", 1 if request.param == "where they landed" else 1 << 62)


@pytest.mark.usefixtures("wherever")
@settings(max_examples=150, deadline=None)
@given(images())
def test_what_leaves_is_every_pixel_as_received_and_zero_where_a_byte_fills_them_up(sent: Sent) -> None:
    made = DEIDENTIFIER.clean(sent.instance()).part10
    expected = sent.laid(b"\0")
    assert made.endswith(len(expected).to_bytes(4, "big" if sent.syntax == BIG else "little") + expected)


@pytest.mark.usefixtures("wherever")
@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
def test_a_modality_that_leaves_its_filling_as_it_was_is_welcome(syntax: str, vr: str) -> None:
    left = Sent(syntax, vr, 8, 9, bytes(range(1, 10)), b"K")
    assert (
        DEIDENTIFIER.clean(left.instance()).part10 == DEIDENTIFIER.clean(replace(left, filling=b"\0").instance()).part10
    )
    DEIDENTIFIER.deidentify(left.instance())


@pytest.mark.usefixtures("wherever")
def test_pixels_that_end_in_the_middle_of_a_word_are_not_guessed_at() -> None:
    """Of a word of big endian one byte alone may be its filling or the last pixel."""
    ds = ct(Rows=3, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    del ds[0x7FE00010]
    data = encoded(ds, big=True) + struct.pack(">HH2s2xL", 0x7FE0, 0x0010, b"OW", 9) + bytes(9)
    with pytest.raises(Quarantine, match="in the middle of a word") as caught:
        DEIDENTIFIER.clean(instance_of(data, BIG, CT, str(ds.SOPInstanceUID)))
    assert caught.value.code == "deid.pixel-data"


def verdict(sent: Sent, made: bytes, pixels: int) -> str:
    """What the check says of a clean file whose last `pixels` bytes are its pixels; the same wherever those are."""
    source = sent.instance().dataset
    received = len(sent.laid(b"\0")) + len(sent.behind)

    def parted(data: bytes, size: int) -> Apart:
        start = len(data) - size
        return Apart(data[:start], Body([Slice(Memory(data), start, len(data))]), b"")

    said = []
    for check in (
        lambda: verify(source, sent.syntax, made, frozenset()),
        lambda: verify_apart(parted(source, received), sent.syntax, parted(made, pixels), frozenset()),
    ):
        try:
            check()
            said.append("")
        except Quarantine as error:
            said.append(error.code)
    assert said[0] == said[1]
    return said[0]


@settings(max_examples=200, deadline=None)
@given(images(), st.data())
def test_the_check_sees_each_byte_that_is_not_as_received_and_each_that_fills_and_is_not_zero(
    sent: Sent, draw: st.DataObject
) -> None:
    made = bytearray(DEIDENTIFIER.clean(sent.instance()).part10)
    size = len(sent.laid(b"\0"))
    assert verdict(sent, bytes(made), size) == ""
    at = draw.draw(st.integers(1, size))
    made[-at] ^= draw.draw(st.integers(1, 255))
    assert verdict(sent, bytes(made), size) == "deid.pixel-data"


@pytest.mark.parametrize("behind", [b"", b"AB"])
@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
def test_the_check_lets_no_filling_leave_as_it_came(syntax: str, vr: str, behind: bytes) -> None:
    sent = Sent(syntax, vr, 8, 9, bytes(range(1, 10)), b"K", behind)
    made = DEIDENTIFIER.clean(sent.instance()).part10
    assert verdict(sent, made, 10) == ""
    assert verdict(sent, made[:-10] + sent.laid(b"K"), 10) == "deid.pixel-data"


def test_the_check_sees_pixels_that_are_turned_by_another_value_representation() -> None:
    """The same bytes in OB and in OW of big endian are other pixels."""
    words = Sent(BIG, "OW", 8, 4, b"abcd")
    made = DEIDENTIFIER.clean(words.instance()).part10
    head = b"\x7f\xe0\x00\x10OW"
    assert made.count(head) == 1
    assert verdict(words, made, 4) == ""
    assert verdict(words, made.replace(head, b"\x7f\xe0\x00\x10OB"), 4) == "deid.pixel-data"
    assert verdict(replace(words, vr="OB", pixels=b"badc"), made, 4) == "deid.pixel-data"
