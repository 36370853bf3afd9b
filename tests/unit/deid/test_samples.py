"""Pixels as received and as made: on either side of each line that the check draws."""

from __future__ import annotations

import struct

import pytest

from tests.unit.deid.checked import UIDS, Elements, a_file, said_of, verdict
from tests.unit.deid.elements import BIG, EXPLICIT, ITEM, OPEN, SEQUENCE_END, mark, sent

DEFLATED, JPEG, J2K = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
TEXT, NAME, NUMBER, PIXELS = 0x00204000, 0x00100010, 0x00100020, 0x7FE00010


def image(pixels: bytes, vr: str = "OW", length: int | None = None, **values: object) -> Elements:
    given = {"samples": 1, "kind": b"MONOCHROME2", "frames": b"1 ", "rows": 2, "columns": 3, "bits": 16, **values}
    tags = (("samples", 0x00280002, "US"), ("kind", 0x00280004, "CS"), ("frames", 0x00280008, "IS"),
            ("rows", 0x00280010, "US"), ("columns", 0x00280011, "US"), ("bits", 0x00280100, "US"))  # fmt: skip
    elements: Elements = []
    for name, tag, kind in tags:
        value = given[name]
        if value is not None:
            elements.append((tag, kind, value if isinstance(value, bytes) else struct.pack("<H", value)))
    return [*elements, (PIXELS, vr, pixels) if length is None else (PIXELS, vr, pixels, length)]  # type: ignore[list-item]


SIXES = bytes(range(1, 13))


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({}, 12),
        ({"frames": b"3\0"}, 36),
        ({"frames": None}, 12),
        ({"frames": b""}, 12),
        ({"frames": b"  "}, 12),
        ({"samples": 3, "kind": b"RGB ", "bits": 8}, 18),
        ({"samples": 3, "kind": b"YBR_FULL_422", "bits": 8}, 12),
        ({"samples": 3, "kind": b"YBR_FULL_422\0", "bits": 8}, 12),
        ({"samples": 2, "kind": b"YBR_FULL_422", "bits": 8}, 12),
        ({"samples": None}, 12),
        ({"samples": 3, "kind": None, "bits": 8}, 18),
        ({"samples": 3, "kind": b"YBR_FULL_422X", "bits": 8}, 18),
        ({"rows": b"\2\0\1\0"}, 12),
        ({"bits": 1, "columns": 4}, 1),
        ({"bits": 1, "columns": 5}, 2),
    ],
)
def test_what_stands_behind_the_pixels_is_counted_from_what_the_header_says(
    values: dict[str, object], size: int
) -> None:
    pixels = bytes(n % 250 + 1 for n in range(size))
    even = pixels + b"\0" * (size & 1)
    assert verdict(image(even, **values), image(even, **values)) == "passed"
    assert verdict(image(pixels + b"Kim ", **values), image(pixels, **values)) == "passed"
    assert verdict(image(pixels, **values), image(pixels + b"\0", **values)) == "passed"
    for more in (b"K\0", b"Kim "):
        assert verdict(image(pixels + more, **values), image(pixels + more, **values)) == "pixel-data"
    assert verdict(image(pixels, **values), image(pixels[:-1] + b"\xff", **values)) == "pixel-data"
    assert verdict(image(pixels, **values), image(b"\xff" + pixels[1:], **values)) == "pixel-data"
    assert verdict(image(pixels, **values), image(pixels[:-1], **values)) == "pixel-data"


@pytest.mark.parametrize("missing", ["rows", "columns", "bits"])
@pytest.mark.parametrize("value", [None, b""])
def test_where_the_header_does_not_say_how_many_pixels_are_all_that_was_received(missing: str, value: object) -> None:
    header = image(SIXES * 9, **{missing: value})
    assert verdict(header, header) == "passed"
    assert verdict(header, [*header[:-1], (PIXELS, "OW", SIXES * 8 + SIXES[::-1])]) == "pixel-data"


