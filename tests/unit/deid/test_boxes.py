"""Vendor boxes: deid's filter language with the meaning it documents."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.deid.boxes import Boxes, load_box_rules, vendor_rules
from edge_node.domain.errors import Stop


def image(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName, ds.Rows, ds.Columns = "US", "Philips", "iU22", 480, 640
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def area(text: str, ds: Dataset, rows: int = 20, columns: int = 20) -> np.ndarray:
    return Boxes([load_box_rules("FORMAT dicom\n%filter graylist\n" + text, "test")]).mask(ds, "1.2", rows, columns)


def test_the_filters_that_deid_ships_are_read_whole_and_know_an_ultrasound() -> None:
    rules = vendor_rules()
    assert len(rules) > 100
    masked = Boxes([rules]).mask(image(), "1.2", 480, 640)
    assert masked[:47, :640].all()
    assert not masked[47:].any()


def test_both_forms_of_coordinates_mean_what_they_say() -> None:
    plain = area("LABEL a # (who)\n  contains Modality US\n  coordinates 2,3,5,9", image())
    ctp = area("LABEL a\n  contains Modality US\n  ctpcoordinates 2,3,3,6", image())
    assert np.array_equal(plain, ctp)
    assert plain.sum() == 18
    assert plain[3:9, 2:5].all()


def test_all_masks_everything_and_keeping_takes_back_the_scanned_regions() -> None:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 4, 5
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 9, 12
    ds = image(SequenceOfUltrasoundRegions=Sequence([region]))
    text = (
        "LABEL Blank\n coordinates all\nLABEL Keep\n present SequenceOfUltrasoundRegions\n"
        " keepcoordinates from:SequenceOfUltrasoundRegions"
    )
    kept = ~area(text, ds)
    assert kept[5:13, 4:10].all()
    assert kept.sum() == 8 * 6
    assert area(text, image()).all()


def test_one_images_boxes_never_reach_the_next_image() -> None:
    region = Dataset()
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1 = region.RegionLocationMaxY1 = 3
    boxes = Boxes([load_box_rules("%filter g\nLABEL r\n coordinates from:SequenceOfUltrasoundRegions", "test")])
    assert boxes.mask(image(SequenceOfUltrasoundRegions=Sequence([region])), "1.2", 9, 9).sum() == 16
    assert not boxes.mask(image(), "1.2", 9, 9).any()


@pytest.mark.parametrize(
    ("lines", "holds"),
    [
        ("contains Modality US", True),
        ("contains Modality us|ct", True),
        ("notcontains Modality US", False),
        ("equals Rows 480", True),
        ("equals Rows 600|480", True),
        ("equals Rows 48", False),
        ("notequals Rows 600", True),
        ("contains Rows 48", True),
        ("missing PatientName", True),
        ("present PatientName", False),
        ("empty PatientName", False),
        ("contains Modality CT\n  || contains Modality US", True),
        ("contains Modality CT || contains Modality US", True),
        ("contains Modality US\n  + equals Rows 600", False),
        ("contains Modality CT + equals Rows 480\n  || contains Manufacturer philips", True),
        ("contains ImageType SCREEN SAVE || contains SeriesDescription Dose", False),
        ("+ contains ManufacturerModelName IU22", True),
        ("contains 0x00080060 US", True),
    ],
)
def test_conditions_hold_as_the_language_says(lines: str, holds: bool) -> None:
    assert area(f"LABEL a\n  {lines}\n  coordinates 0,0,2,2", image()).any() == holds


def test_several_values_are_searched_together() -> None:
    ds = image(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    assert area("LABEL a\n contains ImageType SCREEN SAVE\n coordinates all", ds).all()
    assert area("LABEL a\n equals ImageType secondary\n coordinates all", ds).all()


@pytest.mark.parametrize(
    "line",
    ["coordinates 1,2,3", "coordinates 1,2,3,x", "contains Modality", "missing", "like Modality US", "contains A ("],
)
def test_a_bad_line_is_named_with_file_and_line(line: str) -> None:
    with pytest.raises(Stop, match=r"site.deid:3: ") as caught:
        load_box_rules(f"%filter g\nLABEL a\n  {line}\n", "site.deid")
    assert caught.value.code == "deid.filter-invalid"


def test_a_line_before_any_label_is_refused_and_other_sections_are_not_ours() -> None:
    with pytest.raises(Stop):
        load_box_rules("%filter g\n coordinates all\n", "x")
    assert load_box_rules("FORMAT dicom\n%header\nREMOVE ALL\n%fields f\nFIELD PatientID\n", "x") == ()
