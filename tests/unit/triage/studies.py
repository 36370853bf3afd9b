"""Studies made of phantoms and of pydicom's own files, as the compute role sees them."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from edge_node.demo.phantom import HeadPhantom
from edge_node.domain.study import CleanObject, CleanStudy
from edge_node.store.digest import digest_of
from edge_node.triage.model import LoadedModel, Source, Terms, load_model
from edge_node.triage.runner import Device

PACKAGES = Path(__file__).resolve().parents[3] / "configs" / "models"
REFERENCE = PACKAGES / "ref-ct-head-hyperdensity"
UNSIGNED_TOO = Terms(unsigned=True)
ON_CPU = Device("cpu", threads=1)


def loaded(folder: Path = REFERENCE, **options: Any) -> LoadedModel:
    """A package with a worker of its own; close its `process` when done."""
    return load_model(Source(folder), UNSIGNED_TOO, ON_CPU, **options)


def ct_slice(
    hu: np.ndarray, *, position: tuple[float, float, float], spacing: tuple[float, float], number: int
) -> Dataset:
    """One axial CT image of HU (rows, columns), stored as unsigned values with intercept -1024."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid(entropy_srcs=["slice", str(number)])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality, ds.BodyPartExamined, ds.StudyDescription = "CT", "HEAD", "CT HEAD"
    ds.SliceThickness, ds.InstanceNumber = 5.0, number
    ds.ImagePositionPatient = [f"{v:.4f}" for v in position]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [f"{v:.6f}" for v in spacing]
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = (hu.astype(np.int32) + 1024).astype("<u2").tobytes()
    return ds


def ct_slices(phantom: HeadPhantom) -> list[Dataset]:
    """The phantom as a series of CT images, first slice lowest."""
    dz, dy, dx = phantom.spacing
    slices, rows, columns = phantom.volume.shape
    return [
        ct_slice(
            phantom.volume[k],
            position=(-(columns - 1) / 2 * dx, -(rows - 1) / 2 * dy, k * dz),
            spacing=(dy, dx),
            number=k + 1,
        )
        for k in range(slices)
    ]


def clean_object(ds: Dataset) -> CleanObject:
    """A data set as sealed clean object."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    return CleanObject(
        sop_uid=str(ds.SOPInstanceUID),
        series_uid=str(ds.SeriesInstanceUID),
        sop_class=str(ds.SOPClassUID),
        transfer_syntax=str(ds.file_meta.TransferSyntaxUID),
        modality=str(ds.Modality),
        size=len(data),
        digest=digest_of(data),
        pixel_risk="",
        read=lambda: data,
    )


def clean_study(datasets: Iterable[Dataset]) -> CleanStudy:
    """A settled study of these objects, in this order of arrival."""
    objects = tuple(clean_object(ds) for ds in datasets)
    return CleanStudy("k", "2.25.1", 1, tuple(sorted({o.modality for o in objects})), objects)
