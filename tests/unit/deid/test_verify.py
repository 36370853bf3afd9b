from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from edge_node.deid import Deidentifier
from edge_node.deid.verify import verify
from edge_node.domain.errors import Quarantine
from tests.unit.deid.objects import DEIDENTIFIER, KEY, RECIPE, ct, received

EXPLICIT = "1.2.840.10008.1.2.1"


def leaky(change: Callable[[Dataset], None], source: Dataset | None = None) -> None:
    """Put something back into a clean object and verify it."""
    instance = received(source or ct())
    ds = dcmread(BytesIO(DEIDENTIFIER.deidentify(instance).instance.part10))
    change(ds)
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    verify(instance.dataset, EXPLICIT, out.getvalue(), frozenset())


def put(name: str, value: object) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, name, value)


def test_a_clean_object_passes() -> None:
    leaky(lambda _ds: None)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("ImageComments", "seen by Dr. QUINCY", "deid.residual-identifier"),
        ("SeriesDescription", "head of beeblebrox", "deid.residual-identifier"),
        ("PatientID", "PAT-420042", "deid.residual-identifier"),
        ("SoftwareVersions", "x acc-774411", "deid.residual-identifier"),
        ("ImageComments", "born 02.01.1950", "deid.residual-identifier"),
        ("InstitutionName", "St. Elsewhere Clinic", "deid.residual-identifier"),
        ("StationName", "CTROOM4", "deid.residual-identifier"),
        ("ICCProfile", b"xxBeeblebroxxx", "deid.residual-identifier"),
        ("ICCProfile", "xxBeeblebrox".encode("utf-16-le"), "deid.residual-identifier"),
        ("StudyDate", "20240229", "deid.residual-date"),
        ("AcquisitionDateTime", "20240301101530.123456+0100", "deid.residual-date"),
        ("FrameOfReferenceUID", "1.2.826.0.1.3680043.8.498.78", "deid.residual-uid"),
        ("IrradiationEventUID", "1.2.826.0.1.3680043.8.498.77", "deid.residual-uid"),
        ("ImageComments", "study 1.2.826.0.1.3680043.8.498.77", "deid.residual-uid"),
        ("PixelData", bytes(32), "deid.pixel-data"),
    ],
)
def test_what_a_leaky_plan_leaves_is_found_and_not_quoted(name: str, value: object, code: str) -> None:
    with pytest.raises(Quarantine) as caught:
        leaky(put(name, value))
    assert caught.value.code == code
    text = str(caught.value).lower()
    assert not [word for word in ("quincy", "beeblebrox", "420042", "774411", "1950", "498", "2024") if word in text]


def test_what_came_through_nested_or_private_is_found() -> None:
    def nest(ds: Dataset) -> None:
        inner = Dataset()
        inner.CodeMeaning = "Zaphod"
        outer = Dataset()
        outer.AnatomicRegionModifierSequence = [inner]
        ds.AnatomicRegionSequence = [outer]

    def private(ds: Dataset) -> None:
        ds.private_block(0x0019, "VENDOR", create=True).add_new(1, "LO", "harmless")

    with pytest.raises(Quarantine, match=r"PatientName .* CodeMeaning"):
        leaky(nest)
    with pytest.raises(Quarantine, match="private"):
        leaky(private)


def test_trade_words_in_coded_terms_are_no_leak_but_in_text_they_are() -> None:
    source = ct(PatientName="Siemens^Head", Manufacturer="SIEMENS")
    leaky(put("Manufacturer", "SIEMENS"), source)
    with pytest.raises(Quarantine):
        leaky(put("ImageComments", "Mr. Siemens"), source)


def test_short_numbers_and_placeholders_do_not_stop_studies_by_chance() -> None:
    leaky(put("ImageComments", "slice 12 of 5"), ct(PatientID="12", AccessionNumber="5", PatientName="ANONYMOUS^Li"))


def test_a_recipe_that_keeps_the_name_by_mistake_is_stopped_by_the_check(tmp_path: Path) -> None:
    leaking = tmp_path / "leak.deid"
    text = RECIPE.read_text().replace("REPLACE ImageComments func:clean_text", "REPLACE ImageComments Beeblebrox")
    leaking.write_text(text)
    source = ct(ImageComments="axial")
    with pytest.raises(Quarantine) as caught:
        Deidentifier(leaking, KEY, version="0.1.0").deidentify(received(source))
    assert caught.value.code == "deid.residual-identifier"
    assert caught.value.study


def test_unreadable_output_is_never_kept() -> None:
    with pytest.raises(Quarantine) as caught:
        verify(received(ct()).dataset, EXPLICIT, b"no DICOM at all", frozenset())
    assert caught.value.code == "deid.unverifiable"
