from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from edge_node.deid import Deidentifier
from edge_node.deid.e1_1 import table
from edge_node.deid.profiles import PROFILES, profile_text
from edge_node.deid.recipe import load
from edge_node.domain.errors import Stop
from tests.unit.deid.objects import KEY, RECIPE, ct, received

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", PROFILES)
def test_each_shipped_recipe_is_what_the_table_gives(name: str) -> None:
    assert (RECIPE.parent / f"{name}.deid").read_text(encoding="utf-8") == profile_text(name)


@pytest.mark.parametrize("name", PROFILES)
def test_each_shipped_recipe_speaks_of_every_attribute_of_the_table_that_can_stand_in_an_object(name: str) -> None:
    named = {rule.field for rule in load(RECIPE.parent / f"{name}.deid").rules}
    assert {row.name for tag, row in table().items() if 8 <= tag >> 16 < 0xFFF0 and row.name} <= named


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        ("REMOVE PatientName", 1, "FORMAT dicom"),
        ("FORMAT nifti", 1, "FORMAT dicom"),
        ("FORMAT dicom\nREMOVE PatientName", 2, "before any %header"),
        ("FORMAT dicom\n%header\nremove PatientName", 3, "did you mean REMOVE"),
        ("FORMAT dicom\n%header\n\n# why\nREMOV PatientName", 5, "did you mean REMOVE"),
        ("FORMAT dicom\n%header\nREMOVEALL", 3, "no action"),
        ("FORMAT dicom\n%header\nREMOVE PatientNam", 3, "did you mean PatientName"),
        ("FORMAT dicom\n%header\nREMOVE", 3, "needs a field"),
        ("FORMAT dicom\n%header\nREPLACE PatientID", 3, "needs a value"),
        ("FORMAT dicom\n%header\nKEEP Modality because", 3, "nothing else"),
        ("FORMAT dicom\n%header\nREPLACE PatientID a#b", 3, "cuts the value"),
        ("FORMAT dicom\n%header\nREPLACE PatientID O'Brien", 3, "quotation"),
        ("FORMAT dicom\n%header\nREPLACE PatientID func:pseudonym_idd", 3, "did you mean func:pseudonym_id"),
        ("FORMAT dicom\n%header\nREPLACE PatientID deid_func:suuid", 3, "no function"),
        ("FORMAT dicom\n%header\nREPLACE PatientID var:id", 3, "not defined"),
        ("FORMAT dicom\n%header\nJITTER StudyDate 0", 3, "other than 0"),
        ("FORMAT dicom\n%header\nJITTER PatientID 3", 3, "dates and times"),
        ("FORMAT dicom\n%header\nREPLACE Rows 5", 3, "holds text"),
        ("FORMAT dicom\n%header\nREMOVE PatientName\nBLANK (0010,0010)", 4, "already has a rule in line 3"),
        ("FORMAT dicom\n%header\nKEEP (0011,1001)", 3, "private"),
        ("FORMAT dicom\n%header\nREMOVE RequestAttributesSequence__StudyIDD", 3, "did you mean StudyID"),
        ("FORMAT dicom\n%header\nREMOVE PatientName__StudyID", 3, "no sequence"),
        ("FORMAT dicom\n%header\nREMOVE contain:Name", 3, "did you mean contains"),
        ("FORMAT dicom\n%header\nREMOVE contains:(", 3, "regular expression"),
        ("FORMAT dicom\n%header\nREMOVE fields:people", 3, "not defined"),
        ("FORMAT dicom\n%filter graylist\ncontains Modality CT", 3, "before any LABEL"),
        ("FORMAT dicom\n%heder\nKEEP Modality", 2, "did you mean %header"),
        ("FORMAT dicom\n%header\nADD DeidentificationMethodCodeSequence 113199", 3, "CID 7050"),
        ("FORMAT dicom\n%header", 2, "no rule"),
    ],
)
def test_a_line_that_deid_would_drop_or_misread_stops_with_its_number(
    tmp_path: Path, lines: str, where: int, says: str
) -> None:
    path = tmp_path / "site.deid"
    path.write_text(lines + "\n")
    with pytest.raises(Stop) as caught:
        load(path)
    assert caught.value.code == "deid.recipe-invalid"
    assert f"{path}:{where}:" in caught.value.message
    assert says in str(caught.value)


def test_a_missing_recipe_stops(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="cannot be read"):
        load(tmp_path / "nowhere.deid")


def deidentified(tmp_path: Path, rules: str, **changes: object):  # type: ignore[no-untyped-def]
    path = tmp_path / "site.deid"
    path.write_text("FORMAT dicom\n" + rules)
    made = Deidentifier(path, KEY, version="1").deidentify(received(ct(**changes)))
    return dcmread(BytesIO(made.instance.part10))


def test_rules_mean_what_they_say_and_the_profile_covers_the_rest(tmp_path: Path) -> None:
    rules = """%fields times
FIELD StudyTime
FIELD contains:Acquisition.*Time
%header
BLANK fields:times # a comment
REPLACE SeriesDescription A site's words, it's fixed
JITTER StudyDate -7
ADD ImageComments from our site
REMOVE select:VR:DS
KEEP PatientWeight
"""
    ds = deidentified(tmp_path, rules)
    assert (ds.StudyTime, ds.AcquisitionDateTime) == ("", "")
    assert ds.SeriesDescription == "A site's words, it's fixed"
    assert ds.StudyDate == "20240222"
    assert ds.ImageComments == "from our site"
    assert "PatientSize" not in ds
    assert ds.PatientWeight == 82  # an exact field beats an expander
    assert "StudyDescription" not in ds  # unnamed, but in Table E.1-1: X
    assert ds.AccessionNumber == ""  # Z


def test_a_later_expander_beats_an_earlier_one(tmp_path: Path) -> None:
    rules = """%header
KEEP ALL
REMOVE endswith:Description
REPLACE contains:UID func:pseudonym_uid
REMOVE contains:Name
REMOVE contains:ID$
REMOVE contains:Date|Number
"""
    ds = deidentified(tmp_path, rules)
    assert "StudyDescription" not in ds
    assert ds.StudyTime == "101500"


def test_reading_a_recipe_prints_nothing_and_drags_nothing_in() -> None:
    code = (
        "import sys, pathlib; from edge_node.deid import Deidentifier;"
        f"Deidentifier(pathlib.Path({str(RECIPE)!r}), bytes(32), version='1');"
        "assert not [m for m in sys.modules if m.startswith(('matplotlib', 'deid.dicom'))]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_printed_about_an_odd_object() -> None:
    code = (
        "from tests.unit.deid.objects import *;"
        "data = encoded(ct(StudyDate='20240101')).replace(b'ISO_IR 192', b'Beeblebrox').replace(b'093Y', b'Zaph');"
        "DEIDENTIFIER.deidentify(received(ct(), data=data))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_recipe_id_changes_with_the_recipe(tmp_path: Path) -> None:
    other = tmp_path / "basic.deid"
    other.write_text(RECIPE.read_text() + "KEEP SliceThickness\n")
    ours, theirs = (Deidentifier(path, KEY, version="1").recipe_id for path in (RECIPE, other))
    assert ours.name == theirs.name == "basic"
    assert ours.sha256 != theirs.sha256
