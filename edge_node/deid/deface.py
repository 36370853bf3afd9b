"""Head CT without the face (PS3.15 E.3.2): the anterior shell of the head becomes air, the brain stays as it is.

Seen from the front, every ray loses what lies within `SHELL_MM` behind the skin, but nothing within `MARGIN_MM` of the
cranial cavity: that is what bone encloses in a slice or in the slices around it. Where the cavity of a slice cannot be
told though it must be there, only what lies before the first bone goes. A series in which no cavity is found, that is
not axial, or is no CT, gets no mask: it is withheld rather than half done. The ears and the back of the head stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from edge_node.deid.pixels import Mask, Picture

FaceMasks = dict[str, Mask]
Volume = NDArray[np.int16]  # HU

SHELL_MM, MARGIN_MM = 32.0, 8.0
# The skull base has gaps: the front of a cavity also holds in the slices above and below it, straight for STRAIGHT_MM,
# then SLOPE mm further back for each mm of distance, so that the frontal lobes do not save the eyes.
STRAIGHT_MM, SLOPE = 8.0, 1.0
_COMPARTMENT_MM2 = 1500.0  # smaller enclosed areas are orbits, sinuses, canals
TISSUE_HU, BONE_HU = -300.0, 250.0
_GRID_MM = 2.0  # the cavity is found on a coarse grid
_CLOSE_MM = 5.0  # gaps in bone (sutures, foramina) of up to twice this are closed
_CAVITY_MM2, _CAVITY_SLICES = 3000.0, 3  # a head has so many slices with at least so much inside the skull
_HEADS = ("HEAD", "BRAIN", "SKULL", "FACE", "ORBIT", "SINUS", "NECK", "IAC", "EAR", "JAW", "MANDIBLE", "MAXILLA")


def may_show_a_face(part10: bytes) -> bool:
    """Whether a surface rendering of this object's series could show a face: CT or MR of the head, or of who knows."""
    ds = dcmread(BytesIO(part10), stop_before_pixels=True)
    if str(ds.get("Modality", "")) not in ("CT", "MR", "PT"):
        return False
    where = str(ds.get("BodyPartExamined", "") or "").upper()
    kind = "\\".join(str(part) for part in ds.get("ImageType") or ()).upper()
    return "LOCALIZER" not in kind and (not where or any(part in where for part in _HEADS))


@dataclass(frozen=True, slots=True)
class _Slice:
    sop_uid: str
    z: float
    dy: float
    dx: float
    hu: Volume


def face_masks(objects: Iterable[tuple[str, bytes]]) -> FaceMasks:
    """{SOP Instance UID: mask (rows, columns)} for a whole axial head CT series; {} where the method does not apply."""
    slices = []
    for sop_uid, part10 in objects:
        one = _slice(sop_uid, part10)
        if one is None:
            return {}
        slices.append(one)
    slices.sort(key=lambda s: s.z)
    if len(slices) < _CAVITY_SLICES or len({(s.hu.shape, s.dy, s.dx) for s in slices}) != 1:
        return {}
    volume = np.stack([s.hu for s in slices])
    gap = max(float(np.median(np.diff([s.z for s in slices]))), 0.1)
    masks = _faces(volume, gap, slices[0].dy, slices[0].dx)
    return {} if masks is None else {s.sop_uid: mask for s, mask in zip(slices, masks, strict=True)}


def _slice(sop_uid: str, part10: bytes) -> _Slice | None:
    ds = dcmread(BytesIO(part10), stop_before_pixels=True)
    try:
        row, column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        position = np.array(ds.ImagePositionPatient, float)
        dy, dx = (float(v) for v in ds.PixelSpacing)
        slope, intercept = float(ds.RescaleSlope), float(ds.RescaleIntercept)
    except (AttributeError, TypeError, ValueError):
        return None
    frames = int(ds.get("NumberOfFrames") or 1)
    axial = row[0] > 0.9 and column[1] > 0.8  # to the patient's left, and to the back; gantry tilt allowed
    if ds.get("Modality") != "CT" or not axial or frames != 1 or min(dy, dx) <= 0:
        return None
    stored = Picture(part10).plane(0)[:, :, 0]
    z = float(np.cross(row, column) @ position)
    hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return _Slice(sop_uid, z, dy, dx, hu.clip(-32768, 32767).astype(np.int16))


