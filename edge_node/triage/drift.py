"""Whether what comes in and what a model says still is what it was: tests with a stated rate of false alarms.

Results are looked at in windows that share no result. Each window may give a false alarm with a probability of at
most `level`, however many things are tested in it and however often it is looked at while it fills: so one false alarm
is expected in 1 / level windows, not one a week.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

FEWEST: Final = 30  # reference results below which nothing is tested
DRAWS: Final = 9999
PSI_SOME: Final = 0.1
PSI_MUCH: Final = 0.25
_FLOOR: Final = 0.5  # a count, so that an empty bin is no infinite change


@dataclass(frozen=True, slots=True)
class Seen:
    """Results of one kind, one entry each: scores 0..1 of what was judged, flags, words and numbers of the input.

    `weights` count for a reference of other prevalence than the site's; empty means that each counts once.
    """

    scores: Sequence[float]
    flagged: Sequence[bool]
    words: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Sequence[float]]
    weights: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison: `p` is its p-value, `allowed` what is an alarm, `psi` how large the change is."""

    what: str
    kind: str
    p: float
    allowed: float
    psi: float
    before: str
    now: str
    value: float | None = None  # of the window: rate or median
    expected: tuple[float, float] | None = None  # bounds of the rate, or what 80 % of the reference lies within

    @property
    def alarm(self) -> bool:
        """Whether this differs by more than chance allows."""
        return self.p <= self.allowed

    @property
    def size(self) -> str:
        """The change in words, by the usual bounds of the population stability index."""
        return "large" if self.psi >= PSI_MUCH else "moderate" if self.psi >= PSI_SOME else "small"


def compare(reference: Seen, window: Seen, level: float) -> list[Test]:
    """Every test of one full window, the flag rate with half of `level`, the others sharing the other half equally."""
    tests = [flag_rate(reference, window.flagged, level / 2)]
    weights = np.asarray(reference.weights or np.ones(len(reference.scores)), np.float64)
    columns = [("score", reference.scores, window.scores)]
    columns += [(name, reference.numbers[name], window.numbers[name]) for name in _both(reference, window, "numbers")]
    words = _both(reference, window, "words")
    allowed = level / 2 / max(1, len(columns) + len(words))
    for name, before, now in columns:
        a, b = np.asarray(before, np.float64), np.asarray(now, np.float64)
        w = weights if len(weights) == len(a) else np.ones(len(a))
        if len(a) < FEWEST or not len(b):
            continue
        (low, middle, high), (b_low, b_middle, b_high) = _quantiles(a, w), _quantiles(b, np.ones(len(b)))
        tests.append(
            Test(
                name,
                "Kolmogorov-Smirnov",
                ks(a, b, w),
                allowed,
                psi_of_numbers(a, b, w),
                f"median {middle:.3g} ({low:.3g} to {high:.3g})",
                f"median {b_middle:.3g} ({b_low:.3g} to {b_high:.3g})",
                b_middle,
                (low, high),
            )
        )
    for name in words:
        before_words, now_words = reference.words[name], window.words[name]
        if len(before_words) < FEWEST or not now_words:
            continue
        count, other = Counter(before_words), Counter(now_words)
        keys = sorted({*count, *other})
        counts, others = (np.array([c[key] for key in keys], np.int64) for c in (count, other))
        tests.append(
            Test(
                name,
                f"chi-square, {DRAWS} permutations",
                mix(counts, others),
                allowed,
                psi(counts.astype(np.float64), others.astype(np.float64)),
                _most(count),
                _most(other),
            )
        )
    return tests


def flag_rate(reference: Seen, flagged: Sequence[bool], allowed: float) -> Test:
    """Whether the share of flags changed, valid at every look while the window fills (see `evidence`)."""
    low, high, rate = rate_bounds(reference)
    now = sum(flagged) / len(flagged) if flagged else math.nan
    peak = evidence(flagged, low, high)
    before, after = (np.array([rate, 1 - rate]), np.array([now, 1 - now]) if flagged else np.array([rate, 1 - rate]))
    return Test(
        "flag rate",
        "e-value, valid at every look",
        min(1.0, math.exp(-peak)),
        allowed,
        psi(before * max(1, len(reference.flagged)), after * max(1, len(flagged))),
        f"{rate:.1%} ({low:.1%} to {high:.1%})",
        f"{now:.1%} of {len(flagged)}" if flagged else "none yet",
        now if flagged else None,
        (low, high),
    )


def rate_bounds(reference: Seen) -> tuple[float, float, float]:
    """Wilson bounds at 99 % of the reference's flag rate, by its effective number of results, and the rate."""
    from edge_node.triage.figures import wilson

    flags = np.asarray(reference.flagged, np.float64)
    weights = np.asarray(reference.weights or np.ones(len(flags)), np.float64)
    if not len(flags):
        return 0.0, 1.0, 0.5
    rate, effective = float(np.average(flags, weights=weights)), effective_count(weights)
    made = wilson(round(rate * effective), max(1, round(effective)), 0.99)
    return min(made.low, rate), max(made.high, rate), rate


