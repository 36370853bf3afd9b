"""The objects that carry a result home."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import Code, KeyImage, Radiomic, TriageOutcome, TriageResult, Verdict
from edge_node.triage.ibsi import FEATURES
from edge_node.worklist.header import report_reference
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.uids import result_uid
from edge_node.worklist.words import UNITS, about, radiomics
from edge_node.worklist.writer import Standing
from tests.results_back import (
    JAPANESE,
    KEY,
    MADE_AT,
    STUDY_UID,
    build,
    envelopes,
    finding,
    identity,
    original_uid,
    pseudonym,
    result,
)


def made(triage: TriageResult | None = None, who: WriteBackIdentity | None = None, **change: Any) -> list[Dataset]:
    """What `build` makes of a flagged result, or of something else."""
    options = {"key": KEY, "revision": 1, "made_at": MADE_AT, "node": "edge-1", "version": "0.1.0", **change}
    return build(who or identity(), triage or result(), **options)


def encoded(objects: list[Dataset]) -> list[bytes]:
    """Part 10 bytes of each object."""
    files = []
    for one in objects:
        buffer = BytesIO()
        one.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def content(item: Dataset) -> Iterator[Dataset]:
    """All content items of a report, depth first."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def coded(report: Dataset, name: str) -> list[str]:
    """Code values of the content items of a name."""
    return [
        item.ConceptCodeSequence[0].CodeValue
        for item in content(report)
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


def texts(report: Dataset) -> str:
    """All text of a report."""
    return "\n".join(item.TextValue for item in content(report) if item.ValueType == "TEXT")


def test_the_same_result_gives_the_same_bytes() -> None:
    assert encoded(made()) == encoded(made())


def test_another_moment_or_revision_or_key_gives_other_objects() -> None:
    first = made()
    assert encoded(made(made_at=MADE_AT + timedelta(seconds=1))) != encoded(first)
    for other in (made(revision=2), made(key=b"another key, just as long")):
        assert not {one.SOPInstanceUID for one in other} & {one.SOPInstanceUID for one in first}


def test_revisions_of_a_study_share_a_series_of_their_kind() -> None:
    one, two = made(), made(revision=2)
    assert [each.SeriesInstanceUID for each in one] == [each.SeriesInstanceUID for each in two]
    assert one[0].SeriesInstanceUID != one[1].SeriesInstanceUID


def test_a_uid_gives_nothing_of_the_study_away_and_is_valid() -> None:
    uid = result_uid(KEY, "sr", STUDY_UID, 1)
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert uid != result_uid(KEY, "sr", STUDY_UID, 11)
    with pytest.raises(ValueError, match="16 bytes"):
        result_uid(b"short", "sr", STUDY_UID, 1)


def test_the_report_is_preliminary_unverified_and_advisory() -> None:
    report = made()[0]
    assert (report.VerificationFlag, report.PreliminaryFlag, report.CompletionFlag) == (
        "UNVERIFIED",
        "PRELIMINARY",
        "COMPLETE",
    )
    assert report.SeriesDescription.startswith("ADVISORY")
    assert "ADVISORY ONLY" in texts(report)
    assert "not for clinical use" in texts(report)


def test_the_report_says_what_was_found_by_which_model() -> None:
    report = made()[0]
    assert coded(report, "Finding") == ["1386000"]
    assert coded(report, "Triage verdict") == ["FLAGGED"]
    assert coded(report, "Triage category") == ["RID49480"]
    for words in ("sha256=" + "ab" * 32, "variant=int8", "threshold=0.5", "ref-ct-head-hyperdensity", "1.0.0"):
        assert words in texts(report)
    numbers = [item for item in content(report) if item.ValueType == "NUM"]
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in numbers] == [0.93]


def test_radiomics_are_measurements_with_the_codes_of_the_ibsi_and_their_units() -> None:
    volume = Radiomic(Code("RNU0", "IBSI", "Volume of Mesh"), 14412.345678901234, "mm3")
    mean = Radiomic(Code("Q4LE", "IBSI", "Mean intensity"), -61.5, "[hnsf'U]")
    result = TriageResult(TriageOutcome.FINDING, findings=(finding(radiomics=(volume, mean)),))
    report = made(result)[0]
    numbers = {item.ConceptNameCodeSequence[0].CodeValue: item for item in content(report) if item.ValueType == "NUM"}
    assert [*numbers][1:] == ["RNU0", "Q4LE"]  # after the probability
    name, value = numbers["RNU0"].ConceptNameCodeSequence[0], numbers["RNU0"].MeasuredValueSequence[0]
    assert (name.CodingSchemeDesignator, name.CodeMeaning) == ("IBSI", "Volume of Mesh")
    unit = value.MeasurementUnitsCodeSequence[0]
    assert (value.NumericValue, unit.CodeValue, unit.CodingSchemeDesignator) == (14412.3, "mm3", "UCUM")
    assert numbers["Q4LE"].MeasuredValueSequence[0].NumericValue == -61.5


