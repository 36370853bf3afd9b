"""What selection and preparation need of every CT image, from the headers alone: one entry a slice.

A classic object is one slice, an enhanced or legacy converted one (PS3.3 A.38, A.70) as many as it has frames: its
functional groups are read so that nothing behind this file needs to know which kind it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from edge_node.domain.study import CleanObject
from edge_node.triage.prepare import SliceGeometry
from edge_node.triage.rule import Value, Values

CT_IMAGES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
    }
)
MOST_FRAMES: Final = 100_000
# Values 3 and up of ImageType and FrameType (PS3.3 C.8.2.1.1.1, C.8.16.1.1): no axial slices, whatever the geometry.
_LOCALIZERS: Final = frozenset({"LOCALIZER", "SCOUT", "PROJECTION IMAGE", "TOPOGRAM", "SURVIEW"})
SCREENS: Final = frozenset({"SCREEN SAVE", "DOSE", "DOSE_INFO", "DOSE INFO", "PATIENT PROTOCOL"})
_REFORMATS: Final = frozenset(
    [
        "MPR",
        "REFORMATTED",
        "CURVED_MPR",
        "CPR",
        "MIP",
        "MINIP",
        "MAX_IP",
        "MIN_IP",
        "VRT",
        "VOLUME_RENDERED",
        "SSD",
        "SURFACE_SHADED",
        "3D",
        "MEAN_IP",
    ]
)
_TEXTS: Final = (
    "Modality",
    "BodyPartExamined",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "SOPClassUID",
    "ViewPosition",
)
_NUMBERS: Final = ("SliceThickness", "Rows", "Columns")
_TAGS: Final = [
    *_TEXTS,
    *_NUMBERS,
    "ImageType",
    "SOPInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsStored",
    "NumberOfFrames",
    "AcquisitionNumber",
    "FrameOfReferenceUID",
    "LossyImageCompression",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_LOSSY_SYNTAXES: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG baseline
        "1.2.840.10008.1.2.4.51",  # JPEG extended
    }
)


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """One slice: `frame` (1-based) of `item`. `geometry` is None when it does not say where it lies, `rescale` (slope,
    intercept) when it is absent, not finite, zero, or not in HU. `unfit` says why it is no slice to judge ("" if it
    is one), `notes` what is odd but bearable."""

    item: CleanObject
    frame: int
    attributes: dict[str, Values]
    geometry: SliceGeometry | None
    rescale: tuple[float, float] | None
    unfit: str
    notes: tuple[str, ...] = ()


def read_headers(objects: Iterable[CleanObject]) -> tuple[list[SliceHeader], int]:
    """Headers of all CT slices, and how many objects could not be parsed. Other SOP classes are passed over unread."""
    headers: list[SliceHeader] = []
    unreadable = 0
    for item in objects:
        if item.sop_class not in CT_IMAGES:
            continue
        try:
            ds = dcmread(BytesIO(item.read()), stop_before_pixels=True, specific_tags=list(_TAGS))
            headers += list(_slices(item, ds))
        except Exception:  # not shown: pydicom's texts may print values
            unreadable += 1
    return headers, unreadable


def _slices(item: CleanObject, ds: Dataset) -> Iterator[SliceHeader]:
    frames = int(ds.get("NumberOfFrames") or 1)
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if not 1 <= frames <= MOST_FRAMES:
        raise ValueError("an impossible number of frames")
    if not per_frame:
        yield _header(item, ds, 1, Dataset(), shared, "select.frames-without-place" if frames > 1 else "")
        return
    if len(per_frame) != frames:
        raise ValueError("functional groups and frames differ in number")
    for number, groups in enumerate(per_frame, 1):
        yield _header(item, ds, number, groups, shared, "")


def _header(item: CleanObject, ds: Dataset, frame: int, groups: Dataset, shared: Dataset, unfit: str) -> SliceHeader:
    def of(macro: str, name: str) -> Any:
        """An attribute of the frame, else of all frames, else of the object."""
        for group in (groups, shared):
            for one in group.get(macro) or []:
                if one.get(name) not in (None, ""):
                    return one.get(name)
        return ds.get(name)

    kinds = tuple(str(v).strip().upper() for v in _many(of("CTImageFrameTypeSequence", "FrameType") or ()))
    kinds = kinds or tuple(str(v).strip().upper() for v in _many(ds.get("ImageType") or ()))
    attributes = attributes_of(ds, kinds)
    thickness = of("PixelMeasuresSequence", "SliceThickness")
    if thickness not in (None, ""):
        attributes["SliceThickness"] = (float(thickness),)
    kernel = of("CTReconstructionSequence", "ConvolutionKernel")
    if kernel not in (None, ""):
        attributes["ConvolutionKernel"] = tuple(str(v).strip() for v in _many(kernel))
    lossy = str(ds.get("LossyImageCompression") or "") == "01" or item.transfer_syntax in _LOSSY_SYNTAXES
    notes = ["quality.lossy: the images were compressed with loss"] if lossy else []
    if str(ds.get("PhotometricInterpretation") or "") == "MONOCHROME1":
        notes.append("select.monochrome1: shown inverted (MONOCHROME1); the values themselves were used")
    numbers = [
        [float(v) for v in _many(of(macro, name) or ())]
        for macro, name in (
            ("PlanePositionSequence", "ImagePositionPatient"),
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
            ("PixelMeasuresSequence", "PixelSpacing"),
        )
    ]
    acquisition = groups.get("FrameContentSequence") or [Dataset()]
    passed = acquisition[0].get("FrameAcquisitionNumber") or ds.get("AcquisitionNumber") or 0
    rescale = _rescale(*(of("PixelValueTransformationSequence", f"Rescale{w}") for w in ("Slope", "Intercept", "Type")))
    return SliceHeader(
        item,
        frame,
        attributes,
        _geometry(item, frame, ds, numbers, int(passed)),
        rescale,
        unfit or _unfit(ds, kinds, lossy=lossy),
        tuple(notes),
    )


def attributes_of(ds: Dataset, kinds: tuple[str, ...]) -> dict[str, Values]:
    """What a selection rule may ask of an object; `kinds` are the values of its ImageType."""
    attributes: dict[str, Values] = {}
    for name in _TEXTS:
        value = ds.get(name)
        if value not in (None, ""):
            attributes[name] = tuple(str(v).strip() for v in _many(value))
    for name in _NUMBERS:
        value = ds.get(name)
        if value not in (None, ""):
            attributes[name] = (float(value),)
    if kinds:
        typed: tuple[Value, ...] = kinds
        attributes["ImageType"] = typed
    return attributes


def _unfit(ds: Dataset, kinds: tuple[str, ...], *, lossy: bool) -> str:
    """Why an image is no slice as it was measured, "" if it is one."""
    rest = frozenset(kinds[2:])
    if rest & _LOCALIZERS:
        return "select.localizer"
    if rest & SCREENS:
        return "select.screen"
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        return "select.colour"
    if str(ds.get("PhotometricInterpretation") or "MONOCHROME2") not in ("MONOCHROME1", "MONOCHROME2"):
        return "select.colour"
    if kinds[1:2] == ("SECONDARY",) or rest & _REFORMATS:
        return "select.derived"
    # Compression with loss makes an image DERIVED by definition (PS3.3 C.7.6.1.1.5), and nothing else of it.
    if kinds[:1] == ("DERIVED",) and not lossy:
        return "select.derived"
    if int(ds.get("BitsStored") or 16) <= 8:
        return "select.8-bit"
    return ""


def _geometry(
    item: CleanObject,
    frame: int,
    ds: Dataset,
    numbers: list[list[float]],
    acquisition: int,
) -> SliceGeometry | None:
    position, cosines, spacing = numbers
    if len(position) != 3 or len(cosines) != 6 or len(spacing) != 2:
        return None
    return SliceGeometry(
        item.sop_uid,
        (position[0], position[1], position[2]),
        (cosines[0], cosines[1], cosines[2]),
        (cosines[3], cosines[4], cosines[5]),
        (spacing[0], spacing[1]),
        int(ds.Rows),
        int(ds.Columns),
        frame,
        str(ds.get("FrameOfReferenceUID") or ""),
        acquisition,
    )


def _rescale(slope: Any, intercept: Any, kind: Any) -> tuple[float, float] | None:
    """Slope and intercept to HU. A slope of 0 or NaN would turn every head into one that shows nothing; an intercept
    that no scanner has is none. NaN fits no limit."""
    if slope in (None, "") or intercept in (None, "") or str(kind or "HU").strip().upper() != "HU":
        return None
    a, b = float(slope), float(intercept)
    return (a, b) if 1e-4 <= abs(a) <= 1e4 and abs(b) <= 1e6 else None


def texts(value: Any) -> tuple[str, ...]:
    """The values of a text attribute without spaces around them."""
    return tuple(str(v).strip() for v in _many(value or ()))


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
