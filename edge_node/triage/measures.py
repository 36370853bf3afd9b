"""Figures of input quality: what a technologist could still mend while the patient is there. No model, no verdict.

Measures of the volume are taken from a few slices as they were measured, measures of the head from the model's slabs.
Defaults come from reading one real head CT and phantoms; a card may set its own (`[quality]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.quality import Score
from edge_node.triage.prepare import CannotJudge, Floats, Plane, Shorts, Stack, missing_slices
from edge_node.triage.quality import METAL_HU, HeadLikeness

# name: unit, limit, whether more is worse, sentence
MEASURES: Final[dict[str, tuple[str, float, bool, str]]] = {
    "body-part": ("", 0, True, "the header names no body part, or another than the pixels show"),
    "laterality": ("", 0, True, "the header does not say which side of a paired body part it is"),
    "missing-slices": ("", 0, True, "{value:.0f} slices seem to be missing"),
    "spacing": ("", 0.25, True, "the distance between slices varies by {value:.0%}"),
    "truncated": ("", 0.15, True, "the body reaches {value:.0%} of the edge of the image"),
    "clipping": ("", 0.002, True, "{value:.1%} of the body is at the end of the scale"),
    "coarseness": ("HU", 4, True, "grey values are {value:.0f} HU apart"),
    "noise": ("HU", 25, True, "noise of {value:.0f} HU"),
    "blur": ("mm", 3, True, "edges are {value:.1f} mm wider than the pixels explain: motion, or blurred on the way"),
    "off-centre": ("mm", 45, True, "the body lies {value:.0f} mm beside the middle of the image"),
    "motion": ("mm", 6, True, "neighbouring slices are {value:.0f} mm apart sideways: motion"),
    "rotation": ("deg", 25, True, "the head is turned by {value:.0f} degrees"),
    "vertex": ("", 0.6, True, "the top slice still shows {value:.0%} of the widest section: the vertex is not covered"),
    "metal": ("ml", 0.5, True, "{value:.1f} ml denser than bone, expect streaks"),
    "streaks": ("", 0.25, True, "{value:.0%} of one section is darker than fluid: streaks, or air"),
}
# So bad that no model is asked.
REFUSED: Final[dict[str, float]] = {
    "truncated": 0.6,
    "clipping": 0.3,
    "coarseness": 8,
    "noise": 50,
    "blur": 8,
}
_LOOKED_AT: Final = 8  # slices
_BODY_HU: Final = -300


def score(name: str, value: float, limits: Mapping[str, float]) -> Score:
    """One measure with its limit, the card's or the default."""
    unit, limit, rising, text = MEASURES[name]
    made = Score(name, round(value, 4), unit, limits.get(name, limit), rising, "")
    return made if made.good else Score(name, made.value, unit, made.limit, rising, text.format(value=value))


def volume_scores(stack: Stack, coarse: Plane, hu: Shorts, limits: Mapping[str, float]) -> tuple[Score, ...]:
    """Measures of a volume: int16 HU, canonical (slices, rows, columns) with the plane `coarse`, in stack order."""
    steps = np.diff(stack.positions)
    step = stack.step
    few = hu[np.unique(np.linspace(0.2, 0.8, _LOOKED_AT) * (len(hu) - 1)).astype(int)]
    body = few > _BODY_HU
    values = {
        "missing-slices": float(missing_slices(stack.positions).sum()),
        "spacing": float(np.abs(steps - step).max() / step),
        "truncated": _edge_share(body),
        "clipping": float((few[body] >= 3071).mean()) if body.any() else 0.0,
        "coarseness": _coarseness(few),
        "noise": _noise(few),
        "blur": _edge_width(few, coarse.dx),
        "off-centre": _off_centre(body, coarse),
    }
    return tuple(score(name, value, limits) for name, value in values.items())


