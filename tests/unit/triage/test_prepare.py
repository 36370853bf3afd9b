from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.triage.hounsfield import to_hu
from edge_node.triage.prepare import (
    CannotJudge,
    GridSpec,
    SliceGeometry,
    area_weights,
    assemble,
    order,
    slab_thickness,
    windowed,
)

SPEC = GridSpec(64, 3.0, 5.0, ((0, 0.0, 80.0), (-1, 0.0, 80.0), (1, 0.0, 80.0)))
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def geometry(uid, z, *, x=0.0, y=0.0, cosines=AXIAL, spacing=(1.0, 1.0), rows=96, columns=96):
    return SliceGeometry(uid, (x, y, z), *cosines, spacing, rows, columns)


def stack_of(zs):
    return [geometry(f"{i:03d}", z) for i, z in enumerate(zs)]


def reason(slices):
    with pytest.raises(CannotJudge) as caught:
        order(slices)
    return caught.value.reason


@given(st.permutations(range(20)))
def test_slices_are_ordered_by_position_whatever_order_they_arrive_in(shuffled):
    slices = [geometry(f"{i:03d}", 5.0 * i) for i in range(20)]
    stack = order([slices[i] for i in shuffled])
    assert [s.sop_uid for s in stack.slices] == [f"{i:03d}" for i in range(20)]


def test_slices_run_from_inferior_to_superior_even_when_the_normal_points_down():
    mirrored = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    stack = order([geometry(f"{i}", 5.0 * i, cosines=mirrored) for i in range(19, -1, -1)])
    assert [s.position[2] for s in stack.slices] == sorted(5.0 * i for i in range(20))


def test_duplicates_are_left_out_with_a_warning_and_too_many_are_refused():
    stack = order([*stack_of(5.0 * np.arange(20)), geometry("twin", 10.0)])
    assert len(stack.slices) == 20
    assert any(w.startswith("geometry.duplicates: 1 ") for w in stack.warnings)
    assert (
        reason([*stack_of(5.0 * np.arange(20)), *[geometry(f"t{i}", 5.0 * i) for i in range(20)]]) == "geometry.mixed"
    )


def test_a_missing_slice_is_noticed_and_a_wide_gap_refused():
    zs = np.delete(5.0 * np.arange(20), 7)
    assert any(w.startswith("geometry.gap") for w in order(stack_of(zs)).warnings)
    assert reason(stack_of(np.delete(5.0 * np.arange(20), slice(5, 11)))) == "geometry.gap"


def test_two_zones_of_different_spacing_are_uneven_but_no_gap():
    zs = np.concatenate((4.0 * np.arange(12), 44 + 7.0 * np.arange(1, 12)))
    warnings = order(stack_of(zs)).warnings
    assert [w.split(":")[0] for w in warnings] == ["geometry.uneven"]


def test_a_stray_slice_of_another_orientation_is_left_out_and_a_mixed_series_refused():
    coronal = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    slices = stack_of(5.0 * np.arange(20))
    stack = order([*slices, geometry("scout", 3.0, cosines=coronal)])
    assert "scout" not in {s.sop_uid for s in stack.slices}
    assert any(w.startswith("geometry.mixed: 1 ") for w in stack.warnings)
    assert reason([*slices, *[geometry(f"c{i}", i, cosines=coronal) for i in range(15)]]) == "geometry.mixed"


@pytest.mark.parametrize(
    ("slices", "code"),
    [
        ([], "geometry.missing"),
        (stack_of([0, 5, 10]), "geometry.too-few-slices"),
        (stack_of(0.5 * np.arange(30)), "geometry.coverage"),
        (
            [geometry(str(i), 0, y=5.0 * i, cosines=((1.0, 0, 0), (0, 0, -1.0))) for i in range(20)],
            "geometry.not-axial",
        ),
        ([geometry(str(i), 5.0 * i, spacing=(0.0, 1.0)) for i in range(20)], "geometry.missing"),
        ([geometry(str(i), float("nan")) for i in range(20)], "geometry.missing"),
        ([geometry(str(i), 5.0 * i, cosines=((0.5, 0, 0), (0, 1, 0))) for i in range(20)], "geometry.missing"),
    ],
)
def test_geometry_that_makes_no_honest_volume_is_refused(slices, code):
    assert reason(slices) == code


