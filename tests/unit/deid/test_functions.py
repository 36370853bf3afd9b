"""Each function of the recipe language and each default, by what it does to values at and beyond the edge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid import patient_key, private, study_key_of
from edge_node.deid.functions import FUNCTIONS
from edge_node.deid.harden import default_action, refused
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.scene import set_scene
from edge_node.deid.wire import Element, Node

KEY = bytes(range(32))
PATIENT = {0x00100010: Element(0x00100010, "PN", b"Zorblax^Head"), 0x00100020: Element(0x00100020, "LO", b"P-1 ")}
TEXT, DATE, MOMENT, TIME = 0x00081030, 0x00080020, 0x0008002A, 0x00080030


def done(name: str, value: bytes, tag: int = TEXT, vr: str = "LO", node: Node | None = None) -> bytes | None:
    scene = set_scene({**PATIENT, **(node or {})}, Pseudonyms(KEY))
    scene.shift_days = -7
    return FUNCTIONS[name](Element(tag, vr, value), scene)


def default(tag: int, vr: str, value: bytes) -> bytes | str | None:
    """What becomes of an element that no rule speaks of."""
    if refused(tag, vr, 0):
        return "refused"
    action = default_action(tag, vr)
    return action if isinstance(action, str) else action(Element(tag, vr, value), set_scene(PATIENT, Pseudonyms(KEY)))


def test_pseudonyms_are_the_same_in_every_version_of_the_node() -> None:
    """A node that is updated, and its neighbour with the same key that is not, must go on meaning the same patient."""
    names = Pseudonyms(KEY)
    assert names.uid("1.2.3.4") == "2.25.133214384558451522782789046205766344720"
    assert names.identifier("patient", "A", "B") == "THZRB64ANZZH"
    assert names.identifier("patient", "A", "B", 20) == "THZRB64ANZZHWDSJZICA"
    assert names.shift_days("id|A|B") == -378
    assert names.source_digest("1.2", [b"a"]) == "2:f5ae53ef48281b1bc477b343b3ed2fe27b52f724ed57a7a8ae02ddf8382e50"
    assert study_key_of(KEY, "1.2.3.4") == "CSUW2345OW3J"
    assert patient_key(KEY, "B", "A") == "73PKG3JYFANPRAP5C43C"
    assert names.identifier("patient", "A", "\udcff") == "46GPR44DYLEH"


def test_nothing_has_no_pseudonym_and_the_standards_own_uids_stay() -> None:
    names = Pseudonyms(KEY)
    assert (names.uid(""), names.identifier("patient", "A", ""), patient_key(KEY, " \0", "A")) == ("", "", "")
    assert names.uid("1.2.840.10008.1.2") == "1.2.840.10008.1.2"
    assert names.uid("1.2.840.100081") != "1.2.840.100081"


_PARTS = st.text(st.sampled_from("AB|\\"), max_size=4)


@given(st.tuples(_PARTS, _PARTS), st.tuples(_PARTS, _PARTS))
def test_two_patients_never_share_a_pseudonym(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Whatever stands in their IDs: what divides the parts of a pseudonym can be part of an ID."""

    def node(issuer: str, number: str) -> Node:
        return {
            0x00100020: Element(0x00100020, "LO", number.encode()),
            0x00100021: Element(0x00100021, "LO", issuer.encode()),
        }

    scenes = [set_scene(node(*patient), Pseudonyms(KEY)) for patient in (one, other)]
    if one[1] and other[1]:
        assert (scenes[0].patient == scenes[1].patient) is (one == other)
        assert (scenes[0].patient_pseudonym == scenes[1].patient_pseudonym) is (one == other)
        assert (patient_key(KEY, one[1], one[0]) == patient_key(KEY, other[1], other[0])) is (one == other)


