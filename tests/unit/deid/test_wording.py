"""A recipe by lines: what it may say, what it may not, what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.deid.filters import groups
from edge_node.deid.recipe import combine, load
from edge_node.domain.errors import Stop
from tests.unit.deid.recipes import told

HEADER = "%header\n"
WRONG = [
    ("%header x\nKEEP Rows", 2, "has no name", "%header"),
    ("%labels x\n%header\nKEEP Rows", 2, "has no name", "%labels"),
    ("%fields\n%header\nKEEP Rows", 2, "needs one name", "%fields NAME"),
    ("%values a b\n%header\nKEEP Rows", 2, "needs one name", "%values NAME"),
    ("%filter\n%header\nKEEP Rows", 2, "needs one name", "%filter NAME"),
    ("%heeder\nKEEP Rows\n%header\nKEEP Columns", 2, "is no section", "did you mean %header?"),
    ("%HEADER\n%header\nKEEP Rows", 2, "is no section", ""),
    ("%fields a\nFIELD Rows\n%values a\n%header\nKEEP Rows", 4, "defined twice", "%values a_2"),
    ("%values a\nFIELD StudyID\n%fields a\n%header\nREMOVE values:a", 4, "defined twice", "%fields a_2"),
    ("KEEP Rows", 2, "before any %header", "%header"),
    ("%labels\nADD\n%header\nKEEP Rows", 3, "%labels section holds", "did you mean ADD?"),
    ("%labels\nSAY x y\n%header\nKEEP Rows", 3, "%labels section holds", ""),
    ("%fields a\nKEEP Rows\n%header\nKEEP Rows", 3, "FIELD NAME", ""),
    ("%fields a\nFIELD Rows Columns\n%header\nKEEP Rows", 3, "FIELD NAME", "did you mean FIELD?"),
    ("%fields a\nFIELD Rows\nFIELD fields:a\n%header\nKEEP Rows", 4, "cannot hold a list", "the names themselves"),
    ("%fields a\nFIELD values:b\n%header\nKEEP Rows", 3, "cannot hold a list", "the names themselves"),
    ("%values a\nFIELD StudyID x\n%header\nKEEP Rows", 3, "%values section holds", "did you mean FIELD?"),
    ("%values a\nFIELD\n%header\nKEEP Rows", 3, "%values section holds", "did you mean FIELD?"),
    ("%values a\nSPLIT\n%header\nKEEP Rows", 3, "%values section holds", "did you mean SPLIT?"),
    ("%values a\nKEEP StudyID\n%header\nKEEP Rows", 3, "%values section holds", ""),
    ('%values a\nFIELD (0019,"X",01)\n%header\nKEEP Rows', 3, "values come from", "FIELD PatientID"),
    ("%values a\nFIELD fields:b\n%header\nKEEP Rows", 3, "values come from", "FIELD PatientID"),
    ("%values a\nFIELD RequestAttributesSequence__StudyID\n%header\nKEEP Rows", 3, "values come from", "FIELD Pat"),
    ("%values a\nSPLIT PatientName cut=x\n%header\nKEEP Rows", 3, "SPLIT takes", "by=^;minlength=3"),
    ("%values a\nSPLIT PatientName by=\n%header\nKEEP Rows", 3, "SPLIT takes", "did you mean by?"),
    ("%values a\nSPLIT PatientName minlength=x\n%header\nKEEP Rows", 3, "SPLIT takes", "did you mean minlength?"),
    ("%values a\nSPLIT PatientName minlenght=3\n%header\nKEEP Rows", 3, "SPLIT takes", "did you mean minlength?"),
    (HEADER + "DROP Rows", 3, "is no action", ""),
    (HEADER + "REMVE Rows", 3, "is no action", "did you mean REMOVE?"),
    (HEADER + "keep Rows", 3, "is no action", "did you mean KEEP?"),
    (HEADER + "KEEP", 3, "needs a field", "KEEP PatientName"),
    (HEADER + "KEEP Rows 4", 3, "nothing else", "KEEP Rows 4"),
    (HEADER + "BLANK Rows 4", 3, "nothing else", "BLANK Rows 4"),
    (HEADER + "REPLACE StudyID", 3, "needs a value", "REPLACE StudyID VALUE"),
    (HEADER + "JITTER StudyDate", 3, "needs a value", "JITTER StudyDate VALUE"),
    (HEADER + "ADD StudyID", 3, "needs a value", "ADD StudyID VALUE"),
    (HEADER + "REMOVE fields:a", 3, "list of fields is not defined", ""),
    ("%fields abc\nFIELD Rows\n%header\nREMOVE fields:abd", 5, "list of fields is not", "did you mean abc?"),
    (HEADER + "REMOVE values:a", 3, "list of values is not defined", ""),
    ("%values a\nFIELD StudyID\n%header\nKEEP values:a", 5, "may not be kept", "REMOVE values:a"),
    ("%values a\nFIELD StudyID\n%header\nADD values:a x", 5, "may not be kept", "REMOVE values:a"),
    (HEADER + "ADD contains:Study x", 3, "ADD names one", "REPLACE contains:Study VALUE"),
    (HEADER + "ADD ALL x", 3, "ADD names one", "REPLACE ALL VALUE"),
    (HEADER + "KEEP (0019,100C)", 3, "without its creator", '(0019,"CREATOR",0C)'),
    (HEADER + "REPLACE (0019,10FC) x", 3, "without its creator", '(0019,"CREATOR",FC)'),
    (HEADER + "REPLACE ContentSequence x", 3, "a sequence has no value", "KEEP ContentSequence, REMOVE Cont"),
    (HEADER + "JITTER ContentSequence 3", 3, "a sequence has no value", "KEEP ContentSequence, REMOVE Cont"),
    (HEADER + "REMOVE StudyID func:is_nam", 3, "REMOVE takes", "did you mean func:is_name?"),
    (HEADER + "REMOVE StudyID zzz", 3, "REMOVE takes", "nothing behind the field"),
    (HEADER + "REMOVE StudyID values:a", 3, "list of values is not defined", ""),
    (HEADER + "JITTER StudyDate 0", 3, "JITTER takes", "var:patient_shift"),
    (HEADER + "JITTER StudyDate soon", 3, "JITTER takes", "var:patient_shift"),
    (HEADER + "JITTER StudyDate var", 3, "JITTER takes", "var:patient_shift"),
    (HEADER + "JITTER StudyDate func:shift_date", 3, "JITTER takes", "var:patient_shift"),
    (HEADER + "JITTER StudyDate var:patient_shft", 3, "is not defined", "did you mean var:patient_shift?"),
    (HEADER + "JITTER StudyDate var:zzzz", 3, "is not defined", "var:patient_shift"),
    (HEADER + "REPLACE StudyID var:zzzz", 3, "is not defined", "var:patient_pseudonym"),
    (HEADER + "REPLACE StudyID func:pseudonym_idd", 3, "is no function", "did you mean func:pseudonym_id?"),
    (HEADER + "ADD StudyID func:pseudonym_id", 3, "no value that a function", "func:pseudonym_patient"),
    (HEADER + "REPLACE StudyID deid_func:jiter days=1", 3, "no function of deid", "did you mean jitter?"),
    (HEADER + "ADD StudyID deid_func:suffix_uuid", 3, "are for REPLACE", "REPLACE … deid_func:suffix_uuid"),
    (HEADER + "REPLACE StudyDate deid_func:jitter", 3, "jitter takes", "deid_func:jitter days=-31"),
    (HEADER + "REPLACE StudyDate deid_func:jitter weeks=3", 3, "jitter takes", "deid_func:jitter days=-31"),
    (HEADER + "REPLACE StudyID Zürich", 3, "printable ASCII", ""),
    (HEADER + "REPLACE StudyID a\x07b", 3, "printable ASCII", ""),
    (HEADER + "JITTER StudyID 3", 3, "JITTER is for dates", "REPLACE or REMOVE"),
    (HEADER + "REPLACE Rows 4", 3, "attribute that holds text", "KEEP or REMOVE"),
    (HEADER + "ADD Rows 4", 3, "attribute that holds text", "KEEP or REMOVE"),
    (HEADER + "ADD DeidentificationMethodCodeSequence 113100,113101", 3, "CID 7050", "did you mean 113"),
    (HEADER + "KEEP Rows\nREMOVE (0028,0010)", 4, "already has a rule in line 3", "one of them"),
    (HEADER + "ADD StudyID a\nADD StudyID b", 4, "already has a rule in line 3", "one of them"),
    (HEADER + 'KEEP (0019,"X",01)\nREMOVE (0019,"X",01)', 4, "already has a rule in line 3", "one of them"),
    (HEADER + "REPLACE StudyID a#b", 3, "cuts the value at #", "REPLACE StudyID a b"),
    (HEADER + "REPLACE StudyID 'a b", 3, "quotation mark", "REPLACE StudyID 'a b'"),
    (HEADER + "KEEP PatientNme", 3, "no attribute", "did you mean PatientName?"),
    (HEADER + "KEEP zzzzzzzz", 3, "no attribute", "a keyword, (gggg,eeee)"),
    (HEADER + "KEEP starts:Pat", 3, "is no expander", "did you mean startswith?"),
    (HEADER + "KEEP contains:", 3, "no expression", ""),
    (HEADER + "KEEP contains:(", 3, "no regular expression", "a plain word"),
    (HEADER + "KEEP select:VR:XX", 3, "select: is followed", ""),
    (HEADER + "KEEP select:GROUP:GGGG", 3, "select: is followed", ""),
    (HEADER + "KEEP select:GROUP:12345", 3, "select: is followed", ""),
    (HEADER + "KEEP exceptfields:Rows|zzzz", 3, "no attribute", "a keyword"),
    (HEADER + 'KEEP (0018,"X",01)', 3, "even group", "0018,01"),
    (HEADER + "KEEP Rows__StudyID", 3, "is no sequence", "StudyID"),
    (HEADER + "KEEP 0__StudyID", 3, "no attribute", "a keyword"),
    (HEADER + "KEEP ContentSequence__0__1__StudyID", 3, "no attribute", "a keyword"),
    ("%filter g\ncontains Modality CT\n%header\nKEEP Rows", 3, "before any LABEL", "LABEL a name"),
    ("%filter g\nLABEL a\nholds Modality CT\n%header\nKEEP Rows", 4, "is no test", ""),
    ("%filter g\nLABEL a\ncontain Modality CT\n%header\nKEEP Rows", 4, "is no test", "did you mean contains?"),
    ("%filter g\nLABEL a\n+\n%header\nKEEP Rows", 4, "is no test", ""),
    ("%filter g\nLABEL a\n||\n%header\nKEEP Rows", 4, "is no test", ""),
    ("%filter g\nLABEL a\ncontains\n%header\nKEEP Rows", 4, "needs an attribute", ""),
    ("%filter g\nLABEL a\ncontains Modalty CT\n%header\nKEEP Rows", 4, "no attribute", "did you mean Modality?"),
    ("%filter g\nLABEL a\nequals Modality\n%header\nKEEP Rows", 4, "and a value", "equals Modality VALUE"),
    ("%filter g\nLABEL a\npresent Modality CT\n%header\nKEEP Rows", 4, "nothing else", "present Modality"),
    ("%filter g\nLABEL a\ncontains Modality (\n%header\nKEEP Rows", 4, "no regular", "contains Modality \\("),
    ("%filter g\nLABEL a\nnotcontains Modality (\n%header\nKEEP Rows", 4, "no regular", "notcontains Modality \\("),
    ("%filter g\nLABEL a\ncoordinates from:zzzzzz\n%header\nKEEP Rows", 4, "from: is followed", ""),
    ("%filter g\nLABEL a\ncoordinates 1,2,3\n%header\nKEEP Rows", 4, "four numbers", "coordinates 0,0,512,110"),
    ("%filter g\nLABEL a\ncoordinates 1,2,3,x\n%header\nKEEP Rows", 4, "four numbers", "coordinates 0,0,512,110"),
    ("%filter g\nLABEL a\ncoordinates 1,2,3,123456\n%header\nKEEP Rows", 4, "four numbers", "coordinates 0,0,"),
    ("%filter g\nLABEL a\ncoordinates 5,5,5,9\n%header\nKEEP Rows", 4, "the box is empty", "ctpcoordinates 5,5,5,9"),
    ("%filter g\nLABEL a\ncoordinates 5,5,9,5\n%header\nKEEP Rows", 4, "the box is empty", "ctpcoordinates 5,5,9,5"),
    ("", 1, "the recipe has no rule", "%header"),
    ("%labels\nADD a b\n\n", 4, "the recipe has no rule", "%header"),
]


@pytest.mark.parametrize(("text", "line", "what", "instead"), WRONG)
def test_a_wrong_line_is_named_and_what_to_write_is_said(
    text: str, line: int, what: str, instead: str, tmp_path: Path
) -> None:
    first = told(tmp_path, text)[1][0]
    assert first[0] == line
    assert what in first[1]
    assert first[2].startswith(instead) if instead else first[2] == ""


RIGHT = [
    'KEEP (0019,"MAKER X",1C)',
    "REMOVE (0019,100C)",
    "BLANK (0019,100C)",
    "KEEP ContentSequence",
    "BLANK ContentSequence",
    "REMOVE ContentSequence",
    "JITTER StudyTime -3",
    "JITTER StudyDate +31",
    "JITTER AcquisitionDateTime 7",
    "JITTER select:VR:DA 7",
    'JITTER (0019,"X",01) 7',
    "JITTER StudyDate var:patient_shift",
    "JITTER StudyDate var:own",
    "REPLACE StudyID var:own",
    "REPLACE StudyID var:recipe_name",
    "REPLACE StudyID var:patient_pseudonym",
    "REPLACE Rows func:dummy",
    "REPLACE StudyID func:pseudonym_id",
    "REPLACE StudyID deid_func:suffix_uuid",
    "REPLACE StudyDate deid_func:jitter days=-31",
    "REPLACE StudyDate deid_func:jitter days=+1 years=-2",
    "REPLACE StudyID http://x.y",
    "REPLACE StudyID func",
    "ADD StudyID func:pseudonym_patient",
    "ADD StudyID a b # comment",
    "REMOVE StudyID func:is_name",
    "REMOVE StudyID func:has_digits",
    "REMOVE StudyID\nADD StudyID x",
    "REMOVE StudyID func:is_name\nREMOVE StudyID func:has_digits\nKEEP StudyID",
    "ADD DeidentificationMethodCodeSequence 113100, 113105",
    "KEEP ContentSequence__0__StudyID\nKEEP ContentSequence__StudyID\nKEEP StudyID",
    "KEEP Rows#comment",
]


@pytest.mark.parametrize("rules", RIGHT)
def test_what_the_language_allows_is_read(rules: str, tmp_path: Path) -> None:
    if "#comment" in rules:
        assert told(tmp_path, HEADER + rules)[1]
        return
    recipe, findings = told(tmp_path, HEADER + rules, "own")
    assert findings == []
    assert [f"{one.action} {one.field} {one.value}".strip() for one in recipe.rules] == [
        line.split(" #")[0] for line in rules.split("\n")
    ]
    assert [one.line for one in recipe.rules] == list(range(3, 3 + len(recipe.rules)))


def test_a_recipe_says_what_it_is_first_and_all_its_sections_are_had(tmp_path: Path) -> None:
    path = tmp_path / "own.deid"
    text = """# of the site

   FORMAT dicom
