"""`edge-node deid apply`, `test` and `report` on pixels: masked and looked at again, or held back without a trace."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset

from edge_node.deid import folder
from edge_node.deid.folder import Outcome, Work
from edge_node.deid.pixels import Bytes8, Mask
from edge_node.deid.text_detector import model_path
from edge_node.demo.headct import head_ct
from tests.unit.deid.objects import KEY, RECIPE, ct
from tests.unit.deid.test_folder import run
from tests.unit.service.test_pixel_steps import SC, US, Ink, Stubborn

needs_model = pytest.mark.skipif(model_path() is None, reason="the extra `ocr` is not installed")
LEAVE = frozenset({"ultrasound"})


def save(path: Path, ds: Dataset) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def image(number: int, values: np.ndarray, sop_class: str = US, **changes: Any) -> Dataset:
    rows, columns = values.shape
    return ct(
        SOPClassUID=sop_class, SOPInstanceUID=f"1.2.3.{number}", Rows=rows, Columns=columns, BitsAllocated=8,
        BitsStored=8, HighBit=7, PixelRepresentation=0, PixelData=values.tobytes(), Modality="US", **changes,
    )  # fmt: skip


def grains(number: int, *, text: bool = True) -> np.ndarray:
    """8 x 8 of noise with two white "letters"."""
    values = np.random.default_rng(number).integers(0, 200, (8, 8)).astype(np.uint8)
    if text:
        values[1, 2:4] = 255
    return values


def ultrasound(number: int, name: str) -> np.ndarray:
    """240 x 320: a fan of speckle under a line of text."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:240, :320]
    fan = (np.hypot(rows - 20, columns - 160) < 200) & (np.abs(columns - 160) < 0.7 * (rows - 20))
    drawn = Image.fromarray((fan * rng.gamma(2, 25, fan.shape).clip(0, 200)).astype(np.uint8))
    ImageDraw.Draw(drawn).text((8, 3), name, fill=235, font=ImageFont.load_default(14))
    return np.asarray(drawn)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save(tmp_path / "in" / "us.dcm", image(1, grains(1)))
    save(tmp_path / "in" / "ct.dcm", ct())
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o400)
    return tmp_path / "in"


@pytest.fixture
def ink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "load_finder", Ink)


def applied(source: Path, out: Path, *, jobs: int = 1, **how: Any) -> dict[str, Outcome]:
    work = Work(how.pop("recipe", RECIPE), KEY, "1", **how)
    return {one.source: one for one in folder.apply(source, out, work, jobs=jobs)}


