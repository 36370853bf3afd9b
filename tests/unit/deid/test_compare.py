"""The check compares pixel data where it lies: in pieces of any size, to the last byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid import samples
from edge_node.deid.samples import asides_of, compare
from edge_node.deid.witness import Unreadable
from edge_node.domain.body import Body
from edge_node.domain.errors import Quarantine
from tests.unit.deid.streams import FRAME, HUFFMAN, NAME, PLAIN, SCAN, TABLE, j2k, jpeg, segment

DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


def body(data: bytes, cuts: Sequence[int] = ()) -> Body:
    """`data` in pieces."""
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return Body([data[begin:end] for begin, end in zip([0, *ends], ends, strict=False) if begin < end])


def item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(data)) + data


def framed(*fragments: bytes, table: bytes = b"") -> bytes:
    return b"".join(map(item, (table, *fragments))) + DELIMITER


def said(
    before: bytes, after: bytes, count: int = 0, *, endless: bool = False, closed: bool = True, words: bool = False
) -> object:
    """What the clean one says beside its samples, or why it is not what was received."""
    try:
        return compare(body(before), body(after), count, endless=endless, closed=closed, words=words)
    except Quarantine as held:
        return held.message


CHANGED, BEHIND = "the pixel data is not what was received", "something stands behind the pixels"
FILLED = "the byte that makes the pixels' number even is not zero"


@given(st.binary(min_size=1, max_size=80), st.lists(st.integers(0, 80)), st.lists(st.integers(0, 80)), st.data())
def test_bytes_in_pieces_are_the_same_bytes_and_one_that_changed_is_seen(
    data: bytes, cuts: list[int], others: list[int], draw: st.DataObject
) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert compare(body(data, cuts), body(data, others), len(data), endless=False) == []
    with pytest.raises(Quarantine):
        compare(body(data, cuts), body(other, others), len(data), endless=False)


def test_pieces_larger_than_what_is_compared_at_once_are_compared_to_their_end() -> None:
    data = bytes(range(256)) * 2048
    assert said(data, data) == []
    for at in (0, (1 << 17) - 1, 1 << 17, len(data) - 1):
        other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert said(data, other) == CHANGED


@pytest.mark.parametrize(
    ("before", "after", "count", "answer"),
    [
        (b"abcdef", b"abcdef", 6, []),
        (b"abcdef", b"abcdef", 0, []),
        (b"abcde", b"abcde\0", 5, []),
        (b"abcdeKim", b"abcde\0", 5, []),
        (b"abcdeKim", b"abcde", 5, []),
        (b"abcdeK", b"abcde\0", 5, []),
        (b"abcdeK", b"abcdeK", 5, FILLED),
        (b"abcde", b"abcdeK", 5, FILLED),
        (b"abcdeKim", b"abcdeK", 5, FILLED),
        (b"abcdefK", b"abcdefK", 6, FILLED),
        (b"abcdeKi", b"abcdeKi", 5, BEHIND),
        (b"abcde", b"abcd", 5, CHANGED),
        (b"abcd", b"abcde", 5, CHANGED),
        (b"abcdef", b"abcde", 0, CHANGED),
        (b"abcdeKim", b"abcdX\0", 5, CHANGED),
        (b"abcdef", b"abcdeX", 6, CHANGED),
        (b"abcdefK", b"abcdeX", 6, CHANGED),
    ],
)
def test_of_native_pixels_as_many_bytes_are_the_same_as_there_are_samples(
    before: bytes, after: bytes, count: int, answer: object
) -> None:
    assert said(before, after, count) == answer


@pytest.mark.parametrize(
    ("before", "after", "count", "answer"),
    [
        (b"abcd\0e", b"abcd\0e", 5, []),
        (b"abcdKe", b"abcd\0e", 5, []),
        (b"abcdKeim", b"abcd\0e", 5, []),
        (b"abcdKe", b"abcdKe", 5, FILLED),
        (b"abcdKeim", b"abcdKe", 5, FILLED),
        (b"abcdKe", b"abcd\0X", 5, CHANGED),
        (b"abcdKeim", b"abcd\0X", 5, CHANGED),
        (b"abcdKeim", b"abcX\0e", 5, CHANGED),
        (b"abcdKe", b"abcde\0", 5, CHANGED),
        (b"abcd\0e", b"abcd\0", 5, CHANGED),
        (b"abcd\0", b"abcd\0", 5, CHANGED),
        (b"abcd\0", b"abcd\0\0", 5, CHANGED),
        (b"abcd\0e", b"abcd\0e\0", 5, BEHIND),
        (b"\0a", b"\0a", 1, []),
        (b"Ka", b"Ka", 1, FILLED),
        (b"\0a", b"\0b", 1, CHANGED),
        (b"abcdef", b"abcdef", 6, []),
        (b"abcdef", b"abcdeX", 6, CHANGED),
        (b"abcdefKi", b"abcdef", 6, []),
    ],
)
def test_the_last_of_an_odd_number_of_pixels_in_words_of_big_endian_is_looked_for_behind_their_filling(
    before: bytes, after: bytes, count: int, answer: object
) -> None:
    assert said(before, after, count, words=True) == answer


RLE = struct.pack("<16L", 1, 64, *[0] * 14)


def test_what_stands_beside_the_samples_is_given_back_once() -> None:
    value = framed(PLAIN, PLAIN, table=b"offset")
    told = said(value, value, endless=True)
    assert isinstance(told, list)
    assert told[0] == b"offset"
    assert told[1:] == list(dict.fromkeys(asides_of(PLAIN, PLAIN)))
    assert {TABLE, FRAME, HUFFMAN, SCAN[: -len(b"\x12\xff\0\x34\xff\xd0\x56")]} <= set(told)
    assert said(framed(RLE + b"samples"), framed(RLE + b"samples"), endless=True) == [b"", RLE]
    assert said(framed(b"video"), framed(b"video"), endless=True) == [b"", b"video"]
    assert said(framed(), framed(), endless=True) == [b""]
    in_two = framed(PLAIN[:100], PLAIN[100:])
    assert b"".join(asides_of(PLAIN[100:], PLAIN[:4])) in b"".join(said(in_two, in_two, endless=True))  # type: ignore[arg-type]


def test_the_delimiter_may_be_missing_where_the_length_says_the_end() -> None:
    value = framed(RLE)
    assert said(value[:-8], value[:-8], endless=True, closed=False) == [b"", RLE]
    with pytest.raises(Unreadable):
        said(value[:-8], value[:-8], endless=True)


@pytest.mark.parametrize(
    "value",
    [
        DELIMITER,
        b"",
        b"\xfe\xff\x00",
        item(b"") + item(RLE),
        item(b"") + item(RLE)[:-1] + DELIMITER,
        item(b"") + item(RLE) + DELIMITER + b"\0",
        item(b"") + b"\xfe\xff\x01\xe0" + struct.pack("<L", 2) + b"ab" + DELIMITER,
        item(b"") + b"\xfe\xff\x00\xe0" + struct.pack("<L", 200) + RLE + DELIMITER,
        item(b"") + item(RLE) + b"\xfe\xff\xdd\xe0",
    ],
)
def test_fragments_that_do_not_fill_the_value_are_not_believed(value: bytes) -> None:
    with pytest.raises(Unreadable):
        said(value, value, endless=True)


def test_a_frame_that_would_fill_the_memory_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "LARGEST_FRAME", len(PLAIN))
    whole = framed(PLAIN, PLAIN)
    assert isinstance(said(whole, whole, endless=True), list)
    monkeypatch.setattr(samples, "LARGEST_FRAME", len(PLAIN) - 1)
    with pytest.raises(Unreadable):
        said(whole, whole, endless=True)
    assert said(framed(RLE * 20), framed(RLE * 20), endless=True) == [b"", RLE]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (framed(b"abc"), framed(b"abc\0"), True),
        (framed(b"abc", b"de"), framed(b"abc\0", b"de"), True),
        (framed(b"abc"), framed(b"abcX"), False),
        (framed(b"abcd"), framed(b"abcd\0"), False),
        (framed(b"abcd"), framed(b"abcd\0\0"), False),
        (framed(b"abcd"), framed(b"abc"), False),
        (framed(b"abcd"), framed(b"abXd"), False),
        (framed(b"abcd", b"ef"), framed(b"abcd"), False),
        (framed(b"abcd"), framed(b"abcd", b""), False),
        (framed(b"abcd", table=b"table"), framed(b"abcd"), True),
        (framed(jpeg(b"\xff\xfe\0\5Kim", TABLE, SCAN)), framed(jpeg(TABLE, SCAN)), True),
        (framed(jpeg(TABLE, SCAN), RLE), framed(jpeg(TABLE, SCAN)), True),
        (framed(PLAIN[:60], PLAIN[60:]), framed(PLAIN), True),
        (framed(PLAIN[:60], PLAIN[60:], PLAIN), framed(PLAIN, PLAIN), True),
        (framed(PLAIN, PLAIN), framed(PLAIN), False),
        (framed(PLAIN), framed(PLAIN, PLAIN), False),
        (framed(), framed(b"ab"), False),
    ],
)
def test_fragments_are_the_same_but_for_padding_and_streams_but_for_what_is_no_scan(
    before: bytes, after: bytes, same: bool
) -> None:
    assert (said(before, after, endless=True) != CHANGED) is same


TILE_PART = segment(0x90, bytes(8))


@pytest.mark.parametrize(
    ("first", "code", "begins"),
    [(b"\xff\xd8\xff\xdb", 0xFE, (PLAIN[:2], b"")), (b"\xff\x4f\xff\x51", 0x64, (j2k()[:44], TILE_PART))],
)
def test_a_segment_is_given_in_one_piece_however_long_it_is_and_wherever_its_fragment_begins(
    first: bytes, code: int, begins: tuple[bytes, ...]
) -> None:
    for text in (NAME, NAME + bytes(300), NAME * 20):
        for begin in begins:
            assert any(text in piece for piece in asides_of(begin + segment(code, text) + b"\xff\xd9", first))
