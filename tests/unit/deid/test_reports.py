"""Structured reports: coded and numeric content stays, names, text and identifiers do not (PS3.15 E.3.9)."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.deid import Deidentifier
from edge_node.deid.codes import meaning_of
from edge_node.domain.errors import Quarantine
from tests.unit.deid.objects import DEIDENTIFIER, KEY, RECIPE, ct, received

SR = "1.2.840.10008.5.1.4.1.1.88.33"


def code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def item(kind: str, name: Sequence, **values: object) -> Dataset:
    made = Dataset()
    made.RelationshipType, made.ValueType, made.ConceptNameCodeSequence = "CONTAINS", kind, name
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def report() -> Dataset:
    ds = ct(SOPClassUID=SR, Modality="SR")
    del ds.PixelData, ds.Rows, ds.Columns
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", code("mm", "UCUM", "millimetres of Zaphod")
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.77.1"
    finding = code("121071", "DCM", "what Dr. Quincy found")
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = "Quincy^Jack", "St. Elsewhere Clinic"
    observer.VerificationDateTime = "20240229120000"
    ds.VerificationFlag, ds.VerifyingObserverSequence = "VERIFIED", Sequence([observer])
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = code("126000", "DCM", "Imaging Measurement Report")
    ds.ContentSequence = Sequence(
        [
            item("TEXT", finding, TextValue="CT Head of Mr. Beeblebrox, Zaphod: bleeding 5 mm"),
            item("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName="Quincy^Jack"),
            item("UIDREF", code("112039", "DCM", "Tracking Identifier"), UID="1.2.3.77.9"),
            item("DATE", code("111060", "DCM", "Study Date"), Date="20240229"),
            item("CODE", finding, ConceptCodeSequence=code("PAT-420042", "99HOSP", "Zaphod's code")),
            item("IMAGE", finding, ReferencedSOPSequence=Sequence([image])),
            item(
                "CONTAINER",
                code("125007", "DCM", "x"),
                ContentSequence=Sequence([item("NUM", finding, MeasuredValueSequence=Sequence([measured]))]),
            ),
        ]
    )
    return ds


def test_a_report_keeps_codes_and_numbers_and_loses_names_text_and_identifiers() -> None:
    made = DEIDENTIFIER.deidentify(received(report())).instance
    ds = dcmread(BytesIO(made.part10))
    raw = made.part10.lower()
    for secret in (b"zaphod", b"beeblebrox", b"quincy", b"elsewhere", b"pat-420042", b"1.2.3.77", b"20240229"):
        assert secret not in raw
    text, person, uid, day, coded, image, container = ds.ContentSequence
    assert text.TextValue == "CT Head Mr 5 mm"  # like the modality
    assert text.ConceptNameCodeSequence[0].CodeMeaning == meaning_of("DCM", "121071") == "Finding"
    assert person.PersonName == "ANONYMIZED"
    assert uid.UID.startswith("2.25.")
    assert day.Date != ""
    assert (coded.ConceptCodeSequence[0].CodeValue, coded.ConceptCodeSequence[0].CodeMeaning) == ("ANON", "UNSPECIFIED")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID.startswith("2.25.")
    number = container.ContentSequence[0].MeasuredValueSequence[0]
    assert (number.NumericValue, number.MeasurementUnitsCodeSequence[0].CodeValue) == (12.5, "mm")
    assert number.MeasurementUnitsCodeSequence[0].CodeMeaning == meaning_of("UCUM", "mm")
    assert "113104" in [one.CodeValue for one in ds.DeidentificationMethodCodeSequence]
    assert made.pixel_risk == ""


def test_a_text_of_which_nothing_may_stay_is_still_a_text() -> None:
    ds = report()
    ds.ContentSequence[0].TextValue = "Beeblebrox"
    out = dcmread(BytesIO(DEIDENTIFIER.deidentify(received(ds)).instance.part10))
    assert out.ContentSequence[0].TextValue == "UNSPECIFIED"


def test_a_recipe_without_a_rule_for_content_withholds_reports() -> None:
    strict = Deidentifier(RECIPE.parent / "strict.deid", KEY, version="1")
    with pytest.raises(Quarantine, match="structured reports") as caught:
        strict.deidentify(received(report()))
    assert caught.value.code == "deid.unsupported-content"


def test_content_inside_an_image_is_cleaned_too() -> None:
    ds = ct(ContentSequence=report().ContentSequence)
    made = DEIDENTIFIER.deidentify(received(ds)).instance
    assert b"eeblebrox" not in made.part10