def _faces(volume: Volume, gap: float, dy: float, dx: float) -> NDArray[np.bool_] | None:
    """Masks for a volume (slices, rows, columns) in HU, rows from front to back; None without a cranial cavity."""
    cavity = _cavities(volume, dy, dx)
    big = cavity.sum(axis=(1, 2)) * dy * dx >= _CAVITY_MM2
    if big.sum() < _CAVITY_SLICES:
        return None
    lowest = int(np.argmax(big))
    rows = np.arange(volume.shape[1])
    tissue = volume > TISSUE_HU
    skin = np.where(tissue.any(axis=1), tissue.argmax(axis=1), volume.shape[1])  # first row of each ray
    stop = skin + round(SHELL_MM / dy)
    # Never behind the middle of the head: rays that miss the face would reach the ears.
    for i in range(len(volume)):
        lines = np.flatnonzero(tissue[i].any(axis=1))
        if len(lines):
            stop[i] = np.minimum(stop[i], lines[0] + (lines[-1] - lines[0]) // 2)
    own = np.where(cavity.any(axis=1), cavity.argmax(axis=1), 4 * volume.shape[1])
    first_inside = own.copy()
    for distance in range(1, len(volume)):
        back = round(max(0.0, distance * gap - STRAIGHT_MM) * SLOPE / dy)
        first_inside[:-distance] = np.minimum(first_inside[:-distance], own[distance:] + back)
        first_inside[distance:] = np.minimum(first_inside[distance:], own[:-distance] + back)
    side = round(MARGIN_MM / dx)
    for shift in range(-side, side + 1):
        stop = np.minimum(stop, np.roll(first_inside, shift, axis=1) - round(MARGIN_MM / dy))
    bone = volume > BONE_HU
    untold = ~big & (np.arange(len(volume)) > lowest)  # above the skull base there must be a cavity
    before_bone = np.where(bone.any(axis=1), bone.argmax(axis=1), volume.shape[1])
    stop[untold] = np.minimum(stop[untold], before_bone[untold])
    front = np.array([np.min(s[s < volume.shape[1]], initial=volume.shape[1]) for s in skin])
    masks: NDArray[np.bool_] = (rows[None, :, None] < stop[:, None, :]) & (
        rows[None, :, None] >= np.maximum(front[:, None, None] - 2, 0)
    )
    return masks


def _cavities(volume: Volume, dy: float, dx: float) -> NDArray[np.bool_]:
    """What bone encloses, slice by slice (same shape as the volume), gaps closed."""
    step_y, step_x = max(1, round(_GRID_MM / dy)), max(1, round(_GRID_MM / dx))
    rows, columns = volume.shape[1] // step_y * step_y, volume.shape[2] // step_x * step_x
    blocks = volume[:, :rows, :columns].reshape(len(volume), rows // step_y, step_y, columns // step_x, step_x)
    bone = blocks.max(axis=(2, 4)) > BONE_HU
    times = max(1, round(_CLOSE_MM / _GRID_MM))
    wall = bone
    for _ in range(times):
        wall = _grown(wall)
    outside = np.zeros_like(wall)
    outside[:, [0, -1], :] = outside[:, :, [0, -1]] = True
    outside &= ~wall
    while True:  # flood from the borders
        wider = _grown(outside) & ~wall
        if np.array_equal(wider, outside):
            break
        outside = wider
    inside = ~outside & ~wall
    least = round(_COMPARTMENT_MM2 / (step_y * dy * step_x * dx))
    inside = np.stack([_compartments(one, least) for one in inside])
    for _ in range(times):  # give back what growing the wall took, up to the bone itself
        inside = _grown(inside) & ~bone
    found = np.zeros(volume.shape, bool)
    found[:, :rows, :columns] = inside.repeat(step_y, axis=1).repeat(step_x, axis=2)
    return found


def _compartments(inside: Mask, least: int) -> Mask:
    """The connected areas of at least so many cells of one slice."""
    kept, left = np.zeros_like(inside), inside.copy()
    while left.any():
        area = np.zeros_like(inside)
        area[np.unravel_index(int(left.argmax()), left.shape)] = True
        while True:
            wider = _grown(area[None])[0] & left
            if np.array_equal(wider, area):
                break
            area = wider
        if area.sum() >= least:
            kept |= area
        left &= ~area
    return kept


def _grown(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """One step in the four directions of a slice."""
    out = mask.copy()
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    out[:, :, 1:] |= mask[:, :, :-1]
    out[:, :, :-1] |= mask[:, :, 1:]
    return out
