from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.triage.headers import read_headers
from edge_node.triage.prepare import CannotJudge, GridSpec, assemble
from edge_node.triage.rule import parse
from edge_node.triage.runner import OutOfTime
from edge_node.triage.select import Series, candidates
from edge_node.triage.series_volume import Volumes
from tests.unit.triage.hazards import enhanced, put
from tests.unit.triage.studies import clean_study, ct_slice

SPEC = GridSpec(48, 3.0, 5.0, ((0, 0.0, 80.0),))
CT = parse('Modality == "CT"')
ROWS, COLUMNS, SLICES = 40, 36, 12


def series(datasets) -> Series:
    headers, unreadable = read_headers(clean_study(datasets).objects)
    assert not unreadable
    (one,) = candidates(headers, CT)
    return one


def later() -> float:
    return time.monotonic() + 600


@cache
def world() -> np.ndarray:
    """A block with nothing the same in any direction, in HU."""
    rng = np.random.default_rng(4)
    block = rng.integers(-900, 200, (SLICES, ROWS, COLUMNS))
    block[:, 8:14, 20:30] = 900
    return block


def stored_as(transposed: bool, up: bool, left: bool):
    """The world as a scanner stores it that reads rows and columns in this way."""
    dy, dx = 2.0, 3.0
    datasets = []
    for k, canonical in enumerate(world()):
        x, y = 10.0 + (COLUMNS - 1) * dx * left, -20.0 + (ROWS - 1) * dy * up
        image = canonical[:: -1 if up else 1, :: -1 if left else 1]
        to_left, to_back = [-1 if left else 1, 0, 0], [0, -1 if up else 1, 0]
        spacing = (dx, dy) if transposed else (dy, dx)
        ds = ct_slice(image.T if transposed else image, position=(x, y, 6.0 * k), spacing=spacing, number=k)
        ds.ImageOrientationPatient = [*to_back, *to_left] if transposed else [*to_left, *to_back]
        datasets.append(ds)
    return datasets


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(SLICES)), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_any_order_and_any_way_to_store_the_pixels_give_the_same_volume(order, transposed, up, left, in_one_object):
    datasets = stored_as(transposed, up, left)
    datasets = [datasets[k] for k in order]
    for number, ds in enumerate(datasets):
        ds.InstanceNumber = number
    if in_one_object:
        (one,) = enhanced(datasets)
        shared = one.SharedFunctionalGroupsSequence[0]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = datasets[0].ImageOrientationPatient
        datasets = [one]
    volume = Volumes(2).of(series(datasets), later())
    assert np.array_equal(volume.hu, world())
    assert np.allclose(volume.stack.positions, 6.0 * np.arange(SLICES))
    assert np.allclose(volume.stack.origins, (-21.0, 8.5))
    assert (volume.stack.plane.dy, volume.stack.plane.dx) == (2.0, 3.0)
    assert np.array_equal(volume.stack.plane.canonical(volume.image(5)), world()[5])


def test_a_series_is_decoded_once_for_all_models():
    one, volumes = series(stored_as(False, False, False)), Volumes(1)
    first = volumes.of(one, later())
    assert volumes.of(one, later()) is first
    assert volumes.decoded == SLICES


def test_what_cannot_be_judged_is_not_decoded_again_either():
    datasets = stored_as(False, False, False)
    for ds in datasets:
        ds.PixelData = ds.PixelData[:10]
    one, volumes = series(datasets), Volumes(1)
    for _ in range(2):
        with pytest.raises(CannotJudge, match=r"^decode\.undecodable"):
            volumes.of(one, later())
    assert volumes.decoded == SLICES


def test_a_volume_beyond_the_memory_is_averaged_until_it_fits_and_lies_where_it_lay():
    datasets = stored_as(True, True, False)
    for ds in datasets:
        y, x = np.mgrid[0 : 4 * ds.Rows, 0 : 4 * ds.Columns] / 4
        put(ds, 400 * np.sin(x / 9) * np.cos(y / 7) + 600 * (np.hypot(x - 20, y - 15) < 9))
        ds.PixelSpacing = [float(v) / 4 for v in ds.PixelSpacing]
    one = series(datasets)
    whole, bound = Volumes(1).of(one, later()), 16 * SLICES * ROWS * COLUMNS
    small = Volumes(1, most_bytes=bound).of(one, later())
    assert small.binning == 2
    assert small.hu.nbytes <= bound
    full = assemble(whole.coarse, whole.hu, SPEC)
    less = assemble(small.coarse, small.hu, SPEC)
    assert np.allclose(full.centre, less.centre, atol=2.5)
    assert abs(float(full.hu.mean() - less.hu.mean())) < 12
    assert np.array_equal(small.image(3), whole.image(3))
    assert small.stack == whole.stack


def test_volumes_that_were_used_longest_ago_make_room():
    first, second = series(stored_as(False, False, False)), series(stored_as(False, True, False)[:11])
    volumes = Volumes(1, most_bytes=2 * SLICES * ROWS * COLUMNS)
    volumes.of(first, later())
    volumes.of(second, later())
    volumes.of(first, later())
    assert volumes.decoded == SLICES + 11 + SLICES


def test_decoding_ends_at_the_time_limit():
    with pytest.raises(OutOfTime):
        Volumes(2).of(series(stored_as(False, False, False)), time.monotonic() - 1)
