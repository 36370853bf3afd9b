"""The recipe language as `edge_node/docs/recipes.md` says it: each test whose name ends in a number proves that
difference to deid's engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deid.config import get_deid  # type: ignore[import-untyped]
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.deid import Deidentifier
from edge_node.deid.fields import regex_trouble
from edge_node.deid.filters import Box, Condition, groups
from edge_node.deid.lint import lint
from edge_node.deid.recipe import combine, load
from edge_node.domain.errors import Stop
from tests.unit.deid.objects import KEY, ct, received
from tests.unit.deid.test_recipe import deidentified

DOCS = Path(__file__).parents[3] / "edge_node" / "docs" / "recipes.md"
HEAD = "FORMAT dicom\n"


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.deid"
    path.write_text(HEAD + text)
    return path


def wrong(tmp_path: Path, text: str) -> Stop:
    with pytest.raises(Stop) as caught:
        load(recipe(tmp_path, text))
    return caught.value


def request(**values: str) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def private(ds: Dataset, creator: str = "SIEMENS MR HEADER") -> Dataset:
    block = ds.private_block(0x0019, creator, create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "CS", "DIRECTIONAL")
    block.add_new(0x0E, "FD", [0.1, 0.2, 0.3])
    block.add_new(0x70, "LO", "text of the maker")
    block.add_new(0x71, "OB", b"bulkbulk")
    return ds


def test_every_difference_that_is_listed_has_a_test() -> None:
    listed = set(re.findall(r"^(\d+)\. ", DOCS.read_text(), re.MULTILINE))
    proven = {number for name in globals() for number in re.findall(r"^test_.*_(\d+)$", name)}
    assert proven == listed


def test_the_example_of_the_page_is_a_recipe(tmp_path: Path) -> None:
    example = next(block for block in re.findall(r"```\n(.*?)```", DOCS.read_text(), re.DOTALL) if "FORMAT" in block)
    bare = "\n".join(
        re.split(r"\s{3,}(?=\S)", line)[0] if not line.startswith(" ") else line for line in example.split("\n")
    )
    path = tmp_path / "page.deid"
    path.write_text(bare)
    read = load(path)
    assert len(read.rules) == 5
    assert (len(read.filters), read.labels[0][0]) == (1, "MAINTAINER")


def test_the_more_exact_rule_counts_then_the_later_one_1(tmp_path: Path) -> None:
    rules = "%header\nKEEP startswith:Study\nREMOVE StudyDescription\nREMOVE ALL\nBLANK contains:StudyD|StudyID"
    ds = deidentified(tmp_path, rules)
    assert "StudyDescription" not in ds  # exact before expander, though KEEP stands first
    assert ds.StudyDate == ""  # the later expander
    assert ds.StudyTime == "101500"  # any expander before ALL, wherever ALL stands
    assert "Modality" not in ds


def test_what_a_kept_sequence_holds_is_cleaned_2(tmp_path: Path) -> None:
    item = request(RequestedProcedureID="RP-ZAPHOD", CodeMeaning="Head of Beeblebrox")
    ds = deidentified(tmp_path, "%header\nKEEP RequestAttributesSequence", RequestAttributesSequence=Sequence([item]))
    assert "ZAPHOD" not in str(ds.RequestAttributesSequence[0]).upper()


def test_a_lower_case_action_is_an_error_3(tmp_path: Path) -> None:
    assert wrong(tmp_path, "%header\nremove PatientName").hint == "did you mean REMOVE?"


def test_a_number_sign_in_a_value_is_an_error_and_after_a_blank_a_comment_4(tmp_path: Path) -> None:
    assert "#" in wrong(tmp_path, "%header\nREPLACE StationName room#4").message
    assert deidentified(tmp_path, "%header\nREPLACE StationName room4 #4").StationName == "room4"


def test_a_bad_line_is_an_error_and_ends_nothing_5(tmp_path: Path) -> None:
    assert ":3: " in wrong(tmp_path, "%header\nREPLACE").message
    assert ":2: " in wrong(tmp_path, "%nonsense").message


def test_values_are_looked_for_as_they_are_6(tmp_path: Path) -> None:
    rules = (
        "%values who\nFIELD PatientName\nFIELD contains:PatientID$\n%header\nREMOVE values:who\nKEEP ImageComments\n"
    )
    kept = "KEEP SeriesDescription\nKEEP DerivationDescription"
    item = request(DerivationDescription="of pat-420042")
    ds = deidentified(
        tmp_path,
        rules + kept,
        ImageComments="for beeblebrox^zaphod",
        SourceImageSequence=Sequence([item]),
    )
    assert "ImageComments" not in ds
    assert "DerivationDescription" not in ds.SourceImageSequence[0]
    assert "SeriesDescription" in ds
    assert "may not be kept" in wrong(tmp_path, "%values a\nFIELD PatientID\n%header\nKEEP values:a").message


@pytest.mark.parametrize("split", ["by=^;minlength=4", "by='^';minlength='4'", 'splitval="^";minlength=4'])
def test_split_takes_either_name_quoted_or_not_7(tmp_path: Path, split: str) -> None:
    rules = f"%values who\nSPLIT PatientName {split}\n%header\nREPLACE values:who gone\nKEEP ImageComments"
    assert deidentified(tmp_path, rules, ImageComments="of Zaphod").ImageComments == "gone"
    assert deidentified(tmp_path, rules, ImageComments="of none").ImageComments == "of none"


def test_jitter_shifts_dates_and_nothing_else_8(tmp_path: Path) -> None:
    rules = "%header\nJITTER contains:Study 1\nJITTER ScheduledProcedureStepStartDate 1\nREPLACE StudyID x"
    ds = deidentified(tmp_path, rules, StudyTime="072730", ScheduledProcedureStepStartDate="20240101-20240131")
    assert (ds.StudyDate, ds.StudyTime, ds.StudyID) == ("20240301", "072730", "x")
    assert ds.get_item("ScheduledProcedureStepStartDate").value.strip() == b"20240102-20240201"
    assert deidentified(tmp_path, rules, StudyDate="UNKNOWN").StudyDate == ""
    shifted = deidentified(tmp_path, "%header\nREPLACE StudyDate deid_func:jitter days=1 years=1")
    assert shifted.StudyDate == "20250301"


def test_replace_with_an_expander_passes_over_numbers_9(tmp_path: Path) -> None:
    ds = deidentified(tmp_path, "%header\nREPLACE ALL func:clean_text\nREPLACE contains:Rows x")
    assert (ds.Rows, ds.StudyDescription) == (4, "CT Head w/o contrast 5 mm")


def test_identifiers_of_deid_functions_are_keyed_and_stable_10(tmp_path: Path) -> None:
    rules = (
        "%header\nREPLACE FrameOfReferenceUID deid_func:dicom_uuid org_root=x\nREPLACE StudyID deid_func:suffix_uuid"
    )
    first, second = (deidentified(tmp_path, rules) for _ in range(2))
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.FrameOfReferenceUID.startswith("2.25.")
    assert first.StudyID == second.StudyID != "STUDY77"


def test_functions_are_a_closed_list_11(tmp_path: Path) -> None:
    assert "no function" in wrong(tmp_path, "%header\nREPLACE PatientID func:generate_uid").message
    assert "ADD" in wrong(tmp_path, "%header\nADD ImageComments func:clean_text").message
    ds = deidentified(
        tmp_path, "%header\nADD ImageComments func:pseudonym_patient\nREPLACE PatientID var:patient_pseudonym"
    )
    assert ds.ImageComments == ds.PatientID != ""


def test_variables_are_known_when_the_recipe_is_read_12(tmp_path: Path) -> None:
    text = "%header\nREPLACE StationName var:room\nJITTER StudyDate var:days\nADD ImageComments var:recipe_name"
    assert "'room' is not defined" in wrong(tmp_path, text).message
    variables = {"room": "R4", "days": "-1"}
    engine = Deidentifier(recipe(tmp_path, text), KEY, version="1", variables=variables)
    made = engine.deidentify(received(ct())).instance
    path = tmp_path / "out.dcm"
    path.write_bytes(made.part10)
    ds = dcmread(path)
    assert (ds.StationName, ds.StudyDate, ds.ImageComments) == ("R4", "20240228", "site")
    other = Deidentifier(recipe(tmp_path, text), KEY, version="1", variables=variables | {"room": "R5"})
    assert other.recipe_id != engine.recipe_id


def test_private_attributes_stay_by_their_creator_only_13(tmp_path: Path) -> None:
    creator = '(0019,"SIEMENS MR HEADER",{})'
    rules = "%header\n" + "\n".join(f"KEEP {creator.format(n)}" for n in ("0C", "0D", "0E", "70", "71"))
    ds = deidentified(tmp_path, rules)
    assert not [e for e in ds if e.tag.is_private]
    path = recipe(tmp_path, rules)
    for creator_sent, count in (("SIEMENS MR HEADER", 5), ("SOMEBODY ELSE", 0)):
        for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"):
            made = Deidentifier(path, KEY, version="1").deidentify(received(private(ct(), creator_sent), syntax))
            (tmp_path / "out.dcm").write_bytes(made.instance.part10)
            kept = [e for e in dcmread(tmp_path / "out.dcm") if e.tag.is_private]
            # in implicit VR the maker's text is of no known kind; bulk never stays
            assert len(kept) == (count - (syntax == "1.2.840.10008.1.2") if count else 0)
            assert all(e.VR != "OB" for e in kept)
    assert "creator" in wrong(tmp_path, "%header\nKEEP (0019,100C)").message


def test_voi_luts_are_cleaned_like_every_sequence_14(tmp_path: Path) -> None:
    item = request(LUTExplanation="for Beeblebrox", LUTDescriptor=[2, 0, 16])  # type: ignore[arg-type]
    ds = deidentified(tmp_path, "%header\nKEEP VOILUTSequence\nREMOVE PixelData", VOILUTSequence=Sequence([item]))
    assert ds.VOILUTSequence[0].LUTExplanation == ""
    assert len(ds.PixelData) == 32


def test_file_meta_information_is_rebuilt_15(tmp_path: Path) -> None:
    ds = deidentified(tmp_path, "%header\nKEEP ALL\nREMOVE contains:ID$\nREMOVE contains:Name|Date|Number|Description")
    assert {e.keyword for e in ds.file_meta} == {
        "FileMetaInformationGroupLength",
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",
        "ImplementationVersionName",
    }


def test_an_expander_does_not_look_at_the_sequence_around_16(tmp_path: Path) -> None:
    item = request(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3.4.5.6")
    ds = deidentified(
        tmp_path,
        "%header\nKEEP ReferencedImageSequence\nREMOVE contains:Image",
        ReferencedImageSequence=Sequence([item]),
    )
    assert ds.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert "ImageType" not in ds


def test_all_and_except_have_all_their_names_17(tmp_path: Path) -> None:
    for rule in ("REMOVE except:Manufacturer|Rows", "REMOVE exceptfields:Manufacturer|Rows"):
        ds = deidentified(tmp_path, f"%header\n{rule}", ManufacturerModelName="Optima")
        assert ("Modality" in ds, "Manufacturer" in ds) == (False, True)
        assert ("ManufacturerModelName" in ds) == ("except:" in rule)  # an expression, as documented
    assert "Manufacturer" not in deidentified(tmp_path, "%header\nREMOVE allfields")


def test_filters_are_alternatives_of_conditions_and_boxes_18(tmp_path: Path) -> None:
    text = """%filter graylist
