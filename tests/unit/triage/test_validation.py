"""Figures of a validation, calibration and parity: what they say of cases made to be known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_node.triage import calibration, parity
from edge_node.triage.card_tables import PointTable, ToleranceTable
from edge_node.triage.validation import Case, Site, age_band, summarise

SITE = Site(0.1, 50, 5)
probabilities = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def cases(count=60, threshold=0.5, **groups):
    rng = np.random.default_rng(4)
    out = []
    for line in range(count):
        truth = line % 2 == 0
        p = float(np.clip(rng.normal(0.7 if truth else 0.3, 0.15), 0, 1))
        verdict = "FLAGGED" if p >= threshold else "NOT_FLAGGED"
        out.append(Case(line, truth, verdict, p, threshold, groups={k: v[line % len(v)] for k, v in groups.items()}))
    return out


def test_the_table_of_decisions_adds_up_and_what_was_not_judged_is_told():
    lost = Case(99, True, "CANNOT_JUDGE", 0, 0.5, "quality.not-a-head: why")
    f = summarise([*cases(), lost], SITE)
    assert (f.positives, f.others) == (31, 30)
    assert f.hits + f.misses + f.not_judged_positives == f.positives
    assert f.false_alarms + f.spared == f.others
    assert f.not_judged == {"CANNOT_JUDGE: quality.not-a-head": 1}
    assert f.worst_case.value == f.hits / 31 < f.in_force.sensitivity.value == f.hits / 30


def test_alerts_and_predictive_values_are_those_of_the_site_not_of_the_cases():
    f = summarise(cases(), SITE)
    at = f.in_force
    share = 0.1 * at.sensitivity.value + 0.9 * (1 - at.specificity.value)
    assert at.alerts_per_day.value == pytest.approx(50 * share)
    assert at.ppv.value == pytest.approx(0.1 * at.sensitivity.value / share)
    assert at.npv.value == pytest.approx(0.9 * at.specificity.value / (1 - share))


def test_the_point_of_least_harm_moves_with_prevalence_and_with_what_a_miss_weighs():
    def best(prevalence, weighs):
        return summarise(cases(200), Site(prevalence, 50, weighs)).points[-1].threshold

    assert best(0.5, 5) < best(0.02, 5)
    assert best(0.1, 50) < best(0.1, 1)


def test_groups_with_few_cases_carry_a_warning_and_kinds_are_compared_with_all_others():
    made = cases(80, sex=["F", "F", "F", "F", "M"], kind=["subdural", ""])
    groups = {(g.kind, g.name): g for g in summarise(made, SITE).groups}
    assert groups[("sex", "M")].few
    assert not groups[("sex", "F")].few
    assert (groups[("kind", "subdural")].positives, groups[("kind", "subdural")].others) == (40, 40)
    assert ("age", "not said") not in groups, "what no object tells is no group"


def test_a_group_that_is_served_worse_is_named():
    made = cases(120, protocol=["a", "a", "b", "b"])
    worse = [
        Case(c.line, c.truth, "NOT_FLAGGED", c.probability * 0.4, c.threshold, groups=c.groups)
        if c.groups["protocol"] == "b" and c.truth
        else c
        for c in made
    ]
    groups = {g.name: g for g in summarise(worse, SITE).groups}
    assert groups["b"].apart


def test_one_sided_cases_are_no_validation():
    with pytest.raises(ValueError, match="not one positive"):
        summarise([c for c in cases() if c.truth], SITE)


@pytest.mark.parametrize(
    ("text", "band"),
    [("045Y", "40 to 64"), ("011M", "under 18"), ("080Y", "80 and over"), ("", "not said"), ("old", "not said")],
)
def test_ages_are_told_in_bands_only(text, band):
    assert age_band(text) == band


def test_json_of_the_figures_has_no_number_that_json_has_not():
    import json

    told = json.dumps(summarise(cases(8, sex=["F", "M", "F", "F"]), SITE).plain(), allow_nan=False)
    assert '"auroc"' in told


@given(probabilities)
@settings(deadline=None)
def test_isotonic_corners_are_ones_that_a_card_takes_and_keep_every_order(made):
    p, truth = np.array([x for x, _ in made]), np.array([t for _, t in made])
    corners = calibration.isotonic(p, truth)
    assert not calibration.corners_fault(corners)
    moved = [calibration.corrected(x, corners) for x in np.sort(p)]
    assert all(0 < a <= b + 1e-12 < 1.1 for a, b in pairwise(moved))


def test_isotonic_and_temperature_mend_a_boaster():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, 3000)
    truth = rng.random(3000) < 1 / (1 + np.exp(-logits))
    boast = 1 / (1 + np.exp(-3 * logits))
    assert calibration.temperature(boast, truth) == pytest.approx(3, rel=0.15)
    corners = calibration.isotonic(boast, truth)
    assert calibration.corrected(0.9, corners) == pytest.approx(1 / (1 + np.exp(-np.log(9) / 3)), abs=0.06)


@pytest.mark.parametrize("corners", [[(0.5, 0.5)], [(0, 0.2), (1, 0.1)], [(0, 0), (0, 1)], [(0, 0), (1, 1.2)]])
def test_a_card_with_corners_that_fall_is_refused(corners):
    with pytest.raises(ValidationError):
        PointTable(threshold=0.5, isotonic=corners)


def parity_of(change, count=60, **allowed):
    truth = np.repeat([True, False], count)
    p = np.where(truth, 0.8, 0.2) + np.linspace(-0.1, 0.1, 2 * count)
    q = p.copy()
    change(q)
    groups = {"sex": ["F", "M"] * count}
    return parity.compare((p, p >= 0.5), (q, q >= 0.5), truth, groups, ToleranceTable(**allowed))


def test_a_variant_that_says_the_same_passes_and_few_cases_prove_little():
    same = parity_of(lambda q: None)
    assert (same.breaches, same.short, same.flips) == ((), "", 0)
    assert same.miss_bound == pytest.approx(3 / 60), "the rule of three"
    assert parity_of(lambda q: None, count=20).short.startswith("20 positives and 20 others")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q: q.__setitem__(0, 0.4), ["positives are missed", "probabilities differ"]),
        (lambda q: q.__setitem__(slice(100, 120), 0.6), ["decisions differ", "probabilities differ"]),
        (lambda q: q.__setitem__(slice(0, 20), 0.05), ["the AUROC is", "sex F: the sensitivity"]),
    ],
)
def test_each_thing_that_the_card_does_not_allow_is_named(change, words):
    breaches = "; ".join(parity_of(change).breaches)
    assert all(word in breaches for word in words), breaches


def test_what_the_card_says_of_itself_is_held_against_its_tolerance():
    said = {"new_misses": 2, "max_probability_difference": 0.08, "auroc_difference": -0.05}
    assert len(parity.declared(said, ToleranceTable())) == 2
    assert parity.declared(None, ToleranceTable()) == []
