"""Whatever is planted in whatever sequence at whatever depth: none of it comes out."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.deid import wire
from edge_node.deid.bitstream import syntax_of
from edge_node.deid.wire import Element, Node
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


# Character set, and a name in it, as pydicom would write it.
NAMED = {
    "ISO_IR 100": "Vögönjeltz",
    "ISO_IR 192": "Vögönjeltz",
    "ISO_IR 144": "Вогонджельц",
    "\\ISO 2022 IR 87": "Vogonjeltz^A=山田桜子^太郎",
    "\\ISO 2022 IR 149": "Vogonjeltz^A=홍길동순^길동",
    "GB18030": "Vogonjeltz^A=沃贡小东",
    "": "Vogonjeltz",
}
TAGS = sorted(tag for tag in DicomDictionary if 8 <= tag >> 16 < 0x7FE0 and tag >> 16 != 0x0028)
IDENTITY = {0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00100010, 0x00100020, 0x00100030}
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


@st.composite
def planted_nodes(draw: st.DrawFn, says: list[bytes], depth: int = 0) -> Node:
    """Any public attribute under any kind of value, private and unknown ones, with what must not come out in it."""
    node: Node = {}
    for _ in range(draw(st.integers(0, 4))):
        tag = (
            draw(st.sampled_from(TAGS)) if draw(st.integers(0, 5)) else draw(st.sampled_from([0x00091001, 0x00104444]))
        )
        before, after = draw(st.sampled_from([(b"", b""), (b"", b" "), (b"head ", b" axial"), (b"x\\", b"\\y")]))
        value = before + draw(st.sampled_from(says)) + after
        vr = draw(st.sampled_from([vr for vr in wire.VRS if vr != "SQ"]))
        if depth or tag not in IDENTITY:
            node[tag] = Element(tag, vr, value + b" " * (len(value) & 1))
    for _ in range(draw(st.integers(0, 2)) if depth < 3 else 0):
        tag = draw(st.sampled_from([tag for tag in TAGS if DicomDictionary[tag][0] == "SQ"]))
        node[tag] = Element(tag, "SQ", items=draw(st.lists(planted_nodes(says, depth + 1), max_size=2)))
    return node


@given(data=st.data(), terms=st.sampled_from(sorted(NAMED)), syntax=st.sampled_from(SYNTAXES))
def test_no_identifier_is_in_the_bytes_whatever_it_was_sent_as(data: st.DataObject, terms: str, syntax: str) -> None:
    """Under any kind of value, in any character set, at any depth: it is gone, or the object is held back."""
    plain = wire.Syntax()
    ds = ct(PatientName=NAMED[terms], PatientID=NUMBER, PatientBirthDate=DAY, FrameOfReferenceUID=UID)
    ds.SpecificCharacterSet = terms.split("\\") if "\\" in terms else terms
    node = wire.parse(encoded(ds), plain)
    name = max(node[0x00100010].value.split(b"="), key=len).strip()
    says = [name, name.swapcase(), NUMBER.encode(), NUMBER.lower().encode(), UID.encode()]
    node |= data.draw(planted_nodes(says))
    if syntax == SYNTAXES[2]:
        for tag, value in ((0x00280010, 4), (0x00280011, 4), (0x00280100, 16), (0x00280101, 16), (0x00280002, 1)):
            node[tag] = Element(tag, "US", value.to_bytes(2, "big"))
    sent = b"".join(wire.encode_parts(node, syntax_of(syntax)))
    try:
        part10 = DEIDENTIFIER.clean(received(ds, syntax, sent)).part10
    except Quarantine:
        return
    if syntax == SYNTAXES[3]:
        part10 = wire.inflate(part10[144 + int.from_bytes(part10[140:144], "little") :])
    low = part10.lower()
    spelled = [part for part in NAMED[terms].split("=")[-1].split("^") if len(part) > 2]
    forms = {form.encode(code) for part in spelled for form in (part, part.lower()) for code in ("utf-8", "utf-16-le")}
    for needle in {*(one.lower() for one in says), *(form.lower() for form in forms)}:
        assert needle not in low
