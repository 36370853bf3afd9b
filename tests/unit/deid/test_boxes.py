"""Vendor boxes: deid's filter language with the meaning it documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from edge_node.deid import wire
from edge_node.deid.boxes import Boxes, Image, labels_in, vendor_filters
from edge_node.deid.fields import BadField
from edge_node.deid.recipe import load
from edge_node.deid.wire import Syntax
from edge_node.domain.errors import Stop


def header(ds: Dataset) -> Image:
    """The header as it lies in a file, in a transfer syntax whose numbers must be turned."""
    syntax = Syntax(big=True)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = False, False
    write_dataset(out, ds)
    return Image(wire.parse(out.getvalue(), syntax), syntax)


def image(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName, ds.Rows, ds.Columns = "US", "Philips", "iU22", 480, 640
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def area(text: str, ds: Dataset) -> np.ndarray:
    """The upper left 20 x 20 pixels."""
    return Boxes([labels_in("FORMAT dicom\n%filter graylist\n" + text)]).mask(header(ds))[:20, :20]


def test_the_filters_that_deid_ships_are_read_whole_and_know_an_ultrasound() -> None:
    rules = vendor_filters()
    assert len(rules) > 100
    masked = Boxes([rules]).mask(header(image()))
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
    boxes = Boxes([labels_in("%filter g\nLABEL r\n coordinates from:SequenceOfUltrasoundRegions")])
    assert boxes.mask(header(image(SequenceOfUltrasoundRegions=Sequence([region])))).sum() == 16
    assert not boxes.mask(header(image())).any()


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
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "site.deid"
    path.write_text(f"FORMAT dicom\n%filter g\nLABEL a\n  {line}\n%header\nKEEP Modality\n")
    with pytest.raises(Stop, match=r"site.deid:4: ") as caught:
        load(path)
    assert caught.value.code == "deid.recipe-invalid"


def test_a_line_before_any_label_is_refused_and_other_sections_are_not_ours() -> None:
    with pytest.raises(BadField):
        labels_in("%filter g\n coordinates all\n")
    assert labels_in("FORMAT dicom\n%header\nREMOVE ALL\n%fields f\nFIELD PatientID\n") == ()


def test_the_boxes_are_those_of_the_recipe_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "site.deid"
    box = "%filter g\nLABEL a\n  equals Rows 480|600\n  coordinates 0,0,2,2\n"
    path.write_text(f"FORMAT dicom\n{box}%header\nKEEP Rows\n")
    assert Boxes([load(path).filters]).mask(header(image())).sum() == 4
