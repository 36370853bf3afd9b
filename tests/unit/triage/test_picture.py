from __future__ import annotations

import numpy as np
import pytest

from edge_node.domain.finding import Code, Finding, ModelIdentity, Verdict
from edge_node.triage.picture import draw, edge_letters, linear_weights

IDENTITY = ModelIdentity("ref", "1.0.0", "0" * 64, "int8", "reference model, not for clinical use")


def finding(box=None, verdict=Verdict.FLAGGED):
    code = Code("1386000", "SCT", "Intracranial hemorrhage")
    return Finding(verdict, IDENTITY, "CPUExecutionProvider", code, 0.93, 0.5, 1, "2.25.1", "2.25.2", 1, box, 0.1)


def pixels(image):
    return np.frombuffer(image.rgb, np.uint8).reshape(image.rows, image.columns, 3)


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (512, 512), (1024, 768), (500, 900)])
def test_the_picture_is_at_most_512_wide_and_carries_banners(size):
    image = draw(np.full(size, 40, np.int16), finding(), "ICH", None, ("R", "L", "A", "P"))
    assert 0 < image.columns <= 512
    assert image.rows > image.columns * size[0] / size[1]
    p = pixels(image)
    top, bottom = p[:40], p[-40:]
    amber = np.array((255, 176, 0))
    for banner in (top, bottom):
        assert (np.abs(banner.astype(int) - amber).sum(-1) < 30).any()


def test_the_box_is_drawn_where_the_finding_is():
    with_box, without = (
        pixels(draw(np.full((400, 400), 40, np.int16), finding(box), "ICH", None, ("R", "L", "A", "P"))).astype(int)
        for box in ((100, 150, 180, 260), None)
    )
    ys, xs = np.nonzero(np.abs(with_box - without).sum(-1))
    offset = with_box.shape[0] - 400  # banners above and below the slice
    assert 100 - 8 <= ys.min() <= 100 + offset
    assert abs((ys.max() - ys.min()) - 80) <= 14
    assert 150 - 8 <= xs.min() <= 150
    assert 260 <= xs.max() <= 260 + 8


def test_heat_stays_translucent():
    image = np.full((400, 400), 40, np.int16)
    image[200:210] = 80
    heat = np.ones((400, 400), np.float32)
    p = pixels(draw(image, finding(), "ICH", heat, ("R", "L", "A", "P"))).astype(int)
    middle = p[p.shape[0] // 2 - 60 : p.shape[0] // 2 + 60, 100]
    assert middle.sum(-1).max() - middle.sum(-1).min() > 60


def test_a_study_that_is_not_flagged_is_never_called_anything_else():
    a = draw(np.full((400, 400), 40, np.int16), finding(verdict=Verdict.NOT_FLAGGED), "ICH", None, ("R", "L", "A", "P"))
    b = draw(np.full((400, 400), 40, np.int16), finding(), "ICH", None, ("R", "L", "A", "P"))
    assert a.rgb != b.rgb


def test_the_edges_carry_the_patient_directions():
    assert edge_letters((1, 0, 0), (0, 1, 0)) == ("R", "L", "A", "P")
    assert edge_letters((-1, 0, 0), (0, -1, 0)) == ("L", "R", "P", "A")
    assert edge_letters((0, 1, 0), (0, 0, -1)) == ("A", "P", "H", "F")


def test_heat_is_interpolated_between_cell_centres():
    w = linear_weights(40, 1.0, 0.0, 4, 10.0, 0.0)
    assert w.shape == (40, 4)
    assert np.allclose(w[5:35].sum(1), 1)
    assert w[4].argmax() == 0
    assert w[35].argmax() == 3
