"""Data sets as bytes, to the byte: what is read, what is refused, what is written."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from edge_node.deid import part10, wire
from edge_node.deid.wire import Element, Malformed, Node, Syntax
from edge_node.domain.errors import Quarantine
from tests.unit.deid.objects import CT, ct, encoded, received

IMPLICIT, EXPLICIT, BIG = Syntax(implicit=True), Syntax(), Syntax(big=True)
ALL = pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG], ids=["implicit", "explicit", "big"])
OPEN = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
TEXT, UID, ROWS, PURPOSES, REFERENCES = 0x00080070, 0x00080018, 0x00280010, 0x0040A170, 0x00081140


def mark(syntax: Syntax, tag: int, length: int) -> bytes:
    """An item, a delimiter, or the head of an element in implicit VR."""
    return struct.pack((">" if syntax.big else "<") + "HHL", tag >> 16, tag & 0xFFFF, length)


def sent(syntax: Syntax, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element, its head written by hand."""
    size, order = len(value) if length is None else length, ">" if syntax.big else "<"
    if syntax.implicit:
        return mark(syntax, tag, size) + value
    layout = "HH2s2xL" if vr in wire._LONG else "HH2sH"
    return struct.pack(order + layout, tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def example(syntax: Syntax) -> tuple[Node, bytes]:
    """A small data set with sequences in sequences, and its bytes with defined lengths."""
    rows = struct.pack(">H" if syntax.big else "<H", 512)
    inner = sent(syntax, UID, "UI", b"1.2\0") + sent(syntax, ROWS, "US", rows)
    purpose = sent(syntax, TEXT, "LO", b"one ")
    items = mark(syntax, ITEM, len(purpose)) + purpose + mark(syntax, ITEM, 0)
    inner += sent(syntax, PURPOSES, "SQ", items)
    data = sent(syntax, 0x00080008, "CS", b"A\\BC") + sent(syntax, TEXT, "LO", b"two ")
    data += sent(syntax, REFERENCES, "SQ", mark(syntax, ITEM, len(inner)) + inner)
    data += sent(syntax, 0x00281201, "OW", b"\0\1\2\3")
    reference: Node = {
        UID: Element(UID, "UI", b"1.2\0"),
        ROWS: Element(ROWS, "US", rows),
        PURPOSES: Element(PURPOSES, "SQ", items=[{TEXT: Element(TEXT, "LO", b"one ")}, {}]),
    }
    node: Node = {
        0x00080008: Element(0x00080008, "CS", b"A\\BC"),
        TEXT: Element(TEXT, "LO", b"two "),
        REFERENCES: Element(REFERENCES, "SQ", items=[reference]),
        0x00281201: Element(0x00281201, "OW", b"\0\1\2\3"),
    }
    return node, data


@ALL
def test_a_data_set_is_read_and_written_as_the_standard_says(syntax: Syntax) -> None:
    node, data = example(syntax)
    assert wire.parse(data, syntax) == node
    assert wire.encode(node, syntax) == data
    assert wire.encode(dict(reversed(node.items())), syntax) == data
    assert b"".join(wire.encode_parts(node, syntax)) == data
    told = wire.encode_items(node[REFERENCES].items or [], syntax)
    assert sent(syntax, REFERENCES, "SQ", told) in data
    assert wire.uint(node[REFERENCES].items[0], ROWS, syntax) == 512  # type: ignore[index]


@ALL
def test_sequences_and_items_of_open_end_say_the_same(syntax: Syntax) -> None:
    uid, end = sent(syntax, UID, "UI", b"1.2\0"), mark(syntax, ITEM_END, 0)
    inner = sent(syntax, PURPOSES, "SQ", mark(syntax, ITEM, OPEN) + uid + end + mark(syntax, SEQUENCE_END, 0), OPEN)
    outer = mark(syntax, ITEM, OPEN) + inner + end + mark(syntax, ITEM, len(uid)) + uid + mark(syntax, SEQUENCE_END, 0)
    data = sent(syntax, REFERENCES, "SQ", outer, OPEN) + sent(syntax, ROWS, "US", b"\1\2")
    one: Node = {UID: Element(UID, "UI", b"1.2\0")}
    assert wire.parse(data, syntax) == {
        REFERENCES: Element(REFERENCES, "SQ", items=[{PURPOSES: Element(PURPOSES, "SQ", items=[one])}, one]),
        ROWS: Element(ROWS, "US", b"\1\2"),
    }


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_compressed_pixels_are_fragments_and_stay_so(vr: str) -> None:
    items = b"".join(mark(EXPLICIT, ITEM, len(f)) + f for f in (b"", b"\xff\xd8\xff\xd9", b"two "))
    data = sent(EXPLICIT, wire.PIXEL_DATA, vr, items + mark(EXPLICIT, SEQUENCE_END, 0), OPEN)
    [element] = wire.parse(data, EXPLICIT).values()
    assert element == Element(wire.PIXEL_DATA, vr, fragments=[b"", b"\xff\xd8\xff\xd9", b"two "])
    assert wire.encode({wire.PIXEL_DATA: element}, EXPLICIT) == data
    odd = Element(wire.PIXEL_DATA, vr, fragments=[b"", b"\xff\xd8\xff"])
    assert mark(EXPLICIT, ITEM, 4) + b"\xff\xd8\xff\0" in wire.encode({wire.PIXEL_DATA: odd}, EXPLICIT)


def deep(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, len(data)) + data)
    return data


