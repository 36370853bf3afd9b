"""Sealing: what was sealed opens to the same bytes, and to nothing once it was touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.domain.errors import Quarantine
from edge_node.store import seal as sealing
from edge_node.store.seal import seal, unseal

KEY = bytes(range(32))


@given(st.binary(max_size=200), st.text(max_size=20))
def test_whatever_was_sealed_opens_to_the_same_bytes(plain: bytes, context: str) -> None:
    assert unseal(KEY, seal(KEY, plain, context), context) == plain


@pytest.mark.parametrize("size", [0, 1, sealing.CHUNK - 1, sealing.CHUNK, sealing.CHUNK + 1, 3 * sealing.CHUNK])
def test_chunk_boundaries_lose_no_byte(size: int) -> None:
    plain = bytes(size)
    assert unseal(KEY, seal(KEY, plain, "x"), "x") == plain


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_flipped_bit_anywhere_keeps_it_shut(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, plain, "x"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Quarantine, match=r"store\.seal-broken"):
        unseal(KEY, bytes(sealed), "x")


def test_a_blob_cut_at_a_chunk_boundary_does_not_open() -> None:
    sealed = seal(KEY, bytes(2 * sealing.CHUNK), "x")
    with pytest.raises(Quarantine):
        unseal(KEY, sealed[: 20 + sealing.CHUNK + 16], "x")


def test_another_key_or_another_context_does_not_open_it() -> None:
    sealed = seal(KEY, b"secret", "clean A 1")
    with pytest.raises(Quarantine):
        unseal(bytes(32), sealed, "clean A 1")
    with pytest.raises(Quarantine):
        unseal(KEY, sealed, "clean A 2")


def test_sealing_the_same_bytes_twice_gives_different_blobs() -> None:
    assert seal(KEY, b"same", "x") != seal(KEY, b"same", "x")
