"""What is worked out once and used again gives what working it out anew would."""

from __future__ import annotations

from base64 import b32encode

from hypothesis import given
from hypothesis import strategies as st

from edge_node.deid.pseudonym import Pseudonyms, _base32
from edge_node.deid.remembered import LONGEST, remembered


@given(st.binary(min_size=32, max_size=32), st.integers(1, 32))
def test_ten_bits_at_a_time_give_base32(digest: bytes, length: int) -> None:
    assert _base32(digest, length) == b32encode(digest).decode()[:length]


def test_a_long_value_is_worked_out_each_time_and_a_short_one_once() -> None:
    asked: list[str] = []

    @remembered(2)
    def length(text: str, among: frozenset[str]) -> int:
        asked.append(text)
        return len(text) + len(among)

    few, many = frozenset({"a"}), frozenset(map(str, range(LONGEST + 1)))
    short, long = "x" * LONGEST, "x" * (LONGEST + 1)
    for text, among, times in ((short, few, 1), (long, few, 2), (short, many, 2)):
        asked.clear()
        assert length(text, among) == length(text, among) == len(text) + len(among)
        assert len(asked) == times


def test_a_uid_that_is_none_is_not_remembered_and_gets_the_same_pseudonym() -> None:
    names = Pseudonyms(bytes(32))
    long = "1." + "2" * 100_000
    assert names.uid(long) == names.uid(long) == Pseudonyms(bytes(32)).uid(long)
    assert names.uid("1.2.3") == names.uid("1.2.3")
    assert list(names._made) == ["1.2.3"]
