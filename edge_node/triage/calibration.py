"""Calibration of probabilities: what a card's operating point declares, and fits of it from cases with known truth.

A card has Platt's slope and offset on the logit scale (a temperature T is slope 1 / T, offset 0) and, after that,
isotonic corners between which is interpolated. Both keep the order of any two studies, so no ROC curve changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Corners = Sequence[tuple[float, float]]


def corrected(p: float, corners: Corners) -> float:
    """A probability moved along the isotonic corners (said, true); as it is without corners."""
    if not corners:
        return p
    said, true = zip(*corners, strict=True)
    return float(np.interp(p, said, true))


def corners_fault(corners: Corners) -> str:
    """Why these are no isotonic corners, "" if they are: within 0..1, `said` rising, `true` never falling."""
    if any(not (0 <= x <= 1 and 0 <= y <= 1) for x, y in corners):
        return "isotonic corners lie within 0 and 1"
    if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(corners)):
        return "isotonic corners rise: first by first, second never falling"
    return "isotonic needs two corners or none" if len(corners) == 1 else ""


def isotonic(p: Numbers, truth: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Corners by pooling adjacent violators (Ayer et al., Ann Math Stat 1955;26:641), the ends at 0 and 1.

    Blocks are told by their mean and smoothed as (true + 0.5) / (count + 1): no block says 0 or 1 for certain.
    """
    blocks: list[list[float]] = []  # sum of p, sum of truth, count
    for at in np.argsort(p, kind="stable"):
        blocks.append([float(p[at]), float(truth[at]), 1.0])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    corners: list[tuple[float, float]] = []
    for said, true, count in blocks:
        x, y = round(said / count, 6), round((true + 0.5) / (count + 1), 6)
        if not corners or x > corners[-1][0]:
            corners.append((x, max(y, corners[-1][1] if corners else 0.0)))
    if not corners:
        return []
    first = [] if corners[0][0] <= 0 else [(0.0, corners[0][1])]
    last_one = [] if corners[-1][0] >= 1 else [(1.0, corners[-1][1])]
    return [*first, *corners, *last_one]


def temperature(p: Numbers, truth: NDArray[np.bool_]) -> float:
    """The T whose division of the logits makes the truth most likely, within 0.05 and 20 (Guo et al. 2017)."""
    q = np.clip(p, 1e-6, 1 - 1e-6)
    logits = np.log(q / (1 - q))

    def loss(log_t: float) -> float:
        z = logits / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - truth * z))

    low, high, golden = np.log(0.05), np.log(20.0), (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if loss(a) <= loss(b) else (a, high)
    return float(np.exp((low + high) / 2))
