"""Whatever is planted in whatever sequence at whatever depth: none of it comes out."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.domain.errors import Quarantine
from tests.unit.deid.objects import DEIDENTIFIER, ct, encoded, received

NAME, NUMBER, DAY, UID = "Vogonjeltz", "MRN0815XQ", "19670507", "1.3.6.1.4.1.99999.4.7.11.42"
# Sequences that Table E.1-1 lists, and sequences that it does not.
SEQUENCES = (
    "AnatomicRegionSequence", "VOILUTSequence", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "RequestAttributesSequence", "ReferencedImageSequence", "SourceImageSequence", "ProcedureCodeSequence",
    "ReferencedStudySequence", "OtherPatientIDsSequence", "ContributingEquipmentSequence", "AcquisitionContextSequence",
    "OriginalAttributesSequence", "ContentSequence", "PerformedProtocolCodeSequence", "DerivationImageSequence",
)  # fmt: skip
PLANTS = {
    "PatientName": NAME + "^Prostetnic", "OtherPatientNames": NAME, "ReferringPhysicianName": NAME, "PersonName": NAME,
    "PatientID": NUMBER, "AccessionNumber": NUMBER, "InstitutionName": NAME + " Hospital", "StationName": NUMBER,
    "StudyDescription": "CT of " + NAME, "CodeMeaning": NAME, "CodeValue": NUMBER, "LUTExplanation": NAME,
    "ImageComments": f"{NAME} {NUMBER} born {DAY}", "TextValue": NAME, "LongCodeValue": NUMBER,
    "ReferencedSOPInstanceUID": UID, "DeviceUID": UID, "StudyDate": DAY, "PatientBirthDate": DAY,
    "StationAETitle": NUMBER, "RetrieveURL": "http://" + NAME, "DateOfSecondaryCapture": DAY, "ROIName": NAME,
    "DeviceSerialNumber": NUMBER, "AcquisitionDateTime": DAY + "101500", "UniversalEntityID": NUMBER,
    "PatientSpeciesDescription": NAME,
}  # fmt: skip


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 0) -> Dataset:
    ds = Dataset()
    for name in draw(st.lists(st.sampled_from(sorted(PLANTS)), max_size=5, unique=True)):
        setattr(ds, name, PLANTS[name])
    if draw(st.booleans()):
        vr = draw(st.sampled_from(["LO", "UN", "OB"]))
        ds.private_block(0x0009, NAME, create=True).add_new(1, vr, NAME if vr == "LO" else NAME.encode())
    if draw(st.booleans()):
        ds.add_new(0x00104444, "LO", NAME)
    if depth < 5:
        for name in draw(st.lists(st.sampled_from(SEQUENCES), max_size=3, unique=True)):
            setattr(ds, name, Sequence(draw(st.lists(data_sets(depth + 1), min_size=1, max_size=2))))
    return ds


# A large object each time: a quarter as many as of what is small.
@settings(max_examples=settings.default.max_examples // 4)
@given(planted=data_sets(), syntax=st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"]))
def test_no_planted_identifier_survives_at_any_depth(planted: Dataset, syntax: str) -> None:
    ds = ct()
    ds.update(planted)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = NAME + "^Prostetnic", NUMBER, DAY
    low = DEIDENTIFIER.deidentify(received(ds, syntax)).instance.part10.lower()
    for needle in (NAME, "Prostetnic", NUMBER, DAY, UID):
        assert needle.lower().encode() not in low
    assert b"1.2.826.0.1.3680043.8.498.77" not in low


@given(data=st.data())
def test_damaged_bytes_are_cleaned_or_quarantined_and_nothing_else(data: st.DataObject) -> None:
    good = bytearray(encoded(ct(VOILUTSequence=Sequence([ct()]))))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(Quarantine):
        DEIDENTIFIER.deidentify(received(ct(), data=bytes(good[:cut] if data.draw(st.booleans()) else good)))
