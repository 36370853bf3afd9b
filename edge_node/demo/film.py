"""What is drawn on a synthetic radiograph: smooth shapes and tubes on a grid in centimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """Centimetres of every pixel, (rows, 1) and (1, columns): x to the patient's left, y to the feet."""

    x: Floats
    y: Floats
    step: float

    @classmethod
    def of(cls, rng: np.random.Generator, rows: int, columns: int, field_cm: float) -> Canvas:
        """A film `field_cm` high, the patient a little off its middle."""
        step = field_cm / rows
        x = (np.arange(columns) - (columns - 1) / 2) * step - rng.normal(0, 0.7)
        y = (np.arange(rows) - (rows - 1) / 2) * step - rng.normal(0.6, 1.2)
        return cls(x.astype(np.float32)[None, :], y.astype(np.float32)[:, None], step)

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def blob(self, at: tuple[float, float], radii: tuple[float, float], turn: float) -> Floats:
        """1 in the middle of an ellipse, 0 at its edge, negative outside; `turn` in radians."""
        dx, dy = self.x - np.float32(at[0]), self.y - np.float32(at[1])
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u, v = (dx * c + dy * s) / np.float32(radii[0]), (dy * c - dx * s) / np.float32(radii[1])
        return np.asarray(1 - u * u - v * v, np.float32)

    def tube(
        self, out: Floats, start: NDArray[np.float64], end: NDArray[np.float64], radius: float, value: float
    ) -> None:
        """The profile of a tube of `value` in its middle, drawn into `out` by its maximum."""
        reach = max(radius, self.step) + self.step
        (x0, y0), (x1, y1) = np.minimum(start, end) - reach, np.maximum(start, end) + reach
        left, right = np.searchsorted(self.x[0], (x0, x1))
        top, bottom = np.searchsorted(self.y[:, 0], (y0, y1))
        if left >= right or top >= bottom:
            return
        dx, dy = self.x[:, left:right] - start[0], self.y[top:bottom] - start[1]
        along = end - start
        length = float(along @ along) or 1.0
        t = np.clip((dx * along[0] + dy * along[1]) / length, 0, 1)
        off = np.hypot(dx - t * along[0], dy - t * along[1])
        # Thinner than a pixel: as wide as one, and fainter.
        wide = max(radius, self.step * 0.6)
        profile = np.sqrt(np.clip(1 - (off / wide) ** 2, 0, 1)) * (value * radius / wide)
        part = out[top:bottom, left:right]
        np.maximum(part, profile.astype(np.float32), out=part)

    def curve(
        self,
        rng: np.random.Generator,
        out: Floats,
        at: NDArray[np.float64],
        length: float,
        radius: float,
        value: float,
        angle: float | None = None,
    ) -> None:
        """A wire or a thin tube that wanders."""
        angle = float(rng.uniform(0, 2 * np.pi)) if angle is None else angle
        for _ in range(int(length)):
            to = at + np.array([np.cos(angle), np.sin(angle)])
            self.tube(out, at, to, radius, value)
            at, angle = to, angle + rng.normal(0, 0.12)


def ramp(depth: Any, edge: float) -> Floats:
    """0..1 across an edge `edge` cm to either side."""
    return np.asarray(np.clip(depth / np.float32(2 * edge) + np.float32(0.5), 0, 1), np.float32)


def blurred(image: Floats, reach: int) -> Floats:
    """Mean of the square of `reach` pixels each way, edges repeated."""
    if reach < 1:
        return image
    side = 2 * reach + 1
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (reach + 1, reach)
        total = np.pad(image, padding, mode="edge").astype(np.float64).cumsum(axis)
        upper = np.take(total, range(side, total.shape[axis]), axis)
        lower = np.take(total, range(total.shape[axis] - side), axis)
        image = ((upper - lower) / side).astype(np.float32)
    return image