@ALL
def test_what_ends_anywhere_but_between_two_elements_is_refused(syntax: Syntax) -> None:
    """At every byte of a data set that has items of either kind."""
    uid = sent(syntax, UID, "UI", b"1.2\0")
    closed = mark(syntax, ITEM, len(uid)) + uid
    ended = mark(syntax, ITEM, OPEN) + uid + mark(syntax, ITEM_END, 0) + mark(syntax, SEQUENCE_END, 0)
    parts = [uid, sent(syntax, REFERENCES, "SQ", closed), sent(syntax, PURPOSES, "SQ", ended, OPEN)]
    data = b"".join(parts)
    whole = {len(b"".join(parts[:n])) for n in range(4)}
    for at in range(len(data) + 1):
        if at in whole:
            assert len(wire.parse(data[:at], syntax)) == sorted(whole).index(at)
            assert len(wire.parse_some(data[:at], syntax)) == sorted(whole).index(at)
        else:
            with pytest.raises(Malformed):
                wire.parse(data[:at], syntax)
            assert len(wire.parse_some(data[:at], syntax)) == len([end for end in whole if 0 < end < at])


@pytest.mark.parametrize(
    "data",
    [
        mark(EXPLICIT, ITEM_END, 0),
        mark(EXPLICIT, ITEM, 0),
        mark(EXPLICIT, SEQUENCE_END, 0),
        sent(EXPLICIT, TEXT, "ZZ", b"x "),
        sent(EXPLICIT, TEXT, "LO", b"x ", 3),
        sent(EXPLICIT, 0x00281201, "OW", b"xy", 3),
        sent(EXPLICIT, TEXT, "UT", b"", OPEN),
        sent(EXPLICIT, 0x00281201, "OW", mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "UT", mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", b"", OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", mark(EXPLICIT, ITEM, 5) + b"four", OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", mark(EXPLICIT, ITEM, OPEN) + mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, wire.PIXEL_DATA, "OB", mark(EXPLICIT, ITEM_END, 0) + mark(EXPLICIT, SEQUENCE_END, 0), OPEN),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, SEQUENCE_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8)) + bytes(8),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN) + mark(EXPLICIT, SEQUENCE_END, 0)),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 0), OPEN),
        sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, 8) + mark(EXPLICIT, ITEM_END, 0)),
        deep(wire.MAX_DEPTH + 1),
    ],
)
def test_what_is_no_data_set_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse(data, EXPLICIT)


def test_nesting_is_read_down_to_the_limit() -> None:
    node: Node | None = wire.parse(deep(wire.MAX_DEPTH), EXPLICIT)
    for _ in range(wire.MAX_DEPTH):
        assert node
        node = (node[REFERENCES].items or [])[0]
    assert node == {}
    for levels in (wire.MAX_DEPTH, wire.MAX_DEPTH + 1, 100):
        data = sent(EXPLICIT, REFERENCES, "SQ", mark(EXPLICIT, ITEM, OPEN), OPEN) * levels
        data += (mark(EXPLICIT, ITEM_END, 0) + mark(EXPLICIT, SEQUENCE_END, 0)) * levels
        if levels == wire.MAX_DEPTH:
            assert list(wire.parse(data, EXPLICIT)) == [REFERENCES]
        else:
            with pytest.raises(Malformed, match="nested deeper"):
                wire.parse(data, EXPLICIT)


