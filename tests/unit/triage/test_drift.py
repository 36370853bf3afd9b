"""Drift: each test is quiet as often as it says, and speaks when something changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.triage import drift
from edge_node.triage.drift import Seen


def seen(rng, count, *, shift=0.0, rate=0.1, scanners=(0.6, 0.3, 0.1), weights=()):
    scores = np.clip(rng.beta(1, 6, count) + shift * 0.1, 0, 1)
    return Seen(
        scores.tolist(),
        (rng.random(count) < rate).tolist(),
        {"scanner": rng.choice(["a", "b", "c"], count, p=scanners).tolist()},
        {"HU": rng.normal(30 + shift, 3, count).tolist(), "noise": rng.gamma(9, 0.5, count).tolist()},
        weights,
    )


@pytest.mark.parametrize(("x", "p"), [(1.2238, 0.10), (1.3581, 0.05), (1.6276, 0.01), (1.9495, 0.001)])
def test_kolmogorovs_distribution_is_that_of_the_tables(x, p):
    """Smirnov, Ann Math Stat 1948;19:279."""
    assert drift.kolmogorov(x) == pytest.approx(p, rel=1e-3)


@given(st.lists(st.integers(0, 8), min_size=5, max_size=30), st.lists(st.integers(0, 8), min_size=5, max_size=30))
@settings(deadline=None)
def test_the_distance_is_the_same_either_way_and_weights_of_one_change_nothing(a, b):
    x, y = np.array(a, float), np.array(b, float)
    assert drift.ks(x, y) == pytest.approx(drift.ks(y, x))
    assert drift.ks(x, y, np.full(len(x), 7.0)) == pytest.approx(drift.ks(x, y))
    assert drift.ks(x, x) == 1


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6))
@settings(deadline=None, max_examples=30)
def test_a_mix_does_not_differ_from_itself(counts):
    a = np.array(counts)
    assert drift.mix(a, a, draws=199) == 1.0
    assert drift.psi(a.astype(float), a.astype(float)) == pytest.approx(0, abs=1e-12)


def test_the_exact_test_of_a_two_by_two_table_is_fishers():
    """The lady tasting tea, three of four right: p = 34/70 = 0.486 on both sides."""
    assert drift.mix(np.array([3, 1]), np.array([1, 3]), draws=40_000) == pytest.approx(34 / 70, abs=0.01)


def test_quiet_windows_alarm_no_more_often_than_stated():
    """400 windows without a change at a level of 5 %: at most 5 % alarm, with room for chance (4 sigma)."""
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(400):
        reference = seen(rng, 300)
        alarms += any(test.alarm for test in drift.compare(reference, seen(rng, 100), 0.05))
    assert alarms <= 400 * 0.05 + 4 * math.sqrt(400 * 0.05 * 0.95)


def test_the_flag_rate_may_be_looked_at_after_every_result():
    rng = np.random.default_rng(5)
    peaks = [drift.evidence(rng.random(500) < 0.1, 0.1, 0.1) for _ in range(400)]
    assert np.mean(np.array(peaks) >= math.log(20)) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)
    assert max(peaks) > 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"rate": 0.4}, "flag rate"),
        ({"rate": 0.0}, "flag rate"),
        ({"shift": 4.0}, "HU"),
        ({"shift": 4.0}, "score"),
        ({"scanners": (0.1, 0.3, 0.6)}, "scanner"),
    ],
)
def test_a_change_is_named(change, what):
    rng = np.random.default_rng(7)
    reference = seen(rng, 400, rate=0.15)
    told = {test.what: test for test in drift.compare(reference, seen(rng, 100, **{"rate": 0.15} | change), 0.01)}
    assert told[what].alarm
    assert told[what].size in ("moderate", "large")
    assert not told["noise"].alarm


def test_a_new_scanner_is_a_change_of_the_mix():
    rng = np.random.default_rng(7)
    window = seen(rng, 100)
    window = Seen(window.scores, window.flagged, {"scanner": ["new"] * 20 + ["a"] * 80}, window.numbers)
    told = {test.what: test for test in drift.compare(seen(rng, 400), window, 0.01)}
    assert told["scanner"].alarm
    assert "new 20%" in told["scanner"].now


def test_few_results_are_no_reference():
    rng = np.random.default_rng(1)
    assert [t.what for t in drift.compare(seen(rng, drift.FEWEST - 1), seen(rng, 50), 0.01)] == ["flag rate"]


def test_a_validation_full_of_positives_is_weighted_to_the_site():
    """Half positives in the validation, one in twenty at the site: that is no drift."""
    rng = np.random.default_rng(2)

    def made(truth, weights):
        scores = np.where(truth, rng.beta(8, 2, len(truth)), rng.beta(1, 8, len(truth)))
        return Seen(scores.tolist(), (scores > 0.5).tolist(), {}, {}, weights)

    truth = np.arange(400) < 200
    enriched = made(truth, drift.prevalence_weights(truth.tolist(), 0.05))
    site = made(rng.random(100) < 0.05, [])
    assert not any(test.alarm for test in drift.compare(enriched, site, 0.01))
    assert any(test.alarm for test in drift.compare(made(truth, []), site, 0.01))


@given(st.lists(st.booleans(), min_size=2, max_size=50), st.floats(0.01, 0.99))
def test_weights_give_the_prevalence_that_was_asked_for(truth, prevalence):
    weights = drift.prevalence_weights(truth, prevalence)
    if all(truth) or not any(truth):
        assert weights == []
    else:
        assert np.average(truth, weights=weights) == pytest.approx(prevalence)
        assert drift.effective_count(np.array(weights)) <= len(truth) + 1e-9