def test_the_header_of_the_image_counts_and_no_other() -> None:
    icon = b"".join(sent(EXPLICIT, *one) for one in image(b"", rows=1, columns=1)[:-1])
    items = mark(EXPLICIT, ITEM, len(icon)) + icon
    elements: Elements = [*image(SIXES)[:-1], (0x00409096, "SQ", items), (PIXELS, "OW", SIXES)]
    assert verdict(elements, elements) == "passed"
    odd = image(SIXES, frames=b"1X")
    assert verdict(odd, odd) == "unverifiable"


def test_each_of_several_kinds_of_pixels_is_compared() -> None:
    header = image(SIXES)[:-1]
    both: Elements = [*header, (0x7FE00008, "OF", SIXES), (PIXELS, "OW", SIXES)]
    assert verdict(both, both) == "passed"
    longer: Elements = [*header, (0x7FE00008, "OF", SIXES + b"Kim "), (PIXELS, "OW", SIXES)]
    assert verdict(longer, both) == "passed"
    for was in (both, longer):
        assert verdict(was, [*header, (0x7FE00008, "OF", SIXES), (PIXELS, "OW", SIXES[::-1])]) == "pixel-data"
        assert verdict(was, [*header, (0x7FE00008, "OF", SIXES[::-1]), (PIXELS, "OW", SIXES)]) == "pixel-data"


def test_pixels_that_are_lost_or_made_are_missed() -> None:
    assert verdict(image(SIXES), image(SIXES)[:-1]) == "pixel-data"
    assert verdict(image(SIXES)[:-1], image(SIXES)) == "pixel-data"
    assert verdict([], []) == "passed"
    assert verdict([(PIXELS, "OW", SIXES)], [(PIXELS, "OW", SIXES)]) == "passed"
    assert verdict([(PIXELS, "OW", SIXES)], [(PIXELS, "OW", SIXES[::-1])]) == "pixel-data"


def test_in_big_endian_the_header_is_read_so() -> None:
    elements = [(tag, vr, value[::-1] if vr == "US" else value) for tag, vr, value in image(SIXES)]
    assert verdict(elements, elements, syntax=UIDS[BIG]) == "passed"
    longer = [*elements[:-1], (PIXELS, "OW", SIXES + b"Kim ")]
    assert verdict(longer, longer, syntax=UIDS[BIG]) == "pixel-data"


def framed(*parts: bytes) -> bytes:
    return b"".join(mark(EXPLICIT, ITEM, len(part)) + part for part in (b"", *parts)) + mark(EXPLICIT, SEQUENCE_END, 0)


def streams(before: list[bytes], after: list[bytes], syntax: str = JPEG) -> str:
    source, clean = (sent(EXPLICIT, PIXELS, "OB", framed(*parts), OPEN) for parts in (before, after))
    return said_of(source, a_file(clean), syntax)


