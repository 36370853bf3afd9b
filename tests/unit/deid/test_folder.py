"""`edge-node deid` on folders: what is clean is written under pseudonyms, what is not leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from typer.testing import CliRunner

from edge_node.cli import deid as command
from edge_node.cli.context import Invocation
from edge_node.deid import folder
from edge_node.deid.part10 import instance_from_bytes, part10_of
from edge_node.deid.survey import Attribute
from edge_node.domain.errors import Quarantine, Stop
from tests.unit.deid.objects import KEY, RECIPE, ct, received


def save(path: Path, **changes: object) -> None:
    ds = ct(**changes)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "in"
    save(home / "Beeblebrox" / "a.dcm")
    save(home / "Beeblebrox" / "b.dcm", SOPInstanceUID="1.2.826.0.1.3680043.8.498.77.2", InstanceNumber=4)
    save(home / "again.dcm")
    save(home / "other.dcm", InstanceNumber=9)
    save(home / "us.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", SOPInstanceUID="1.2.826.0.1.3680043.8.498.77.3")
    (home / "notes.txt").write_text("Zaphod Beeblebrox")
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o400)
    return home


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(command.app, [str(word) for word in words], obj=Invocation())
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_is_cleaned_and_what_is_held_back_is_named(source: Path, tmp_path: Path, jobs: int) -> None:
    out = tmp_path / "out"
    words = ("--recipe", RECIPE, "--key-file", tmp_path / "key", "--json", "--jobs", jobs)
    code, said, _ = run("apply", source, out, *words)
    answer = json.loads(said)
    assert code == 1
    assert (answer["files"], answer["written"]) == (6, 4)
    held = {one["file"]: one["code"] for one in answer["quarantined"]}
    assert held == {"notes.txt": "deid.not-dicom", "us.dcm": "deid.pixels-uncleaned"}
    notes = {one["file"]: one.get("note", "") for one in answer["outputs"]}
    assert notes == {
        "Beeblebrox/a.dcm": "",
        "Beeblebrox/b.dcm": "",
        "again.dcm": "duplicate",
        "other.dcm": "conflict",
    }
    written = sorted(path for path in out.rglob("*") if path.is_file())
    assert len(written) == 3
    for path in written:
        assert b"eeblebrox" not in path.read_bytes() + str(path.relative_to(out)).encode()
        assert dcmread(path).PatientIdentityRemoved == "YES"


def test_all_clean_is_exit_code_0_and_pixels_may_be_waved_through(source: Path, tmp_path: Path) -> None:
    (source / "notes.txt").unlink()
    words = ("--profile", "strict", "--key-file", tmp_path / "key", "--uncleaned-pixels", "write")
    code, said, talk = run("apply", source, tmp_path / "out", *words)
    assert (code, said) == (0, "")
    assert "5 of 5 written, 0 held back" in talk


def test_a_recipe_stands_on_a_profile(source: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.deid"
    site.write_text("FORMAT dicom\n%header\nREPLACE StationName var:room\n")
    words = ("--recipe", site, "--profile", "strict", "--var", "room=R4", "--key-file", tmp_path / "key", "--jobs", 1)
    run("apply", source, tmp_path / "out", *words)
    ds = dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert (ds.StationName, ds.StudyDate) == ("R4", "")
    assert ds.DeidentificationMethodCodeSequence[0].CodeValue == "113100"


def test_folders_that_do_not_fit_are_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop, match="something in it"):
        folder.check_folders(source, _full(tmp_path))
    for inner, outer in ((source, source), (source, source / "deep"), (source / "Beeblebrox", source)):
        with pytest.raises(Stop, match="lies in the other"):
            folder.check_folders(inner, outer)
    with pytest.raises(Stop, match="no folder"):
        folder.check_folders(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(Stop, match="site key"):
        list(folder.apply(source, tmp_path / "out", folder.Work(RECIPE, b"short", "1")))
    assert not (tmp_path / "out").exists()


def _full(tmp_path: Path) -> Path:
    home = tmp_path / "full"
    home.mkdir()
    (home / "x").write_text("x")
    return home


def test_the_same_input_gives_the_same_files_whatever_the_number_of_jobs(source: Path, tmp_path: Path) -> None:
    def written(jobs: int) -> dict[str, bytes]:
        out = tmp_path / f"out{jobs}"
        list(folder.apply(source, out, folder.Work(RECIPE, KEY, "1"), jobs=jobs))
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    assert written(1) == written(3)


def test_a_file_is_read_by_its_bytes_and_not_by_what_its_header_promises() -> None:
    whole = part10_of(received(ct()))
    assert instance_from_bytes(whole).dataset == received(ct()).dataset
    lying = whole[:140] + b"\xff\0\0\0" + whole[144:]  # a group length that is wrong
    assert instance_from_bytes(lying).dataset == received(ct()).dataset
    for broken, code in ((b"", "not-dicom"), (whole[:150], "not-dicom"), (whole[:200], "no-uid")):
        with pytest.raises(Quarantine) as caught:
            instance_from_bytes(broken)
        assert caught.value.code == f"deid.{code}"


def test_a_dry_run_counts_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, said, _ = run("test", RECIPE, source, "--key-file", tmp_path / "key", "--json")
    answer = json.loads(said)
    assert (code, answer["files"], answer["clean"]) == (1, 6, 4)
    rows = {row["name"]: row for row in answer["attributes"]}
    assert rows["PatientName"]["replaced"] == 4
    assert rows["OperatorsName"]["class"] == "person"
    assert rows["Modality"]["kept"] == 4
    assert sorted(tmp_path.rglob("*")) == before
    assert "eeblebrox" not in said.replace("Beeblebrox/", "")


def test_a_diff_shows_values_only_when_asked(source: Path, tmp_path: Path) -> None:
    words = ("diff", source / "again.dcm", "--recipe", RECIPE, "--key-file", tmp_path / "key")
    code, said, _ = run(*words)
    assert code == 0
    assert "PatientName" in said
    assert "Beeblebrox" not in said
    assert "Beeblebrox" in run(*words, "--values")[1]


def test_a_report_is_one_page_without_values(source: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    words = ("--recipe", RECIPE, "--key-file", tmp_path / "key", "--out", page, "--pictures", 1)
    code, _, talk = run("report", source, *words)
    text = page.read_text()
    assert code == 1
    assert "4 of 6 clean" in talk
    assert text.index("Residual findings") < text.index("By class of attribute")
    assert "deid.not-dicom" in text
    assert "data:image/png;base64" in text
    for secret in ("Zaphod", "Quincy", "PAT-420042", "20240229"):
        assert secret not in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_review_lists_what_clean_objects_say_and_refuses_others(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(folder.apply(source, out, folder.Work(RECIPE, KEY, "1")))
    code, said, _ = run("review", out, "--json")
    assert code == 0
    values = {row["attribute"]: row["values"] for row in json.loads(said)}
    assert values["StudyDescription"] == {"CT Head w/o contrast 5 mm": 3}
    with pytest.raises(Stop, match="not de-identified"):
        CliRunner().invoke(command.app, ["review", str(source)], obj=Invocation(), catch_exceptions=False)


def test_attributes_know_their_class() -> None:
    kinds = {0x00100010: "person", 0x00080020: "date", 0x0020000D: "uid", 0x00181000: "device", 0x00091001: "private"}
    kinds |= {0x00080080: "institution", 0x00081030: "descriptor", 0x00101010: "patient", 0x00180050: "technical"}
    assert {tag: Attribute((tag,)).kind for tag in kinds} == kinds


def test_a_recipe_for_any_options_can_be_used(tmp_path: Path) -> None:
    from edge_node.deid import Deidentifier
    from edge_node.deid.profiles import OPTIONS

    for option, meant in OPTIONS.items():
        code, said, _ = run("recipe", "--profile", "strict", "--option", option)
        assert code == 0
        path = tmp_path / f"{option}.deid"
        path.write_text(said)
        made = Deidentifier(path, KEY, version="1").deidentify(received(ct())).instance
        (tmp_path / "made.dcm").write_bytes(made.part10)
        ds = dcmread(tmp_path / "made.dcm")
        assert meant.code in [item.CodeValue for item in ds.DeidentificationMethodCodeSequence]
        assert b"eeblebrox" not in made.part10
        assert (ds.StudyDate == "20240229") == (option == "retain-full-dates")
        assert (ds.StudyInstanceUID == ct().StudyInstanceUID) == (option == "retain-uids")
        assert (ds.InstitutionName == "St. Elsewhere Clinic") == (option == "retain-institution-identity")
        assert (ds.StationName == "CTROOM4") == (option == "retain-device-identity")
        assert ("PatientAge" in ds) == (option == "retain-patient-characteristics")
    with pytest.raises(Stop, match="not both"):
        CliRunner().invoke(
            command.app,
            ["recipe", "--option", "retain-full-dates", "--option", "retain-modified-dates"],
            obj=Invocation(),
            catch_exceptions=False,
        )
