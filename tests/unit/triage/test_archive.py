"""Archives that mean harm leave nothing behind; honest ones come out byte by byte."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile

import pytest

from edge_node.domain.errors import Quarantine
from edge_node.triage import archive
from edge_node.triage.archive import unpack

FILES = {"card.toml": b"format = 2\n", "model.onnx": bytes(range(256)) * 40}


def tar_of(path, members):
    with tarfile.open(path, "w:gz") as out:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members:
            out.writestr(name, data)
    return path


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def unpacked(tmp_path, source):
    into = tmp_path / "outer" / "into"
    into.mkdir(parents=True)
    unpack(source, into)
    return into


def refused(tmp_path, source):
    into = tmp_path / "outer" / "into"
    into.mkdir(parents=True)
    with pytest.raises(Quarantine) as caught:
        unpack(source, into)
    assert caught.value.code == "model.archive"
    assert sorted(p.name for p in (tmp_path / "outer").iterdir()) == ["into"]
    return caught.value.message


@pytest.mark.parametrize("prefix", ["", "pe-1.0.0/"])
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_an_honest_archive_comes_out_byte_by_byte(tmp_path, make, prefix):
    source = make(tmp_path / "pe", [(prefix + name, data) for name, data in FILES.items()])
    into = unpacked(tmp_path, source)
    assert {p.name: p.read_bytes() for p in into.iterdir()} == FILES
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o440 for p in into.iterdir())


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a/b/evil", "..\\evil", ".hidden", "a\nb", "x" * 200, "C:evil"]
)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_name_that_leads_out_of_the_package_is_refused(tmp_path, make, name):
    refused(tmp_path, make(tmp_path / "pe", [*FILES.items(), (name, b"evil")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    message = refused(tmp_path, tar_of(tmp_path / "pe", [(link("model.onnx", kind, "/etc/passwd"), b"")]))
    assert "no plain file" in message


def test_a_link_in_a_zip_or_a_folder_is_refused(tmp_path):
    info = zipfile.ZipInfo("model.onnx")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "no plain file" in refused(tmp_path, zip_of(tmp_path / "pe.zip", [(info, "/etc/passwd")]))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.onnx").symlink_to("/etc/passwd")
    (tmp_path / "outer" / "into").rmdir()
    (tmp_path / "outer").rmdir()
    assert "no plain file" in refused(tmp_path, folder)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_bomb_is_stopped_before_it_fills_the_disk(tmp_path, make):
    source = make(tmp_path / "pe", [("model.onnx", bytes(400 << 20))])
    assert source.stat().st_size < 1 << 20
    assert "far larger" in refused(tmp_path, source)
    left = tmp_path / "outer" / "into" / "model.onnx"
    assert left.stat().st_size <= source.stat().st_size * archive.MOST_RATIO


def test_many_files_two_of_one_name_and_rubbish_are_refused(tmp_path):
    many = tar_of(tmp_path / "many", [(f"f{n}", b"") for n in range(archive.MOST_FILES + 1)])
    assert "more than" in refused(tmp_path / "1", many)
    twice = tar_of(tmp_path / "twice", [("a/model.onnx", b"1"), ("b/model.onnx", b"2")])
    assert "one name" in refused(tmp_path / "2", twice)
    (tmp_path / "junk").write_bytes(b"no archive at all")
    assert "cannot be read" in refused(tmp_path / "3", tmp_path / "junk")
    whole = tar_of(tmp_path / "whole", FILES.items()).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(tmp_path / "4", tmp_path / "cut")
