"""The envelope is the JSON that Python's own writer would write, whatever stands in the elements."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid.identity import INSTANCE, STUDY, envelope_of
from edge_node.deid.wire import Element, Node

VRS = ["CS", "DA", "IS", "LO", "LT", "OB", "PN", "SH", "SS", "TM", "UI", "UL", "UN", "US", "UT"]
TAGS = sorted(STUDY | INSTANCE)
VALUES = st.one_of(
    st.sampled_from(
        [b"", b" ", b"\0", b"\\", b"a\\\\b ", b'"\\"', b"\x1b\x01\x7f", b"\xe1\xff", b"A^B=C=", b"x" * 1100]
    ),
    st.binary(max_size=8),
)


def elements(depth: int) -> st.SearchStrategy[Node]:
    plain = st.builds(Element, st.sampled_from(TAGS), st.sampled_from(VRS), VALUES)
    some = plain
    if depth:
        items = st.lists(elements(depth - 1), max_size=2)
        some = st.one_of(
            plain, st.builds(lambda tag, nodes: Element(tag, "SQ", items=nodes), st.sampled_from(TAGS), items)
        )
    return st.lists(some, max_size=8).map(lambda found: {one.tag: one for one in found})


@given(elements(2), st.booleans(), st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87"]))
def test_an_envelope_is_written_as_json_has_it(node: Node, big: bool, charset: bytes) -> None:
    if charset:
        node[0x00080005] = Element(0x00080005, "CS", charset)
    for _ in range(2):  # from memory, too
        made = envelope_of(node, big)
        for text, tags in ((made.study, STUDY), (made.instance, INSTANCE)):
            told = json.loads(text)
            assert json.dumps(told, ensure_ascii=False, separators=(",", ":")) == text
            named = {f"{tag:08X}" for tag in tags if tag in node}
            assert named <= told.keys() <= named | {"00080005"}
            assert list(told) == sorted(told)
            for name, member in told.items():
                if "Value" in member and member["vr"] == "SQ":
                    assert len(member["Value"]) == len(node[int(name, 16)].items or [])