def written(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("ink")
def test_an_ultrasound_is_masked_and_leaves_when_its_kind_may(source: Path, tmp_path: Path) -> None:
    done = applied(source, tmp_path / "out", leave=LEAVE)
    assert {name: (one.pixels, one.code) for name, one in done.items()} == {
        "us.dcm": ("masked", ""),
        "ct.dcm": ("", ""),
    }
    was, now = dcmread(source / "us.dcm"), dcmread(tmp_path / "out" / done["us.dcm"].target)
    assert now.BurnedInAnnotation == "NO"
    assert [item.CodeValue for item in now.DeidentificationMethodCodeSequence][-1] == "113101"
    assert now.pixel_array[1, 2:4].max() < 255
    assert np.array_equal(now.pixel_array[2:], was.pixel_array[2:])


@pytest.mark.usefixtures("ink")
def test_by_default_a_masked_ultrasound_waits_for_a_human(source: Path, tmp_path: Path) -> None:
    one = applied(source, tmp_path / "out")["us.dcm"]
    assert (one.code, one.pixels) == ("deid.pixels-uncleaned", "review:masked")
    assert "were looked at" in one.reason
    assert "ultrasound" in one.reason


@pytest.mark.parametrize(("finder", "said"), [(lambda: None, "nobody looked"), (Stubborn, "still finds text")])
def test_what_nobody_saw_and_what_stays_legible_is_held_whatever_may_leave(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finder: Any, said: str
) -> None:
    monkeypatch.setattr(folder, "load_finder", finder)
    one = applied(source, tmp_path / "out", leave=LEAVE)["us.dcm"]
    assert one.code == "deid.pixels-uncleaned"
    assert said in one.reason
    assert len(written(tmp_path / "out")) == 1


@pytest.mark.usefixtures("ink")
def test_nothing_of_what_is_held_back_is_in_the_output_folder_at_any_moment(source: Path, tmp_path: Path) -> None:
    out, secret, looks = tmp_path / "out", grains(1).tobytes(), 0

    def tell(_what: str, _count: int) -> None:
        nonlocal looks
        looks += 1
        assert not any(secret[:24] in data for data in written(out).values())

    held = [one for one in folder.apply(source, out, Work(RECIPE, KEY, "1"), tell=tell) if not one.written]
    assert [one.source for one in held] == ["us.dcm"]
    assert looks == 4
    [(name, _)] = written(out).items()
    assert name.endswith(".dcm")
    assert [path.name for path in out.iterdir()] == [name.split("/")[0]]


@pytest.mark.usefixtures("ink")
def test_a_line_that_stands_still_is_found_over_the_files_of_its_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnBlack:
        """Knows text only where everything else is black."""

        def area(self, picture: Bytes8) -> Mask:
            lit: Mask = np.any(picture, axis=2)
            return lit if lit.sum() <= 2 else np.zeros_like(lit)

    monkeypatch.setattr(folder, "load_finder", OnBlack)
    for number in range(1, 7):
        save(tmp_path / "in" / f"{number}.dcm", image(number, grains(number)))
    done = applied(tmp_path / "in", tmp_path / "out", leave=LEAVE)
    assert {one.pixels for one in done.values()} == {"masked"}
    for data in (tmp_path / "out").rglob("*.dcm"):
        assert (dcmread(data).pixel_array[1, 2:4] < 255).all()


@pytest.mark.parametrize("jobs", [1, 2])
def test_boxes_of_the_recipe_are_masked_and_two_files_of_one_uid_keep_apart(tmp_path: Path, jobs: int) -> None:
    recipe = tmp_path / "site.deid"
    box = "%filter g\nLABEL corner\n  contains Modality CT\n  coordinates 0,0,2,2\n"
    recipe.write_text(f"FORMAT dicom\n{box}%header\nKEEP ImageType\n")
    for name, changes in {"a": {}, "b": {}, "c": {"InstanceNumber": 9}}.items():
        save(tmp_path / "in" / f"{name}.dcm", ct(**changes))
    done = applied(tmp_path / "in", tmp_path / "out", recipe=recipe, jobs=jobs)
    assert [one.note for one in done.values()] == ["", "duplicate", "conflict"]
    assert [one.pixels for one in done.values()] == ["masked"] * 3
    assert done["a.dcm"].target == done["b.dcm"].target
    first, other = (dcmread(tmp_path / "out" / done[name].target) for name in ("a.dcm", "c.dcm"))
    assert (first.pixel_array[:2, :2] == first.pixel_array.min()).all()
    assert np.array_equal(first.pixel_array, other.pixel_array)
    assert len(written(tmp_path / "out")) == 2


def test_what_two_processes_make_is_what_one_makes(tmp_path: Path) -> None:
    for number in range(1, 4):
        save(tmp_path / "in" / f"us{number}.dcm", image(number, ultrasound(number, "DOE^JOHN 12.03.1957")))
        save(
            tmp_path / "in" / f"sc{number}.dcm",
            image(10 + number, ultrasound(number, " "), SC, SeriesInstanceUID="1.9"),
        )
        save(tmp_path / "in" / f"ct{number}.dcm", ct(SOPInstanceUID=f"1.2.3.20{number}"))
    one, two = (applied(tmp_path / "in", tmp_path / f"out{jobs}", jobs=jobs, leave=LEAVE) for jobs in (1, 2))
    assert one == two
    assert written(tmp_path / "out1") == written(tmp_path / "out2")


@needs_model
def test_the_detector_masks_a_name_in_an_ultrasound_and_leaves_the_fan(tmp_path: Path) -> None:
    shown = ultrasound(1, "DOE^JOHN 12.03.1957")
    save(tmp_path / "in" / "us.dcm", image(1, shown))
    one = applied(tmp_path / "in", tmp_path / "out", leave=LEAVE)["us.dcm"]
    assert (one.pixels, one.code) == ("masked", "")
    now = dcmread(tmp_path / "out" / one.target).pixel_array
    name = shown != ultrasound(1, " ")
    assert (now[name] != shown[name]).mean() > 0.97
    assert np.array_equal(now[60:], shown[60:])


def test_a_file_that_changes_on_the_way_is_held_back(source: Path, tmp_path: Path) -> None:
    def tell(what: str, _count: int) -> None:
        if what == "pixels due":
            save(source / "us.dcm", image(1, grains(1), InstanceNumber=77))

    done = {one.source: one for one in folder.apply(source, tmp_path / "out", Work(RECIPE, KEY, "1"), tell=tell)}
    assert "deid.source-changed" in done["us.dcm"].reason
    assert len(written(tmp_path / "out")) == 1


@pytest.fixture
def terminated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGTERM arrives while the second file is read."""
    read, count = folder.instance_from_file, iter(range(100))

    def and_then(path: Path) -> Any:
        if next(count) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(path)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(folder, "instance_from_file", and_then)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("terminated")
def test_sigterm_ends_the_run_and_leaves_no_draft(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, _ = run("apply", source, out, "--recipe", RECIPE, "--key-file", tmp_path / "key", "--jobs", 1)
    assert code == 128 + signal.SIGTERM
    assert list(out.iterdir()) == []


def head(home: Path, modality: str) -> None:
    for number, ds in enumerate(head_ct(4, None, slices=16, rows=96)):
        ds.Modality, ds.BodyPartExamined = modality, "HEAD"
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1." + ("2" if modality == "CT" else "4")
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", f"1.2.3.4.{modality == 'MR':d}"
        save(home / f"{modality}{number:02}.dcm", ds)


def test_faces_go_when_asked_and_heads_without_a_method_stay(tmp_path: Path) -> None:
    head(tmp_path / "in", "CT")
    head(tmp_path / "in", "MR")
    done = applied(tmp_path / "in", tmp_path / "out", deface=True)
    cts = [one for name, one in done.items() if name.startswith("CT")]
    assert all(one.written for one in cts)
    assert sum(one.pixels == "defaced" for one in cts) >= 8
    assert all("face" in one.reason for name, one in done.items() if name.startswith("MR"))
    assert len(written(tmp_path / "out")) == 16


@pytest.mark.usefixtures("ink")
def test_the_command_says_what_became_of_the_pixels(source: Path, tmp_path: Path) -> None:
    words = ("--recipe", RECIPE, "--key-file", tmp_path / "key", "--pixels-may-leave", "ultrasound", "--jobs", 1)
    code, said, _ = run("apply", source, tmp_path / "out", *words, "--json")
    answer = json.loads(said)
    assert (code, answer["quarantined"]) == (0, [])
    assert {one["file"]: one.get("pixels") for one in answer["outputs"]} == {"us.dcm": "masked", "ct.dcm": None}
    code, _, talk = run("apply", source, tmp_path / "two", *words[:-3], "ultrasonud")
    assert code == 2
    assert "ultrasonud" in talk


def test_a_dry_run_and_a_report_show_what_the_same_engine_would_do(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.deid.series.load_finder", Ink)
    key = ("--key-file", tmp_path / "key")
    code, said, _ = run("test", RECIPE, source, *key, "--json")
    answer = json.loads(said)
    assert (code, answer["clean"], answer["pixels"]) == (1, 1, {"review:masked": 1})
    assert [one["code"] for one in answer["quarantined"]] == ["deid.pixels-uncleaned"]
    code, said, _ = run("test", RECIPE, source, *key, "--json", "--pixels-may-leave", "ultrasound")
    answer = json.loads(said)
    rows = {row["name"]: row for row in answer["attributes"]}
    assert (code, answer["clean"], answer["pixels"]) == (0, 2, {"masked": 1})
    assert (rows["PixelData"]["replaced"], rows["PixelData"]["kept"], rows["BurnedInAnnotation"]["added"]) == (1, 1, 1)
    page = tmp_path / "page.html"
    assert run("report", source, "--recipe", RECIPE, *key, "--out", page)[0] == 1
    text = page.read_text()
    assert "pixel values differ; masked, waits for a human" in text
    assert text.count("data:image/png;base64") == 4
