"""Masks: black where asked, everything else bit for bit, in every encoding that pixels come in."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from edge_node.deid.pixels import CLEAN_PIXEL_DATA, Mask, Masked, Picture
from edge_node.domain.errors import Quarantine
from edge_node.forward.parcel import verify_outgoing
from edge_node.store.digest import digest_of
from tests.clean_objects import clean_object
from tests.unit.deid.objects import DEIDENTIFIER, clean, ct, from_file, received

BIG, IMPLICIT, EXPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def clean_file(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert path
    ds = dcmread(str(path), stop_before_pixels=True)  # some test files disagree with their own file meta
    sent = replace(from_file(str(path)), sop_class=str(ds.SOPClassUID), sop_instance=str(ds.SOPInstanceUID))
    return DEIDENTIFIER.deidentify(sent).instance.part10


def corner(picture: Picture) -> Mask:
    area = np.zeros((picture.rows, picture.columns), bool)
    area[1 : picture.rows // 3, 1 : picture.columns // 2] = True
    return area


def masked(part10: bytes) -> tuple[Mask, Masked]:
    picture = Picture(part10)
    area = corner(picture)
    picture.mask(area)
    return area, picture.written(options=(CLEAN_PIXEL_DATA,), burned_in_checked=True)


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "SC_rgb_2frame.dcm",
     "SC_rgb_expb.dcm", "SC_rgb_expb_16bit_2frame.dcm", "ExplVR_BigEnd.dcm", "OBXXXX1A_expb.dcm", "liver.dcm",
     "liver_expb.dcm", "SC_ybr_full_uncompressed.dcm", "SC_ybr_full_422_uncompressed.dcm", "rtdose.dcm",
     "examples_palette.dcm"],
)  # fmt: skip
def test_uncompressed_pixels_outside_the_mask_stay_bit_for_bit_in_the_syntax_they_came_in(name: str) -> None:
    before = clean_file(name)
    area, after = masked(before)
    assert not after.transcoded
    was, now = Picture(before), Picture(after.part10)
    for index in range(was.frames):
        outside = ~area
        if was.photometric == "YBR_FULL_422":  # chroma is shared by two columns
            assert np.array_equal(was.plane(index)[outside], now.plane(index)[outside])
        else:
            assert np.array_equal(was.plane(index)[outside], now.plane(index)[outside])
        assert (now.plane(index)[area] == now.plane(index)[area][0]).all()
    old, new = dcmread(BytesIO(before)), dcmread(BytesIO(after.part10))
    assert new.SOPInstanceUID == old.SOPInstanceUID == new.file_meta.MediaStorageSOPInstanceUID
    changed = {e.keyword for e in new if e.tag not in old or old[e.tag].value != e.value}
    pixels = {"PixelData", "FloatPixelData"}
    assert changed - pixels == {"BurnedInAnnotation", "DeidentificationMethodCodeSequence"}
    assert changed & pixels
    assert new.DeidentificationMethodCodeSequence[-1].CodeValue == CLEAN_PIXEL_DATA
    assert new.BurnedInAnnotation == "NO"


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small_RLE.dcm", "1.2.840.10008.1.2.5"),
        ("SC_rgb_rle_2frame.dcm", "1.2.840.10008.1.2.5"),
        ("MR_small_jpeg_ls_lossless.dcm", "1.2.840.10008.1.2.4.80"),
        ("MR_small_jp2klossless.dcm", "1.2.840.10008.1.2.4.90"),
        ("JPEG2000.dcm", "1.2.840.10008.1.2.4.90"),
        ("SC_rgb_jpeg_gdcm.dcm", "1.2.840.10008.1.2.4.80"),
        ("SC_rgb_jpeg_dcmtk.dcm", "1.2.840.10008.1.2.4.80"),
        ("JPGExtended.dcm", "1.2.840.10008.1.2.4.80"),
        ("rtdose_rle_1frame.dcm", EXPLICIT),  # no encoder takes 32 bits
    ],
)
def test_compressed_pixels_are_coded_again_without_loss(name: str, syntax: str) -> None:
    before = clean_file(name)
    area, after = masked(before)
    assert (after.transfer_syntax, after.transcoded) == (syntax, syntax != str(Picture(before).transfer_syntax))
    was, now = Picture(before), Picture(after.part10)
    assert (was.frames, was.photometric) == (now.frames, now.photometric)
    for index in range(was.frames):
        assert np.array_equal(was.plane(index)[~area], now.plane(index)[~area])
        assert now.look(index, 0, 100)[area].max() == 0
    # An ordinary reader sees the same.
    assert np.array_equal(np.squeeze(now._stored), np.squeeze(dcmread(BytesIO(after.part10)).pixel_array))


@pytest.mark.parametrize("name", ["examples_jpeg2k.dcm", "US1_J2KR.dcm"])
def test_colours_in_jpeg_2000_are_declared_as_they_are_coded(name: str) -> None:
    before = clean_file(name)
    area, after = masked(before)
    made = dcmread(BytesIO(after.part10))
    assert (made.file_meta.TransferSyntaxUID, made.PhotometricInterpretation) == ("1.2.840.10008.1.2.4.90", "YBR_RCT")
    assert np.array_equal(made.pixel_array[~area], dcmread(BytesIO(before)).pixel_array[~area])
    assert not made.pixel_array[area].any()


def test_loss_that_happened_before_stays_declared() -> None:
    for name in ("SC_rgb_jpeg_dcmtk.dcm", "JPGExtended.dcm"):
        ds = dcmread(BytesIO(masked(clean_file(name))[1].part10))
        assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_black_stays_black_also_where_the_highest_value_is_black(photometric: str, syntax: str) -> None:
    values = np.arange(16, dtype="<i2").reshape(4, 4) - 7
    _, before = clean(ct(PhotometricInterpretation=photometric, PixelData=values.tobytes()))
    made, _ = clean(ct(PhotometricInterpretation=photometric, PixelData=values.tobytes()), EXPLICIT)
    if syntax == BIG:
        ds = ct(PhotometricInterpretation=photometric, PixelData=values.astype(">i2").tobytes())
        made, _ = clean(ds, BIG)
    elif syntax == IMPLICIT:
        made, _ = clean(ct(PhotometricInterpretation=photometric, PixelData=values.tobytes()), IMPLICIT)
    picture = Picture(made.part10)
    area = np.zeros((4, 4), bool)
    area[:2, :2] = True
    picture.mask(area)
    after = dcmread(BytesIO(picture.written().part10)).pixel_array
    expected = np.where(area, values.max() if photometric == "MONOCHROME1" else values.min(), values)
    assert np.array_equal(after, expected)
    assert before.pixel_array.shape == (4, 4)


def colours(planar: int, samples: np.ndarray, **more: object) -> Dataset:
    data = np.moveaxis(samples, 2, 0) if planar else samples
    return ct(
        SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=planar, BitsAllocated=8, BitsStored=8,
        HighBit=7, PixelRepresentation=0, PixelData=data.tobytes(), **more,
    )  # fmt: skip


@given(st.integers(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_planar_configuration_does_not_matter(planar: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, area = rng.integers(1, 256, (4, 4, 3), np.uint8), rng.random((4, 4)) < 0.5
    picture = Picture(clean(colours(planar, samples))[0].part10)
    picture.mask(area)
    after = dcmread(BytesIO(picture.written().part10))
    assert after.PlanarConfiguration == planar
    assert np.array_equal(after.pixel_array, np.where(area[:, :, None], 0, samples))


def laid(bytes_of_pixels: bytes, words: bool) -> bytes:
    """Filled up to an even number; in words of big endian the first of two comes last (PS3.5 7.3)."""
    even = bytes_of_pixels + b"\0" * (len(bytes_of_pixels) % 2)
    return b"".join(even[at : at + 2][:: -1 if words else 1] for at in range(0, len(even), 2))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(EXPLICIT, "OB"), (EXPLICIT, "OW"), (BIG, "OB"), (BIG, "OW")]),
    st.sampled_from([1, 8]),
    st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 21)),
    st.integers(0, 2**32 - 1),
)
def test_bits_and_bytes_are_masked_where_they_are_shown_in_words_of_any_order(
    encoding: tuple[str, str], bits: int, shape: tuple[int, int, int], seed: int
) -> None:
    syntax, vr = encoding
    rng = np.random.default_rng(seed)
    values, area = rng.integers(0, 1 << bits, shape, np.uint8), rng.random(shape[1:]) < 0.4
    values[0, 0, 0], area[0, 0] = 0, False  # black, to be seen as such

    def value(pixels: np.ndarray) -> bytes:
        plain = np.packbits(pixels.reshape(-1), bitorder="little") if bits == 1 else pixels
        return laid(plain.tobytes(), encoding == (BIG, "OW"))

    ds = ct(NumberOfFrames=shape[0], Rows=shape[1], Columns=shape[2], BitsAllocated=bits, BitsStored=bits)
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    ds.add_new(0x7FE00010, vr, value(values))
    picture = Picture(DEIDENTIFIER.clean(received(ds, syntax)).part10)
    assert np.array_equal(np.stack([picture.plane(index)[:, :, 0] for index in range(shape[0])]), values)
    picture.mask(area)
    assert dcmread(BytesIO(picture.written().part10)).PixelData == value(np.where(area, 0, values).astype(np.uint8))


def test_the_first_pixel_of_a_big_endian_word_of_bits_is_its_lowest() -> None:
    """PS3.5 8.1.1: the first pixel is in the lowest bit; of a word of big endian that is in the second byte."""
    ds = ct(Rows=1, Columns=16, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0)
    ds.add_new(0x7FE00010, "OW", b"\0\1")
    shown = Picture(DEIDENTIFIER.clean(received(ds, BIG)).part10).plane(0)
    assert shown.nonzero()[1].tolist() == [0]


def test_a_palette_is_masked_with_its_darkest_entry() -> None:
    picture = Picture(clean_file("examples_palette.dcm"))
    area = corner(picture)
    darkest = picture._palette().astype(int).sum(axis=1).min()
    picture.mask(area)
    shown = Picture(picture.written().part10).look(0)
    assert (shown[area].astype(int).sum(axis=1) == darkest).all()


def test_an_overlay_in_unused_bits_is_gone_and_the_image_is_not() -> None:
    values = np.arange(16, dtype="<u2").reshape(4, 4)
    drawn = values | np.where(np.eye(4, dtype=bool), 1 << 12, 0).astype("<u2")
    ds = ct(BitsStored=12, HighBit=11, PixelRepresentation=0, PixelData=drawn.tobytes())
    picture = Picture(clean(ds)[0].part10)
    picture.clear_unused_bits()
    after = dcmread(BytesIO(picture.written().part10))
    assert after.PixelData == values.tobytes()


def test_nothing_masked_changes_no_pixel_byte_and_no_syntax() -> None:
    for name in ("MR_small_RLE.dcm", "JPEG2000.dcm", "CT_small.dcm"):
        part10 = clean_file(name)
        written = Picture(part10).written(burned_in_checked=True)
        assert dcmread(BytesIO(written.part10)).PixelData == dcmread(BytesIO(part10)).PixelData
        assert not written.transcoded


def test_a_masked_object_passes_the_last_gate() -> None:
    _, after = masked(clean_file("MR_small_RLE.dcm"))
    ds = dcmread(BytesIO(after.part10))
    expected = replace(
        clean_object(0), sop_uid=str(ds.SOPInstanceUID), series_uid=str(ds.SeriesInstanceUID), pixel_risk="",
        transfer_syntax=after.transfer_syntax, size=len(after.part10),
        digest=digest_of(after.part10),
    )  # fmt: skip
    assert verify_outgoing(after.part10, expected) == ""


@pytest.mark.parametrize("name", ["gdcm-US-ALOKA-16.dcm", "waveform_ecg.dcm"])
def test_what_cannot_be_masked_says_so_without_a_value(name: str) -> None:
    with pytest.raises(Quarantine, match=r"pixels\.unsupported"):
        picture = Picture(clean_file(name))
        picture.mask(corner(picture))