@given(st.lists(st.from_regex(r"1\.[0-2]\.[1-9][0-9]{0,5}(\.[1-9][0-9]{0,3}){0,2}", fullmatch=True), unique=True))
def test_no_two_uids_become_one(olds: list[str]) -> None:
    assert len({Pseudonyms(KEY).uid(old) for old in olds}) == len(olds)


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("keep_age", b"044Y", b"044Y"),
        ("keep_age", b"089Y", b"089Y"),
        ("keep_age", b"090Y", b"090Y"),
        ("keep_age", b"091Y ", b"090Y"),
        ("keep_age", b"101Y\0", b"090Y"),
        ("keep_age", b"999D", b"999D"),
        ("keep_age", b"999W", b"999W"),
        ("keep_age", b"999M", b"999M"),
        ("keep_age", b"44Y", None),
        ("keep_age", b"Zorb", None),
        ("keep_sex", b"M ", b"M"),
        ("keep_sex", b"F\0", b"F"),
        ("keep_sex", b"O", b"O"),
        ("keep_sex", b"Zorblax", b""),
        ("keep_size", b"0.1", b"0.1"),
        ("keep_size", b"0.09", None),
        ("keep_size", b"2.6 ", b"2.6"),
        ("keep_size", b"2.61", None),
        ("keep_size", b"Zorblax", None),
        ("keep_weight", b"0.2\0", b"0.2"),
        ("keep_weight", b"0.19", None),
        ("keep_weight", b"450", b"450"),
        ("keep_weight", b"450.1", None),
        ("keep_weight", b"1e2", None),
        ("clean_content", b"Zorblax", b"UNSPECIFIED"),
        ("clean_content", b"Zorblax lung", b"lung"),
        ("clean_text", b"Zorblax", b""),
        ("clean_text", b"Head lung\\Zorblax\\5 mm", b"lung\\\\5 mm"),
        ("pseudonym_patient", b"whoever", b"E7YFJQ2CLMZO"),
        ("pseudonym_id", b" ACC 1 ", b"3RPCBXX7YR2X"),
        ("pseudonym_id", b"ACC 1", b"3RPCBXX7YR2X"),
        ("pseudonym_id", b"  ", b""),
    ],
)
def test_a_function_keeps_what_is_plausible_and_nothing_else(name: str, value: bytes, becomes: bytes | None) -> None:
    assert done(name, value) == becomes


@pytest.mark.parametrize(
    ("tag", "vr", "value", "becomes"),
    [
        (DATE, "DA", b"20240229", b"20240222"),
        (DATE, "DA", b"20240229\\20240307 ", b"20240222\\20240229"),
        (DATE, "DA", b"2024.02.29", b"2024.02.22"),
        (DATE, "DA", b"Zorblax ", b""),
        (DATE, "DA", b"  ", b""),
        (MOMENT, "DT", b"20240229101500\0", b"20240222101500"),
        (MOMENT, "DT", b"2024.02.29", b""),
        (TIME, "TM", b"101500 ", b"101500 "),
        (TIME, "TM", b"10:15\\11", b"10:15\\11"),
        (TIME, "TM", b"Zorblax ", b""),
        (0x00191001, "DA", b"20240229", b"20240222"),
    ],
)
def test_a_date_moves_a_time_stays_and_anything_else_goes(tag: int, vr: str, value: bytes, becomes: bytes) -> None:
    assert done("shift_date", value, tag, vr) == becomes


@pytest.mark.parametrize(
    ("vr", "becomes"),
    [("AE", b"ANON"), ("AS", b"000Y"), ("CS", b"ANON"), ("DA", b"19000101"), ("DT", b"19000101000000"), ("DS", b"0"),
     ("IS", b"0"), ("TM", b"000000"), ("LO", b"ANONYMIZED"), ("PN", b"ANONYMIZED"), ("UR", b"urn:anon"), ("OB", None)],
)  # fmt: skip
def test_a_dummy_fits_the_kind_of_value(vr: str, becomes: bytes | None) -> None:
    assert done("dummy", b"Zorblax", vr=vr) == becomes
    assert str(done("dummy", b"1.2.3", vr="UI")).startswith("b'2.25.")


