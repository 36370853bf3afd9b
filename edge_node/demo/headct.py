"""Head CT objects from a phantom: geometry as a scanner writes it, gantry tilt included. No patient in them yet."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from edge_node.demo.phantom import HeadPhantom, head_phantom

_INTERCEPT = -1024  # stored values are unsigned 12 bit, as on most scanners


def head_ct(seed: int, kind: str | None, *, slices: int, rows: int, tilt_degrees: float = 0.0) -> list[Dataset]:
    """The slices of one series, inferior to superior, as CT Image Storage objects without patient or order.

    `kind` is the haemorrhage put in, or None; `tilt_degrees` tilts the gantry about the patient's left-right axis, so
    that the slice normal is no longer the direction of the table.
    """
    phantom = head_phantom(seed, kind=kind, slices=slices, rows=rows)
    return head_objects(phantom, seed, tilt_degrees=tilt_degrees)


def head_objects(phantom: HeadPhantom, seed: int, *, tilt_degrees: float = 0.0) -> list[Dataset]:
    """As `head_ct`, of a phantom that is there already; `seed` makes the UIDs."""
    volume = _tilted(phantom, tilt_degrees) if tilt_degrees else phantom.volume
    dz, dy, dx = phantom.spacing
    (slices, rows, _), kind = volume.shape, phantom.truth
    angle = math.radians(tilt_degrees)
    half_y, half_x = dy * (rows - 1) / 2, dx * (rows - 1) / 2
    study, series, frame = (
        generate_uid(entropy_srcs=[str(seed), str(kind), what]) for what in ("study", "series", "frame")
    )
    objects = []
    for index in range(slices):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        uid = generate_uid(entropy_srcs=[str(seed), str(kind), "image", str(index)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality = "CT"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Toy Scanners", "Phantom One", "0001"
        ds.SoftwareVersions, ds.ProtocolName = "1.0", "HEAD ROUTINE"
        ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 2, 1, index + 1
        ds.SeriesDescription, ds.BodyPartExamined, ds.PatientPosition = "Head 5 mm", "HEAD", "HFS"
        ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime, ds.ConvolutionKernel = "120", "250", "1000", "H31s"
        ds.GantryDetectorTilt = f"{tilt_degrees:g}"
        ds.SliceThickness = f"{dz:.4f}"
        ds.PositionReferenceIndicator = ""
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(angle), 8), round(math.sin(angle), 8)]
        # The table moves along z; the upper left pixel of a tilted slice is swung about the centre of the image.
        position = (-half_x, -half_y * math.cos(angle), index * dz - half_y * math.sin(angle))
        ds.ImagePositionPatient = [f"{value:.5f}" for value in position]
        ds.SliceLocation = f"{index * dz:.4f}"
        ds.PixelSpacing = [f"{dy:.6f}", f"{dx:.6f}"]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows = ds.Columns = rows
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _INTERCEPT, 1, "HU"
        ds.WindowCenter, ds.WindowWidth = 40, 80
        stored = np.clip(volume[index].astype(np.int32) - _INTERCEPT, 0, 4095)
        ds.PixelData = stored.astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        objects.append(ds)
    return objects


def _tilted(phantom: HeadPhantom, degrees: float) -> NDArray[np.int16]:
    """The same head cut by a tilted gantry: sampled on the tilted planes by linear interpolation."""
    angle = math.radians(degrees)
    dz, dy, _ = phantom.spacing
    slices, rows, _ = phantom.volume.shape
    in_plane = (np.arange(rows) - (rows - 1) / 2) * dy  # mm below the centre of the slice
    y = (rows - 1) / 2 + in_plane * math.cos(angle) / dy
    z = np.arange(slices)[:, None] + in_plane[None, :] * math.sin(angle) / dz
    y0, z0 = np.floor(y).astype(int), np.floor(z).astype(int)
    fy, fz = (y - y0)[None, :, None], (z - z0)[:, :, None]
    y0, y1 = (np.clip(y0 + i, 0, rows - 1)[None, :] for i in (0, 1))
    z0, z1 = (np.clip(z0 + i, 0, slices - 1) for i in (0, 1))
    v = phantom.volume.astype(np.float32)
    low = v[z0, y0] * (1 - fy) + v[z0, y1] * fy
    high = v[z1, y0] * (1 - fy) + v[z1, y1] * fy
    tilted: NDArray[np.int16] = np.rint(low * (1 - fz) + high * fz).astype(np.int16)
    return tilted
