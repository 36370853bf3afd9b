"""One phantom with a bleed, malformed in every way a scanner, a PACS or a person can think of, and what is expected.

The bleed is flagged in the untouched study: whatever is not flagged must say that it was not judged, and why.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedCTImageStorage, JPEGBaseline8Bit, RLELossless, SecondaryCaptureImageStorage

from edge_node.demo.phantom import head_phantom
from tests.unit.triage.studies import ct_slices

Make = Callable[[list[Dataset]], list[Dataset]]
FLAGGED, CANNOT, NOT_APPLICABLE = "FLAGGED", "CANNOT_JUDGE", "NOT_APPLICABLE"


@dataclass(frozen=True, slots=True)
class Hazard:
    """`answer` is the verdict or outcome; `says` what reason or notes must begin with ("" for nothing)."""

    name: str
    make: Make
    answer: str
    says: str = ""


@cache
def _base() -> tuple[Dataset, ...]:
    return tuple(ct_slices(head_phantom(79, kind="epidural", slices=24, rows=160)))


def study() -> list[Dataset]:
    """The untouched series, 24 slices, lowest first."""
    return copy.deepcopy(list(_base()))


def hu(ds: Dataset) -> np.ndarray:
    values = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).astype(np.int32)
    return values + int(ds.RescaleIntercept)


def put(ds: Dataset, values: np.ndarray) -> None:
    """Store HU as unsigned values with intercept -1024."""
    ds.Rows, ds.Columns = values.shape
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = (np.clip(np.rint(values), -1024, 3071).astype(np.int32) + 1024).astype("<u2").tobytes()


def renamed(ds: Dataset, tail: str) -> Dataset:
    other = copy.deepcopy(ds)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID[:48]}.{tail}"
    return other


def each(change: Callable[[int, Dataset], None]) -> Make:
    def make(slices: list[Dataset]) -> list[Dataset]:
        for k, ds in enumerate(slices):
            change(k, ds)
        return slices

    return make


def setting(share: float = 1.0, **values: object) -> Make:
    def change(k: int, ds: Dataset) -> None:
        if k < share * 24:
            for name, value in values.items():
                setattr(ds, name, value)

    return each(change)


def lacking(*names: str) -> Make:
    def change(_: int, ds: Dataset) -> None:
        for name in names:
            del ds[name]

    return each(change)


def pixels(change: Callable[[int, np.ndarray], np.ndarray]) -> Make:
    return each(lambda k, ds: put(ds, change(k, hu(ds))))


def shuffled(slices: list[Dataset]) -> list[Dataset]:
    rng = np.random.default_rng(3)
    for ds, number in zip(slices, rng.permutation(len(slices)), strict=True):
        ds.InstanceNumber = int(number)
    return [slices[k] for k in rng.permutation(len(slices))]


def turned(slices: list[Dataset]) -> list[Dataset]:
    """Stored from left to right and bottom to top, as when a patient lies on the face."""
    for ds in slices:
        x, y, z = (float(v) for v in ds.ImagePositionPatient)
        dy, dx = (float(v) for v in ds.PixelSpacing)
        put(ds, hu(ds)[::-1, ::-1])
        ds.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        ds.ImagePositionPatient = [f"{v:.4f}" for v in (x + (ds.Columns - 1) * dx, y + (ds.Rows - 1) * dy, z)]
    return slices


def enhanced(slices: list[Dataset]) -> list[Dataset]:
    """The whole series as one enhanced multi-frame object, its frames in no order."""
    slices = shuffled(slices)
    ds = copy.deepcopy(slices[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del ds[name]
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        del ds[name]
    ds.NumberOfFrames = len(slices)
    shared, measures, orientation, scale, kind = (Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SliceThickness = slices[0].PixelSpacing, slices[0].SliceThickness
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, -1024, "HU"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    shared.PixelValueTransformationSequence, shared.CTImageFrameTypeSequence = Sequence([scale]), Sequence([kind])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for one in slices:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = one.ImagePositionPatient
        group.PlanePositionSequence = Sequence([place])
        frames.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.PixelData = b"".join(one.PixelData for one in slices)
    return [ds]


def frames_without_place(slices: list[Dataset]) -> list[Dataset]:
    (ds,) = enhanced(slices)
    del ds.PerFrameFunctionalGroupsSequence
    return [ds]


def joined(*others: Make) -> Make:
    return lambda slices: [*slices, *(ds for make in others for ds in make(copy.deepcopy(slices)))]


def _again(acquisition: int | None) -> Make:
    def make(slices: list[Dataset]) -> list[Dataset]:
        for ds in slices:
            ds.AcquisitionNumber = 1
        second = [renamed(ds, "2") for ds in slices]
        for ds in second:
            ds.AcquisitionNumber = acquisition or 1
        return [*slices, *second[:20]]

    return make


def _stray(**values: object) -> Make:
    def make(slices: list[Dataset]) -> list[Dataset]:
        strays = [renamed(ds, "8") for ds in slices[:2]]
        for ds in strays:
            for name, value in values.items():
                setattr(ds, name, value)
        return strays

    return make


def tilted(slices: list[Dataset]) -> list[Dataset]:
    from edge_node.demo.headct import head_ct

    made = head_ct(79, "epidural", slices=24, rows=160, tilt_degrees=18)
    for ds, old in zip(made, slices, strict=True):
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality = old.SeriesInstanceUID, old.StudyInstanceUID, "CT"
    return made


def colour(_: int, ds: Dataset) -> None:
    gray = np.clip(hu(ds) * 3, 0, 255).astype(np.uint8)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = np.repeat(gray[..., None], 3, 2).tobytes()


def eight_bit(_: int, ds: Dataset) -> None:
    """A windowed picture with the intercept of the original."""
    gray = np.clip(hu(ds) * 3, 0, 255).astype(np.uint8)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = gray.tobytes()


def eight_bit_jpeg(k: int, ds: Dataset) -> None:
    import imagecodecs

    eight_bit(k, ds)
    gray = np.frombuffer(ds.PixelData, np.uint8).reshape(ds.Rows, ds.Columns)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([imagecodecs.jpeg8_encode(gray)])


def rle(_: int, ds: Dataset) -> None:
    ds.compress(RLELossless)


def secondary_capture(_: int, ds: Dataset) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage


def abdomen(k: int, values: np.ndarray) -> np.ndarray:
    y, x = (np.mgrid[0:160, 0:160] - 79.5) / 80
    r = np.hypot(x, y / 0.75)
    noise = np.random.default_rng(k).normal(0, 12, values.shape)
    spine = np.hypot(x, y - 0.45) < 0.12
    ribs = (np.abs(r - 0.85) < 0.02) & (np.sin(14 * np.arctan2(y, x) + k) > 0.3)
    return np.where(r < 0.95, np.where(spine, 700, np.where(ribs, 900, 45)) + noise, -1000)


def sheared(share: float) -> Make:
    def change(k: int, ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if k < share * 24 else [1, 0, 0, 0, 1, 0]

    return each(change)


def smaller(share: float) -> Make:
    def change(k: int, ds: Dataset) -> None:
        if k < share * 24:
            dy, dx = (float(v) for v in ds.PixelSpacing)
            put(ds, hu(ds)[::2, ::2])
            ds.PixelSpacing = [2 * dy, 2 * dx]

    return each(change)


def scaled(share: float, *, true: bool) -> Make:
    """Some slices on another scale, with a rescale that says so or with one that does not."""

    def change(k: int, ds: Dataset) -> None:
        if k < share * 24:
            values = hu(ds)
            ds.RescaleSlope, ds.RescaleIntercept = ("0.5", -1024) if true else (1, -24)
            stored = (values + 1024) * 2 if true else values + 1024
            ds.PixelData = stored.astype("<u2").tobytes()

    return each(change)


def negated(_: int, ds: Dataset) -> None:
    """Stored upside down with a slope that says so."""
    values = hu(ds)
    ds.PixelData = (3071 - values).astype("<u2").tobytes()
    ds.RescaleSlope, ds.RescaleIntercept = -1, 3071


def cut(values: np.ndarray) -> np.ndarray:
    """The field of view of a small child around a grown head."""
    return values[45:125, 45:125]


def metal(_: int, values: np.ndarray) -> np.ndarray:
    out = values.copy()
    out[70:78, 70:78] = 3071
    return out


def blurred(values: np.ndarray, pixels_: float) -> np.ndarray:
    reach = int(4 * pixels_)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / pixels_) ** 2)
    weights /= weights.sum()
    out = np.pad(values.astype(float), reach, mode="edge")
    for axis in (0, 1):
        out = np.apply_along_axis(lambda line: np.convolve(line, weights, "valid"), axis, out)
    return out


def noisy(sigma: float) -> Make:
    return pixels(lambda k, v: v + np.random.default_rng(k).normal(0, sigma, v.shape))


def shaken(k: int, values: np.ndarray) -> np.ndarray:
    return np.roll(values, 9 if k in (14, 15) else 0, axis=1)


def broken(count: int) -> Make:
    def change(k: int, ds: Dataset) -> None:
        if k < count:
            ds.PixelData = ds.PixelData[:100]

    return each(change)


def spread(slices: list[Dataset]) -> list[Dataset]:
    """Two zones: every second slice of the upper half was not made."""
    return [*slices[:12], *slices[12::2]]


HAZARDS = (
    Hazard("untouched", lambda s: s, FLAGGED),
    Hazard("slices in no order, instance numbers false", shuffled, FLAGGED),
    Hazard("instance numbers missing", lacking("InstanceNumber"), FLAGGED),
    Hazard("stored from left to right and upside down", turned, FLAGGED),
    Hazard("enhanced multi-frame", enhanced, FLAGGED),
    Hazard("multi-frame without a place for each frame", frames_without_place, NOT_APPLICABLE, "select.frames"),
    Hazard("gantry tilt of 18 degrees", tilted, FLAGGED, "geometry.tilt"),
    Hazard("one slice missing", lambda s: [*s[:7], *s[8:]], FLAGGED, "geometry.gap"),
    Hazard("five slices missing", lambda s: [*s[:7], *s[12:]], CANNOT, "geometry.gap"),
    Hazard("two zones of different distance", spread, FLAGGED, "geometry.uneven"),
    Hazard("two slices sent twice under new UIDs", lambda s: [*s, *(renamed(d, "9") for d in s[3:5])], FLAGGED,
           "geometry.duplicates"),
    Hazard("two acquisitions in one series", _again(2), FLAGGED, "geometry.acquisitions"),
    Hazard("all slices twice, nothing tells them apart", _again(None), CANNOT, "geometry.mixed"),
    Hazard("two coronal slices in the series", sheared(0.1), FLAGGED, "geometry.mixed"),
    Hazard("half of the slices coronal", sheared(0.5), CANNOT, "geometry.mixed"),
    Hazard("all slices coronal", sheared(1), CANNOT, "geometry."),
    Hazard("two slices of another matrix", smaller(0.1), FLAGGED, "geometry.mixed"),
    Hazard("half of the slices of another matrix", smaller(0.5), CANNOT, "geometry.mixed"),
    Hazard("two frames of reference", setting(0.5, FrameOfReferenceUID="2.25.77"), CANNOT, "geometry.mixed"),
    Hazard("no positions", lacking("ImagePositionPatient"), CANNOT, "geometry.missing"),
    Hazard("no pixel spacing", lacking("PixelSpacing"), CANNOT, "geometry.missing"),
    Hazard("four slices only", lambda s: s[10:14], CANNOT, "geometry.too-few-slices"),
    Hazard("localizer in the series", joined(_stray(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])), FLAGGED),
    Hazard("dose screen in the series", joined(_stray(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])), FLAGGED),
    Hazard("localizers only", setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), NOT_APPLICABLE,
           "select.localizer"),
    Hazard("reformatted images only", setting(ImageType=["DERIVED", "SECONDARY", "REFORMATTED"]), NOT_APPLICABLE,
           "select.derived"),
    Hazard("derived images only", setting(ImageType=["DERIVED", "PRIMARY", "AXIAL"]), NOT_APPLICABLE,
           "select.derived"),
    Hazard("secondary captures", each(secondary_capture), NOT_APPLICABLE, "triage.no-ct"),
    Hazard("no ImageType", lacking("ImageType"), FLAGGED),
    Hazard("colour", each(colour), NOT_APPLICABLE, "select.colour"),
    Hazard("MONOCHROME1", setting(PhotometricInterpretation="MONOCHROME1"), FLAGGED, "select.monochrome1"),
    Hazard("8 bits with a false intercept", each(eight_bit), NOT_APPLICABLE, "select.8-bit"),
    Hazard("8 bits as JPEG with loss", each(eight_bit_jpeg), NOT_APPLICABLE, "select.8-bit"),
    Hazard("RLE", each(rle), FLAGGED),
    Hazard("compressed with loss before", setting(LossyImageCompression="01", ImageType=["DERIVED", "PRIMARY"]),
           FLAGGED, "quality.lossy"),
    Hazard("three slices cannot be decoded", broken(3), FLAGGED, "decode.undecodable"),
    Hazard("ten slices cannot be decoded", broken(10), CANNOT, "decode.undecodable"),
    Hazard("RescaleSlope makes NaN", setting(RescaleSlope="NaN"), CANNOT, "rescale.missing"),
    Hazard("RescaleSlope 0", setting(RescaleSlope="0"), CANNOT, "rescale.missing"),
    Hazard("RescaleSlope near 0", setting(RescaleSlope="1e-9"), CANNOT, "rescale.missing"),
    Hazard("RescaleSlope 0.01", setting(RescaleSlope="0.01"), CANNOT, "quality."),
    Hazard("RescaleIntercept missing", lacking("RescaleIntercept"), CANNOT, "rescale.missing"),
    Hazard("RescaleIntercept false", setting(RescaleIntercept="0"), CANNOT, "quality."),
    Hazard("RescaleIntercept without end", setting(RescaleIntercept="1e300"), CANNOT, "rescale.missing"),
    Hazard("RescaleType of no unit", setting(RescaleType="US"), CANNOT, "rescale.missing"),
    Hazard("slope and values negated", each(negated), FLAGGED),
    Hazard("two rescales, both true", scaled(0.5, true=True), FLAGGED),
    Hazard("two slices with a false rescale", scaled(0.1, true=False), FLAGGED, "rescale.mixed"),
    Hazard("half of the slices with a false rescale", scaled(0.5, true=False), CANNOT, "rescale.mixed"),
    Hazard("grey values 16 HU apart", pixels(lambda _, v: v // 16 * 16), CANNOT, "quality.coarseness"),
    Hazard("no body part", lacking("BodyPartExamined"), FLAGGED, "quality.body-part"),
    Hazard("no body part and no description", lacking("BodyPartExamined", "StudyDescription"), FLAGGED,
           "quality.body-part"),
    Hazard("abdomen, and says so", lambda s: setting(BodyPartExamined="ABDOMEN", StudyDescription="")(
        pixels(abdomen)(s)), NOT_APPLICABLE, "triage.no-series"),
    Hazard("abdomen that says HEAD", pixels(abdomen), CANNOT, "quality."),
    Hazard("abdomen that says nothing", lambda s: lacking("BodyPartExamined", "StudyDescription")(pixels(abdomen)(s)),
           CANNOT, "quality."),
    Hazard("two slices of another body part", setting(0.1, BodyPartExamined="NECK", StudyDescription="NECK"), FLAGGED,
           "select.mixed"),
    Hazard("half of the slices of another body part", setting(0.5, BodyPartExamined="NECK", StudyDescription="NECK"),
           CANNOT, "select.mixed"),
    Hazard("field of view cut off", pixels(lambda _, v: cut(v)), CANNOT, "quality."),
    Hazard("metal", pixels(metal), FLAGGED, "quality.metal"),
    Hazard("noise of 40 HU", noisy(40), FLAGGED, "quality.noise"),
    Hazard("noise of 200 HU", noisy(200), CANNOT, "quality."),
    Hazard("blurred", pixels(lambda _, v: blurred(v, 2.5)), FLAGGED, "quality.blur"),
    Hazard("two slices moved sideways", pixels(shaken), FLAGGED, "quality.motion"),
    Hazard("vertex not covered", lambda s: s[:15], FLAGGED, "quality.vertex"),
)  # fmt: skip
