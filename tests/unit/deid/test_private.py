"""Private elements: whose they are, and what of them may stay."""

from __future__ import annotations

import pytest

from edge_node.deid import private
from edge_node.deid.wire import Element
from tests.unit.deid.nodes import NAMES, node_of, scene_of


def test_a_private_creator_is_looked_for_where_it_reserves_a_block() -> None:
    node = node_of((0x00190000, "UL", b"ABCD"), (0x0019000F, "LO", b"LOW"), (0x00190010, "LO", b"VENDOR 1 \0"))
    assert private.creator_of(0x00191000, node) == private.creator_of(0x001910FF, node) == "VENDOR 1"
    assert private.creator_of(0x00190011, node) == private.creator_of(0x00190FFF, node) == ""
    assert private.creator_of(0x00191000, node_of((0x00190010, "LO", b"XVENDORX"))) == "XVENDORX"
    assert private.creator_of(0x00191000, {0x00190010: Element(0x00190010, "SQ", items=[])}) == ""


def test_a_private_element_of_unknown_kind_is_what_its_creator_is_known_for_unless_it_is_a_sequence() -> None:
    value = Element(0x00191008, "UN", b"12")
    assert private.as_known(value, "SIEMENS MR HEADER", False) == Element(0x00191008, "CS", b"12")
    assert private.as_known(Element(0x00191008, "UN", items=[{}]), "SIEMENS MR HEADER", False) is None
    assert private.as_known(Element(0x00191008, "CS", fragments=[]), "SIEMENS MR HEADER", False) is None


@pytest.mark.parametrize(
    ("vr", "value", "becomes"),
    [
        ("DS", b"abc 12", None),
        ("DS", b"1.5\0", b"1.5\0"),
        ("DS", b"5X", None),
        ("IS", b" 5", b" 5"),
        ("DA", b"20240229", b"20240222"),
        ("DT", b"20240229101500", b"20240222101500"),
        ("DT", b"soon", None),
        ("TM", b"soon", None),
        ("TM", b"101500.5", b"101500.5"),
        ("US", b"\1\0\2\0", b"\1\0\2\0"),
        ("UI", b"1.2.3\0", NAMES.uid("1.2.3").encode()),
        ("CS", b"ZORB7\0", b"ZORB7"),
    ],
)
def test_a_private_value_is_kept_changed_or_removed_by_its_kind(vr: str, value: bytes, becomes: bytes | None) -> None:
    assert private.keep(Element(0x00191001, vr, value), scene_of()) == becomes
