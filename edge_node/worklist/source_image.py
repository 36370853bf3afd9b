"""Where the image lies and how it is shown that a finding was made on: from its clean header, which has no identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue


@dataclass(frozen=True, slots=True)
class Plane:
    """Image plane in the patient (PS3.3 C.7.6.2): mm, direction cosines; `thickness` 0 when it is not stated."""

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing: tuple[float, float]
    thickness: float


@dataclass(frozen=True, slots=True)
class SourceImage:
    """Matrix, place, and the first window and the rescale of an image of grey values."""

    rows: int
    columns: int
    photometric: str
    plane: Plane | None
    window: tuple[float, float] | None  # centre, width
    rescale: tuple[float, float, str] | None  # slope, intercept, type
    frames: int

    @classmethod
    def of(cls, header: Dataset) -> SourceImage | None:
        """None for an image without a matrix."""
        rows, columns = header.get("Rows"), header.get("Columns")
        if not rows or not columns:
            return None
        return cls(
            int(rows),
            int(columns),
            str(header.get("PhotometricInterpretation") or ""),
            _plane(header),
            _pair(header.get("WindowCenter"), header.get("WindowWidth")),
            _rescale(header),
            int(header.get("NumberOfFrames") or 1),
        )


def _plane(header: Dataset) -> Plane | None:
    position, orientation, spacing = (
        _numbers(header.get(name), count)
        for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )
    if position is None or orientation is None or spacing is None:
        return None
    x, y, z = position
    a, b, c, d, e, f = orientation
    return Plane((x, y, z), (a, b, c, d, e, f), (spacing[0], spacing[1]), float(header.get("SliceThickness") or 0))


def _rescale(header: Dataset) -> tuple[float, float, str] | None:
    pair = _pair(header.get("RescaleSlope"), header.get("RescaleIntercept"))
    return None if pair is None else (*pair, str(header.get("RescaleType") or "US"))


def _pair(first: object, second: object) -> tuple[float, float] | None:
    one, two = (_numbers(value, 1) for value in (_first(first), _first(second)))
    return None if one is None or two is None else (one[0], two[0])


def _first(value: object) -> object:
    return value[0] if isinstance(value, MultiValue) and value else value


def _numbers(value: object, count: int) -> list[float] | None:
    if value is None or value == "":
        return None
    several: list[Any] = list(value) if isinstance(value, MultiValue) else [value]
    try:
        return [float(one) for one in several] if len(several) == count else None
    except (TypeError, ValueError):
        return None
