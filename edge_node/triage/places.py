"""From a map of the model back to the pixels as they were stored: the box and the heat of a key image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.finding import Mask
from edge_node.triage import picture
from edge_node.triage.prepare import Floats, Stack


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of a map in the canonical plane: (y, x) mm of the outer corner of the first one, and their size."""

    start: tuple[float, float]
    cell_mm: tuple[float, float]


def stored_box(hot: NDArray[np.bool_], stack: Stack, index: int, grid: Grid) -> tuple[int, int, int, int]:
    """Bounding box of hot cells in stored pixels of slice `index`: top, left, bottom, right (exclusive)."""
    plane, origin = stack.plane, stack.origins[index]
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))

    def pixel(cell: float, axis: int, step: float, count: int) -> int:
        place = grid.start[axis] + cell * grid.cell_mm[axis] - origin[axis]
        return int(np.clip(round(place / step), 0, count))

    return plane.stored_box(
        (
            pixel(rows[0], 0, plane.dy, plane.rows),
            pixel(columns[0], 1, plane.dx, plane.columns),
            pixel(rows[-1] + 1, 0, plane.dy, plane.rows),
            pixel(columns[-1] + 1, 1, plane.dx, plane.columns),
        )
    )


def stored_heat(cells: Floats, stack: Stack, index: int, grid: Grid) -> Floats:
    """A map of 0..1 as a smooth one on the stored matrix of slice `index`."""
    plane, (y0, x0) = stack.plane, stack.origins[index]
    rows, columns = cells.shape
    wy = picture.linear_weights(plane.rows, plane.dy, y0, rows, grid.cell_mm[0], grid.start[0])
    wx = picture.linear_weights(plane.columns, plane.dx, x0, columns, grid.cell_mm[1], grid.start[1])
    return plane.stored(picture.smooth_heat(cells, wy, wx))


def mask_of(heat: Floats) -> Mask | None:
    """The stored pixels within half of the strongest mark, None when there is no mark."""
    marked = heat >= heat.max() / 2
    if not heat.max() > 0:
        return None
    rows, columns = heat.shape
    return Mask(rows, columns, np.packbits(marked, bitorder="little").tobytes())
