"""Is this a head CT in Hounsfield units at all? Asked before any model sees it: a head model gives an abdomen 1.00."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.triage.prepare import CannotJudge, Floats

BODY_HU: Final = -300.0
BONE_HU: Final = 300.0
DEEP_MM: Final = 18.0
MIN_SOFT_SHARE: Final = 0.6
METAL_HU: Final = 2400.0
SOFT_HU: Final = -200.0  # air is no cavity
CAVITY_ML: Final = (450.0, 2300.0)
WIDTH_MM: Final = (95.0, 195.0)
LENGTH_MM: Final = (115.0, 232.0)
BRAIN_HU: Final = (12.0, 55.0)
MIN_AIR: Final = 0.08
MIN_SKULL_DENSITY_HU: Final = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class HeadLikeness:
    """What was measured; `cavity` is bool (slabs, size, size), `cavity_ml` its volume, the rest in HU, mm and 0..1."""

    cavity: NDArray[np.bool_]
    cavity_ml: float
    brain_hu: float
    width_mm: float
    length_mm: float
    air: float
    bone_hu: float
    warnings: tuple[str, ...]


def cranial_cavity(hu: Floats, pixel_mm: float) -> NDArray[np.bool_]:
    """Pixels inside the skull, bool (slabs, size, size), from slabs in HU.

    Inside means: bone in all four directions of the slice, or in three of them deep below the skin, so that a skull
    with a craniectomy still has an inside while the temporal muscle has none. Slabs whose enclosed part is largely
    fat, air or partial bone (face, neck, the last of the vertex) have no cavity at all.
    """
    body = hu > BODY_HU
    # A head holder is a thin shell in air: what has too little body around it is not the head.
    head = body & (_box_mean(body, round(6 / pixel_mm)) > 0.45)
    bone = (hu > BONE_HU) & head
    sides = np.zeros(hu.shape, np.uint8)
    for axis in (1, 2):
        sides += np.logical_or.accumulate(bone, axis=axis)
        sides += np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis=axis), axis)
    deep = head.copy()
    for axis in (1, 2):
        for shift in (-1, 1):
            deep &= np.roll(head, shift * round(DEEP_MM / pixel_mm), axis)
    surrounded = (sides == 4) & ~bone
    soft = surrounded & (hu > -20) & (hu < 110)
    cranial = soft.sum((1, 2)) >= MIN_SOFT_SHARE * np.maximum(surrounded.sum((1, 2)), 1)
    inside: NDArray[np.bool_] = ((sides == 4) | ((sides == 3) & deep)) & ~bone & (hu > SOFT_HU) & cranial[:, None, None]
    return inside


def _box_mean(mask: NDArray[np.bool_], reach: int) -> Floats:
    """Share of true pixels in the square of `reach` pixels each way around every pixel of a slab."""
    side = 2 * reach + 1
    padded = np.pad(mask.astype(np.float32), ((0, 0), (reach + 1, reach), (reach + 1, reach)))
    total = padded.cumsum(1).cumsum(2)
    sums = total[:, side:, side:] - total[:, :-side, side:] - total[:, side:, :-side] + total[:, :-side, :-side]
    return np.asarray(sums / side**2, np.float32)


def check_head(hu: Floats, pixel_mm: float, thickness_mm: NDArray[np.float32]) -> HeadLikeness:
    """Measure slabs in HU (slabs, size, size); raises `CannotJudge` when they are not a head in plausible HU."""
    if not np.isfinite(hu).all():
        raise CannotJudge("quality.not-finite", "the prepared volume has values that are not finite")
    bone = hu > BONE_HU
    air = float(np.count_nonzero(hu < -800) / hu.size)
    if air < MIN_AIR:
        raise CannotJudge("quality.no-air", "there is hardly any air around the object, or the values are not in HU")
    if np.count_nonzero(bone) < 1000:
        raise CannotJudge("quality.no-skull", "no bone to speak of")
    bone_hu = float(np.percentile(hu[bone], 90))
    if bone_hu < MIN_SKULL_DENSITY_HU:
        raise CannotJudge("quality.no-skull", "the densest parts are softer than a skull, or the values are not in HU")
    inside = cranial_cavity(hu, pixel_mm)
    soft = inside & (hu > -20) & (hu < 110)
    weights = thickness_mm * np.float32(pixel_mm * pixel_mm / 1000)
    cavity_ml = float((soft.sum((1, 2)) * weights).sum())
    if not CAVITY_ML[0] <= cavity_ml <= CAVITY_ML[1]:
        raise CannotJudge("quality.not-a-head", f"{cavity_ml:.0f} ml of soft tissue inside bone is no cranial cavity")
    biggest = int(soft.sum((1, 2)).argmax())
    length_mm, width_mm = (_extent(bone[biggest], axis) * pixel_mm for axis in (1, 0))
    if not (WIDTH_MM[0] <= width_mm <= WIDTH_MM[1] and LENGTH_MM[0] <= length_mm <= LENGTH_MM[1]):
        raise CannotJudge("quality.not-a-head", f"bone of {width_mm:.0f} x {length_mm:.0f} mm is no skull")
    brain_hu = float(np.median(hu[soft]))
    if not BRAIN_HU[0] <= brain_hu <= BRAIN_HU[1]:
        raise CannotJudge("quality.not-hounsfield", f"median of {brain_hu:.0f} inside the skull is not brain in HU")
    warnings: list[str] = []
    if bone[:, 0].any() or bone[:, -1].any() or bone[:, :, 0].any() or bone[:, :, -1].any():
        warnings.append("quality.border: dense material reaches the edge of the model's field of view")
    if np.count_nonzero(hu > METAL_HU) > 50:
        warnings.append("quality.metal: material denser than bone, expect streaks")
    return HeadLikeness(inside, cavity_ml, brain_hu, width_mm, length_mm, air, bone_hu, tuple(warnings))


def _extent(bone: NDArray[np.bool_], axis: int) -> int:
    """Pixels from the first to the last line with bone, lone specks left out."""
    lines = np.flatnonzero(bone.sum(axis) >= 3)
    return int(lines[-1] - lines[0] + 1) if lines.size else 0