def test_uids_are_replaced_one_by_one() -> None:
    one, two = (Pseudonyms(KEY).uid(uid).encode() for uid in ("1.2.3", "1.2.4"))
    assert done("pseudonym_uid", b"1.2.3\\1.2.4\0", vr="UI") == one + b"\\" + two
    assert done("pseudonym_uid", b" 1.2.3 ", vr="UI") == one


@pytest.mark.parametrize(
    ("scheme", "code", "value", "meaning"),
    [
        (b"DCM ", b"121071", b"121071", b"Finding"),
        (b"SCT", b"T-04000\0", b"T-04000", b"UNSPECIFIED"),
        (b"99ZORB", b"121071", b"ANON", b"UNSPECIFIED"),
        (b"", b"121071", b"ANON", b"UNSPECIFIED"),
        (b"SCT", b"Zorblax Grue", b"ANON", b"UNSPECIFIED"),
        (b"SCT", b"12345678901234567", b"ANON", b"UNSPECIFIED"),
    ],
)
def test_a_code_is_kept_if_its_scheme_is_public(scheme: bytes, code: bytes, value: bytes, meaning: bytes) -> None:
    node = {0x00080100: Element(0x00080100, "SH", code), 0x00080102: Element(0x00080102, "SH", scheme)}
    assert done("code_value", code, 0x00080100, "SH", node) == value
    assert done("code_meaning", b"Zorblax", 0x00080104, "LO", node) == meaning


@pytest.mark.parametrize(
    ("tag", "vr", "value", "becomes"),
    [
        (0x00090010, "LO", b"ZORB", "refused"),
        (0x00091001, "LO", b"x", "refused"),
        (0x00020003, "UI", b"1.2", "refused"),
        (0x00060001, "LO", b"x", "refused"),
        (0x00080000, "UL", b"\0\0\0\0", "refused"),
        (0x00104444, "LO", b"x", "refused"),
        (0x00180001, "UN", b"x", "refused"),
        (0x50003000, "OW", b"x", "refused"),
        (0x501E3000, "OW", b"x", "refused"),
        (0x60003000, "OW", b"x", "refused"),
        (0x60FE0022, "LO", b"x", "refused"),
        (0xFFFCFFFC, "OB", b"x", "refused"),
        (0xFFFAFFFA, "SQ", b"", "refused"),
        (0x00880200, "SQ", b"", "refused"),
        (0x00420011, "OB", b"x", "refused"),
        (0x04000510, "UI", b"1.2", "refused"),
        (0x00200032, "OB", b"x", "refused"),
        (0x00281201, "LO", b"x", "refused"),
        (0x00280010, "LO", b"x", "refused"),
        (0x00409224, "FD", b"x" * 8, b"x" * 8),
        (0x00189073, "FD", b"seven..", None),
        (0x00280009, "AT", b"\x18\0\x63\x10", b"\x18\0\x63\x10"),
        (0x00281201, "OW", b"lut!", b"lut!"),
        (0x00143070, "OW", b"text", "remove"),
        (0x0040A730, "SQ", b"", "remove"),
        (0x00700001, "SQ", b"", "remove"),
        (0x00081199, "SQ", b"", "descend"),
        (0x00081110, "SQ", b"", "blank"),
        (0x00081140, "SQ", b"", "descend"),
        (0x0040A067, "PN", b"Zorblax", "remove"),
        (0x00080407, "UR", b"http://zorblax", "remove"),
        (0x00080016, "UI", b"1.2.3.4 ", b"1.2.3.4 "),
        (0x00081150, "UI", b"Zorblax", None),
        (0x00080060, "CS", b"CT", b"CT"),
        (0x00180022, "CS", b"AB\\CD ", b"AB\\CD"),
        (0x00180022, "CS", b"ZORBLAX HEAD", None),
        (0x00180022, "CS", b"axial zorblax", b"AXIAL"),
        (0x00181060, "DS", b"1.5 ", b"1.5"),
        (0x00181060, "DS", b"Zorblax ", None),
        (0x00200013, "IS", b"12\\-3", b"12\\-3"),
        (0x40101025, "DT", b"soon", b""),
        (0x0018103E, "DS", b"7", "refused"),
        (0x00080005, "CS", b"ISO_IR 100 ", b"ISO_IR 100 "),
        (0x00080005, "CS", b"\\ISO 2022 IR 87", b"\\ISO 2022 IR 87"),
        (0x00080005, "CS", b"ZORBLAX", None),
        (0x00080005, "CS", b"ISO_IR 100\\ZORBLAX", None),
        (0x00100030, "DA", b"19500102", "blank"),
        (0x00080012, "DA", b"19500102", "blank"),
        (0x00100010, "PN", b"Zorblax", "blank"),
        (0x00080050, "SH", b"ACC", "blank"),
        (0x00081070, "PN", b"Zorblax", b"ANONYMIZED"),
        (0x00101000, "LO", b"ID", "remove"),
        (0x00080080, "LO", b"Zorblax Clinic", b"ANONYMIZED"),
    ],
)
def test_without_a_rule_only_what_cannot_name_anybody_stays(tag: int, vr: str, value: bytes, becomes: object) -> None:
    assert default(tag, vr, value) == becomes


