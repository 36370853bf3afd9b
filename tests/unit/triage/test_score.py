from __future__ import annotations

import numpy as np
import pytest

from edge_node.triage.score import NOTHING, cell_mask, probability, region, slab_scores, study_logit


def test_only_cells_inside_the_skull_are_scored():
    logits = np.full((2, 10, 10), -5, np.float32)
    logits[0, 0, 0] = 50  # outside
    logits[0, 5, 5:8] = 4
    mask = np.zeros((2, 10, 10), bool)
    mask[:, 1:9, 1:10] = True
    assert slab_scores(logits, mask).tolist() == [4, -5]


def test_a_slab_with_hardly_any_cavity_is_not_scored():
    mask = np.zeros((1, 10, 10), bool)
    mask[0, :5, :9] = True
    assert slab_scores(np.full((1, 10, 10), 9, np.float32), mask)[0] == NOTHING


def test_a_slab_needs_a_neighbour_that_agrees():
    assert study_logit(np.array([-6, 8, -4, -9, 3, 4], np.float32)) == 3.5
    assert study_logit(np.array([-6, 8, -4, 7], np.float32)) == 2
    assert study_logit(np.array([3], np.float32)) == 3


def test_a_cell_counts_when_a_quarter_of_it_is_inside():
    inside = np.zeros((1, 8, 8), bool)
    inside[0, :2, :2] = True
    inside[0, 4, 4:7] = True
    assert cell_mask(inside, 2)[0].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("logit", [-1e9, -3.0, 0.0, 3.0, 1e9])
def test_probabilities_stay_between_0_and_1_and_rise_with_the_logit(logit):
    p = probability(logit, 0.8, -2.0)
    assert 0 <= p <= 1
    assert probability(logit + 1, 0.8, -2.0) >= p


def test_the_region_is_what_hangs_together_with_the_peak():
    logits = np.full((10, 10), -5, np.float32)
    logits[2:5, 2:5] = 3
    logits[3, 3] = 9
    logits[5, 5] = 1  # touches at a corner
    logits[8, 8] = 4  # another island
    found = region(logits, np.ones((10, 10), bool))
    assert found[2:5, 2:5].all()
    assert found[5, 5]
    assert not found[8, 8]
    assert found.sum() == 10


def test_the_region_has_at_least_one_cell():
    logits = np.full((4, 4), -5, np.float32)
    logits[1, 2] = -4
    found = region(logits, np.ones((4, 4), bool))
    assert found.sum() == 1
    assert found[1, 2]
