"""Objects that point at each other still do afterwards, whatever kind they are and whoever handles them."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.deid import Deidentifier
from tests.unit.deid.objects import CT, DEIDENTIFIER, KEY, RECIPE, ct, received

SLICE, SERIES, FRAME = (
    "1.2.826.0.1.3680043.8.498.77.1",
    "1.2.826.0.1.3680043.8.498.77.9",
    "1.2.826.0.1.3680043.8.498.78",
)


def items(*made: Dataset) -> Sequence:
    return Sequence(list(made))


def item(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def image() -> Dataset:
    return item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=SLICE)


def referring(sop_class: str, modality: str, number: int) -> Dataset:
    ds = ct(SOPClassUID=sop_class, SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.80.{number}", Modality=modality)
    ds.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.81.{number}"
    return ds


def rtstruct() -> Dataset:
    ds = referring("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", 1)
    del ds.PixelData
    series = item(SeriesInstanceUID=SERIES, ContourImageSequence=items(image()))
    study = item(RTReferencedSeriesSequence=items(series), ReferencedSOPInstanceUID=ds.StudyInstanceUID)
    ds.ReferencedFrameOfReferenceSequence = items(
        item(FrameOfReferenceUID=FRAME, RTReferencedStudySequence=items(study))
    )
    contour = item(ContourImageSequence=items(image()), ContourGeometricType="CLOSED_PLANAR", ContourData=[1, 2, 3])
    ds.ROIContourSequence = items(item(ReferencedROINumber=1, ContourSequence=items(contour)))
    return ds


def seg() -> Dataset:
    ds = referring("1.2.840.10008.5.1.4.1.1.66.4", "SEG", 2)
    ds.ReferencedSeriesSequence = items(item(SeriesInstanceUID=SERIES, ReferencedInstanceSequence=items(image())))
    derived = item(SourceImageSequence=items(image()))
    ds.PerFrameFunctionalGroupsSequence = items(item(DerivationImageSequence=items(derived)))
    return ds


def pr() -> Dataset:
    ds = referring("1.2.840.10008.5.1.4.1.1.11.1", "PR", 3)
    del ds.PixelData
    ds.ReferencedSeriesSequence = items(item(SeriesInstanceUID=SERIES, ReferencedImageSequence=items(image())))
    text = item(UnformattedTextValue="seen by Quincy", BoundingBoxTopLeftHandCorner=[1, 1])
    ds.GraphicAnnotationSequence = items(item(GraphicLayer="LAYER1", TextObjectSequence=items(text)))
    return ds


def sr() -> Dataset:
    ds = referring("1.2.840.10008.5.1.4.1.1.88.33", "SR", 4)
    del ds.PixelData
    series = item(SeriesInstanceUID=SERIES, ReferencedSOPSequence=items(image()))
    study = item(StudyInstanceUID=ds.StudyInstanceUID, ReferencedSeriesSequence=items(series))
    ds.CurrentRequestedProcedureEvidenceSequence = items(study)
    ds.ContentSequence = items(item(ValueType="IMAGE", ReferencedSOPSequence=items(image())))
    return ds


def uids(ds: Dataset) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for element in ds.iterall():
        if element.VR == "UI":
            found.setdefault(element.keyword, set()).add(str(element.value))
    return found


@pytest.mark.parametrize("make", [rtstruct, seg, pr, sr], ids=lambda make: make.__name__)
def test_what_refers_to_a_slice_refers_to_the_clean_slice(make) -> None:  # type: ignore[no-untyped-def]
    slice_ = DEIDENTIFIER.deidentify(received(ct())).instance
    elsewhere = Deidentifier(RECIPE, KEY, version="1")  # another node with the same key
    source = make()
    made = elsewhere.deidentify(received(source)).instance
    ds = dcmread(BytesIO(made.part10))
    said, before = uids(ds), uids(source)
    assert made.study_uid == slice_.study_uid
    assert made.study_key == slice_.study_key
    assert slice_.sop_uid in said["ReferencedSOPInstanceUID"]
    assert slice_.series_uid in said["SeriesInstanceUID"]
    assert CT in said["ReferencedSOPClassUID"]
    if "FrameOfReferenceUID" in before:
        assert dcmread(BytesIO(slice_.part10)).FrameOfReferenceUID in said["FrameOfReferenceUID"]
    assert {name: len(values) for name, values in said.items() if name in before} == {
        name: len(values) for name, values in before.items()
    }
    assert b"uincy" not in made.part10
    assert "ContourData" not in source or ds.ROIContourSequence[0].ContourSequence[0].ContourData == [1, 2, 3]