def scene(y, x, z):
    """A smooth world in HU by patient coordinates in mm, with enough bone to centre on."""
    ball = (x - 10) ** 2 + (y + 5) ** 2 + (0.6 * (z - 50)) ** 2
    return np.where(ball < 30**2, 900.0, 0.0) + 0.5 * x + 0.3 * y


def sampled(cosines, corner, zs):
    """The world sampled by a scanner that stores its pixels along `cosines`, first pixel at `corner` (x, y)."""
    i, j = np.mgrid[0:96, 0:96].astype(float)
    slices, images = [], []
    for k, z in enumerate(zs):
        x = corner[0] + j * cosines[0][0] + i * cosines[1][0]
        y = corner[1] + j * cosines[0][1] + i * cosines[1][1]
        slices.append(geometry(f"{k:03d}", z, x=corner[0], y=corner[1], cosines=cosines))
        images.append(np.rint(scene(y, x, z)).astype(np.int16))
    stack = order(slices)
    volume = np.stack([stack.plane.canonical(image) for image in images])
    return stack, volume


@pytest.mark.parametrize(
    ("cosines", "corner"),
    [
        (((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)), (47.0, 47.0)),
        (((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)), (-48.0, 47.0)),
        (((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), (-48.0, -48.0)),
        (((0.0, -1.0, 0.0), (1.0, 0.0, 0.0)), (-48.0, 47.0)),
    ],
)
def test_the_tensor_does_not_depend_on_how_the_pixels_were_stored(cosines, corner):
    zs = 5.0 * np.arange(20)
    straight = assemble(*sampled(AXIAL, (-48.0, -48.0), zs), SPEC)
    turned = assemble(*sampled(cosines, corner, zs), SPEC)
    # The centre comes from every fourth pixel, so the grids may differ by a fraction of a pixel.
    assert np.allclose(turned.centre, straight.centre, atol=1.0)
    assert np.median(np.abs(turned.hu - straight.hu)) < 2
    assert abs(float(turned.hu.mean() - straight.hu.mean())) < 12


@pytest.mark.parametrize("flip_rows", [False, True])
@pytest.mark.parametrize("flip_columns", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_box_returns_to_the_pixels_it_was_found_in(flip_rows, flip_columns, transposed):
    rows, columns = (30, 40) if transposed else (40, 30)
    x, y = (-1.0 if flip_columns else 1.0), (-1.0 if flip_rows else 1.0)
    cosines = ((0.0, y, 0.0), (x, 0.0, 0.0)) if transposed else ((x, 0.0, 0.0), (0.0, y, 0.0))
    slices = [geometry(f"{k:02d}", 5.0 * k, cosines=cosines, rows=rows, columns=columns) for k in range(20)]
    plane = order(slices).plane
    stored = np.zeros((rows, columns), np.int16)
    stored[3:9, 11:25] = 1
    assert np.array_equal(plane.stored(plane.canonical(stored)), stored)
    ys, xs = np.nonzero(plane.canonical(stored))
    assert plane.stored_box((ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)) == (3, 11, 9, 25)


def test_gantry_tilt_is_noticed_and_the_shear_undone():
    angle = np.deg2rad(18.5)
    cosines = ((1.0, 0.0, 0.0), (0.0, np.cos(angle), -np.sin(angle)))
    slices = [geometry(f"{k:02d}", 5.0 * k, cosines=cosines) for k in range(20)]
    stack = order(slices)
    assert any("18.5 degrees" in w for w in stack.warnings)
    assert np.allclose(np.diff(stack.positions), 5.0 * np.cos(angle))
    # Moving up by 5 mm at constant y moves the origin along the tilted column direction.
    assert np.allclose(np.diff([o[0] for o in stack.origins]), -5.0 * np.sin(angle))


@given(
    st.integers(2, 80), st.floats(0.2, 3), st.floats(-50, 50), st.integers(2, 60), st.floats(0.3, 4), st.floats(-50, 50)
)
def test_area_weights_share_out_each_pixel_at_most_once(n_in, d_in, start_in, n_out, d_out, start_out):
    w = area_weights(n_in, d_in, start_in, n_out, d_out, start_out)
    assert (w >= 0).all()
    assert (w.sum(1) <= 1 + 1e-4).all()
    assert (w.sum(0) * d_out <= d_in * (1 + 1e-4)).all()


def test_resampling_keeps_the_mean_of_what_it_covers():
    image = np.random.default_rng(1).normal(30, 10, (60, 60)).astype(np.float32)
    w = area_weights(60, 0.5, -15.0, 20, 1.5, -15.0)
    assert (w @ image @ w.T).mean() == pytest.approx(image.mean(), rel=1e-4)


def test_thin_slices_are_averaged_into_slabs_and_thick_ones_left_alone():
    volume = np.zeros((100, 96, 96), np.int16)
    made = assemble(order(stack_of(1.0 * np.arange(100))), volume, SPEC)
    assert {len(m) for m in made.members} == {5}
    thick = order(stack_of(5.0 * np.arange(20)))
    made = assemble(thick, volume[:20], SPEC)
    assert made.members == tuple((k,) for k in range(20))
    assert np.allclose(slab_thickness(thick, made.members), 5.0)


def test_outside_the_image_is_air():
    made = assemble(order(stack_of(5.0 * np.arange(20))), np.full((20, 96, 96), 40, np.int16), SPEC)
    assert made.hu[0, 0, 0] == -1000
    assert made.hu[0, 32, 32] == pytest.approx(40, abs=1e-2)


def test_windows_and_neighbours_are_the_channels():
    hu = np.stack([np.full((4, 4), v, np.float32) for v in (-10.0, 40.0, 100.0)])
    x = windowed(hu, SPEC)
    assert x[:, :, 0, 0].tolist() == [[0, 0, 0.5], [0.5, 0, 1], [1, 0.5, 1]]


@given(st.integers(-32768, 65535), st.sampled_from([1.0, 0.5, 2.0]), st.sampled_from([0.0, -1024.0, -0.5]))
def test_hounsfield_values_saturate_and_never_wrap(value, slope, intercept):
    stored = np.array([[value]], np.uint16 if value > 32767 else np.int16)
    assert to_hu(stored, slope, intercept)[0, 0] == np.clip(np.rint(value * slope + intercept), -1024, 3071)


def test_stored_values_that_are_no_whole_numbers_are_taken_too():
    assert to_hu(np.array([[1.5, 9e4, -9e4]], np.float32), 1.0, -24.0).tolist() == [[-23, 3071, -1024]]


@given(st.data(), st.sampled_from(["<u2", "<i2", ">u2", ">i2", "u1", "i1", "<i4"]), st.integers(-100_000, 100_000))
def test_hounsfield_values_go_to_where_they_are_wanted_whatever_the_type(data, kind, intercept):
    limits = np.iinfo(kind)
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=6, max_size=6))
    stored = np.array(values, kind).reshape(2, 3)
    expected = np.clip(np.array(values).reshape(2, 3) + intercept, -1024, 3071)
    volume = np.zeros((3, 2), np.int16)
    out = volume.T[:, ::-1]  # a view that is not in one piece, as a plane's `stored` gives it
    assert to_hu(stored, 1.0, float(intercept), out) is out
    assert np.array_equal(out, expected)
    assert np.array_equal(volume.T[:, ::-1], expected)
    assert np.array_equal(to_hu(stored, 1.0, float(intercept)), expected)
