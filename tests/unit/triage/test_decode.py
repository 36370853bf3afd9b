from __future__ import annotations

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edge_node.domain.errors import Quarantine
from edge_node.triage.decode import stored_values

ENCODERS = {
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16),
    JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(a, reversible=True, level=0, codecformat="j2k"),
}


def image(values, bits, signed):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "2.25.7"
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    ds.PixelData = values.tobytes()
    return ds


def values_of(bits, signed):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    y, x = np.mgrid[0:64, 0:48]
    smooth = (low + (high - low) * (0.5 + 0.5 * np.sin(y / 9) * np.cos(x / 7))).round()
    smooth[0, :2] = low, high
    return smooth.astype(np.int16 if signed else np.uint16)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("syntax", list(ENCODERS), ids=lambda s: s.name)
def test_every_codec_gives_back_signed_and_unsigned_values(syntax, bits, signed):
    values = values_of(bits, signed)
    ds = image(values, bits, signed)
    # The encoders know no sign: they get the stored bits, as a modality would store them.
    bare = (values.astype(np.int32) & ((1 << bits) - 1)).astype(np.uint16)
    ds.PixelData = encapsulate([ENCODERS[syntax](bare)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = syntax
    got = stored_values(ds)
    assert got.dtype == values.dtype
    assert np.array_equal(got, values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_what_pydicom_compresses_is_read_as_pydicom_reads_it(bits, signed):
    values = values_of(bits, signed)
    for syntax in (RLELossless, JPEG2000Lossless):
        ds = image(values, bits, signed)
        ds.compress(syntax, generate_instance_uid=False)
        assert np.array_equal(stored_values(ds), pixel_array(ds, raw=True))
        assert np.array_equal(stored_values(ds), values)
    assert np.array_equal(stored_values(image(values, bits, signed)), values)


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "JPEG-LL.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
        "693_J2KR.dcm",
        "693_J2KI.dcm",
    ],
)
def test_files_of_many_makers_are_read_as_pydicom_reads_them(name):
    path = get_testdata_file(name)
    assert path is not None
    ds = dcmread(path)
    if int(ds.get("NumberOfFrames", 1)) != 1 or ds.SamplesPerPixel != 1:
        pytest.skip("not a single-frame monochrome image")
    reference = pixel_array(ds, raw=True).astype(np.int32)
    difference = np.abs(stored_values(ds).astype(np.int32) - reference).max()
    # Lossy J2K may round differently from one decoder to the next; everything else is exact.
    assert difference <= (1 if ds.file_meta.TransferSyntaxUID == JPEG2000 else 0)


def test_broken_pixels_are_quarantined_without_a_word_of_their_content():
    ds = image(values_of(12, False), 12, False)
    ds.PatientName = "SECRET^NAME"
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless
    ds.PixelData = encapsulate([b"not a code stream"])
    ds["PixelData"].VR = "OB"
    with pytest.raises(Quarantine) as caught:
        stored_values(ds)
    assert caught.value.code == "triage.undecodable"
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_an_image_that_is_not_compressed_is_read_without_a_word_in_the_log(bits, signed, caplog):
    values = values_of(bits, signed)
    stored = values.copy()
    if bits == 12:
        stored &= 0x0FFF
        stored[0, 0] |= 0x4000  # an overlay in an unused bit
    with caplog.at_level("WARNING"):
        got = stored_values(image(stored, bits, signed))
    assert caplog.records == []
    assert np.array_equal(got, values)


def test_colour_and_multi_frame_images_are_refused():
    ds = image(values_of(12, False), 12, False)
    ds.NumberOfFrames = 3
    with pytest.raises(Quarantine, match=r"triage\.not-monochrome"):
        stored_values(ds)


def test_a_truncated_image_is_refused():
    ds = image(values_of(12, False), 12, False)
    ds.PixelData = ds.PixelData[:1000]
    buffer = BytesIO()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, "2.25.7"
    ds.save_as(buffer, enforce_file_format=True)
    with pytest.raises(Quarantine, match=r"triage\.undecodable"):
        stored_values(dcmread(BytesIO(buffer.getvalue())))
