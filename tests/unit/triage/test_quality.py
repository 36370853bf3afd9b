from __future__ import annotations

import numpy as np
import pytest

from edge_node.demo.phantom import head_phantom
from edge_node.triage.prepare import CannotJudge, GridSpec, SliceGeometry, assemble, order, slab_thickness
from edge_node.triage.quality import check_head, cranial_cavity

SPEC = GridSpec(160, 1.5, 5.0, ((0, 0.0, 80.0),))


@pytest.fixture(scope="module")
def head():
    p = head_phantom(21, kind=None, slices=24, rows=128)
    dz, dy, dx = p.spacing
    half = 64 * dx
    slices = [
        SliceGeometry(f"{k:02d}", (-half, -half, k * dz), (1, 0, 0), (0, 1, 0), (dy, dx), 128, 128) for k in range(24)
    ]
    stack = order(slices)
    made = assemble(stack, p.volume, SPEC)
    return made.hu, slab_thickness(stack, made.members)


def reason(hu, thickness):
    with pytest.raises(CannotJudge) as caught:
        check_head(hu, 1.5, thickness)
    return caught.value.reason


def test_a_head_is_a_head(head):
    seen = check_head(head[0], 1.5, head[1])
    assert 800 < seen.cavity_ml < 2000
    assert 20 < seen.brain_hu < 45
    assert not seen.warnings


@pytest.mark.parametrize("seed", range(4))
def test_heads_of_many_shapes_are_heads(seed):
    p = head_phantom(100 + seed, kind="epidural", slices=20, rows=96)
    dz, dy, dx = p.spacing
    slices = [
        SliceGeometry(f"{k:02d}", (-48 * dx, -48 * dx, k * dz), (1, 0, 0), (0, 1, 0), (dy, dx), 96, 96)
        for k in range(20)
    ]
    stack = order(slices)
    made = assemble(stack, p.volume, SPEC)
    assert check_head(made.hu, 1.5, slab_thickness(stack, made.members)).cavity_ml > 700


def body(width_mm, length_mm, wall=900.0, content=50.0):
    """A cylinder with a dense wall on the grid: ribs around an abdomen, a phantom, a tin."""
    y, x = (np.mgrid[0:160, 0:160] - 79.5) * 1.5
    r = np.hypot(x / (width_mm / 2), y / (length_mm / 2))
    hu = np.where(r < 0.93, content, np.where(r < 1, wall, -1000.0)).astype(np.float32)
    return np.repeat(hu[None], 18, 0), np.full(18, 5.0, np.float32)


def test_a_trunk_is_no_head():
    assert reason(*body(235, 200)) == "quality.not-a-head"


def test_a_limb_is_no_head():
    assert reason(*body(60, 60)) == "quality.not-a-head"


def test_soft_tissue_without_bone_has_no_skull():
    assert reason(*body(150, 190, wall=40.0)) == "quality.no-skull"


def test_values_off_the_hounsfield_scale_are_refused(head):
    hu, thickness = head
    assert reason(hu + 1024, thickness).startswith("quality.")
    assert reason(hu * 0.1, thickness).startswith("quality.")
    assert reason(*body(150, 190, content=90.0)) == "quality.not-hounsfield"
    eight_bit = np.clip((hu - 0) / 80, 0, 1) * 255 - 1024  # a windowed picture with a false intercept
    assert reason(eight_bit.astype(np.float32), thickness).startswith("quality.")


def test_values_that_are_not_finite_are_refused(head):
    hu = head[0].copy()
    hu[3, 80, 80] = np.nan
    assert reason(hu, head[1]) == "quality.not-finite"


def test_a_skull_with_a_hole_still_has_an_inside():
    hu, thickness = body(150, 190, content=35.0)
    hu[:, 50:110, :60] = np.where(hu[:, 50:110, :60] > 300, 35.0, hu[:, 50:110, :60])
    middle = cranial_cavity(hu, 1.5)[:, 60:100, 60:100]
    assert middle.all()
    assert check_head(hu, 1.5, thickness).brain_hu == pytest.approx(35.0)


def test_metal_is_mentioned(head):
    hu = head[0].copy()
    hu[10, 70:80, 70:80] = 3000
    assert any(w.startswith("quality.metal") for w in check_head(hu, 1.5, head[1]).warnings)