def test_an_element_without_value_may_be_the_last() -> None:
    assert wire.parse(sent(EXPLICIT, TEXT, "LO", b""), EXPLICIT) == {TEXT: Element(TEXT, "LO")}
    assert wire.parse(sent(EXPLICIT, 0x00281201, "OW", b""), EXPLICIT) == {0x00281201: Element(0x00281201, "OW")}
    title = sent(EXPLICIT, 0x00020016, "AE", b"")
    assert wire.group_end(META + title, 0, 2, {}) == len(META + title)


@pytest.mark.parametrize(
    ("tag", "value", "vr"),
    [
        (0x00100010, b"Zorblax ", "PN"),
        (0x00081030, b"x" * 0xFFFE, "LO"),
        (0x00081030, b"x" * 0xFFFF, "UN"),
        (0x00081030, b"x" * 0x10000, "UN"),
        (0x00281201, b"lut!", "UN"),
        (REFERENCES, b"", "UN"),
        (0x00104444, b"what", "UN"),
        (0x00091001, b"what", "UN"),
    ],
)
def test_what_was_sent_as_unknown_is_what_the_dictionary_knows_unless_it_is_long(
    tag: int, value: bytes, vr: str
) -> None:
    assert wire.parse(sent(EXPLICIT, tag, "UN", value), EXPLICIT) == {tag: Element(tag, vr, value)}
    if len(value) < 0xFFFF:
        assert wire.parse(sent(BIG, tag, "UN", value), BIG) == {tag: Element(tag, "UN", value)}


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG], ids=["explicit", "big"])
def test_an_unknown_value_without_length_is_a_sequence_in_implicit_little_endian(syntax: Syntax) -> None:
    inner = sent(IMPLICIT, UID, "UI", b"1.2\0")
    items = mark(IMPLICIT, ITEM, len(inner)) + inner + mark(IMPLICIT, SEQUENCE_END, 0)
    data = sent(syntax, 0x00091001, "UN", items, OPEN) + sent(syntax, TEXT, "LO", b"after ")
    node = wire.parse(data, syntax)
    assert node[0x00091001] == Element(0x00091001, "UN", items=[{UID: Element(UID, "UI", b"1.2\0")}])
    assert node[TEXT].value == b"after "


def test_of_two_elements_with_one_tag_the_last_counts() -> None:
    data = sent(EXPLICIT, TEXT, "LO", b"one ") + sent(EXPLICIT, TEXT, "LO", b"two ")
    assert wire.parse(data, EXPLICIT)[TEXT].value == b"two "


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(ROWS, "US"), (0x00280106, "US"), (0x7FE00010, "OW"), (0x00283006, "OW"), (0x00104444, "UN"), (0x00091001, "UN")],
)
def test_the_dictionary_says_what_implicit_values_are(tag: int, vr: str) -> None:
    assert wire.parse(mark(IMPLICIT, tag, 2) + b"\1\2", IMPLICIT)[tag].vr == vr


def test_a_tag_is_named_as_the_standard_writes_it() -> None:
    assert [wire.tag_name(tag) for tag in (0x0019100C, 0x7FE00010)] == ["(0019,100C)", "(7FE0,0010)"]


def test_the_dictionary_knows_several_kinds_for_some_and_none_for_private_ones() -> None:
    assert wire.dictionary_vr(0x00280106) == "US or SS"
    assert (wire.dictionary_vr(0x00091001), wire.dictionary_vr(0x00104444)) == ("", "")
    assert wire.dictionary_vr(0x00090010) == ""
    assert set(wire.tags_of("UR")) > {0x00080407}
    assert not set(wire.tags_of("UR")) & set(wire.tags_of("DA"))


@pytest.mark.parametrize(
    ("vr", "value", "written"),
    [("LO", b"odd", b"odd "), ("UI", b"1.2", b"1.2\0"), ("OB", b"x", b"x\0"), ("UT", b"x", b"x "), ("DA", b"", b"")],
)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_values_are_written_with_an_even_length(vr: str, value: bytes, written: bytes, syntax: Syntax) -> None:
    assert wire.encode({TEXT: Element(TEXT, vr, value)}, syntax) == sent(syntax, TEXT, vr, written)