SCAN = b"\xff\xda\x00\x04scan one"
OTHER = b"\xff\xda\x00\x04scan two"
END = b"\xff\xd9"
BEGIN, SOC = b"\xff\xd8\xff\xdb\0\2", b"\xff\x4f\xff\x51"
COMMENT = b"\xff\xfe\0\5Kim"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([BEGIN + COMMENT + SCAN + END], [BEGIN + SCAN + END], "passed"),
        ([BEGIN + SCAN + OTHER + END], [BEGIN + SCAN + OTHER + END], "passed"),
        ([BEGIN + COMMENT + SCAN + OTHER + END], [BEGIN + SCAN + END], "pixel-data"),
        ([BEGIN + COMMENT + SCAN + OTHER + END], [BEGIN + OTHER + SCAN + END], "pixel-data"),
        ([BEGIN + COMMENT + SCAN + END, BEGIN + OTHER + END], [BEGIN + SCAN + END], "pixel-data"),
        ([BEGIN + COMMENT + SCAN + END], [BEGIN + SCAN + END, BEGIN + OTHER + END], "pixel-data"),
        ([BEGIN + COMMENT + SCAN[:6], SCAN[6:] + END], [BEGIN + SCAN + END], "passed"),
        (
            [BEGIN + COMMENT + SCAN[:6], SCAN[6:] + END, BEGIN + OTHER + END],
            [BEGIN + SCAN + END, BEGIN + OTHER + END],
            "passed",
        ),
        ([BEGIN + COMMENT + SCAN + END], [BEGIN + SCAN[:-1] + b"X" + END], "pixel-data"),
        ([BEGIN + b"no scan\0\0"], [BEGIN + b"no scan"], "passed"),
        ([BEGIN + b"no scan\0\0"], [BEGIN + b"no scam"], "pixel-data"),
        ([BEGIN + b"no scan\0\0\0"], [BEGIN + b"no scan\0"], "passed"),
        ([BEGIN + b"no scanXX"], [BEGIN + b"no scan"], "pixel-data"),
        ([BEGIN + b"no scan\0\0"], [BEGIN + b"no scanX"], "pixel-data"),
        ([SOC + b"abXX"], [SOC + b"ab"], "pixel-data"),
        ([SOC + b"a" + END + b"Kim"], [SOC + b"a" + END + b"\0"], "passed"),
        ([SOC + b"a" + END + b"Kim"], [SOC + b"a" + END + b"X"], "pixel-data"),
        (
            [SOC + b"ab\xff\x64\0\5Kimxy" + END + b"Kim", SOC + b"abcde"],
            [SOC + b"ab\xff\x64\0\5   xy" + END + b"\0", SOC + b"abcde\0"],
            "passed",
        ),
        ([SOC + b"ab" + END + b"Kim", SOC + b"abcd"], [SOC + b"ab" + END, SOC + b"abcd\0\0"], "pixel-data"),
        ([b"RLE stream", b"an odd one"], [b"RLE stream", b"an odd one"], "passed"),
        ([b"RLE strea"], [b"RLE strea\0"], "passed"),
        ([b"RLE strea"], [b"RLE streaX"], "pixel-data"),
        ([b"RLE stream"], [b"RLE stream\0\0"], "pixel-data"),
        ([b"RLE stream"], [b"RLE Stream"], "pixel-data"),
        ([b"RLE stream"], [b"RLE strea"], "pixel-data"),
        ([b"RLE one "], [], "pixel-data"),
        ([], [b"RLE one "], "pixel-data"),
        ([SOC + b"ab\xff\x64\0\5Kimxy"], [SOC + b"ab\xff\x64\0\5   xy"], "passed"),
        ([SOC + b"ab\xff\x64\0\5Kimxy"], [SOC + b"ab\xff\x64\0\5KXmxy"], "pixel-data"),
        ([SOC + b"abcdef"], [SOC + b"abcdef\0\0"], "pixel-data"),
        ([SOC + b"abcde"], [SOC + b"abcde\0"], "passed"),
        ([SOC + b"abcdef\0\0"], [SOC + b"abcdef"], "passed"),
        ([SOC + b"abcdef" + END + b"Kim "], [SOC + b"abcdef" + END], "passed"),
        ([SOC + b"abcdef" + END + b"Kim "], [SOC + b"abcdef"], "pixel-data"),
        ([SOC + b"abcdef" + END], [SOC + b"abcd"], "pixel-data"),
        ([SOC + b"ab" + END, SOC + b"cd" + END], [SOC + b"ab" + END], "pixel-data"),
        ([SOC + b"ab" + END + SOC + b"cd" + END], [SOC + b"ab" + END], "pixel-data"),
        ([SOC + b"a" * 70_000 + b"z"], [SOC + b" " * 65_536 + b"a" * 4_464 + b"z"], "passed"),
        ([SOC + b"a" * 70_000 + b"z"], [SOC + b" " * 65_537 + b"a" * 4_463 + b"z"], "pixel-data"),
    ],
)
def test_a_stream_may_lose_its_comments_and_nothing_else(before: list[bytes], after: list[bytes], said: str) -> None:
    assert streams(before, after) == said
