"""Archives that mean harm leave nothing behind; honest ones come out byte by byte."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
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


def pax(name, attributes):
    info = tarfile.TarInfo(name)
    info.pax_headers = attributes
    return info


@pytest.mark.parametrize(
    "bomb",
    [
        [(pax("model.onnx", {"comment": "x" * (150 << 20)}), b"")],
        [(tarfile.TarInfo("x" * (100 << 20)), b"")],
        [
            (
                pax("model.onnx", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
                b"9" * 9 + b"\n" + b"0\n" * 20_000_000,
            )
        ],
    ],
    ids=["an attribute", "a name", "a sparse map"],
)
def test_what_an_archive_says_of_itself_does_not_fill_the_memory(tmp_path, bomb):
    source = tar_of(tmp_path / "pe", [*FILES.items(), *bomb])
    code = "import re, sys; from pathlib import Path; from edge_node.triage.archive import unpack\n"
    code += "try: unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    code += "except Exception as error: print(error)\n"
    code += "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    (tmp_path / "into").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "into")], capture_output=True, text=True, check=True
    )
    said, kilobytes = done.stdout.splitlines()
    assert "its own description is far larger" in said
    assert int(kilobytes) < 100_000


def test_a_zip_of_a_million_names_is_not_read(tmp_path):
    source = zip_of(tmp_path / "pe", [(f"f{n:0>100}", b"") for n in range(8000)])
    assert "its own description" in refused(tmp_path, source)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_folders_count_too(tmp_path, make):
    def folder(number):
        name = f"d{number}/" if make is zip_of else f"d{number}"
        return name if make is zip_of else link(name, tarfile.DIRTYPE, "")

    members = [(folder(number), b"") for number in range(archive.MOST_ENTRIES - 1)]
    unpack(make(tmp_path / "few", [*members, ("card.toml", b"1")]), into := tmp_path)
    assert (into / "card.toml").read_bytes() == b"1"
    message = refused(tmp_path, make(tmp_path / "many", [*members, ("card.toml", b"1"), ("model.onnx", b"2")]))
    assert "more than 64" in message


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_every_usual_packing_is_read(tmp_path, mode):
    with tarfile.open(tmp_path / "pe", mode) as out:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    assert {p.name: p.read_bytes() for p in unpacked(tmp_path, tmp_path / "pe").iterdir()} == FILES


def test_many_files_two_of_one_name_and_rubbish_are_refused(tmp_path):
    many = tar_of(tmp_path / "many", [(f"f{n}", b"") for n in range(archive.MOST_ENTRIES + 1)])
    assert "more than" in refused(tmp_path / "1", many)
    twice = tar_of(tmp_path / "twice", [("a/model.onnx", b"1"), ("b/model.onnx", b"2")])
    assert "one name" in refused(tmp_path / "2", twice)
    (tmp_path / "junk").write_bytes(b"no archive at all")
    assert "cannot be read" in refused(tmp_path / "3", tmp_path / "junk")
    whole = tar_of(tmp_path / "whole", FILES.items()).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(tmp_path / "4", tmp_path / "cut")
    for number, start in enumerate((b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh9"), start=5):
        (tmp_path / "packed").write_bytes(start + b"no archive at all" * 100)
        assert "cannot be read" in refused(tmp_path / str(number), tmp_path / "packed")
    (tmp_path / "damaged").write_bytes(whole[:40] + bytes(b ^ 255 for b in whole[40:60]) + whole[60:])
    assert "cannot be read" in refused(tmp_path / "9", tmp_path / "damaged")
