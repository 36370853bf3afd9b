"""What code decides, whatever a recipe says: kinds of value, the Basic Profile, documents."""

from __future__ import annotations

import pytest

from edge_node.deid.functions import FUNCTIONS
from edge_node.deid.harden import basic_action, default_action, refuse_object, refused
from edge_node.domain.errors import Quarantine
from tests.unit.deid.nodes import NAMES, TEXT, done
from tests.unit.deid.objects import CT


@pytest.mark.parametrize(
    ("tag", "vr", "gone"),
    [
        (TEXT, "SH", False),
        (TEXT, "DS", False),
        (TEXT, "US", True),
        (TEXT, "OB", True),
        (TEXT, "UN", True),
        (0x0072006D, "UN", True),
        (0x0072006D, "LO", True),
        (0x00280010, "IS", False),
        (0x00280010, "DS", False),
        (0x00280010, "UL", False),
        (0x00280010, "OW", True),
        (0x00280010, "AT", True),
        (0x00280106, "US", False),
        (0x00280106, "SS", False),
        (0x00280106, "FD", False),
        (0x00280106, "LO", True),
        (0x00181060, "FD", False),
        (0x00200013, "UL", False),
        (0x00283006, "US", False),
        (0x00283006, "OW", False),
        (0x00283006, "OB", False),
        (0x00143050, "OB", False),
        (0x00281201, "OB", False),
        (0x00281201, "UT", True),
        (0x00280009, "AT", False),
        (0x00280009, "US", True),
        (0x00081140, "SQ", False),
        (0x00081140, "LO", True),
        (0x00080000, "UL", True),
        (0xFFFAFFFA, "SQ", True),
        (0x50000010, "US", True),
        (0x60000010, "US", True),
    ],
)
def test_an_element_sent_as_another_kind_of_value_is_refused(tag: int, vr: str, gone: bool) -> None:
    assert refused(tag, vr, 0) is gone


@pytest.mark.parametrize(
    ("basic", "vr", "date", "action"),
    [
        ("X", "SQ", False, "remove"),
        ("X/Z/U*", "SQ", False, "descend"),
        ("Z", "SQ", False, "blank"),
        ("D", "SQ", False, "blank"),
        ("X/Z", "SQ", False, "blank"),
        ("U", "UI", False, FUNCTIONS["pseudonym_uid"]),
        ("X", "LO", False, "remove"),
        ("X", "DA", True, "remove"),
        ("Z", "LO", False, "blank"),
        ("X/Z", "LO", False, "blank"),
        ("X/Z/D", "LO", False, FUNCTIONS["dummy"]),
        ("D", "LO", False, FUNCTIONS["dummy"]),
        ("D", "DA", True, "blank"),
    ],
)
def test_the_basic_profile_is_carried_out(basic: str, vr: str, date: bool, action: object) -> None:
    assert basic_action(basic, vr, date) == action


@pytest.mark.parametrize(
    ("tag", "vr", "value", "name", "becomes"),
    [
        (0x0018991E, "UI", b"1.2.3\0", b"A", NAMES.uid("1.2.3").encode()),
        (0x00180022, "CS", b"ZORB7 \0", b"A", b"ZORB7"),
        (0x00180022, "CS", b"LI\\AX", b"Li^Axi", b"LI\\AX"),
        (0x00180022, "CS", b"XFAT", b"Fat", b"XFAT"),
        (0x00180022, "CS", b"FAT", b"Fat^Li", None),
        (0x00080005, "CS", b"ISO_IR 100\0", b"A", b"ISO_IR 100\0"),
        (0x00080005, "CS", b"ISO_IR 100X", b"A", None),
        (0x00181060, "DS", b"1.5\0", b"A", b"1.5"),
        (0x00181060, "DS", b"5X", b"A", None),
    ],
)
def test_the_defaults_look_at_the_value_without_its_padding(
    tag: int, vr: str, value: bytes, name: bytes, becomes: bytes | None
) -> None:
    action = default_action(tag, vr)
    assert not isinstance(action, str)
    assert done(action, value, tag, vr, name) == becomes


@pytest.mark.parametrize(
    ("sop_class", "structured", "held"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", True, True),
        ("1.2.840.10008.5.1.4.1.1.9.4.1", True, True),
        ("1.2.840.10008.1.3.10", True, True),
        ("1.2.840.10008.5.1.4.1.1.88.11", False, True),
        ("1.2.840.10008.5.1.4.1.1.88.11", True, False),
        (CT, False, False),
    ],
)
def test_documents_are_held_back_by_their_class(sop_class: str, structured: bool, held: bool) -> None:
    if held:
        with pytest.raises(Quarantine) as caught:
            refuse_object(sop_class, structured=structured)
        assert caught.value.code == "deid.unsupported-content"
    else:
        refuse_object(sop_class, structured=structured)