def test_the_report_says_what_the_figures_are_of_and_calls_it_no_warning_of_the_input() -> None:
    of = "of the area where the model's map is at least 0.5, on voxels of 3 x 1 x 1 mm; not a segmentation"
    noted = finding(quality=("quality.noise: 3", f"radiomics.region: {of}", "radiomics.undefined: 1 of 9"))
    said = texts(made(TriageResult(TriageOutcome.FINDING, findings=(noted,)))[0])
    assert f" Radiomics: {of}; 1 of 9." in said
    assert " Input: quality.noise: 3. " in said
    assert "radiomics." not in said
    assert "Radiomics" not in about(noted)  # where there are no figures
    less = finding(quality=("radiomics.unavailable: triage.radiomics-missing: none; pip install it",))
    assert (radiomics(less), radiomics(finding())) == (" Radiomics: not available on this node.", "")
    assert "Input:" not in about(less)


def test_every_unit_of_a_feature_has_its_meaning() -> None:
    assert {one.unit for one in FEATURES} <= UNITS.keys()


def test_what_is_not_flagged_does_not_carry_the_code_of_the_finding_as_a_finding() -> None:
    report = made(result(finding(Verdict.NOT_FLAGGED)))[0]
    assert coded(report, "Finding") == ["NOT_FLAGGED"]
    assert coded(report, "Finding looked for") == ["1386000"]
    assert coded(report, "Triage category") == []
    said = texts(report).lower()
    assert "not flagged" in said
    assert "normal" not in said
    assert "negative" not in said


def test_what_could_not_be_judged_has_a_reason_and_no_probability() -> None:
    report = made(result(finding(Verdict.CANNOT_JUDGE, reason="too few slices", probability=math.nan)))[0]
    assert coded(report, "Finding") == ["CANNOT_JUDGE"]
    assert "too few slices" in texts(report)
    assert [item for item in content(report) if item.ValueType == "NUM"] == []


def test_all_findings_are_reported_the_deciding_one_first() -> None:
    other = finding(Verdict.NOT_FLAGGED, code=Code("36118008", "SCT", "Pneumothorax"), key_sop_uid=pseudonym(1))
    report = made(result(other, finding()))[0]
    assert coded(report, "Finding looked for") == ["1386000", "36118008"]
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert {item.ReferencedSOPInstanceUID for item in evidence} == {original_uid(1), original_uid(2)}


def test_objects_refer_to_the_original_image_and_never_to_its_pseudonym() -> None:
    report, picture = made()
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == original_uid(2)
    for one in encoded([report, picture]):
        assert pseudonym(2).encode() not in one
        assert original_uid(2).encode() in one


def test_a_frame_is_named_only_where_there_are_frames() -> None:
    plain = made()[1].SourceImageSequence[0]
    assert "ReferencedFrameNumber" not in plain
    enhanced = identity(image={"SOPClassUID": EnhancedCTImageStorage})
    report, picture = made(result(finding(key_frame=7)), enhanced)
    assert picture.SourceImageSequence[0].ReferencedFrameNumber == 7
    images = [item for item in content(report) if item.ValueType == "IMAGE"]
    assert images[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 7


def test_a_finding_without_a_key_image_is_shown_on_the_first_image() -> None:
    report, picture = made(result(finding(Verdict.NOT_FLAGGED, key_sop_uid="")))
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == original_uid(1)
    assert [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in content(report) if item.ValueType == "IMAGE"
    ]


def test_the_key_image_keeps_every_pixel_and_says_that_it_is_derived() -> None:
    triage = result()
    picture = made(triage)[1]
    assert triage.key_image is not None
    assert picture.PixelData[: len(triage.key_image.rgb)] == triage.key_image.rgb
    assert len(picture.PixelData) % 2 == 0
    assert list(picture.ImageType) == ["DERIVED", "SECONDARY"]
    assert picture.BurnedInAnnotation == "YES"
    assert "ADVISORY ONLY" in picture.DerivationDescription


def test_without_a_key_image_there_is_only_the_report() -> None:
    assert [one.Modality for one in made(result(picture=False))] == ["SR"]


@pytest.mark.parametrize("outcome", [TriageOutcome.NOT_APPLICABLE, TriageOutcome.SKIPPED])
def test_without_a_finding_nothing_is_written(outcome: TriageOutcome) -> None:
    assert made(TriageResult(outcome, "no model applies")) == []
    assert made(TriageResult(TriageOutcome.FINDING)) == []


def test_a_key_image_of_the_wrong_size_is_quarantined() -> None:
    with pytest.raises(Quarantine, match="key-image-malformed"):
        made(replace(result(), key_image=KeyImage(10, 10, b"123")))


def test_a_later_report_names_the_one_it_replaces() -> None:
    first = made()[0]
    second = made(revision=2, standing=(Standing(1, "sr", report_reference(KEY, STUDY_UID, 1).sop_uid),))[0]
    series = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


def test_names_in_any_script_are_encoded_whole() -> None:
    for one in encoded(made(who=identity(PatientName=JAPANESE))):
        assert "山田^太郎".encode() in one


def test_the_issuer_of_the_patient_id_is_on_every_object() -> None:
    assert [one.IssuerOfPatientID for one in made()] == ["HOSPITAL-A", "HOSPITAL-A"]


def test_making_evidence_logs_and_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    study, instances = envelopes()
    odd = study.replace("Żółć^Łucja", "ONLYFAMILYNAME").replace("19570313", "1957.3")
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        made(who=WriteBackIdentity.from_envelopes(odd, instances))
    told = caplog.text + "".join(str(warning.message) for warning in heard)
    assert "ONLYFAMILYNAME" not in told
    assert "1957.3" not in told
    assert "MRN-77310" not in told
