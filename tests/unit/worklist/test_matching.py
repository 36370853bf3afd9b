from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edge_node.demo.query import answers
from edge_node.worklist.matching import dataset_matches, in_range


def _ds(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        (_ds(PatientName=""), True),
        (_ds(PatientName="*"), True),
        (_ds(PatientName="yamada*"), True),
        (_ds(PatientName="山田^太?"), True),
        (_ds(PatientName="Tanaka*"), False),
        (_ds(PatientID="TOY?23"), True),
        (_ds(PatientID="toy123"), False),
        (_ds(PatientID="TOY.23"), False),
        (_ds(StudyDate="20260301-20260331"), True),
        (_ds(StudyDate="20260310-"), False),
        (_ds(StudyDate="-20260309"), True),
        (_ds(StudyTime="0800-0815"), True),
        (_ds(StudyInstanceUID=["2.25.1", "2.25.2"]), True),
        (_ds(StudyInstanceUID="2.25.22"), False),
        (_ds(AccessionNumber="A1"), False),
    ],
)
def test_keys_match_as_the_standard_says(key: Dataset, matches: bool) -> None:
    stored = _ds(
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        PatientID="TOY123",
        StudyDate="20260309",
        StudyTime="081512.25",
        StudyInstanceUID="2.25.2",
    )
    assert dataset_matches(stored, key) is matches


def test_sequence_keys_look_inside_the_items() -> None:
    stored = _ds(ReferencedRequestSequence=[_ds(AccessionNumber="A1"), _ds(AccessionNumber="A2")])
    assert dataset_matches(stored, _ds(ReferencedRequestSequence=[_ds(AccessionNumber="A2")]))
    assert not dataset_matches(stored, _ds(ReferencedRequestSequence=[_ds(AccessionNumber="A3")]))
    assert dataset_matches(Dataset(), _ds(ReferencedRequestSequence=[Dataset()]))


DATES = st.dates(date(1900, 1, 1), date(2100, 1, 1)).map(lambda day: day.strftime("%Y%m%d"))


@given(DATES, DATES, DATES)
def test_a_range_holds_exactly_the_dates_between_its_ends(value: str, low: str, high: str) -> None:
    assert in_range(value, f"{low}-{high}") == (low <= value <= high)


def _headers() -> list[Dataset]:
    return [
        _ds(
            PatientID=f"P{study % 2}",
            StudyInstanceUID=f"2.25.{study}",
            SeriesInstanceUID=f"2.25.{study}.{series}",
            SOPInstanceUID=f"2.25.{study}.{series}.{image}",
            Modality="CT" if series else "SR",
        )
        for study in range(3)
        for series in range(2)
        for image in range(4)
    ]


def test_a_study_query_counts_what_belongs_to_each_study() -> None:
    query = _ds(QueryRetrieveLevel="STUDY", StudyInstanceUID="", ModalitiesInStudy="", NumberOfStudyRelatedInstances="")
    rows = answers(_headers(), query, patient_root=False, retrieve_ae="PACS")
    assert rows is not None
    assert [(list(r.ModalitiesInStudy), int(r.NumberOfStudyRelatedInstances)) for r in rows] == [(["CT", "SR"], 8)] * 3


def test_modalities_in_study_can_be_asked_for() -> None:
    query = _ds(QueryRetrieveLevel="STUDY", ModalitiesInStudy="MR")
    assert answers(_headers(), query, patient_root=False, retrieve_ae="PACS") == []


def test_an_image_query_needs_the_keys_above_it() -> None:
    query = _ds(QueryRetrieveLevel="IMAGE", SOPInstanceUID="")
    assert answers(_headers(), query, patient_root=False, retrieve_ae="PACS") is None
    query.StudyInstanceUID, query.SeriesInstanceUID = "2.25.1", "2.25.1.0"
    rows = answers(_headers(), query, patient_root=False, retrieve_ae="PACS")
    assert rows is not None
    assert len(rows) == 4


@pytest.mark.parametrize("level", ["", "VISIT", "PATIENT"])
def test_a_level_the_model_does_not_have_is_no_answer(level: str) -> None:
    assert answers(_headers(), _ds(QueryRetrieveLevel=level), patient_root=False, retrieve_ae="PACS") is None


def test_the_patient_root_has_a_patient_level() -> None:
    query = _ds(QueryRetrieveLevel="PATIENT", PatientID="P*", NumberOfPatientRelatedStudies="")
    rows = answers(_headers(), query, patient_root=True, retrieve_ae="PACS")
    assert rows is not None
    assert [(r.PatientID, int(r.NumberOfPatientRelatedStudies)) for r in rows] == [("P0", 2), ("P1", 1)]
