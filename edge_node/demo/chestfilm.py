"""Chest radiograph objects from a phantom, as plate readers (CR) and detectors (DX) write them. No patient yet."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from edge_node.demo.chest import ChestPhantom, chest_phantom

_TOP = 4095  # 12 bits


def chest_film(
    seed: int, kind: str | None, *, rows: int = 1024, modality: str = "CR", inverted: bool = False
) -> Dataset:
    """One frontal film as CR or DX object without patient or order; `inverted` stores it as MONOCHROME1."""
    return film_object(chest_phantom(seed, kind=kind, rows=rows), seed, modality=modality, inverted=inverted)


def film_object(phantom: ChestPhantom, seed: int, *, modality: str = "CR", inverted: bool = False) -> Dataset:
    """A phantom as an object (PS3.3 A.2, A.26)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    storage = ComputedRadiographyImageStorage if modality == "CR" else DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = storage
    study, series, image = (
        generate_uid(entropy_srcs=[str(seed), str(phantom.truth), modality, what])
        for what in ("study", "series", "image")
    )
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = image
    ds.ImageType = ["DERIVED", "PRIMARY"] if modality == "CR" else ["ORIGINAL", "PRIMARY"]
    ds.Modality = modality
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Toy Scanners", "Plate One", "0002"
    ds.SoftwareVersions, ds.ProtocolName, ds.SeriesDescription = "1.0", "CHEST PA", "Chest PA"
    ds.BodyPartExamined, ds.ViewPosition, ds.KVP = "CHEST", "PA", "125"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, 1
    ds.PatientOrientation = ["L", "F"]
    ds.ImagerPixelSpacing = [f"{phantom.pixel_mm:.5f}", f"{phantom.pixel_mm:.5f}"]
    ds.SamplesPerPixel = 1
    ds.Rows, ds.Columns = phantom.film.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.WindowCenter, ds.WindowWidth = _TOP // 2, _TOP
    if modality == "DX":  # PS3.3 C.8.11.1, C.8.11.3
        ds.PresentationIntentType, ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = (
            "FOR PRESENTATION",
            "LOG",
            -1 if inverted else 1,
        )
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
        ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
        ds.LossyImageCompression, ds.BurnedInAnnotation, ds.ImageLaterality = "00", "NO", "U"
        ds.DetectorType, ds.PositionerType, ds.AcquisitionContextSequence = "DIRECT", "NONE", []
        region = Dataset()
        region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Chest"
        ds.AnatomicRegionSequence = [region]
    stored = _TOP - phantom.film if inverted else phantom.film
    ds.PixelData = stored.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def turned(ds: Dataset, quarter_turns: int) -> Dataset:
    """The same film laid otherwise on the detector, and saying so, in place: quarter turns against the clock."""
    pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
    pixels = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
    right, down = str(ds.PatientOrientation[0]), str(ds.PatientOrientation[1])
    other = {"L": "R", "R": "L", "F": "H", "H": "F"}
    for _ in range(quarter_turns % 4):  # what pointed to the right points up now, what pointed down to the right
        right, down = down, other[right]
    ds.PatientOrientation = [right, down]
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelData = pixels.tobytes()
    return ds
