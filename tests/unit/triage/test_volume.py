"""Volumes in patches: what is put together is what a model sees in one piece, at every overlap and geometry."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.domain.finding import Verdict
from edge_node.triage.card import load_card
from edge_node.triage.card_tables import PatchesTable, WindowTable
from edge_node.triage.judge import Triage
from edge_node.triage.prepare import SliceGeometry, order
from edge_node.triage.score import volume_score
from edge_node.triage.volume import blend_weights, resample, starts
from tests.unit.triage.studies import clean_study, ct_slice, loaded
from tests.unit.triage.volume_package import PATCH, volume_package

SPEC = PatchesTable(spacing_mm=(4.0, 2.0, 2.0), patch=PATCH, overlap=0.5, channels=[WindowTable(low=-100, high=300)])


@given(st.integers(1, 300), st.integers(8, 64), st.floats(0, 0.9))
def test_patches_cover_every_voxel_and_stay_inside(length, patch, overlap):
    begins = starts(length, patch, overlap)
    covered = np.zeros(max(length, patch), bool)
    for begin in begins:
        assert 0 <= begin <= max(0, length - patch)
        covered[begin : begin + patch] = True
    assert covered.all()
    assert begins == sorted(set(begins))


@pytest.mark.parametrize("blend", ["mean", "gaussian"])
def test_no_voxel_is_without_weight_and_the_middle_counts_most(blend):
    weights = blend_weights(PATCH, blend)
    assert weights.shape == PATCH
    assert weights.min() > 0
    assert weights[8, 16, 16] == weights.max()


def stack_of(slices, rows, dz, spacing):
    return order(
        [
            SliceGeometry(str(k), (0, 0, k * dz), (1, 0, 0), (0, 1, 0), (spacing, spacing), rows, rows)
            for k in range(slices)
        ]
    )


def test_resampling_keeps_values_and_places():
    stack = stack_of(30, 96, 3.0, 1.0)
    volume = np.full((30, 96, 96), -1000, np.int16)
    volume[10:20, 24:48, 48:72] = 200
    made = resample(stack, volume, SPEC, 2)
    assert made.hu.shape == (22, 48, 48)
    z, y, x = np.nonzero(made.hu > -400)
    assert (y.min(), y.max(), x.min(), x.max()) == (12, 23, 24, 35)
    assert (made.start[0] + 4 * z.min(), made.start[0] + 4 * (z.max() + 1)) == pytest.approx((28.5, 58.5), abs=4)
    assert made.hu.max() == 200
    assert made.slice_of(stack, int(z.mean())) in range(13, 17)


def test_the_score_is_the_mean_of_the_highest():
    map_ = np.zeros((4, 4, 4), np.float32)
    map_[0, 0, :2] = (0.9, 0.7)
    assert volume_score(map_, 1) == pytest.approx(0.9)
    assert volume_score(map_, 4) == pytest.approx(0.4)
    assert volume_score(map_, 10**6) == pytest.approx(1.6 / 64)


def two_findings(text):
    """The card with a finding for each of its classes, and masks as pictures."""
    text = text.replace("overlap = 0.25", "overlap = 0.5")
    finding = text[text.index("[[findings]]") : text.index("[selection]")]
    dark = finding.replace('"FINDING"', '"DARK"').replace("index = 1", "index = 2")
    text = text.replace(finding, finding.replace('"FINDING"', '"BRIGHT"') + dark)
    text = re.sub(r'points\."FINDING" = (.*)', r"points.BRIGHT = \1\npoints.DARK = \1", text)
    return text.replace("limit = 1000.0", "limit = 1000.0\ntop_voxels = 50") + '[picture]\nmask = "classes"\n'


@pytest.fixture
def package(tmp_path):
    """Two findings on voxels of 4 x 2 x 2 mm."""
    return volume_package(tmp_path, "[4.0, 2.0, 2.0]", two_findings)


def head(spots):
    """Soft tissue of 25 HU, and boxes (slices, rows, columns) of other values in it."""
    hu = np.full((40, 128, 128), -1000, np.int16)
    hu[:, 10:118, 10:118] = 25
    for (z, y, x), value in spots:
        hu[z, y, x] = value
    return [ct_slice(hu[k], position=(-64.0, -64.0, 3.0 * k), spacing=(1.0, 1.0), number=k + 1) for k in range(len(hu))]


def test_a_model_of_three_classes_finds_each_where_it_is(package):
    model = loaded(package)
    bright, dark = (slice(8, 16), slice(20, 40), slice(70, 100)), (slice(26, 34), slice(60, 90), slice(15, 35))
    datasets = head([(bright, 250), (dark, -95)])
    try:
        triage = Triage([model], threads=1, time_limit_s=120)
        result = triage.judge(clean_study(datasets))
        quiet = triage.judge(clean_study(head([])))
    finally:
        model.process.close()
    by_code = dict(zip(("BRIGHT", "DARK"), result.findings, strict=True))
    for short, (z, y, x) in (("BRIGHT", bright), ("DARK", dark)):
        finding = by_code[short]
        assert finding.verdict is Verdict.FLAGGED, finding
        assert finding.probability > 0.9
        key = next(i for i, ds in enumerate(datasets) if ds.SOPInstanceUID == finding.key_sop_uid)
        if short == "BRIGHT":  # air around the head is dark, too
            assert key in range(z.start, z.stop)
            top, left, bottom, right = finding.box
            assert abs(top - y.start) <= 2
            assert abs(bottom - y.stop) <= 2
            assert abs(left - x.start) <= 2
            assert abs(right - x.stop) <= 2
    assert quiet.findings[0].verdict is Verdict.NOT_FLAGGED
    assert result.key_image is not None


def test_the_overlap_changes_nothing_for_a_model_that_looks_at_single_voxels(package, tmp_path):
    whole = shutil.copytree(package, tmp_path / "whole")
    text = (whole / "card.toml").read_text()
    (whole / "card.toml").write_text(text.replace("overlap = 0.5", "overlap = 0.0").replace("gaussian", "mean"))
    study = clean_study(head([((slice(8, 16), slice(20, 40), slice(70, 100)), 180)]))
    answers = []
    for folder in (package, whole):
        model = loaded(folder)
        try:
            answers.append(Triage([model], threads=1, time_limit_s=120).judge(study).findings)
        finally:
            model.process.close()
    for one, other in zip(*answers, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
        assert one.box == other.box


def test_a_card_of_other_kinds_is_understood_but_not_run(package):
    card = load_card(package)
    assert card.runnable() == ""
    text = (package / "card.toml").read_text()
    (package / "card.toml").write_text(text.replace("points.DARK", "points.GREY", 1))
    with pytest.raises(Exception, match="needs exactly the points BRIGHT, DARK"):
        load_card(package)
