"""Identified objects for the tests: a small CT full of identity, and whatever a test makes of it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_preamble
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from edge_node.deid import Deidentifier
from edge_node.domain.body import Memory
from edge_node.domain.study import DeidentifiedInstance, IdentifiedInstance

RECIPE = Path(__file__).parents[3] / "configs" / "recipes" / "basic.deid"
KEY = bytes(range(32))
CT = "1.2.840.10008.5.1.4.1.1.2"
DEIDENTIFIER = Deidentifier(RECIPE, KEY, version="0.1.0")
RESEARCH = Deidentifier(RECIPE.with_name("basic+research.deid"), KEY, version="0.1.0")


def ct(**changes: object) -> Dataset:
    """A 4 x 4 CT of one person, at one hospital, on one day."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.826.0.1.3680043.8.498.77.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.77", "1.2.826.0.1.3680043.8.498.77.9"
    ds.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.78"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20240229", "101500", "ACC-774411"
    ds.AcquisitionDateTime = "20240301101530.123456+0100"
    ds.Modality, ds.Manufacturer, ds.BodyPartExamined = "CT", "GE MEDICAL SYSTEMS", "HEAD"
    ds.InstitutionName, ds.StationName = "St. Elsewhere Clinic", "CTROOM4"
    ds.ReferringPhysicianName, ds.OperatorsName = "Quincy^Jack", "Kildare^James"
    ds.StudyDescription = "CT Head w/o contrast for Zaphod, 5 mm"
    ds.SeriesDescription = "AXIAL 2.5mm Beeblebrox"
    ds.PatientName, ds.PatientID = "Beeblebrox^Zaphod", "PAT-420042"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19500102", "M", "093Y"
    ds.PatientSize, ds.PatientWeight = "1.81", "82"
    ds.StudyID, ds.InstanceNumber = "STUDY77", 3
    ds.Rows = ds.Columns = 4
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.add_new(0x7FE00010, "OW", bytes(range(32)))
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def encoded(ds: Dataset, *, implicit: bool = False, big: bool = False) -> bytes:
    """The data set without Part 10 header."""
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = implicit, not big
    write_dataset(out, ds)
    return out.getvalue()


def received(
    ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, data: bytes | None = None
) -> IdentifiedInstance:
    """As the receiver hands it over."""
    syntax = str(transfer_syntax)
    if data is None:
        data = encoded(ds, implicit=syntax == "1.2.840.10008.1.2", big=syntax == "1.2.840.10008.1.2.2")
    return instance_of(data, syntax, str(ds.SOPClassUID), str(ds.SOPInstanceUID))


def instance_of(data: bytes, transfer_syntax: str, sop_class: str, sop_instance: str) -> IdentifiedInstance:
    names = sop_class, sop_instance, "MODALITY", "EDGENODE", "192.0.2.7"
    return IdentifiedInstance(Memory(data), transfer_syntax, *names, 0.0)


def from_file(path: str) -> IdentifiedInstance:
    """A DICOM file as an instance, its data set byte for byte."""
    data = Path(path).read_bytes()
    stream = BytesIO(data)
    read_preamble(stream, force=False)
    meta = dcmread(path, stop_before_pixels=True).file_meta
    start = 144 + int(meta.FileMetaInformationGroupLength)
    return instance_of(
        data[start:],
        str(meta.TransferSyntaxUID),
        str(meta.MediaStorageSOPClassUID),
        str(meta.MediaStorageSOPInstanceUID),
    )


def clean(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> tuple[DeidentifiedInstance, Dataset]:
    """De-identify with the shipped recipe; the instance and its parsed data set."""
    made = DEIDENTIFIER.deidentify(received(ds, transfer_syntax)).instance
    return made, dcmread(BytesIO(made.part10))
