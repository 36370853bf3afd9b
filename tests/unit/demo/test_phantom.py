from __future__ import annotations

import numpy as np
import pytest

from edge_node.demo.phantom import KINDS, head_phantom


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_same_seed_makes_the_same_head(kind):
    first, second = (head_phantom(5, kind=kind, slices=12, rows=96) for _ in range(2))
    assert np.array_equal(first.volume, second.volume)
    assert first.spacing == second.spacing
    assert (first.mask is None) == (kind is None)
    if first.mask is not None and second.mask is not None:
        assert np.array_equal(first.mask, second.mask)


def test_another_seed_makes_another_head():
    a, b = (head_phantom(seed, kind=None, slices=12, rows=96) for seed in (5, 6))
    assert np.count_nonzero(a.volume != b.volume) > a.volume.size // 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_haemorrhage_is_brighter_than_the_same_head_without_it(kind):
    sick, well = (head_phantom(11, kind=k, slices=20, rows=128) for k in (kind, None))
    assert sick.mask is not None
    assert sick.mask.any()
    inside = sick.volume[sick.mask].astype(float).mean() - well.volume[sick.mask].astype(float).mean()
    far = np.abs(sick.volume[~sick.mask].astype(float) - well.volume[~sick.mask].astype(float)).mean()
    assert inside > 12
    assert far < 3


def test_values_are_hounsfield_units_of_a_head_in_air():
    p = head_phantom(3, kind=None, slices=20, rows=128)
    assert p.volume.dtype == np.int16
    assert p.volume.shape == (20, 128, 128)
    assert -1024 <= p.volume.min() < -950
    assert 900 < p.volume.max() <= 3071
    middle = p.volume[13, 50:78, 50:78]
    assert 10 < np.median(middle) < 50


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="intraparenchymal"):
        head_phantom(1, kind="hangover")
