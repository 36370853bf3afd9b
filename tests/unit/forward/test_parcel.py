from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from edge_node.domain.errors import Withheld
from edge_node.domain.study import CleanObject
from edge_node.forward.parcel import plan, verify_outgoing
from edge_node.store.digest import is_of
from tests.clean_objects import SYNTAXES, clean_object, clean_part10, uid_of


def verdict(part10: bytes, *, syntax: UID = ExplicitVRLittleEndian) -> str:
    """The gate's answer when the ledger knows exactly these bytes."""
    return verify_outgoing(part10, clean_object(part10=part10, syntax=syntax))


def test_uncleaned_pixels_are_withheld_with_their_risk_and_the_order_is_kept() -> None:
    objects = [clean_object(0), clean_object(1, pixel_risk="ultrasound"), clean_object(2)]
    to_send, held = plan(objects)
    assert to_send == [objects[0], objects[2]]
    assert held == {objects[1].sop_uid: Withheld("pixels.uncleaned:ultrasound")}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_clean_object_passes_in_every_encoding(syntax: UID) -> None:
    assert verdict(clean_part10(syntax=syntax), syntax=syntax) == ""


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_identity_not_removed_is_seen_in_every_encoding(syntax: UID) -> None:
    part10 = clean_part10(syntax=syntax, change=lambda image: setattr(image, "PatientIdentityRemoved", "NO"))
    assert verdict(part10, syntax=syntax) == "identity-not-removed"


def _nest(image: Dataset) -> None:
    """A nested YES of the same tag, in sequences of undefined length, where the top level has none."""
    del image.PatientIdentityRemoved
    inner, outer = Dataset(), Dataset()
    inner.PatientIdentityRemoved = "YES"
    outer.ReferencedSeriesSequence = Sequence([inner])
    outer["ReferencedSeriesSequence"].is_undefined_length = True
    image.ReferencedStudySequence = Sequence([outer])
    image["ReferencedStudySequence"].is_undefined_length = True


def _drop(keyword: str) -> Callable[[Dataset], None]:
    return lambda image: image.__delattr__(keyword)


def _put(keyword: str, value: str) -> Callable[[Dataset], None]:
    return lambda image: setattr(image, keyword, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop("PatientIdentityRemoved"), "identity-not-removed"),
        (_put("PatientIdentityRemoved", ""), "identity-not-removed"),
        (_nest, "identity-not-removed"),
        (_put("StudyInstanceUID", "1.2.840.113619.2.55"), "study-uid"),
        (_drop("StudyInstanceUID"), "study-uid"),
        (_put("SeriesInstanceUID", "1.2.840.113619.2.55.3"), "series-uid"),
        (_put("SeriesInstanceUID", uid_of("another series")), "series-uid"),
        (_put("BurnedInAnnotation", "YES"), "burned-in"),
    ],
)
def test_the_header_itself_must_say_that_it_is_clean(change: Callable[[Dataset], None], reason: str) -> None:
    assert verdict(clean_part10(change=change)) == reason


def test_a_sequence_of_undefined_length_before_the_wanted_elements_is_walked_past() -> None:
    def nest(image: Dataset) -> None:
        _nest(image)
        image.PatientIdentityRemoved = "YES"

    for syntax in SYNTAXES:
        assert verdict(clean_part10(syntax=syntax, change=nest), syntax=syntax) == ""


def test_a_second_patient_identity_removed_does_not_overrule_the_first() -> None:
    part10 = clean_part10(change=_put("PatientIdentityRemoved", "NO"))
    at = part10.index(b"\x12\x00\x62\x00CS\x02\x00NO")
    forged = part10[: at + 10] + b"\x12\x00\x62\x00CS\x04\x00YES " + part10[at + 10 :]
    assert verdict(forged) == "unreadable"


def test_an_object_under_a_foreign_sop_instance_uid_is_stopped() -> None:
    part10 = clean_part10(7)
    assert verify_outgoing(part10, clean_object(8, part10=part10)) == "sop-uid"
    foreign = clean_part10(0, change=lambda image: setattr(image, "SOPInstanceUID", "1.2.3.4"))
    assert verify_outgoing(foreign, replace(clean_object(part10=foreign), sop_uid="1.2.3.4")) == "sop-uid"


def test_file_meta_that_names_another_instance_is_stopped() -> None:
    part10 = clean_part10()
    own = uid_of("sop", 0).encode()
    swapped = own[:-1] + (b"1" if own[-1:] != b"1" else b"2")
    assert verdict(part10.replace(own, swapped, 1)) == "sop-uid"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda one: replace(one, digest="0" * 64), "hash"),
        (lambda one: replace(one, size=one.size + 1), "size"),
        (lambda one: replace(one, transfer_syntax="1.2.840.10008.1.2.4.90"), "transfer-syntax"),
        (lambda one: replace(one, pixel_risk="secondary-capture"), "pixels"),
    ],
)
def test_bytes_that_are_not_those_of_the_ledger_are_stopped(
    spoil: Callable[[CleanObject], CleanObject], reason: str
) -> None:
    assert verify_outgoing(clean_part10(), spoil(clean_object())) == reason


def test_a_preamble_with_anything_in_it_is_stopped() -> None:
    assert verdict(b"II*\0" + clean_part10()[4:]) == "preamble"


def test_what_is_not_a_dicom_file_is_stopped() -> None:
    assert verdict(b"") == "not-part10"
    assert verdict(b"\0" * 1000) == "not-part10"


def test_nesting_without_end_is_unreadable_and_not_a_crash() -> None:
    endless = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    part10 = clean_part10()
    at = part10.index(b"\x08\x00\x16\x00UI")
    assert verdict(part10[:at] + endless * 5000) == "unreadable"


@settings(max_examples=300, deadline=None)
@given(cut=st.integers(min_value=0, max_value=1200), data=st.data())
def test_no_damage_makes_the_gate_crash_or_pass_other_bytes(cut: int, data: st.DataObject) -> None:
    original = clean_part10()
    at = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original[: len(original) - cut])
    if at < len(damaged):
        damaged[at] ^= data.draw(st.integers(1, 255))
    if bytes(damaged) != original:
        assert verify_outgoing(bytes(damaged), clean_object()) in ("hash", "size")
    assert isinstance(verdict(bytes(damaged)), str)


def test_the_gate_reads_the_hash_of_the_very_bytes() -> None:
    one = clean_object()
    assert is_of(one.digest, one.read())
    assert verify_outgoing(one.read(), one) == ""
