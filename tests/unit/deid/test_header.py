"""What is remembered of earlier objects changes no byte of the next one, no envelope and no refusal."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edge_node.deid import Deidentifier, wire, witness
from edge_node.deid.apart import APART
from edge_node.deid.header import Header, Headers
from edge_node.deid.wire import Syntax
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.elements import ALL, EXPLICIT, IMPLICIT, sent
from tests.unit.deid.objects import CT, KEY, RECIPE, RESEARCH, ct, encoded, instance_of, received
from tests.unit.deid.remembering import BASIC, NAMES, SYNTAXES, forget, outcome, private

TEXTS = ["AXIAL 2.5mm", "Zaphod AXIAL", "seen by Ford", "HEAD", "123 mm", "Müller", "OWN", "DCM", "113100", "CT;1"]


@st.composite
def an_instance(draw: st.DrawFn) -> tuple[IdentifiedInstance, str]:
    """One of a few patients and studies, and here and there something else; what differs varies."""
    ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{draw(st.integers(1, 400))}")
    ds.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 192", "ISO_IR 100", ["", "ISO 2022 IR 87"], "GB18030"]))
    ds.InstanceNumber = draw(st.integers(1, 30))
    for keyword, texts in [("PatientName", NAMES), ("OperatorsName", NAMES), ("SeriesDescription", TEXTS)]:
        if draw(st.booleans()):
            setattr(ds, keyword, draw(st.sampled_from(texts)))
    for keyword in ("ProtocolName", "ImageComments", "PatientComments", "CodingSchemeDesignator", "CodeValue"):
        if draw(st.booleans()):
            setattr(ds, keyword, draw(st.sampled_from(TEXTS)))
    if draw(st.booleans()):
        ds.PatientID = draw(st.sampled_from(["PAT-420042", "PAT-420043", ""]))
    if draw(st.booleans()):
        ds.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{draw(st.integers(76, 78))}"
    if draw(st.booleans()):
        ds.StudyDate = draw(st.sampled_from(["20240229", "20240301"]))
    if draw(st.booleans()):
        private(ds, draw(st.sampled_from(["GEMS_ACQU_01", "OWN", "OTHER"])), draw(st.sampled_from([0x10, 0x11])), "1.5")
    if draw(st.booleans()):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D1100", "SRT", draw(st.sampled_from(TEXTS))
        item.PatientName = draw(st.sampled_from(NAMES))
        ds.AnatomicRegionSequence = [item]
    syntax = draw(st.sampled_from(SYNTAXES))
    try:
        data = encoded(ds, implicit=syntax == SYNTAXES[0], big=syntax == SYNTAXES[2])
    except (UnicodeEncodeError, ValueError):
        ds.SpecificCharacterSet = "ISO_IR 192"
        data = encoded(ds, implicit=syntax == SYNTAXES[0], big=syntax == SYNTAXES[2])
    if draw(st.integers(0, 3)) == 0:  # one byte is another
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    if syntax == SYNTAXES[3]:
        import zlib

        engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = engine.compress(data) + engine.flush()
        data += b"\0" * (len(data) & 1)
    return instance_of(data, syntax, str(ds.SOPClassUID), str(ds.SOPInstanceUID)), syntax


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(an_instance(), min_size=2, max_size=8), st.sampled_from(["basic", "research", "own"]))
def test_a_worker_that_remembers_answers_like_one_that_has_just_begun(
    own: Deidentifier, some: list[tuple[IdentifiedInstance, str]], recipe: str
) -> None:
    deidentifier = {"basic": BASIC, "research": RESEARCH, "own": own}[recipe]
    forget(deidentifier)
    remembering = [outcome(deidentifier, one) for one, _ in [*some, *some, *some]]
    anew = []
    for one, _ in some:
        forget(deidentifier)
        anew.append(outcome(deidentifier, one))
    assert remembering == anew * 3


def test_a_series_is_taken_from_memory_and_stays_what_it_is() -> None:
    forget(BASIC)
    series = [received(ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{n}", InstanceNumber=n)) for n in range(1, 30)]
    remembering = [outcome(BASIC, one) for one in series]
    header = Header(BASIC._headers)
    node = header.parse(series[-1].dataset, EXPLICIT)
    assert len(header.runs) >= 2
    assert set(header.rest) == {0x00080018, 0x00200013}
    assert node == wire.parse(series[-1].dataset, EXPLICIT)
    for one, expected in zip(series, remembering, strict=True):
        forget(BASIC)
        assert outcome(BASIC, one) == expected


def test_a_name_in_one_of_many_instances_is_taken_out_of_its_comments_only_there() -> None:
    forget(BASIC)
    made = []
    for number in range(12):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", ProtocolName="AXIAL HEAD FORD")
        ds.OperatorsName = "Prefect^Ford" if number == 7 else "Kildare^James"
        made.append(BASIC.clean(received(ds)).part10)
        assert b"FORD" not in made[7:8]
    assert all(b"AXIAL HEAD" in one for one in made)


@pytest.mark.parametrize("recipe", ["research", "own"])
def test_a_private_element_is_kept_by_the_creator_of_its_own_object(own: Deidentifier, recipe: str) -> None:
    """The creator stands at the end of what differs, so that it is never part of what is remembered with its block."""
    deidentifier = own if recipe == "own" else RESEARCH
    forget(deidentifier)
    for number in range(40):
        creator = "GEMS_ACQU_01" if number % 3 else f"OTHER {number}"
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}")
        ds.add_new(0x00190010, "LO", creator)
        for offset in (0x20, 0x21, 0x22, 0x23, 0x24):
            ds.add_new(0x00191000 | offset, "DS", "1.5")
        assert (b"GEMS_ACQU_01" in deidentifier.clean(received(ds)).part10) == bool(number % 3)


@ALL
def test_of_two_elements_with_one_tag_the_last_counts_however_often_they_came(syntax: Syntax) -> None:
    headers = Headers()
    parts = [sent(syntax, tag, "LO", b"one ") for tag in (0x00081030, 0x0008103E, 0x00081040, 0x00081048)]
    plain, double = b"".join(parts), b"".join([*parts, sent(syntax, 0x0008103E, "LO", b"two ")])
    for data in (plain, plain, double, double, plain, double):
        header = Header(headers)
        node = header.parse(data, syntax)
        assert node == wire.parse(data, syntax)
        covered = [tag for run in header.runs for tag in run.node]
        assert sorted([*covered, *header.rest]) == sorted(node)


def test_the_same_bytes_in_another_encoding_are_not_taken_for_the_same() -> None:
    headers = Headers()
    # Read as implicit VR, the kind and the length of the one element are the length of the other.
    data = b"".join(sent(IMPLICIT, tag, "US", b"\1\0") for tag in (0x00280010, 0x00280011, 0x00280100))
    for syntax in (IMPLICIT, EXPLICIT, IMPLICIT, EXPLICIT):
        try:
            expected: object = wire.parse(data, syntax)
        except wire.Malformed as error:
            expected = str(error)
        try:
            found: object = Header(headers).parse(data, syntax)
        except wire.Malformed as error:
            found = str(error)
        assert found == expected


def test_pixels_that_were_small_before_are_found_apart_when_something_large_stands_behind_them(
    own: Deidentifier,
) -> None:
    """What is remembered knows nothing of where pixels stay apart, nor does an element that comes twice."""
    jpeg = "1.2.840.10008.1.2.4.70"
    stream = (
        b"\xff\xd8\xff\xc3\0\x0b\x08\0\x04\0\x04\1\1\x11\0\xff\xda\0\x08\1\1\0\1\0\0" + b"\x12\x34" * 10 + b"\xff\xd9"
    )
    fragments = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in (b"", stream))
    pixels = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + fragments + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    padding = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, APART + 10) + bytes(APART + 10)
    part = b"\x18\0\x15\0CS\4\0HEAD"

    def sent_one(number: int, *, large: bool) -> IdentifiedInstance:
        uid = f"1.2.826.0.1.3680043.8.498.77.{number}"
        ds = ct(SOPInstanceUID=uid, InstanceNumber=number)
        del ds.PixelData
        data = encoded(ds)
        at = data.index(part[:6])
        whole = data[:at] + part + data[at:] + pixels + padding if large else data + pixels
        return instance_of(whole, jpeg, CT, uid)

    deidentifier = Deidentifier(RECIPE, KEY, version="0.1.0")
    forget(deidentifier, own)
    fresh = outcome(deidentifier, sent_one(7, large=True))
    forget(deidentifier)
    for number in range(1, 7):
        assert len(outcome(deidentifier, sent_one(number, large=False))) > 3
    assert outcome(deidentifier, sent_one(7, large=True)) == fresh
    assert len(fresh) > 3


@pytest.mark.parametrize("tag", wire.PIXELS)
@pytest.mark.parametrize("vr", ["UT", "UC", "UR", "OB"])
def test_a_large_value_under_the_tag_of_pixels_is_cleaned_wherever_it_stands(tag: int, vr: str) -> None:
    item = Dataset()
    item.add_new(tag, vr, b"a" * 16_384 if vr == "OB" else "a" * 16_384)
    cleaned, *_ = outcome(Deidentifier(RECIPE, KEY, version="0.1.0"), received(ct(RequestAttributesSequence=[item])))
    assert isinstance(cleaned, bytes)
    assert b"a" * 100 not in cleaned


def test_a_header_of_thousands_of_elements_is_read_as_by_who_remembers_nothing() -> None:
    data = encoded(ct())
    at = data.index(b"\x10\0\x10\0PN")
    many = b"".join(struct.pack("<HH2sH", 9, 0x1000 + number, b"LO", 2) + b"ab" for number in range(2000))
    whole = data[:at] + many + data[at:]
    headers = Headers()
    for _ in range(4):
        header = Header(headers)
        assert header.parse(whole, Syntax()) == wire.parse(whole, Syntax())
    told = [witness.witness(whole, implicit=False, big=False).places for _ in range(4)]
    assert all(one == told[0] for one in told)
    assert sum(map(len, told[0].values())) > 2000