@pytest.mark.parametrize(("tag", "depth", "gone"), [(0x00100010, 1, True), (0x00101002, 1, False),
                                                    (0x7FE00010, 1, True), (0x7FE00010, 0, False)])  # fmt: skip
def test_patients_and_pixels_inside_sequences_are_refused(tag: int, depth: int, gone: bool) -> None:
    assert refused(tag, {0x00100010: "PN", 0x00101002: "SQ"}.get(tag, "OW"), depth) is gone


@pytest.mark.parametrize(
    ("vr", "value", "becomes"),
    [
        ("US", b"\1\0", b"\1\0"),
        ("FD", b"seven..", None),
        ("DS", b"1.5\\2 ", b"1.5\\2 "),
        ("IS", b"Zorblax", None),
        ("CS", b"AXIAL ", b"AXIAL"),
        ("CS", b"axial zorblax", b"AXIAL"),
        ("LO", b"coil 7 ", b"coil 7 "),
        ("LO", b"coil of Zorblax", b"coil"),
        ("DA", b"soon", None),
        ("TM", b"1015", b"1015"),
    ],
)
def test_a_private_value_is_kept_if_it_is_what_it_says(vr: str, value: bytes, becomes: bytes | None) -> None:
    assert private.keep(Element(0x00191001, vr, value), set_scene(PATIENT, Pseudonyms(KEY))) == becomes


def test_a_private_element_belongs_to_who_reserved_its_block() -> None:
    node = {0x00190011: Element(0x00190011, "LO", b"ZORB 1 ")}
    assert private.creator_of(0x00191104, node) == "ZORB 1"
    assert private.creator_of(0x00191004, node) == ""
    assert private.creator_of(0x00190011, node) == ""
    assert private.creator_of(0x00211104, node) == ""
    number = Element(0x00191104, "UN", b"\1\0")
    assert private.as_known(number, "ZORB 1", False) is None
    assert private.as_known(Element(0x00191008, "UN", b"12"), "SIEMENS MR HEADER", True) is None
    known = private.as_known(Element(0x00191008, "UN", b"12"), "SIEMENS MR HEADER", False)
    assert known is not None
    assert (known.vr, known.value) == ("CS", b"12")
    assert private.as_known(Element(0x00191104, "OB", b"12"), "ZORB 1", False) is None
    assert private.as_known(Element(0x00191104, "SQ", items=[]), "ZORB 1", False) is None