def evidence(flagged: Sequence[bool], low: float, high: float) -> float:
    """The largest log e-value so far against "the rate lies within low..high".

    Universal inference (Wasserman, Ramdas & Balakrishnan, PNAS 2020;117:16880): the Beta(1/2, 1/2) mixture likelihood
    over the largest likelihood within the bounds. By Ville's inequality it reaches log(1/a) with a probability of at
    most a, at however many looks.
    """
    best, hits = 0.0, 0
    for count, flag in enumerate(flagged, 1):
        hits += bool(flag)
        mixture = math.lgamma(hits + 0.5) + math.lgamma(count - hits + 0.5) - math.lgamma(count + 1) - math.log(math.pi)
        rate = min(max(hits / count, low), high)
        null = (hits * math.log(rate) if hits else 0.0) + (
            (count - hits) * math.log(1 - rate) if count > hits and rate < 1 else 0.0
        )
        best = max(best, mixture - null)
    return best


def ks(a: Numbers, b: Numbers, weights: Numbers | None = None) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test; `weights` belong to `a`.

    The limit distribution with Stephens' correction (J R Stat Soc B 1970;32:115); ties make it cautious.
    """
    w = np.ones(len(a)) if weights is None else weights
    at = np.unique(np.concatenate((a, b)))
    order = np.argsort(a, kind="stable")
    sums = np.concatenate(([0.0], np.cumsum(w[order])))
    first = sums[np.searchsorted(a[order], at, side="right")] / sums[-1]
    second = np.searchsorted(np.sort(b), at, side="right") / len(b)
    distance = float(np.abs(first - second).max())
    n = effective_count(w)
    root = math.sqrt(n * len(b) / (n + len(b)))
    return kolmogorov((root + 0.12 + 0.11 / root) * distance)


def kolmogorov(x: float) -> float:
    """Upper tail of Kolmogorov's limit distribution."""
    if x < 0.2:  # the series needs many terms there, and the tail is 1
        return 1.0
    return float(min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101)))))


def mix(a: NDArray[np.int64], b: NDArray[np.int64], draws: int = DRAWS) -> float:
    """p-value that two counts of the same categories come from one mix: chi-square, its distribution drawn by
    permutation, so that it is exact for rare categories too. The same counts give the same answer."""
    total = a + b
    a, b, total = a[total > 0], b[total > 0], total[total > 0]
    if len(total) < 2 or not a.sum() or not b.sum():
        return 1.0
    rng = np.random.default_rng(20260101)
    expected = total * (b.sum() / total.sum())
    # With both margins fixed the statistic is one of the second sample alone, up to a factor.
    drawn = rng.multivariate_hypergeometric(total, int(b.sum()), size=draws, method="marginals")
    statistic = ((b - expected) ** 2 / expected).sum()
    reached = (((drawn - expected) ** 2 / expected).sum(1) >= statistic - 1e-9).sum()
    return float((1 + reached) / (1 + draws))


def psi(a: Numbers, b: Numbers) -> float:
    """Population stability index of two counts by category. A size, not a test: it is large by chance in small samples
    (86 % above 0.25 for 20 against 20), so it never alarms by itself."""
    p, q = ((one + _FLOOR) / (one.sum() + _FLOOR * len(one)) for one in (a, b))
    return float(((q - p) * np.log(q / p)).sum())


def psi_of_numbers(a: Numbers, b: Numbers, weights: Numbers | None = None, bins: int = 10) -> float:
    """`psi` over bins between the deciles of `a`."""
    edges = np.unique(np.quantile(a, np.linspace(0, 1, bins + 1)[1:-1]))
    w = np.ones(len(a)) if weights is None else weights / weights.mean()
    first = np.bincount(np.searchsorted(edges, a, side="right"), weights=w, minlength=len(edges) + 1)
    second = np.bincount(np.searchsorted(edges, b, side="right"), minlength=len(edges) + 1)
    return psi(first.astype(np.float64), second.astype(np.float64))


def effective_count(weights: Numbers) -> float:
    """Kish's effective number of weighted results."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def prevalence_weights(truth: Sequence[bool], prevalence: float) -> list[float]:
    """Weights that give cases with known truth the site's prevalence; empty where that cannot be done."""
    yes, count = sum(truth), len(truth)
    if not 0 < prevalence < 1 or not 0 < yes < count:
        return []
    share = yes / count
    return [prevalence / share if t else (1 - prevalence) / (1 - share) for t in truth]


def _both(reference: Seen, window: Seen, what: str) -> list[str]:
    return sorted({*getattr(reference, what)} & {*getattr(window, what)})


def _quantiles(values: Numbers, weights: Numbers) -> tuple[float, float, float]:
    """Weighted 10 %, 50 % and 90 % quantiles."""
    order = np.argsort(values)
    w = weights[order]
    low, middle, high = np.interp((0.1, 0.5, 0.9), (np.cumsum(w) - w / 2) / w.sum(), values[order])
    return float(low), float(middle), float(high)


def _most(count: Counter[str]) -> str:
    total = sum(count.values())
    return ", ".join(f"{word or 'not said'} {n / total:.0%}" for word, n in count.most_common(3))
