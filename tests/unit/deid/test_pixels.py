"""Pixel data as it came: bit for bit, minus what is no image."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from edge_node.domain.errors import Quarantine
from tests.unit.deid.objects import DEIDENTIFIER, encoded, from_file, instance_of

SECRET = b"Beeblebrox^Zaphod"


def renewed(name: str, frames: list[bytes], **changes: object) -> tuple[Dataset, Dataset]:
    """A test file with other frames: what was sent, and its clean copy."""
    ds = dcmread(str(get_testdata_file(name)))
    for key, value in changes.items():
        setattr(ds, key, value)
    ds.PixelData = encapsulate([f + b"\0" * (len(f) % 2) for f in frames])
    ds["PixelData"].is_undefined_length = True
    instance = instance_of(
        encoded(ds), str(ds.file_meta.TransferSyntaxUID), str(ds.SOPClassUID), str(ds.SOPInstanceUID)
    )
    return ds, dcmread(BytesIO(DEIDENTIFIER.deidentify(instance).instance.part10))


def frames_of(name: str) -> list[bytes]:
    ds = dcmread(str(get_testdata_file(name)))
    return list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm",
     "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm", "examples_palette.dcm", "MR_small_implicit.dcm", "693_J2KI.dcm"],
)  # fmt: skip
def test_pixel_data_passes_bit_for_bit(name: str) -> None:
    path = get_testdata_file(name)
    assert path
    before = dcmread(str(path))
    after = dcmread(BytesIO(DEIDENTIFIER.deidentify(from_file(str(path))).instance.part10))
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    if "J2K" in name:  # the encoder's comment is blanked where it stands
        assert len(after.PixelData) == len(before.PixelData)
    elif after.PixelData != before.PixelData:
        scan = before.PixelData.index(b"\xff\xda")
        assert after.PixelData.endswith(before.PixelData[scan:])
    assert np.array_equal(after.pixel_array, before.pixel_array)


def comment(text: bytes, marker: bytes = b"\xff\xfe") -> bytes:
    return marker + struct.pack(">H", 2 + len(text)) + text


@pytest.mark.parametrize("marker", [b"\xff\xfe", b"\xff\xe1", b"\xff\xed"])
def test_comments_and_application_segments_leave_a_jpeg_and_its_scan_stays(marker: bytes) -> None:
    frame = frames_of("SC_rgb_jpeg_dcmtk.dcm")[0]
    sent, clean = renewed("SC_rgb_jpeg_dcmtk.dcm", [frame[:2] + comment(SECRET, marker) + frame[2:]])
    assert SECRET in sent.PixelData
    assert SECRET not in clean.PixelData
    scan = frame[frame.index(b"\xff\xda") :].rstrip(b"\0")
    assert scan in clean.PixelData
    assert np.array_equal(sent.pixel_array, clean.pixel_array)


def test_the_offset_table_follows_when_frames_get_shorter() -> None:
    frame = frames_of("MR_small_jpeg_ls_lossless.dcm")[0].rstrip(b"\0")
    marked = [frame[:2] + comment(SECRET + bytes([n])) + frame[2:] for n in range(3)]
    sent, clean = renewed("MR_small_jpeg_ls_lossless.dcm", marked, NumberOfFrames=3)
    assert SECRET not in clean.PixelData
    table = struct.unpack_from("<3L", clean.PixelData, 8)
    step = 8 + len(frame) + len(frame) % 2
    assert table == (0, step, 2 * step)
    assert np.array_equal(sent.pixel_array, clean.pixel_array)


def test_what_stands_behind_the_end_of_a_jpeg_is_cut() -> None:
    frame = frames_of("MR_small_jpeg_ls_lossless.dcm")[0].rstrip(b"\0")
    _, clean = renewed("MR_small_jpeg_ls_lossless.dcm", [frame + SECRET])
    assert SECRET not in clean.PixelData


def test_comments_in_jpeg_2000_are_blanked_in_place() -> None:
    frame = frames_of("JPEG2000.dcm")[0]
    tile = frame.index(b"\xff\x90")
    sent, clean = renewed("JPEG2000.dcm", [frame[:tile] + comment(b"\0\1" + SECRET, b"\xff\x64") + frame[tile:]])
    assert SECRET in sent.PixelData
    assert SECRET not in clean.PixelData
    assert np.array_equal(sent.pixel_array, clean.pixel_array)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", [b"no image at all " * 4]),
        ("MR_small_jpeg_ls_lossless.dcm", [b"\xff\xd8\xff\xe0\xff\xff"]),
        ("JPEG2000.dcm", [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)]),
        ("MR_small_RLE.dcm", [bytes(16)]),
        ("MR_small_RLE.dcm", [bytes(80), bytes(80), bytes(80)]),
    ],
)
def test_a_code_stream_that_is_none_is_quarantined(name: str, frames: list[bytes]) -> None:
    with pytest.raises(Quarantine) as caught:
        renewed(name, frames)
    assert caught.value.code == "deid.pixel-data"
