"""What is worked out once and used again gives what working it out anew would."""

from __future__ import annotations

from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid import witness
from edge_node.deid.pseudonym import _base32
from tests.unit.deid.objects import DEIDENTIFIER, ct, received


@given(st.binary(min_size=32, max_size=32), st.integers(1, 32))
def test_ten_bits_at_a_time_give_base32(digest: bytes, length: int) -> None:
    assert _base32(digest, length) == b32encode(digest).decode()[:length]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_codes_of_the_method_that_were_read_before_stand_where_they_stand(syntax: str) -> None:
    kind = {"implicit": syntax.endswith("1.2"), "big": syntax.endswith("2.2")}
    files = [
        DEIDENTIFIER.clean(received(ct(InstanceNumber=number, SeriesDescription=said), syntax)).part10
        for number, said in ((1, "AXIAL"), (12345, "AXIAL HEAD"))
    ]
    witness._methods.clear()
    anew = []
    for file in files:
        witness._methods.clear()
        anew.append(witness.witness_file(file, **kind).places)
    again = [witness.witness_file(file, **kind).places for file in files]
    assert len(witness._methods) == 1
    assert again == anew
    assert any(place[3] for places in again[0].values() for place in places)


def test_nothing_that_was_received_is_remembered() -> None:
    witness._methods.clear()
    source = ct()
    source.add_new(0x00120064, "SQ", [ct()[:0x00100000]])
    witness.witness(received(source).dataset, implicit=False, big=False)
    assert not witness._methods
