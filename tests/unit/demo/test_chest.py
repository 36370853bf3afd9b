from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edge_node.demo.chest import KINDS, chest_phantom
from edge_node.demo.trunk import REGIONS, trunk_phantom


def test_the_same_seed_gives_the_same_film_and_another_one_another():
    def digest(seed):
        return hashlib.sha256(chest_phantom(seed, kind="nodule", rows=160).film.tobytes()).hexdigest()

    assert digest(5) == digest(5) != digest(6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_in_changes_the_film_where_the_mask_says_and_the_patient_stays(kind):
    without, with_it = chest_phantom(11, kind=None, rows=240), chest_phantom(11, kind=kind, rows=240)
    assert with_it.mask is not None
    assert with_it.mask.any()
    assert without.mask is None
    assert without.film.shape == with_it.film.shape
    change = np.abs(with_it.film.astype(float) - without.film)
    # Exposure and sharpening spread a little of it over the whole film.
    assert change[with_it.mask].mean() > 2 * change[~with_it.mask].mean()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be"):
        chest_phantom(1, kind="fracture", rows=64)


@pytest.mark.parametrize("region", REGIONS)
def test_a_trunk_is_the_same_for_the_same_seed_and_lies_in_plausible_hounsfield_units(region):
    one, again = (trunk_phantom(3, region, slices=4, rows=64) for _ in range(2))
    assert np.array_equal(one.volume, again.volume)
    assert one.volume.shape == (4, 64, 64)
    assert (one.volume < -800).mean() > 0.2
    assert ((one.volume > -150) & (one.volume < 200)).mean() > 0.02