def test_a_value_too_long_for_its_kind_is_not_written() -> None:
    assert len(wire.encode({TEXT: Element(TEXT, "LO", bytes(0xFFFE))}, EXPLICIT)) == 8 + 0xFFFE
    with pytest.raises(Malformed):
        wire.encode({TEXT: Element(TEXT, "LO", bytes(0xFFFF))}, EXPLICIT)
    with pytest.raises(Malformed):
        wire.encode({TEXT: Element(TEXT, "LO", bytes(0x10000))}, EXPLICIT)
    assert len(wire.encode({TEXT: Element(TEXT, "UT", bytes(0x10000))}, EXPLICIT)) == 12 + 0x10000


def packed(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


def test_deflated_data_is_inflated_within_its_limit_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    node, data = example(EXPLICIT)
    deflated = Syntax(deflated=True)
    assert wire.parse(packed(data), deflated) == node
    assert wire.inflate(packed(data)) == data
    for wrong in (packed(data)[:-1], b"\xff\xff\xff", b""):
        with pytest.raises(Malformed):
            wire.inflate(wrong)
    written = wire.encode_parts(node, deflated)
    assert len(written) == 1
    several = [
        wire.encode({TEXT: Element(TEXT, "LT", hashlib.sha512(bytes([n])).digest()[:n])}, deflated)
        for n in range(0, 60, 2)
    ]
    assert {len(one) % 2 for one in several} == {0}
    ends = [zlib.decompressobj(-15) for _ in several]
    plain = [end.decompress(one) for end, one in zip(ends, several, strict=True)]
    assert [len(one) for one in plain] == [8 + n for n in range(0, 60, 2)]
    assert {end.unused_data for end in ends} == {b"", b"\0"}
    assert zlib.decompressobj(-15).decompress(written[0]) == data
    monkeypatch.setattr(wire, "MOST_IN_MEMORY", len(data))
    assert wire.inflate(packed(data)) == data
    monkeypatch.setattr(wire, "MOST_IN_MEMORY", len(data) - 1)
    with pytest.raises(Malformed):
        wire.inflate(packed(data))


def test_of_a_broken_deflated_data_set_the_beginning_is_had() -> None:
    data = b"".join(struct.pack("<L", n * 2654435761 % (1 << 32)) for n in range(1000))
    assert wire.inflate_some(packed(data)) == data
    broken = packed(data)[:2048] + b"\xff" * 4000
    assert data.startswith(wire.inflate_some(broken)[:1500])
    assert len(wire.inflate_some(broken)) >= 1500
    assert wire.inflate_some(b"\xff\xff\xff") == b""
    assert [len(wire.inflate_some(packed(bytes((1 << 20) + more)))) for more in (-1, 0, 1, 1 << 22)] == [
        (1 << 20) - 1,
        1 << 20,
        1 << 20,
        1 << 20,
    ]


def test_reading_stops_behind_the_tag_that_is_looked_for_and_never_inside_a_sequence() -> None:
    _, data = example(EXPLICIT)
    assert list(wire.parse_some(data, EXPLICIT, TEXT)) == [0x00080008, TEXT]
    assert list(wire.parse_some(data, EXPLICIT, TEXT + 1)) == [0x00080008, TEXT, REFERENCES]
    implicit = example(IMPLICIT)[1]
    assert list(wire.parse_some(implicit, IMPLICIT, TEXT)) == [0x00080008, TEXT]
    assert list(wire.parse_some(implicit, IMPLICIT, REFERENCES)) == [0x00080008, TEXT, REFERENCES]
    [reference] = wire.parse_some(data, EXPLICIT, REFERENCES)[REFERENCES].items or []
    assert list(reference) == [UID, ROWS, PURPOSES]


def test_numbers_and_text_of_an_element_that_is_absent_or_short_are_nothing() -> None:
    node = {ROWS: Element(ROWS, "US", b"\1\2\3\4"), TEXT: Element(TEXT, "CS", b" A B\0 "), 0x00280011: Element(1, "US")}
    assert (wire.uint(node, ROWS, EXPLICIT), wire.uint(node, ROWS, BIG)) == (0x0201, 0x0102)
    assert (wire.uint(node, 0x00280011, EXPLICIT), wire.uint(node, UID, EXPLICIT)) == (None, None)
    assert (wire.ascii_text(node, TEXT), wire.ascii_text(node, UID)) == ("A B", "")


META = sent(EXPLICIT, 0x00020001, "OB", b"\0\1") + sent(EXPLICIT, 0x00020002, "UI", CT.encode() + b"\0")


def test_a_group_ends_where_another_begins() -> None:
    found: Node = {}
    assert wire.group_end(b"before" + META + sent(EXPLICIT, TEXT, "LO", b"x "), 6, 2, found) == 6 + len(META)
    assert found == {
        0x00020001: Element(0x00020001, "OB", b"\0\1"),
        0x00020002: Element(0x00020002, "UI", CT.encode() + b"\0"),
    }
    assert wire.group_end(META + b"short", 0, 2, {}) == len(META)
    assert wire.group_end(META, 0, 2, {}) == len(META)
    assert wire.group_end(sent(EXPLICIT, 0x00020001, "OB", b""), 0, 2, {}) == 12
    for wrong in (META[:-1], META[:10], META[:11], sent(EXPLICIT, 0x00020001, "ZZ", b"xy"), META[:13]):
        with pytest.raises(Malformed):
            wire.group_end(wrong, 0, 2, {})


@ALL
def test_a_uid_is_found_in_bytes_that_cannot_be_walked_if_there_is_one(syntax: Syntax) -> None:
    study = 0x0020000D

    def search(*values: bytes) -> str:
        return wire.search_uid(b"junk" + b"".join(sent(syntax, study, "UI", v) for v in values), study, syntax)

    assert search(b"1.2.3\0") == "1.2.3"
    assert search(b"1.2.34", b"1.2.34") == "1.2.34"
    assert search(b"1.2.3\0", b"1.2.34") == ""
    assert search(b"1.2 x ") == ""
    assert search(b"12") == ""
    assert search() == ""
    assert search(b"1." + b"2" * 62) == "1." + "2" * 62
    assert search(b"1." + b"2" * 63) == "1." + "2" * 63
    assert search(b"1." + b"2" * 64) == ""
    assert wire.search_uid(sent(syntax, study, "UI", b"1.2.3\0")[:-1], study, syntax) == ""
    whole = sent(syntax, study, "UI", b"1.2.3\0")
    assert [wire.search_uid(whole + whole[:at], study, syntax) for at in range(4, 8)] == ["1.2.3"] * 4


def a_file(data: bytes, syntax: str = "1.2.840.10008.1.2.1", meta: bytes = META) -> bytes:
    group = meta + sent(EXPLICIT, 0x00020010, "UI", syntax.encode() + b"\0" * (len(syntax) % 2))
    return bytes(128) + b"DICM" + sent(EXPLICIT, 0x00020000, "UL", struct.pack("<L", len(group))) + group + data


SOP = "1.2.826.0.1.3680043.8.498.77.1"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_the_head_of_a_file_says_what_it_is_and_where_the_data_set_starts(syntax: str) -> None:
    data = encoded(ct(), implicit=syntax == "1.2.840.10008.1.2")
    data = packed(data) if syntax.endswith("99") else data
    head = part10.file_head(a_file(data, syntax), with_study=True)
    assert a_file(data, syntax)[head.start :] == data
    assert (head.transfer_syntax, head.sop_class, head.sop_instance) == (syntax, CT, SOP)
    assert head.study == "1.2.826.0.1.3680043.8.498.77"
    assert part10.file_head(a_file(data, syntax)).sop_instance == SOP
    assert part10.file_head(a_file(encoded(ct()))).study == ""
    assert repr(head) == "<FileHead>"
    other = sent(EXPLICIT, 0x00020002, "UI", b"1.2.7\0")
    assert part10.file_head(a_file(data, syntax, other)).sop_class == CT


def test_file_meta_information_says_what_the_data_set_does_not() -> None:
    meta = META + sent(EXPLICIT, 0x00020003, "UI", b"1.2.9\0")
    assert part10.file_head(a_file(encoded(ct()), meta=meta)).sop_instance == SOP
    told = part10.file_head(a_file(b"", meta=meta))
    assert (told.sop_class, told.sop_instance, told.study) == (CT, "1.2.9", "")
    unknown = part10.file_head(a_file(encoded(ct()), "1.2.3.4", meta))
    assert (unknown.transfer_syntax, unknown.sop_instance) == ("1.2.3.4", "1.2.9")
    named = sent(EXPLICIT, UID, "UI", b"Zorblax!")
    assert part10.file_head(a_file(named, meta=meta)).sop_instance == "1.2.9"
    long = sent(EXPLICIT, 0x00020003, "UI", b"1" * 66)
    with pytest.raises(Quarantine, match=r"deid\.no-uid"):
        part10.file_head(a_file(b"", meta=META + long))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "deid.not-dicom"),
        (encoded(ct()), "deid.not-dicom"),
        (bytes(128) + b"DICM", "deid.not-dicom"),
        (bytes(128) + b"DICM" + META, "deid.not-dicom"),
        (bytes(128) + b"DICM" + META[:-1], "deid.malformed"),
        (a_file(encoded(ct()), "Zorblax"), "deid.malformed"),
        (a_file(b""), "deid.no-uid"),
        (a_file(b"", meta=b""), "deid.no-uid"),
        (a_file(b"", meta=sent(EXPLICIT, 0x00020003, "UI", b"1.2.9\0")), "deid.no-uid"),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_head(data: bytes, code: str) -> None:
    with pytest.raises(Quarantine) as caught:
        part10.file_head(data)
    assert caught.value.code == code


