"""Files: what their head says, what is no file, what a received object becomes."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from edge_node.deid import part10
from edge_node.domain.errors import Quarantine
from tests.unit.deid.elements import (
    EXPLICIT,
    UID,
    packed,
    sent,
)
from tests.unit.deid.objects import CT, ct, encoded, received

META = sent(EXPLICIT, 0x00020001, "OB", b"\0\1") + sent(EXPLICIT, 0x00020002, "UI", CT.encode() + b"\0")


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
