"""Stored pixel values of one image: imagecodecs first (it releases the interpreter lock), pydicom's others after.

The only importer of imagecodecs in this room.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from edge_node.domain.errors import Quarantine

_DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "1.2.840.10008.1.2.5": lambda frame: imagecodecs.dicomrle_decode(frame, np.dtype("<u2")),
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,  # JPEG baseline
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,  # JPEG lossless
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.201": imagecodecs.jpeg2k_decode,  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.203": imagecodecs.jpeg2k_decode,
}
NATIVE: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})  # PS3.5 8.2: not encoded


def stored_values(ds: Dataset) -> NDArray[np.generic]:
    """Stored values (before rescale) of a single-frame monochrome image, (rows, columns), signed as declared.

    `ds` comes from a Part 10 file, so `ds.file_meta` names the transfer syntax. Raises `Quarantine`
    ``triage.undecodable`` or ``triage.not-monochrome``; messages carry no attribute values.
    """
    if int(ds.get("NumberOfFrames", 1) or 1) != 1:
        raise Quarantine("triage.not-monochrome", "not a single-frame monochrome image")
    return Frames(ds).stored(1)


class Frames:
    """The frames of one monochrome object, each decoded when asked for; thread-safe."""

    def __init__(self, ds: Dataset) -> None:
        """Raises `Quarantine` ``triage.not-monochrome``, ``triage.undecodable``."""
        if int(ds.get("SamplesPerPixel", 1)) != 1:
            raise Quarantine("triage.not-monochrome", "not a single-frame monochrome image")
        self._ds = ds
        self._count = int(ds.get("NumberOfFrames", 1) or 1)
        self._encoded: list[bytes] = []
        self._decoder = _DECODERS.get(str(ds.file_meta.TransferSyntaxUID))
        if self._decoder is not None:
            # What cannot be taken apart here, pydicom tries below.
            with contextlib.suppress(Exception):
                self._encoded = list(generate_frames(ds.PixelData, number_of_frames=self._count))

    def stored(self, frame: int) -> NDArray[np.generic]:
        """Stored values of one frame (1-based), (rows, columns), to be read only. Raises `Quarantine`
        ``triage.undecodable``."""
        if self._decoder is not None and frame <= len(self._encoded):
            try:
                return _by_imagecodecs(self._ds, self._decoder, self._encoded[frame - 1])
            except Exception:  # noqa: S110  whatever a codec throws, the fall-back has its say
                pass
        try:
            # Where bits are unused pydicom copies in any case, and warns of each slice if a view is asked for.
            view = int(self._ds.BitsStored) == int(self._ds.BitsAllocated)
            array: NDArray[np.generic] = pixel_array(self._ds, raw=True, index=frame - 1, view_only=view)
        except Exception:  # not shown: texts of pydicom and codecs may print values
            raise Quarantine(
                "triage.undecodable",
                "the pixels of one image cannot be decoded",
                hint="edge-node doctor lists the transfer syntaxes this node decodes",
            ) from None
        if array.shape != (int(self._ds.Rows), int(self._ds.Columns)):
            raise Quarantine("triage.undecodable", "the decoded image does not have the size its header says")
        return array


def _by_imagecodecs(ds: Dataset, decoder: Callable[[bytes], Any], frame: bytes) -> NDArray[np.generic]:
    raw = np.asarray(decoder(frame))
    rows, columns, bits = int(ds.Rows), int(ds.Columns), int(ds.BitsStored)
    if raw.ndim == 1 and raw.size == rows * columns:  # RLE knows no lines
        raw = raw.reshape(rows, columns)
    if raw.shape != (rows, columns) or raw.dtype.kind not in "iu" or raw.dtype.itemsize > 2 or not 1 <= bits <= 16:
        raise ValueError("unexpected shape or type")
    # Codecs give the bits, not the sign: extend it from the highest stored bit (PS3.5 8.1.1).
    wide = raw.astype(np.int32)
    wide &= (1 << bits) - 1
    if int(ds.PixelRepresentation) == 1:
        sign = 1 << (bits - 1)
        wide = (wide ^ sign) - sign
        return wide.astype(np.int16 if bits > 8 else np.int8)
    return wide.astype(np.uint16 if bits > 8 else np.uint8)