LABEL Dose report # by whom
  contains Modality CT
  + contains SeriesDescription Dose || contains ImageType SCREEN
  equals 0x00080070 A+ Systems
  coordinates 0,0,512,110
  ctpkeepcoordinates 10,20,30,40
  keepcoordinates from:SequenceOfUltrasoundRegions
  coordinates all
LABEL Any
%header
KEEP Modality
"""
    dose, every = load(recipe(tmp_path, text)).filters
    assert (dose.group, dose.label, dose.line) == ("graylist", "Dose report", 3)
    assert dose.boxes == (
        Box(False, (0, 0, 512, 110)),
        Box(True, (10, 20, 40, 60)),
        Box(True, source=0x00186011),
        Box(False),
    )
    assert dose.checks[1] == (("", (("", Condition("equals", 0x00080070, "A+ Systems")),)),)

    def held(**values: list[str]) -> bool:
        tags = {"modality": 0x00080060, "series": 0x0008103E, "kind": 0x00080008, "maker": 0x00080070}
        return dose.holds({tags[name]: value for name, value in values.items()}.get)

    assert held(modality=["CT"], series=["Dose Report"])
    assert held(modality=["ct"], kind=["DERIVED", "SCREEN SAVE"])
    assert not held(modality=["MR"], series=["Dose Report"])
    assert not held(modality=["CT"])
    assert held(maker=["a+ systems "])  # a check of its own
    assert every.holds({}.get)


def test_one_attribute_has_one_rule_and_names_are_given_once_19(tmp_path: Path) -> None:
    assert "line 3" in wrong(tmp_path, "%header\nKEEP Modality\nREMOVE (0008,0060)").message
    assert "twice" in wrong(tmp_path, "%fields a\nFIELD StudyID\n%fields a\nFIELD StudyID").message


@pytest.mark.parametrize("expression", ["(a+)+", "(a|a)*b", "(.*)*x", r"(\w+\s?)+$", r"(a)\1"])
def test_an_expression_that_can_take_for_ever_is_an_error_20(tmp_path: Path, expression: str) -> None:
    assert regex_trouble(expression)
    assert "for ever" in wrong(tmp_path, f"%header\nREMOVE contains:{expression}").message


def test_add_does_not_overrule_what_the_node_says_of_itself_21(tmp_path: Path) -> None:
    ds = deidentified(tmp_path, "%header\nADD PatientIdentityRemoved NO\nADD SOPInstanceUID 1.2.3\nADD StudyID trial-7")
    assert (ds.PatientIdentityRemoved, ds.StudyID) == ("YES", "trial-7")
    assert ds.SOPInstanceUID.startswith("2.25.")


def test_a_rule_for_one_place_holds_there_only(tmp_path: Path) -> None:
    items = [request(RequestedProcedureID="RP1"), request(RequestedProcedureID="RP2")]
    rules = """%header
