"""The hash of a clean object."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from edge_node.store.database import MIGRATIONS, Database
from edge_node.store.digest import Digest, digest_of, is_of

# Of the reference implementation's test vectors: the empty input, and the bytes 0, 1, 2.
EMPTY = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
THREE = "blake3:e1be4d7a8ab5560aa4199eea339849ba8e293d55ca0a81006726d184519e647f"


def test_the_hash_is_the_published_one() -> None:
    assert (digest_of(b""), digest_of(bytes(range(3)))) == (EMPTY, THREE)


@given(st.lists(st.binary(max_size=5000), max_size=8))
def test_a_hash_that_grows_piece_by_piece_is_that_of_the_whole(pieces: list[bytes]) -> None:
    digest = Digest()
    for piece in pieces:
        digest.update(memoryview(piece))
    assert digest.text == digest_of(b"".join(pieces))
    assert is_of(digest.text, b"".join(pieces))


def test_objects_from_before_are_told_by_their_sha256_and_others_are_refused() -> None:
    assert is_of(hashlib.sha256(b"old").hexdigest(), b"old")
    assert not is_of(hashlib.sha256(b"old").hexdigest(), b"new")
    assert not is_of(digest_of(b"old"), b"new")
    assert not is_of("", b"")


def test_a_ledger_from_before_keeps_the_hashes_it_has(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    database = Database(path)
    database.migrate()
    with database.write() as connection:
        connection.execute(text("ALTER TABLE instance RENAME COLUMN digest TO sha256"))
        connection.execute(text("DELETE FROM schema_version WHERE version = 15"))
        columns = [row[1] for row in connection.execute(text("PRAGMA table_info(instance)"))]
        assert "sha256" in columns
    database.close()
    again = Database(path)
    assert again.migrate() == len(MIGRATIONS) >= 15
    with again.read() as connection:
        assert "digest" in [row[1] for row in connection.execute(text("PRAGMA table_info(instance)"))]
    again.close()
