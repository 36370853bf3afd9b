"""From decoded slices to the model's tensor, true to the geometry in the headers.

Slices are ordered by their position along the normal (PS3.3 C.7.6.2.1.1), never by InstanceNumber. Conventions:
the canonical plane has rows towards posterior, columns towards the left hand and slices towards superior, whatever
way the pixels were stored; millimetres are measured along the stored axes from the patient origin; a model pixel is
the area-weighted mean of what it covers (air, -1000 HU, outside the image); thin slices are averaged into slabs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shorts = NDArray[np.int16]
Number = TypeVar("Number", bound=np.generic)

AIR: Final = -1000.0
MIN_SLICES: Final = 8
MIN_COVERAGE_MM: Final = 60.0
MAX_GAP_MM: Final = 25.0
MAX_OFF_AXIAL_DEG: Final = 40.0
SAME_PLACE_MM: Final = 0.02
SAME_DIRECTION: Final = 0.01  # of a direction cosine: headers are rounded
SAME_SPACING: Final = 0.005
MAX_MINORITY: Final = 0.2  # so many slices of another orientation, matrix or position may be left out


class CannotJudge(Exception):
    """This input cannot be judged honestly; `reason` is a stable code, `text` a sentence without identifiers."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}"


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """Where one image lies: position (x, y, z mm) of the first pixel, direction cosines, pixel size, matrix.

    `frame` (1-based) of the object `sop_uid`; positions of different frames of reference cannot be compared.
    """

    sop_uid: str
    position: tuple[float, float, float]
    along_row: tuple[float, float, float]  # direction of increasing column index
    along_column: tuple[float, float, float]
    spacing: tuple[float, float]  # between rows, between columns (PS3.3 10.7.1.3)
    rows: int
    columns: int
    frame: int = 1
    frame_of_reference: str = ""
    acquisition: int = 0