KEEP RequestAttributesSequence
REPLACE (0040,0275)__0__(0040,1001) first
REPLACE RequestAttributesSequence__RequestedProcedureID any
REPLACE RequestedProcedureID elsewhere
ADD RequestAttributesSequence__RequestedProcedureDescription head
"""
    ds = deidentified(tmp_path, rules, RequestAttributesSequence=Sequence(items), RequestedProcedureID="RP1")
    assert [i.RequestedProcedureID for i in ds.RequestAttributesSequence] == ["first", "any"]
    assert [i.RequestedProcedureDescription for i in ds.RequestAttributesSequence] == ["head", "head"]
    assert ds.RequestedProcedureID == "elsewhere"


def test_a_condition_removes_only_where_it_is_true(tmp_path: Path) -> None:
    rules = "%header\nREMOVE contains:Comments func:is_name\nKEEP ImageComments\nKEEP PatientComments\n"
    ds = deidentified(
        tmp_path, rules + "REMOVE Rows func:is_name", ImageComments="nice image", PatientComments="of Zaphod"
    )
    assert ds.ImageComments == "nice image"
    assert "PatientComments" not in ds
    assert ds.Rows == 4


def test_deids_own_recipe_is_read_whole(tmp_path: Path) -> None:
    text = Path(get_deid("dicom")).read_text()
    for misspelt in ("Manfacturer ", "Manufacture "):  # lint finds them
        text = text.replace(misspelt, "Manufacturer ")
    read = load(recipe(tmp_path, text.split("%header")[0].removeprefix("FORMAT dicom") + "%header\nKEEP Modality"))
    assert {name: len(labels) for name, labels in groups(read.filters).items()}.keys() >= {"graylist", "blacklist"}
    assert sum(bool(one.boxes) for one in read.filters) > 50


def test_a_site_recipe_stands_on_a_profile(tmp_path: Path) -> None:
    base = recipe(tmp_path, "%header\nREMOVE StationName\nBLANK StudyDate\nADD StudyID base")
    base = base.rename(tmp_path / "base.deid")
    site = recipe(tmp_path, "%header\nREPLACE StationName ours\nADD StudyID site")
    both = combine(load(base), load(site))
    assert [(r.action, r.field, r.value) for r in both.rules] == [
        ("BLANK", "StudyDate", ""),
        ("REPLACE", "StationName", "ours"),
        ("ADD", "StudyID", "site"),
    ]


def test_lint_says_line_what_and_what_to_write_instead(tmp_path: Path) -> None:
    text = """%fields unused
FIELD StudyID
%header
REMOVE contains:Foobar
KEEP EncapsulatedDocument
KEEP startswith:Patient
BLANK startswith:Pat
KEEP PatientName
"""
    found = lint(recipe(tmp_path, text))
    assert not any(finding.error for finding in found)
    said = {finding.line: finding.what for finding in found if finding.line}
    assert "no attribute" in said[5]
    assert "code removes" in said[6]
    assert "decide all" in said[7]
    assert "names the patient" in said[9]
    whole = [finding for finding in found if not finding.line]
    assert any("unused" in finding.what for finding in whole)
    accession = next(finding for finding in whole if "AccessionNumber" in finding.what)
    assert accession.instead == "REPLACE AccessionNumber func:pseudonym_id"


def test_lint_names_every_error_at_once(tmp_path: Path) -> None:
    found = lint(recipe(tmp_path, "%header\nremove StudyID\nKEEP Foo\nREPLACE PatientID\n%filter\nLABEL x"))
    assert [finding.line for finding in found if finding.error] == [3, 4, 5, 6]
    assert all(finding.instead for finding in found)
