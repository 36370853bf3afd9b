"""Models that look at a volume in overlapping patches and answer with classes for each voxel.

The stack is resampled to the card's spacing (area-weighted mean along each axis, air outside of the images), cut into
patches that share the card's overlap, and put together again as the weighted mean of what the patches say: equal
weights, or a Gaussian that trusts the middle of a patch more than its edge. Nothing is kept but one map a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from edge_node.triage.card_tables import PatchesTable, Triple
from edge_node.triage.model import LoadedModel
from edge_node.triage.places import Grid
from edge_node.triage.prepare import AIR, CannotJudge, Floats, Shorts, Stack, area_weights
from edge_node.triage.score import activated

MOST_VOXELS: Final = 128 << 20  # of the resampled volume and the maps together, four bytes each
PATCHES_AT_ONCE: Final = 4
_SIGMA: Final = 0.125  # of the extent of a patch, as MONAI's sliding window has it


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """`hu` is int16 (z, y, x) on the card's spacing, canonical; `start` mm of its first outer corner."""

    hu: Shorts
    start: tuple[float, float, float]
    spacing: tuple[float, float, float]

    @property
    def grid(self) -> Grid:
        """Its voxels in the plane."""
        return Grid(self.start[1:], self.spacing[1:])

    def slice_of(self, stack: Stack, k: int) -> int:
        """The slice of the stack nearest to layer `k`."""
        place = self.start[0] + (k + 0.5) * self.spacing[0]
        return int(np.abs(np.array(stack.positions) - place).argmin())


def resample(
    stack: Stack, volume: Shorts, spec: PatchesTable, maps: int, give_way: Callable[[], None] = lambda: None
) -> Resampled:
    """Canonical slices, int16 (slices, rows, columns), on the card's spacing. Raises `CannotJudge`
    ``geometry.too-large``; `maps` is how many maps of the same size will be needed; `give_way` is called before each
    slice."""
    plane, spacing = stack.plane, spec.spacing_mm
    low = [min(o[axis] for o in stack.origins) for axis in (0, 1)]
    high = [
        max(o[0] for o in stack.origins) + plane.rows * plane.dy,
        max(o[1] for o in stack.origins) + plane.columns * plane.dx,
    ]
    # Each slice stands for the space half-way to its neighbours.
    middles = np.array(stack.positions, np.float64)
    edges = np.concatenate(
        ([middles[0] - stack.step / 2], (middles[1:] + middles[:-1]) / 2, [middles[-1] + stack.step / 2])
    )
    start = (float(edges[0]), low[0], low[1])
    extent = (float(edges[-1] - edges[0]), high[0] - low[0], high[1] - low[1])
    size = tuple(max(1, round(e / s)) for e, s in zip(extent, spacing, strict=True))
    if int(np.prod(size, dtype=np.int64)) * (maps + 1) > MOST_VOXELS:
        raise CannotJudge("geometry.too-large", "the volume at the model's spacing is larger than the node judges")
    total = np.zeros(size, np.float32)
    # As `area_weights`, for slices of uneven extent.
    tops = edges[0] + spacing[0] * np.arange(size[0] + 1)
    shared = np.minimum(tops[1:, None], edges[None, 1:]) - np.maximum(tops[:-1, None], edges[None, :-1])
    along = np.clip(shared, 0, None).astype(np.float32)
    along /= np.maximum(along.sum(1, keepdims=True), np.float32(1e-6))
    for i, (y0, x0) in enumerate(stack.origins):
        give_way()
        wy = area_weights(plane.rows, plane.dy, y0, size[1], spacing[1], low[0])
        wx = area_weights(plane.columns, plane.dx, x0, size[2], spacing[2], low[1])
        image = wy @ (volume[i].astype(np.float32) - np.float32(AIR)) @ wx.T
        for k in np.flatnonzero(along[:, i]):
            total[k] += along[k, i] * image
    return Resampled(np.rint(total + np.float32(AIR)).astype(np.int16), start, spacing)


def starts(length: int, patch: int, overlap: float) -> list[int]:
    """Where patches begin along one axis: the first at 0, the last flush with the end, neighbours sharing `overlap`."""
    if length <= patch:
        return [0]
    step = max(1, round(patch * (1 - overlap)))
    return [*range(0, length - patch, step), length - patch]


def blend_weights(patch: Triple, blend: str) -> Floats:
    """Weight of each voxel of a patch (z, y, x), never zero."""
    if blend == "mean":
        return np.ones(patch, np.float32)
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (_SIGMA * n)) ** 2) for n in patch]
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.asarray(np.maximum(weights, 1e-3), np.float32)


def class_maps(model: LoadedModel, made: Resampled, deadline: float, urgency: float) -> dict[str, Floats]:
    """Probability (z, y, x) of every finding of the card, by its short word. Raises as `LoadedModel.run`."""
    while True:
        variant = model.variant
        maps = _one_pass(model, made, deadline, urgency)
        if model.variant == variant:  # else the device changed in the middle: two variants must not share one answer
            return maps


def _one_pass(model: LoadedModel, made: Resampled, deadline: float, urgency: float) -> dict[str, Floats]:
    table = model.card.slabs_input
    spec = table.patches
    assert spec is not None
    patch, size = spec.patch, made.hu.shape
    padded = [(0, max(0, p - n)) for p, n in zip(patch, size, strict=True)]
    hu = np.pad(made.hu, padded, constant_values=int(AIR))
    weights = blend_weights(patch, spec.blend)
    sums = {finding.short: np.zeros(hu.shape, np.float32) for finding in model.card.file.findings}
    total = np.zeros(hu.shape, np.float32)
    corners = list(product(*(starts(n, p, spec.overlap) for n, p in zip(hu.shape, patch, strict=True))))
    for at in range(0, len(corners), PATCHES_AT_ONCE):
        boxes = [
            tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
            for corner in corners[at:][:PATCHES_AT_ONCE]
        ]
        tensor = np.stack([_windowed(hu[box], spec) for box in boxes]).astype(table.dtype)
        outputs = model.run({table.name: tensor}, deadline, urgency)
        said = {
            name: activated(outputs[name], model.card.output(name))
            for name in {finding.output for finding in model.card.file.findings}
        }
        for number, box in enumerate(boxes):
            total[box] += weights
            for finding in model.card.file.findings:
                sums[finding.short][box] += weights * said[finding.output][number, finding.index]
    inside = tuple(slice(0, n) for n in size)
    return {short: np.asarray(one[inside] / total[inside], np.float32) for short, one in sums.items()}


def _windowed(hu: Shorts, spec: PatchesTable) -> Floats:
    """Channels (channels, z, y, x) in 0..1."""
    values = hu.astype(np.float32)
    return np.stack([np.clip((values - c.low) / (c.high - c.low), 0, 1) for c in spec.channels])
