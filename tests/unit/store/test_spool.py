"""The sealed spool: segments, torn tails, room given back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edge_node.domain.errors import Quarantine, Retry
from edge_node.store import retention, spool
from edge_node.store.spool import Place, Sealed, SpoolReader, SpoolWriter
from tests.unit.store.conftest import Store


def test_objects_come_back_from_where_they_were_put(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(tmp_path, segment_bytes=1000, large_bytes=500), SpoolReader(tmp_path)
    blobs = [os.urandom(n) for n in (10, 400, 499, 500, 3000, 1)]
    places = [writer.append(blob) for blob in blobs]
    assert [reader.read(place) for place in places] == blobs


def test_a_large_object_has_a_segment_of_its_own(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=10_000, large_bytes=500)
    small, large, next_small = writer.append(b"a"), writer.append(bytes(600)), writer.append(b"b")
    assert large.offset == 0
    assert large.segment not in (small.segment, next_small.segment)
    assert small.segment == next_small.segment


def test_a_new_writer_never_appends_to_an_old_segment(tmp_path: Path) -> None:
    first = SpoolWriter(tmp_path, segment_bytes=1000, large_bytes=500).append(b"a")
    second = SpoolWriter(tmp_path, segment_bytes=1000, large_bytes=500).append(b"b")
    assert first.segment != second.segment


def test_a_missing_object_is_told_by_name_not_by_a_crash(tmp_path: Path) -> None:
    with pytest.raises(Quarantine, match=r"spool\.object-missing"):
        SpoolReader(tmp_path).read(Place("gone.seg", 0, 10))


def test_an_empty_old_segment_is_swept_and_a_needed_one_stays(
    store: Store, clean_instance: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(clean_instance)
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    folder = store.folder / "spool"
    (folder / "orphan.seg").write_bytes(b"torn tail")
    monkeypatch.setattr(spool, "SWEEP_AGE_S", -1.0)
    assert retention.sweep_segments(store.database, folder) == len(b"torn tail")
    assert store.clean.study("STUDYKEY0001").objects[0].read()


def test_a_young_segment_is_never_swept(store: Store) -> None:
    (store.folder / "spool" / "young.seg").write_bytes(b"being written")
    assert retention.sweep_segments(store.database, store.folder / "spool") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_refuses_with_a_name_and_what_was_written_stays_readable(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=False)
    if made.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        writer, reader = SpoolWriter(mount, segment_bytes=1 << 20, large_bytes=1 << 19), SpoolReader(mount)
        kept = writer.append(bytes(100_000))
        with pytest.raises(Retry, match=r"spool\.disk-full"):
            for _ in range(10):
                writer.append(bytes(100_000))
        assert reader.read(kept) == bytes(100_000)
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_batch_lies_where_it_is_said_to_across_segments_and_files_of_its_own(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(tmp_path, segment_bytes=1000, large_bytes=500), SpoolReader(tmp_path)
    bodies = [bytes([n]) * size for n, size in enumerate([300, 600, 400, 499, 1, 0, 450, 700])]
    places = writer.append_all([Sealed(len(body), (body[:7], body[7:])) for body in bodies])
    assert [reader.read(place) for place in places] == bodies
    assert len({place.segment for place in places}) == 2 + 2  # two of their own, two shared


def test_an_object_that_is_not_as_long_as_it_says_is_never_named(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=1000, large_bytes=500)
    with pytest.raises(ValueError, match="not as long"):
        writer.append_all([Sealed(5, (b"four",))])


@pytest.mark.parametrize("large_bytes", [1 << 20, 1 << 30])
def test_what_the_disk_begins_with_while_the_rest_is_sealed_comes_back_whole(tmp_path: Path, large_bytes: int) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=1 << 30, large_bytes=large_bytes)
    bodies = [bytes([n + 1]) * size for n, size in enumerate([5, (9 << 20) + 3, 7, 4 << 20, (8 << 20) - 1])]
    cut = [[body[at : at + 700_001] for at in range(0, len(body), 700_001)] for body in bodies]
    places = writer.append_all([Sealed(len(body), pieces) for body, pieces in zip(bodies, cut, strict=True)])
    assert [SpoolReader(tmp_path).read(place) for place in places] == bodies
