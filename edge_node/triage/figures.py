"""How well a model tells: AUROC, shares, predictive values and calibration, each with an interval. Plain numpy.

A figure without an interval is an opinion: every function here gives both, and none gives certainty from few cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Truth = NDArray[np.bool_]

LEVEL: Final = 0.95
BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval at `LEVEL`; all three NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there was anything to estimate from."""
        return math.isfinite(self.value)


UNKNOWN: Final = Estimate(math.nan, math.nan, math.nan)


def z_of(level: float = LEVEL) -> float:
    """Two-sided normal quantile."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(hits: int, count: int, level: float = LEVEL) -> Estimate:
    """A share with Wilson's score interval (J Am Stat Assoc 1927;22:209), sound for few cases and near 0 and 1."""
    if not count:
        return UNKNOWN
    z, p = z_of(level), hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    # At the ends the formula is exact, its rounding is not.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return Estimate(p, low, 1.0 if hits == count else min(1.0, middle + half))


def placements(scores: Numbers, truth: Truth) -> tuple[Numbers, Numbers]:
    """DeLong's structural components: for each positive the share of others it beats (ties half), for each other the
    share of positives that beat it. O(n log n) by midranks (Sun & Xu, IEEE Signal Process Lett 2014;21:1389)."""
    yes, no = scores[truth], scores[~truth]
    every = np.concatenate((yes, no))
    together = _midranks(every)
    m, n = len(yes), len(no)
    return (together[:m] - _midranks(yes)) / n, 1 - (together[m:] - _midranks(no)) / m


def auroc(scores: Numbers, truth: Truth, level: float = LEVEL) -> Estimate:
    """Area under the ROC curve (Mann-Whitney) with DeLong's interval (Biometrics 1988;44:837).

    A perfect or perfectly wrong separation has no variance to estimate from: there the interval is Wilson's for the
    smaller of both groups, which is wider than the truth rather than empty. Unknown without two cases of each kind.
    """
    m, n = int(truth.sum()), int((~truth).sum())
    if min(m, n) < 2:
        return UNKNOWN
    v_yes, v_no = placements(scores, truth)
    area = float(v_yes.mean())
    variance = float(v_yes.var(ddof=1) / m + v_no.var(ddof=1) / n)
    if variance <= 1e-18:
        side = wilson(round(area * min(m, n)), min(m, n), level)
        return Estimate(area, side.low, side.high)
    half = z_of(level) * math.sqrt(variance)
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))


def auroc_difference(first: Numbers, second: Numbers, truth: Truth, level: float = LEVEL) -> Estimate:
    """Area of `first` less that of `second` on the same cases, with the paired interval of DeLong."""
    m, n = int(truth.sum()), int((~truth).sum())
    if min(m, n) < 2:
        return UNKNOWN
    (a_yes, a_no), (b_yes, b_no) = placements(first, truth), placements(second, truth)
    d_yes, d_no = a_yes - b_yes, a_no - b_no
    difference = float(d_yes.mean())
    half = z_of(level) * math.sqrt(float(d_yes.var(ddof=1) / m + d_no.var(ddof=1) / n))
    return Estimate(difference, difference - half, difference + half)


def ppv(sensitive: tuple[int, int], specific: tuple[int, int], prevalence: float, level: float = LEVEL) -> Estimate:
    """Positive predictive value at a prevalence other than that of the cases, from (hits, count) of both shares.

    Interval: adjusted logit of Mercaldo, Lau & Zhou (Stat Med 2007;26:2170), sound where no case was missed.
    """
    (hits, yes), (spared, no) = sensitive, specific
    if not yes or not no or not 0 < prevalence < 1:
        return UNKNOWN
    z = z_of(level)
    plain = prevalence * hits / yes
    false = (1 - prevalence) * (no - spared) / no
    value = plain / (plain + false) if plain + false else math.nan
    se, sp = ((x + z * z / 2) / (count + z * z) for x, count in ((hits, yes), (spared, no)))
    odds = math.log(prevalence * se / ((1 - prevalence) * (1 - sp)))
    half = z * math.sqrt((1 - se) / (se * (yes + z * z)) + sp / ((1 - sp) * (no + z * z)))
    low, high = (1 / (1 + math.exp(-(odds + sign * half))) for sign in (-1, 1))
    return Estimate(value, min(low, value), max(high, value)) if math.isfinite(value) else UNKNOWN


def alert_share(sensitive: Estimate, specific: Estimate, prevalence: float) -> Estimate:
    """Share of studies that are flagged at a prevalence; the interval joins the worst and best ends of both."""
    values = [
        prevalence * se + (1 - prevalence) * (1 - sp)
        for se, sp in (
            (sensitive.value, specific.value),
            (sensitive.low, specific.high),
            (sensitive.high, specific.low),
        )
    ]
    return Estimate(*values)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the calibration plot: mean of what was said, share of what was true."""

    said: float
    true: Estimate
    count: int


def reliability(p: Numbers, truth: Truth, bins: int = BINS) -> list[Bin]:
    """Bins of equal width over 0..1; empty ones are left out."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return [
        Bin(float(p[which == b].mean()), wilson(int(truth[which == b].sum()), count), count)
        for b in range(bins)
        if (count := int((which == b).sum()))
    ]


def ece(p: Numbers, truth: Truth, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of what was said from what was true, by bin (Naeini et al. 2015)."""
    made = reliability(p, truth, bins)
    return sum(one.count * abs(one.said - one.true.value) for one in made) / len(p) if len(p) else math.nan


def brier(p: Numbers, truth: Truth) -> float:
    """Mean squared distance of the probability from what was true."""
    return float(np.mean((p - truth) ** 2)) if len(p) else math.nan


def roc(scores: Numbers, truth: Truth) -> list[tuple[float, float]]:
    """Corners (false alarm rate, sensitivity) of the ROC curve, from (0, 0) to (1, 1); ties are one step."""
    order = np.argsort(-scores, kind="stable")
    sorted_truth, ends = truth[order], np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hit, false = np.cumsum(sorted_truth)[ends], np.cumsum(~sorted_truth)[ends]
    yes, no = max(1, int(truth.sum())), max(1, int((~truth).sum()))
    return [(0.0, 0.0), *((float(f) / no, float(h) / yes) for h, f in zip(hit, false, strict=True))]


def _midranks(values: Numbers) -> Numbers:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], np.float64)
