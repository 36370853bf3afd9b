"""Pictures for the report: pixels to PNG, as base64 text for a data URI."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread


def png_from_rgb(rows: int, columns: int, rgb: bytes) -> str:
    """Base64 PNG of rows x columns x 3 bytes."""
    return _png(Image.frombytes("RGB", (columns, rows), rgb))


def png_from_hu(slice_hu: NDArray[np.int16], *, centre: float = 40, width: float = 80) -> str:
    """Base64 PNG of one CT slice in Hounsfield units under a window (default: brain)."""
    scaled = (slice_hu.astype(np.float32) - (centre - width / 2)) * (255 / width)
    return _png(Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8), "L"))


def png_from_dicom(path: Path) -> str:
    """Base64 PNG of the first frame of a DICOM image: CT under the brain window, others over their own range."""
    ds = dcmread(path)
    pixels = ds.pixel_array
    if int(ds.get("NumberOfFrames") or 1) > 1:
        pixels = pixels[0]
    if pixels.ndim == 3:
        return _png(Image.fromarray(pixels.astype(np.uint8), "RGB"))
    if ds.get("Modality") == "CT":
        hu = pixels.astype(np.float32) * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        return png_from_hu(hu.astype(np.int16))
    low, high = (float(value) for value in np.percentile(pixels, (1, 99)))
    grey = np.clip((pixels.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    return _png(Image.fromarray(255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey, "L"))


def _png(image: Image.Image) -> str:
    out = BytesIO()
    image.save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")