@dataclass(frozen=True, slots=True)
class Plane:
    """How stored pixels become canonical ones: transpose first, then flip."""

    transposed: bool
    flip_rows: bool
    flip_columns: bool
    rows: int  # canonical
    columns: int
    dy: float  # canonical pixel size in mm
    dx: float

    def canonical(self, stored: NDArray[Number]) -> NDArray[Number]:
        """View of stored images (…, rows, columns) in the canonical orientation."""
        image = np.swapaxes(stored, -1, -2) if self.transposed else stored
        return image[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def stored(self, canonical: NDArray[Number]) -> NDArray[Number]:
        """View of canonical images as they were stored: the way back of `canonical`."""
        image = canonical[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return np.swapaxes(image, -1, -2) if self.transposed else image

    def stored_box(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of canonical pixels, bottom and right exclusive, in stored pixels."""
        top, left, bottom, right = box
        if self.flip_rows:
            top, bottom = self.rows - bottom, self.rows - top
        if self.flip_columns:
            left, right = self.columns - right, self.columns - left
        return (left, top, right, bottom) if self.transposed else (top, left, bottom, right)


@dataclass(frozen=True, slots=True)
class Stack:
    """The order of one volume: which slices, where, in which plane; `warnings` says what was odd but bearable."""

    slices: tuple[SliceGeometry, ...]
    positions: tuple[float, ...]  # mm along the normal, ascending towards superior
    origins: tuple[tuple[float, float], ...]  # canonical (y, x) mm of the outer corner of each slice's first pixel
    plane: Plane
    step: float  # median distance between slices in mm
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GridSpec:
    """The model's input grid: `size` pixels of `pixel_mm` each way, slabs of `slab_mm`, windowed channels."""

    size: int
    pixel_mm: float
    slab_mm: float
    channels: tuple[tuple[int, float, float], ...]  # (offset in slabs, lowest HU, highest HU)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm along (z, y, x)."""
        return self.slab_mm, self.pixel_mm, self.pixel_mm


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """`hu` is float32 (slabs, size, size) in HU, canonical; `tensor` float32 (slabs, channels, size, size) in 0..1.

    `members[k]` are the indices of the stack's slices averaged in slab k; `centre` is the canonical (y, x) mm of the
    middle of the grid.
    """

    hu: Floats
    members: tuple[tuple[int, ...], ...]
    centre: tuple[float, float]
    spec: GridSpec

    def tensor(self) -> Floats:
        """The windowed channels, float32 (slabs, channels, size, size) in 0..1."""
        return windowed(self.hu, self.spec)


def order(slices: list[SliceGeometry]) -> Stack:
    """Sort slices into one axial stack. Raises `CannotJudge` when no honest volume can be made of them."""
    warnings: list[str] = []
    slices = _majority(slices, warnings)
    first = slices[0]
    row, column = np.array(first.along_row), np.array(first.along_column)
    normal = np.cross(row, column)
    if normal[2] < 0:
        normal = -normal
    tilt = float(np.degrees(np.arccos(np.clip(normal[2], -1, 1))))
    if tilt > MAX_OFF_AXIAL_DEG:
        raise CannotJudge("geometry.not-axial", f"the slices are {tilt:.0f} degrees off the axial plane")
    plane = _plane(first, row, column)

    # Ties are broken by UID so that the result does not depend on the order of arrival.
    keyed = sorted((float(np.dot(s.position, normal)), s.sop_uid, s.frame, s) for s in slices)
    kept = _one_each(_one_pass(keyed, warnings), warnings)
    positions = [item[0] for item in kept]
    step = _check_steps(positions, warnings)
    stack = [item[3] for item in kept]
    origins = [_origin(s, row, column, plane) for s in stack]
    drift = float(np.hypot(*(np.array(origins[-1]) - np.array(origins[0]))) / (positions[-1] - positions[0]))
    if drift > 0.02:
        angle = float(np.degrees(np.arctan(drift)))
        warnings.append(f"geometry.tilt: gantry tilt of {angle:.1f} degrees, corrected")
    return Stack(tuple(stack), tuple(positions), tuple(origins), plane, step, tuple(warnings))


_Keyed = tuple[float, str, int, SliceGeometry]


def _distinct(keyed: list[_Keyed]) -> list[_Keyed]:
    """The first slice at each position."""
    kept = keyed[:1]
    for item in keyed[1:]:
        if item[0] - kept[-1][0] > SAME_PLACE_MM:
            kept.append(item)
    return kept


def _one_pass(keyed: list[_Keyed], warnings: list[str]) -> list[_Keyed]:
    """When several passes over the same place lie in one series (phases, repeats): the one with the most slices.

    Some scanners number every slice as an acquisition of its own, so this is asked only where places are taken twice.
    """
    places = len(_distinct(keyed))
    if places == len(keyed):
        return keyed
    passes: dict[int, list[_Keyed]] = {}
    for item in keyed:
        passes.setdefault(item[3].acquisition, []).append(item)
    best = max(passes.values(), key=lambda one: (len(_distinct(one)), -one[0][3].acquisition))
    if len(passes) < 2 or len(_distinct(best)) < (1 - MAX_MINORITY) * places:
        return keyed
    warnings.append(f"geometry.acquisitions: {len(passes)} acquisitions in one series, the most complete one was used")
    return best


def _one_each(keyed: list[_Keyed], warnings: list[str]) -> list[_Keyed]:
    kept = _distinct(keyed)
    doubles = len(keyed) - len(kept)
    if doubles > MAX_MINORITY * len(keyed):
        raise CannotJudge("geometry.mixed", f"{doubles} of {len(keyed)} slices share a position with another one")
    if doubles:
        warnings.append(f"geometry.duplicates: {doubles} slices at the position of another one were left out")
    return kept


def _alike(a: SliceGeometry, b: SliceGeometry) -> bool:
    """Whether two slices can be of one stack."""
    return (
        (a.rows, a.columns, a.frame_of_reference) == (b.rows, b.columns, b.frame_of_reference)
        and max(abs(u - v) for u, v in zip(a.along_row + a.along_column, b.along_row + b.along_column, strict=True))
        < SAME_DIRECTION
        and max(abs(u - v) / v for u, v in zip(a.spacing, b.spacing, strict=True)) < SAME_SPACING
    )


def _majority(slices: list[SliceGeometry], warnings: list[str]) -> list[SliceGeometry]:
    """Slices of the commonest orientation, matrix, pixel size and frame of reference; too many others and the series
    is mixed."""
    groups: list[list[SliceGeometry]] = []
    for s in sorted(slices, key=lambda s: (s.sop_uid, s.frame)):
        numbers = (*s.position, *s.along_row, *s.along_column, *s.spacing)
        if not np.isfinite(numbers).all() or min(s.spacing) <= 0:
            continue
        row, column = np.array(s.along_row), np.array(s.along_column)
        if abs(np.linalg.norm(row) - 1) > 1e-2 or abs(np.linalg.norm(column) - 1) > 1e-2 or abs(row @ column) > 1e-2:
            continue
        home = next((group for group in groups if _alike(s, group[0])), None)
        if home is not None:
            home.append(s)
        elif len(groups) < 64:  # so many kinds are a mixed series already
            groups.append([s])
    if not groups:
        raise CannotJudge("geometry.missing", "no slice says where it lies")
    best = max(groups, key=len)
    others = len(slices) - len(best)
    if others > MAX_MINORITY * len(slices):
        raise CannotJudge(
            "geometry.mixed",
            f"{others} of {len(slices)} slices differ in orientation, matrix, pixel size or frame of reference",
        )
    if others:
        warnings.append(
            f"geometry.mixed: {others} slices of another orientation, matrix, pixel size or place were left out"
        )
    if len(best) < MIN_SLICES:
        raise CannotJudge("geometry.too-few-slices", f"{len(best)} slices, at least {MIN_SLICES} are needed")
    return best


def _check_steps(positions: list[float], warnings: list[str]) -> float:
    if len(positions) < MIN_SLICES:
        raise CannotJudge("geometry.too-few-slices", f"{len(positions)} positions, at least {MIN_SLICES} are needed")
    steps = np.diff(positions)
    median = float(np.median(steps))
    if positions[-1] - positions[0] < MIN_COVERAGE_MM:
        raise CannotJudge(
            "geometry.coverage",
            f"{positions[-1] - positions[0]:.0f} mm covered, at least {MIN_COVERAGE_MM:.0f} are needed",
        )
    if steps.max() > MAX_GAP_MM:
        raise CannotJudge("geometry.gap", f"a gap of {steps.max():.0f} mm between slices")
    if gaps := int(np.count_nonzero(missing_slices(positions))):
        warnings.append(f"geometry.gap: slices seem to be missing at {gaps} places")
    if np.abs(steps - median).max() > 0.1 * median + 0.05:
        warnings.append(
            f"geometry.uneven: distance between slices varies from {steps.min():.1f} to {steps.max():.1f} mm"
        )
    return median


def missing_slices(positions: Sequence[float]) -> NDArray[np.int_]:
    """How many slices seem to be missing in each step, (positions - 1,).

    A gap is a step much wider than its neighbours on both sides; two zones of different step are no gap.
    """
    steps = np.diff(positions)
    around = [np.median(np.delete(steps[max(0, i - 2) : i + 3], min(i, 2))) for i in range(len(steps))]
    usual = np.maximum(np.array(around), 0.1)
    return np.where(steps > 1.8 * usual, np.rint(steps / usual) - 1, 0).astype(np.int_)


def _plane(s: SliceGeometry, row: NDArray[np.float64], column: NDArray[np.float64]) -> Plane:
    transposed = abs(row[0]) < abs(column[0])
    to_left, to_back = (column, row) if transposed else (row, column)
    rows, columns = (s.columns, s.rows) if transposed else (s.rows, s.columns)
    dy, dx = (s.spacing[1], s.spacing[0]) if transposed else s.spacing
    return Plane(transposed, bool(to_back[1] < 0), bool(to_left[0] < 0), rows, columns, dy, dx)


def axial_plane(s: SliceGeometry) -> tuple[Plane, float] | None:
    """Plane of a single slice and its place in mm towards superior; None if it is not axial."""
    row, column = np.array(s.along_row), np.array(s.along_column)
    normal = np.cross(row, column)
    if not np.isfinite((*s.position, *normal, *s.spacing)).all() or min(s.spacing) <= 0:
        return None
    if abs(normal[2]) < np.cos(np.radians(MAX_OFF_AXIAL_DEG)):
        return None
    return _plane(s, row, column), float(np.dot(s.position, normal * np.sign(normal[2])))


def _origin(
    s: SliceGeometry, row: NDArray[np.float64], column: NDArray[np.float64], plane: Plane
) -> tuple[float, float]:
    to_left, to_back = (column, row) if plane.transposed else (row, column)
    position = np.array(s.position)
    y, x = float(position @ to_back), float(position @ to_left)
    # position is the centre of the first stored pixel; after a flip the first canonical pixel is the last stored one.
    y = -y - (plane.rows - 1) * plane.dy if plane.flip_rows else y
    x = -x - (plane.columns - 1) * plane.dx if plane.flip_columns else x
    return y - plane.dy / 2, x - plane.dx / 2


def assemble(stack: Stack, volume: Shorts, spec: GridSpec, give_way: Callable[[], None] = lambda: None) -> Prepared:
    """Resample canonical slices to the model grid. `volume` is int16 HU, (slices, rows, columns), in stack order.
    `give_way` is called before each slab."""
    centre = _bone_centre(stack, volume)
    members = _slabs(stack, spec.slab_mm)
    half = spec.size * spec.pixel_mm / 2
    out = np.empty((len(members), spec.size, spec.size), np.float32)
    cache: dict[tuple[float, float], tuple[Floats, Floats]] = {}
    plane = stack.plane
    image = np.empty(volume.shape[1:], np.float32)
    for k, group in enumerate(members):
        give_way()
        total = np.zeros((spec.size, spec.size), np.float32)
        # Slices at the same place in the plane are added up first and resampled once: whole numbers, so without error.
        for (y0, x0), those in groupby(group, lambda i: stack.origins[i]):
            alike = tuple(those)
            if (y0, x0) not in cache:
                cache = {
                    (y0, x0): (
                        area_weights(plane.rows, plane.dy, y0, spec.size, spec.pixel_mm, centre[0] - half),
                        area_weights(plane.columns, plane.dx, x0, spec.size, spec.pixel_mm, centre[1] - half),
                    )
                }
            wy, wx = cache[(y0, x0)]
            image.fill(-AIR * len(alike))
            for i in alike:
                image += volume[i]
            total += wy @ image @ wx.T
        out[k] = total / np.float32(len(group)) + np.float32(AIR)
    return Prepared(out, members, centre, spec)


def area_weights(n_in: int, d_in: float, start_in: float, n_out: int, d_out: float, start_out: float) -> Floats:
    """Weights (n_out, n_in): the share of each input cell in each output cell; rows sum to 1 inside the image."""
    edges_in = start_in + d_in * np.arange(n_in + 1)
    edges_out = start_out + d_out * np.arange(n_out + 1)
    high = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    low = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return np.asarray(np.clip(high - low, 0, None) / d_out, np.float32)


def windowed(hu: Floats, spec: GridSpec) -> Floats:
    """Channels of the model from slabs in HU: (slabs, size, size) to (slabs, channels, size, size) in 0..1.

    A channel with an offset shows the slab above (+) or below (-); at the ends the last slab is repeated.
    """
    count = hu.shape[0]
    out = np.empty((count, len(spec.channels), *hu.shape[1:]), np.float32)
    for c, (offset, low, high) in enumerate(spec.channels):
        source = hu[np.clip(np.arange(count) + offset, 0, count - 1)]
        np.clip((source - np.float32(low)) * np.float32(1 / (high - low)), 0, 1, out=out[:, c])
    return out


def _slabs(stack: Stack, slab_mm: float) -> tuple[tuple[int, ...], ...]:
    """Groups of neighbouring slices whose common extent stays within `slab_mm`."""
    groups: list[list[int]] = []
    for i, position in enumerate(stack.positions):
        if groups and position - stack.positions[groups[-1][0]] + stack.step <= slab_mm * 1.001:
            groups[-1].append(i)
        else:
            groups.append([i])
    return tuple(tuple(g) for g in groups)


def _bone_centre(stack: Stack, volume: Shorts) -> tuple[float, float]:
    """Canonical (y, x) mm of the centre of all bone, else the middle of the image."""
    plane = stack.plane
    sub = volume[:, ::4, ::4] > 300
    ys, xs, weight = 0.0, 0.0, 0.0
    for i, (y0, x0) in enumerate(stack.origins):
        count = float(np.count_nonzero(sub[i]))
        if count:
            rows, columns = np.nonzero(sub[i])
            ys += count * y0 + (4 * float(rows.sum()) + count / 2) * plane.dy
            xs += count * x0 + (4 * float(columns.sum()) + count / 2) * plane.dx
            weight += count
    if weight == 0:
        y0, x0 = stack.origins[len(stack.origins) // 2]
        return y0 + plane.rows * plane.dy / 2, x0 + plane.columns * plane.dx / 2
    return ys / weight, xs / weight


def slab_thickness(stack: Stack, members: tuple[tuple[int, ...], ...]) -> Floats:
    """Millimetres that each slab stands for: half-way to its neighbours, never more than three slice steps."""
    if len(members) < 2:
        return np.full(len(members), stack.step, np.float32)
    middle = np.array([np.mean([stack.positions[i] for i in group]) for group in members])
    limit = 3 * stack.step * max(len(group) for group in members)
    return np.asarray(np.clip(np.gradient(middle), 0, limit), np.float32)
