"""Which series of a study a model may judge, from the headers alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from edge_node.domain.study import CleanObject
from edge_node.triage.prepare import SliceGeometry
from edge_node.triage.rule import Rule, Value, Values

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"

# Value 3 and up of ImageType (PS3.3 C.8.2.1.1.1): images that are no axial slices, whatever their geometry says.
_NOT_SLICES: Final = frozenset(
    [
        "LOCALIZER",
        "SCOUT",
        "SCREEN SAVE",
        "DOSE",
        "DOSE_INFO",
        "MPR",
        "PROJECTION IMAGE",
        "REFORMATTED",
        "MIP",
        "MINIP",
        "VRT",
        "SSD",
        "3D",
    ]
)
# Kernels for bone and lung: GE by word, Siemens (H60s, Hr68, J70h) by number.
_SHARP: Final = re.compile(r"bone|lung|sharp|edge|\b[BHJ]r?[6-9]\d", re.IGNORECASE)
_TEXTS: Final = (
    "Modality",
    "BodyPartExamined",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "SOPClassUID",
)
_NUMBERS: Final = ("SliceThickness", "Rows", "Columns")
_TAGS: Final = [
    *_TEXTS,
    *_NUMBERS,
    "ImageType",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "SamplesPerPixel",
    "NumberOfFrames",
]


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What selection and preparation need of one image; `geometry` is None when it does not say where it lies."""

    item: CleanObject
    attributes: dict[str, Values]
    geometry: SliceGeometry | None
    rescale: tuple[float, float] | None  # slope, intercept; None when absent or not in HU
    is_slice: bool


@dataclass(frozen=True, slots=True)
class Series:
    """Usable slices of one series, and how many objects of it were not."""

    uid: str
    slices: tuple[SliceHeader, ...]
    attributes: dict[str, Values]
    left_out: int

    def rank(self) -> tuple[bool, bool, float, int, str]:
        """Smaller is preferred: soft kernel, no contrast, slices near 4 mm, more of them; the UID settles ties."""
        thickness = self.attributes.get("SliceThickness", ())
        mm = thickness[0] if thickness and isinstance(thickness[0], float) else 5.0
        words = [str(v) for name in ("ConvolutionKernel", "SeriesDescription") for v in self.attributes.get(name, ())]
        sharp = any(_SHARP.search(word) for word in words)
        return sharp, bool(self.attributes.get("ContrastBolusAgent")), abs(mm - 4.0), -len(self.slices), self.uid


def read_headers(objects: Iterable[CleanObject]) -> tuple[list[SliceHeader], int]:
    """Headers of all CT images, and how many objects could not be parsed. Other SOP classes are passed over unread."""
    headers: list[SliceHeader] = []
    unreadable = 0
    for item in objects:
        if item.sop_class != CT_IMAGE_STORAGE:
            continue
        try:
            ds = dcmread(BytesIO(item.read()), stop_before_pixels=True, specific_tags=list(_TAGS))
            headers.append(_header(item, ds))
        except Exception:  # not shown: pydicom's texts may print values
            unreadable += 1
    return headers, unreadable


def candidates(headers: list[SliceHeader], rule: Rule) -> list[Series]:
    """Series that fit the rule, the preferred one first."""
    groups: dict[str, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(header.item.series_uid, []).append(header)
    out: list[Series] = []
    for uid, members in groups.items():
        members.sort(key=lambda h: h.item.sop_uid)
        slices = tuple(h for h in members if h.is_slice)
        if not slices:
            continue
        attributes = dict(slices[0].attributes)
        attributes["Instances"] = (float(len(slices)),)
        if rule.matches(attributes):
            out.append(Series(uid, slices, attributes, len(members) - len(slices)))
    return sorted(out, key=Series.rank)


def _header(item: CleanObject, ds: Dataset) -> SliceHeader:
    attributes: dict[str, Values] = {}
    for name in _TEXTS:
        value = ds.get(name)
        if value not in (None, ""):
            attributes[name] = tuple(str(v).strip() for v in _many(value))
    for name in _NUMBERS:
        value = ds.get(name)
        if value not in (None, ""):
            attributes[name] = (float(value),)
    kinds: tuple[Value, ...] = tuple(str(v).strip().upper() for v in _many(ds.get("ImageType") or ()))
    if kinds:
        attributes["ImageType"] = kinds
    is_slice = (
        int(ds.get("NumberOfFrames") or 1) == 1
        and int(ds.get("SamplesPerPixel") or 1) == 1
        and not any(str(k) in _NOT_SLICES for k in kinds)
        and kinds[1:2] != ("SECONDARY",)
    )
    return SliceHeader(item, attributes, _geometry(item, ds), _rescale(ds), is_slice)


def _geometry(item: CleanObject, ds: Dataset) -> SliceGeometry | None:
    position, cosines, spacing = (
        [float(v) for v in _many(ds.get(name) or ())]
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
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
    )


def _rescale(ds: Dataset) -> tuple[float, float] | None:
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    if slope in (None, "") or intercept in (None, "") or str(ds.get("RescaleType") or "HU").strip().upper() != "HU":
        return None
    return float(slope), float(intercept)


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