def head_scores(
    hu: Floats, head: HeadLikeness, pixel_mm: float, thickness_mm: NDArray[np.float32], limits: Mapping[str, float]
) -> tuple[Score, ...]:
    """Measures of a head in slabs, (slabs, size, size) HU, canonical."""
    soft = head.cavity & (hu < 110)
    areas = soft.sum((1, 2)).astype(np.float64)
    wide = areas > 0.4 * areas.max()
    metal = (hu > METAL_HU).sum((1, 2)) * thickness_mm * (pixel_mm * pixel_mm / 1000)
    dark = (head.cavity & (hu < -20)).sum((1, 2)) / np.maximum(head.cavity.sum((1, 2)), 1)
    values = {
        "motion": _jump(soft, wide) * pixel_mm,
        "rotation": _turn(soft[int(areas.argmax())]),
        "vertex": float(areas[-1] / areas.max()),
        "metal": float(metal.sum()),
        "streaks": float(dark[wide].max()),
    }
    return tuple(score(name, value, limits) for name, value in values.items())


def refuse(scores: tuple[Score, ...], refused: Mapping[str, float]) -> None:
    """Raises `CannotJudge` ``quality.NAME`` for a measure so bad that no honest answer can come of it."""
    for one in scores:
        worst = refused.get(one.name, REFUSED.get(one.name))
        if worst is not None and one.value > worst:
            raise CannotJudge(f"quality.{one.name}", one.text or MEASURES[one.name][3].format(value=one.value))


def _edge_share(body: NDArray[np.bool_]) -> float:
    """Largest share of body on the longest of the four edges; the bottom edge is left to the table."""
    edges = (body[:, 0].mean(1), body[:, :, 0].mean(1), body[:, :, -1].mean(1))
    return float(max(np.median(edge) for edge in edges))


def _coarseness(hu: Shorts) -> float:
    """Median distance of neighbouring grey values in use from fat to bone; 0 when there are too few to tell."""
    values = np.unique(hu[(hu >= -200) & (hu < 400)])
    return float(np.median(np.diff(values))) if len(values) > 8 else 0.0


def _noise(hu: Shorts) -> float:
    """Standard deviation of soft tissue: neighbouring pixels differ by noise more than by anatomy."""
    tissue = (hu > -50) & (hu < 130)
    pairs = tissue[:, :, 1:] & tissue[:, :, :-1]
    steps = np.diff(hu, axis=2)[pairs]
    return float(1.4826 * np.median(np.abs(steps)) / np.sqrt(2)) if steps.size else 0.0


def _edge_width(hu: Shorts, dx: float) -> float:
    """Millimetres over which air becomes body at the outline, median over lines, beyond the three pixels that a sharp
    edge takes when it is crossed aslant."""
    lines = hu[:, ::4].reshape(-1, hu.shape[2])
    body = lines > _BODY_HU
    at = body.argmax(1)
    here = body.any(1) & (at >= 4) & (at < lines.shape[1] - 4)
    if np.count_nonzero(here) < 8:
        return 0.0
    around = lines[here].astype(np.float32)[np.arange(here.sum())[:, None], at[here][:, None] + np.arange(-4, 5)]
    rise = np.clip(around.max(1) - around.min(1), 1, None)
    steepest = np.clip(np.diff(around, axis=1).max(1), 1, None)
    return max(0.0, float(np.median(rise / steepest)) - 3) * dx


def _off_centre(body: NDArray[np.bool_], plane: Plane) -> float:
    """Millimetres from the middle of the image to the middle of the body, sideways."""
    if not body.any():
        return 0.0
    columns = np.flatnonzero(body.sum((0, 1)) > 0.02 * body.shape[0] * body.shape[1])
    return float(abs(columns.mean() - (body.shape[2] - 1) / 2) * plane.dx) if columns.size else 0.0


def _jump(soft: NDArray[np.bool_], wide: NDArray[np.bool_]) -> float:
    """How far, in pixels, the middle of a slab lies beside that of its two neighbours, at worst."""
    slabs = np.flatnonzero(wide)
    if len(slabs) < 3:
        return 0.0
    middle = np.array([[np.nonzero(soft[k])[axis].mean() for axis in (0, 1)] for k in slabs])
    away = middle[1:-1] - (middle[:-2] + middle[2:]) / 2
    return float(np.hypot(*away.T).max())


def _turn(soft: NDArray[np.bool_]) -> float:
    """Degrees between the long axis of a section and front to back; 0 for a round one."""
    y, x = np.nonzero(soft)
    spread = np.cov(np.stack((y, x)).astype(np.float64))
    sizes, axes = np.linalg.eigh(spread)
    if sizes[1] < 1.15 * sizes[0]:
        return 0.0
    return float(np.degrees(np.arctan2(abs(axes[1, 1]), abs(axes[0, 1]))))
