"""The other doors of a whole node: files of a folder, a watched folder, STOW-RS."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from edge_node.demo.studies import DemoStudy
from tests.e2e.site import Site, free_port


def test_a_folder_is_imported_once_and_its_broken_files_are_told(
    site: Callable[..., Site], studies: dict[int, DemoStudy], tmp_path: Path
) -> None:
    folder = tmp_path / "cd"
    folder.mkdir()
    for number, path in enumerate(studies[1].files):
        shutil.copy(path, folder / f"{number}.dcm")
    (folder / "README").write_text("viewer")
    one = site(triage={"enabled": False})
    down = one.run("import", str(folder), check=False)
    assert down.returncode == 69
    assert "import.node-down" in down.stderr
    one.start()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    first = one.ask("import", str(folder))
    assert (first["stored"], first["skipped"], first["failed"]) == (len(studies[1].files), 1, 0)
    again = one.run("--json", "import", str(folder))
    told = json.loads(again.stdout)
    assert (told["duplicate"], told["stored"], told["studies"]) == (len(studies[1].files), 0, first["studies"])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    whole = (folder / "0.dcm").read_bytes()
    (folder / "0.dcm").write_bytes(whole[: len(whole) // 2])
    broken = one.run("import", str(folder), check=False)
    assert broken.returncode == 1
    assert "quarantined" in broken.stdout
    assert one.ask("status")["quarantine"][0]["from"] == "IMPORT"
    assert one.stop() == 0
    for needle in studies[1].needles:
        assert needle not in one.log()


def test_the_files_of_a_watched_folder_become_a_study_and_are_gone(
    site: Callable[..., Site], studies: dict[int, DemoStudy], tmp_path: Path
) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    one = site(triage={"enabled": False}, inbox={"folder": str(folder), "still_s": 0.5})
    one.start()
    for number, path in enumerate(studies[1].files):
        shutil.copy(path, folder / f"{number}.dcm")
    (folder / "notes").write_text("no image")
    one.wait_for("the folder to be empty", lambda: {path.name for path in folder.iterdir()} == {"rejected"})
    [study] = one.ask("study", "list")
    assert (study["instances"], study["from"]) == (len(studies[1].files), "INBOX")

    def told() -> bool:
        [dicom] = [role for role in one.ask("status")["roles"] if role["role"] == "dicom"]
        return dicom.get("inbox", {}).get("taken") == len(studies[1].files) and dicom["inbox"]["rejected"] == 1

    one.wait_for("status to tell of it", told)
    assert one.stop() == 0


def test_a_study_pushed_by_http_is_durable_when_it_is_answered(
    site: Callable[..., Site], studies: dict[int, DemoStudy]
) -> None:
    port = free_port()
    one = site(triage={"enabled": False}, stow={"port": port})
    one.start()
    head = b"--x\r\nContent-Type: application/dicom\r\n\r\n"
    files = [path.read_bytes() for path in studies[1].files]
    body = b"".join(head + data + b"\r\n" for data in [*files, files[0][:-1000]]) + b"--x--"
    request = urllib.request.Request(f"http://127.0.0.1:{port}/studies", data=body)
    request.add_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=x')
    request.add_header("Accept", "application/dicom+json")

    def listens() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/studies", timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    one.wait_for("STOW-RS", listens)
    with urllib.request.urlopen(request, timeout=60) as answer:
        told = json.loads(answer.read())
        assert answer.status == 200
    assert len(told["00081199"]["Value"]) == len(files) + 1
    one.kill()
    [study] = one.ask("study", "list")
    assert (study["instances"], study["from"]) == (len(files), "STOW")
    [held] = one.ask("status")["quarantine"]
    assert held["from"] == "STOW"
    for needle in studies[1].needles:
        assert needle not in one.log()
