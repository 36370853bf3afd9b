"""Figures of a validation against published examples, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.triage import figures

# Hanley & McNeil, Radiology 1982;143:29, table I: ratings 1..5 of 58 patients without and 51 with a lesion.
WITHOUT, WITH = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
RATINGS = np.array([r for counts in (WITH, WITHOUT) for r, n in enumerate(counts, 1) for _ in range(n)], float)
LESION = np.repeat([True, False], [sum(WITH), sum(WITHOUT)])

cases = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40).filter(
    lambda made: 2 <= sum(t for _, t in made) <= len(made) - 2
)


def arrays(made):
    return np.array([s for s, _ in made], float), np.array([t for _, t in made])


def brute(scores, truth):
    wins = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    return sum(wins) / len(wins)


def test_delong_gives_the_published_interval_of_hanley_and_mcneils_patients():
    """As Stata's manual prints for this table (roctab): 0.8932, 0.83295 to 0.95339."""
    area = figures.auroc(RATINGS, LESION)
    assert area.value == pytest.approx(0.8932, abs=5e-5)
    assert (area.low, area.high) == pytest.approx((0.83295, 0.95339), abs=1e-5)


@given(cases)
@settings(deadline=None)
def test_the_area_is_the_share_of_pairs_in_the_right_order(made):
    scores, truth = arrays(made)
    area = figures.auroc(scores, truth)
    assert area.value == pytest.approx(brute(scores, truth))
    assert 0 <= area.low <= area.value <= area.high <= 1
    assert area.high > area.low, "no number of cases is certainty"


@given(cases)
@settings(deadline=None)
def test_the_area_knows_only_the_order_and_both_sides_of_it(made):
    scores, truth = arrays(made)
    area = figures.auroc(scores, truth)
    assert figures.auroc(np.exp(scores), truth) == area
    assert figures.auroc(-scores, truth).value == pytest.approx(1 - area.value)


@given(cases)
@settings(deadline=None)
def test_the_variance_of_a_difference_is_delongs(made):
    """Against the definition: covariances of the placements of both models, computed pair by pair."""
    scores, truth = arrays(made)
    other = np.random.default_rng(len(made)).permutation(scores)
    got = figures.auroc_difference(scores, other, truth)
    parts = []
    for s in (scores, other):
        yes, no = s[truth], s[~truth]
        psi = (yes[:, None] > no[None]) + 0.5 * (yes[:, None] == no[None])
        parts.append((psi.mean(1), psi.mean(0)))
    s10, s01 = (np.cov(parts[0][i], parts[1][i]) for i in (0, 1))
    contrast = np.array([1, -1])
    variance = contrast @ (s10 / truth.sum() + s01 / (~truth).sum()) @ contrast
    assert got.value == pytest.approx(brute(scores, truth) - brute(other, truth))
    assert got.high - got.value == pytest.approx(1.959964 * math.sqrt(max(0, variance)), abs=1e-6)


def test_a_model_does_not_differ_from_itself():
    assert figures.auroc_difference(RATINGS, RATINGS, LESION) == figures.Estimate(0, 0, 0)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_that_of_newcombes_table(hits, count, low, high):
    """Newcombe, Stat Med 1998;17:857, table I, method 3."""
    got = figures.wilson(hits, count)
    assert (got.low, got.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400), st.floats(0, 1))
def test_a_share_lies_in_its_interval_and_the_other_share_mirrors_it(count, part):
    hits = round(part * count)
    one, other = figures.wilson(hits, count), figures.wilson(count - hits, count)
    assert 0 <= one.low <= one.value <= one.high <= 1
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    truth = np.repeat([True, False], [40, 60])
    area = figures.NormalDist().cdf(1.2 / math.sqrt(2))
    held = 0
    for _ in range(600):
        got = figures.auroc(rng.normal(size=100) + 1.2 * truth, truth)
        held += got.low <= area <= got.high
    assert 0.91 < held / 600 < 0.98


def test_predictive_value_follows_bayes_and_is_never_certain():
    made = figures.ppv((90, 100), (95, 100), 0.1)
    assert made.value == pytest.approx(0.09 / (0.09 + 0.045))
    assert made.low < made.value < made.high
    spotless = figures.ppv((100, 100), (100, 100), 0.02)
    assert spotless.value == spotless.high == 1
    assert spotless.low < 0.7, "100 others without a false alarm promise little at a prevalence of 2 %"
    assert not figures.ppv((5, 5), (0, 0), 0.1).known


def test_alerts_are_hits_and_false_alarms_together():
    share = figures.alert_share(figures.wilson(90, 100), figures.wilson(80, 100), 0.1)
    assert share.value == pytest.approx(0.1 * 0.9 + 0.9 * 0.2)
    assert share.low < share.value < share.high


def test_calibration_error_is_nought_for_the_truth_and_known_for_a_boaster():
    p = np.repeat([0.25, 0.75], 400)
    rare = np.tile([True, False, False, False], 100)
    assert figures.ece(p, np.concatenate((rare, ~rare))) == pytest.approx(0)
    assert figures.ece(np.full(400, 0.95), rare) == pytest.approx(0.7)
    assert figures.brier(np.ones(4), np.array([True] * 4)) == 0


@given(cases)
@settings(deadline=None)
def test_the_area_under_the_drawn_curve_is_the_area(made):
    scores, truth = arrays(made)
    x, y = np.array(figures.roc(scores, truth)).T
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(brute(scores, truth))