@pytest.mark.parametrize("size", [32, 300_000], ids=["small", "larger than what is read first"])
def test_a_file_is_read_as_what_a_sender_would_have_sent(size: int, tmp_path: Path) -> None:
    data = encoded(ct(PixelData=bytes(range(32)) * (size // 32)))
    (tmp_path / "a.dcm").write_bytes(a_file(data))
    instance = part10.instance_from_file(tmp_path / "a.dcm")
    assert (instance.dataset, instance.transfer_syntax) == (data, "1.2.840.10008.1.2.1")
    assert (instance.sop_class, instance.sop_instance) == (CT, SOP)
    assert (instance.calling_ae, instance.called_ae, instance.peer) == ("FILE", "EDGENODE", "")
    same = part10.instance_from_bytes(a_file(data))
    assert replace(same, received_at=0.0, source=instance.source) == replace(instance, received_at=0.0)
    assert same.dataset == instance.dataset
    assert 0 <= same.received_at - instance.received_at < 60


_BEFORE = 132 + 12 + len(META) + 12


@pytest.mark.parametrize("extra", [65_300, 70_000, 200_000, *(65_536 - _BEFORE + n for n in range(-12, 12, 2))])
def test_file_meta_information_may_be_longer_than_what_is_read_first(extra: int, tmp_path: Path) -> None:
    meta = META + sent(EXPLICIT, 0x00020102, "OB", bytes(extra))
    (tmp_path / "a.dcm").write_bytes(a_file(encoded(ct()), meta=meta))
    assert part10.instance_from_file(tmp_path / "a.dcm").dataset == encoded(ct())


def test_a_file_that_cannot_be_read_or_has_no_uid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Quarantine, match=r"deid\.not-readable.*No such file"):
        part10.instance_from_file(tmp_path / "none.dcm")
    for missing in ("SOPClassUID", "SOPInstanceUID"):
        ds = ct()
        delattr(ds, missing)
        with pytest.raises(Quarantine, match=r"deid\.no-uid"):
            part10.instance_from_bytes(a_file(encoded(ds)))
    for broken in (a_file(b"\xff" * 40), a_file(b"junk", "1.2.840.10008.1.2.1.99")):
        with pytest.raises(Quarantine, match=r"deid\.no-uid"):
            part10.instance_from_bytes(broken)


def test_a_received_object_becomes_a_file_that_says_only_its_encoding() -> None:
    instance = received(ct())
    group = sent(EXPLICIT, 0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
    length = sent(EXPLICIT, 0x00020000, "UL", struct.pack("<L", len(group)))
    assert part10.part10_of(instance) == bytes(128) + b"DICM" + length + group + instance.dataset