# comment
%labels # who
ADD MAINTAINER A B  C
%fields study # names
FIELD StudyID # one
FIELD contains:Study
%values who
FIELD PatientName
SPLIT PatientID by='-';minlength=3
SPLIT PatientName
%filter gray # boxes
LABEL one two # three
  coordinates 0,0,5,5 # four
LABEL
  present Rows
%header # rules
REMOVE fields:study
REMOVE values:who
"""
    path.write_text(text)
    recipe = load(path)
    assert recipe.text == text
    assert recipe.labels == (("MAINTAINER", "A B C"),)
    assert recipe.lists == {"study": ("StudyID", "contains:Study")}
    assert [(s.target.tag, s.split, s.shortest) for s in recipe.values["who"]] == [
        (0x00100010, "", 1),
        (0x00100020, "-", 3),
        (0x00100010, " ", 1),
    ]
    assert [(one.group, one.label, len(one.boxes), len(one.checks)) for one in recipe.filters] == [
        ("gray", "one two", 1, 0),
        ("gray", "line 17", 0, 1),
    ]
    assert [rule.line for rule in recipe.rules] == [20, 21]
    for first in ("FORMAT nifti", "%header\nKEEP Rows\nFORMAT dicom"):
        path.write_text(first + "\n%header\nKEEP Rows\n")
        with pytest.raises(Stop, match="FORMAT dicom") as caught:
            load(path)
        assert caught.value.code == "deid.recipe-invalid"
        assert f"{path}:1: " in caught.value.message
    for gone in (tmp_path / "none.deid", tmp_path / "bad.deid"):
        (tmp_path / "bad.deid").write_bytes(b"FORMAT dicom\n\xff")
        with pytest.raises(Stop) as caught:
            load(gone)
        assert caught.value.code == "deid.recipe-invalid"


def test_every_wrong_line_is_found_and_a_wrong_section_once(tmp_path: Path) -> None:
    _, findings = told(tmp_path, "%nothing\nKEEP Rows\nDROP it\n%header\nDROP Rows\nKEEP Rows\nKEEP\n")
    assert [line for line, *_ in findings] == [2, 6, 8]


def test_a_site_recipe_replaces_rules_lists_and_additions_of_the_same_name(tmp_path: Path) -> None:
    base, _ = told(
        tmp_path,
        "%fields a\nFIELD Rows\n%fields b\nFIELD Rows\n%values v\nFIELD StudyID\n%filter g\nLABEL base\n"
        " coordinates all\n%labels\nADD X 1\n%header\nKEEP StudyID\nADD StudyID x\nADD AccessionNumber y\n"
        "REMOVE StudyDescription func:is_name\nKEEP contains:Study\nKEEP SeriesDate\nKEEP ContentSequence__StudyID\n",
    )
    site, _ = told(
        tmp_path,
        "%fields a\nFIELD Columns\n%values w\nFIELD PatientID\n%filter g\nLABEL site\n coordinates all\n"
        "%labels\nADD Y 2\n%header\nREMOVE StudyID\nADD StudyID z\nREMOVE StudyDescription\n"
        "REMOVE SeriesDate func:is_name\nREMOVE contains:Study\n",
    )
    both = combine(base, site)
    assert [(one.action, one.field, one.value) for one in both.rules] == [
        ("ADD", "AccessionNumber", "y"),
        ("REMOVE", "StudyDescription", "func:is_name"),
        ("KEEP", "contains:Study", ""),
        ("KEEP", "SeriesDate", ""),
        ("KEEP", "ContentSequence__StudyID", ""),
        *((one.action, one.field, one.value) for one in site.rules),
    ]
    assert both.lists == {"a": ("Columns",), "b": ("Rows",)}
    assert (set(both.values), both.labels) == ({"v", "w"}, (("X", "1"), ("Y", "2")))
    assert [one.label for one in both.filters] == ["site", "base"]
    assert {name: [one.label for one in some] for name, some in groups(both.filters).items()} == {"g": ["site", "base"]}
    assert (both.text, both.path) == (base.text + site.text, site.path)
    assert len({base.sha256, site.sha256, both.sha256}) == 3
