"""Radiomics are what the IBSI says they are, of the region that was flagged, and never in the way of the flag."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mirp._features.feature_generator import generate_features
from mirp.settings.feature_parameters import FeatureExtractionSettingsClass
from pydicom.sr._concepts_dict import concepts
from scipy import ndimage

from edge_node.demo.phantom import head_phantom
from edge_node.domain.errors import Stop
from edge_node.domain.finding import Code, TriageOutcome, TriageResult, Verdict, result_from_json, result_to_json
from edge_node.triage import companion, ibsi, radiomics, regions
from edge_node.triage.card import load_card
from edge_node.triage.judge import Triage
from edge_node.triage.process import ModelProcess
from edge_node.triage.radiomics import Measurer
from tests.unit.triage import engines
from tests.unit.triage.studies import PACKAGES, REFERENCE, clean_study, ct_slice, ct_slices, loaded
from tests.unit.triage.volume_package import volume_package

# As published: IBSI reference manual, tables of morphological and intensity-based statistical features, "dig. phantom".
PUBLISHED = {
    "RNU0": 556, "YEKZ": 592, "C0JK": 388, "2PR5": 0.698, "SKGS": 0.0411, "BQWJ": 0.599, "KRCK": 1.19, "QCFX": 0.843,
    "25C7": 0.186, "KLMA": 0.672, "L0JK": 13.1, "TDIC": 11.4, "P9VJ": 9.31, "7J51": 8.54, "Q3CK": 0.816, "N17B": 0.749,
    "PBX1": 0.869, "R59B": 0.866, "Q4LE": 2.15, "ECT3": 3.05, "KE2A": 1.08, "IPH6": -0.355, "Y12H": 1, "1GSF": 1,
    "QG58": 1, "8DWT": 4, "84IY": 6, "SALO": 3, "2OJQ": 5, "4FUA": 1.55, "1128": 1.11, "N72L": 1.15, "7TET": 0.812,
    "9S40": 0.6, "N8CA": 567, "5ZWQ": 2.77,
}  # fmt: skip


@pytest.fixture(scope="module")
def measurer():
    return Measurer(ibsi.FEATURES)


def region(hu, hot, seed, spacing):
    arrays = {"hu": hu, "hot": hot, "seed": seed, "spacing": spacing}
    dtypes = {"hu": np.float32, "hot": np.uint8, "seed": np.int64, "spacing": np.float64}
    return {name: np.asarray(array, dtypes[name]) for name, array in arrays.items()}


def by_code(values):
    return dict(zip((one.code for one in ibsi.FEATURES), values, strict=True))


def test_every_feature_of_the_digital_phantom_is_as_it_was_published(measurer):
    rows = np.array([[list(row) for row in part] for part in ibsi.PHANTOM])
    hot = rows != "."
    assert (rows.shape, hot.sum()) == ((4, 4, 5), 74)
    hu = np.where(hot, rows, "0").astype(np.float32)
    got = by_code(measurer._measured(hu, hot, (2.0, 2.0, 2.0)))
    assert got.keys() == PUBLISHED.keys()
    for one in ibsi.FEATURES:
        assert one.phantom == PUBLISHED[one.code]
        assert got[one.code] == pytest.approx(one.phantom, abs=one.tolerance), one.name
    assert 0 < measurer.worst <= 1


def test_the_codes_are_those_that_the_library_knows_by_these_names():
    settings = FeatureExtractionSettingsClass(by_slice=False, base_feature_families=["morphological", "statistical"])
    known = {one.abbr_name: one.ibsi_id for one in generate_features(settings)}
    assert {one.code: known[one.library] for one in ibsi.FEATURES} == {code: code for code in PUBLISHED}


def test_a_box_is_measured_in_its_own_spacing_whatever_else_is_hot(measurer):
    hu, hot = np.zeros((10, 40, 40)), np.zeros((10, 40, 40))
    hot[2:6, 10:20, 10:30], hu[2:6, 10:20, 10:30] = 1, 60
    hu[2, 10, 10] = 70
    hot[8:, 30:, 35:], hu[8:, 30:, 35:] = 1, 500  # not connected: not the region
    out = measurer.run(region(hu, hot, (2, 10, 10), (5.0, 0.5, 0.25)), 10)
    got = by_code(out["values"])
    assert out["voxels"].tolist() == [800]
    assert got["YEKZ"] == pytest.approx(800 * 5 * 0.5 * 0.25)
    assert got["RNU0"] == pytest.approx(got["YEKZ"], rel=0.05)
    assert got["L0JK"] == pytest.approx(np.sqrt(20**2 + 5**2 + 5**2), rel=0.05)
    assert got["Q4LE"] == pytest.approx((799 * 60 + 70) / 800)
    assert (got["84IY"], got["1GSF"], got["Y12H"]) == (70, 60, 60)


def test_a_single_voxel_has_no_axes_and_no_figure_for_them(measurer):
    hot = np.zeros((3, 3, 3))
    hot[1, 1, 1] = 1
    got = by_code(measurer.run(region(np.full((3, 3, 3), 40), hot, (1, 1, 1), (1, 1, 1)), 10)["values"])
    assert got["Q4LE"] == 40
    assert np.isnan(got["Q3CK"])


def test_a_region_of_millions_of_voxels_is_refused(measurer, monkeypatch):
    monkeypatch.setattr(radiomics, "MOST_VOXELS", 26)
    with pytest.raises(RuntimeError, match="too large"):
        measurer.run(region(np.zeros((3, 3, 3)), np.ones((3, 3, 3)), (0, 0, 0), (1, 1, 1)), 10)


def test_a_library_that_measures_otherwise_measures_nothing(monkeypatch):
    monkeypatch.setattr(Measurer, "_measured", lambda self, *_: np.full(len(self._features), 1.0))
    with pytest.raises(Stop) as caught:
        Measurer(ibsi.FEATURES)
    assert caught.value.code == "triage.radiomics-unproven"
    assert "Volume (mesh) (RNU0)" in caught.value.message


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        (["q4le", "RNU0"], ["RNU0", "Q4LE"]),
        (["mean intensity", "Volume (mesh)", "RNU0"], ["RNU0", "Q4LE"]),
        (["statistics"], [one.code for one in ibsi.STATISTICS]),
    ],
)
def test_features_are_asked_for_by_code_name_or_family(asked, codes):
    assert [one.code for one in ibsi.chosen(asked)] == codes


def asking(folder, what='features = ["morphology", "statistics"]'):
    card = folder / "card.toml"
    card.write_text(card.read_text() + f"\n[radiomics]\n{what}\n")
    return folder


@pytest.fixture
def package(tmp_path):
    """A model of classes in volumes that flags what is bright, and asks for everything."""
    return asking(volume_package(tmp_path, "[3.0, 1.0, 1.0]"))


def box(value=250):
    """Soft tissue with a box of 8 x 20 x 30 voxels of 3 x 1 x 1 mm in it."""
    hu = np.full((24, 96, 96), -1000, np.int16)
    hu[:, 8:88, 8:88] = 25
    hu[8:16, 20:40, 40:70] = value
    return clean_study(
        ct_slice(hu[k], position=(-48.0, -48.0, 3.0 * k), spacing=(1.0, 1.0), number=k + 1) for k in range(len(hu))
    )


def measuring(package, **options):
    """A model whose figures are ready to be measured."""
    model_ = loaded(package, **options)
    assert model_.process.companion.ready(60) == ""
    return model_


def judged(model_, study):
    result = Triage([model_], threads=1, time_limit_s=120).judge(study)
    assert result.outcome is TriageOutcome.FINDING
    assert result.top is not None
    return result.top


def test_what_a_model_of_volumes_flags_is_measured_where_its_card_asks(package):
    model_ = measuring(package)
    try:
        finding = judged(model_, box())
        assert finding.verdict is Verdict.FLAGGED
        assert [one.code.value for one in finding.radiomics] == [one.code for one in ibsi.FEATURES]
        got = {one.code.value: one for one in finding.radiomics}
        assert (got["YEKZ"].value, got["YEKZ"].unit) == (pytest.approx(8 * 3 * 20 * 30, rel=0.15), "mm3")
        assert (got["Q4LE"].value, got["Q4LE"].unit) == (pytest.approx(250, abs=10), "[hnsf'U]")
        assert got["L0JK"].value == pytest.approx(np.sqrt(24**2 + 20**2 + 30**2), rel=0.1)
        assert finding.quality[-1] == (
            "radiomics.region: of the area where the model's map is at least 0.5, on voxels of 3 x 1 x 1 mm; "
            "not a segmentation"
        )
        again = result_from_json(result_to_json(TriageResult(TriageOutcome.FINDING, findings=(finding,))))
        assert again.findings == (finding,)
        calm = judged(model_, box(25))
        assert (calm.verdict, calm.radiomics) == (Verdict.NOT_FLAGGED, ())
        bare = replace(finding, radiomics=(), quality=())
        hu, ones = np.zeros((4, 4, 4)), np.ones((4, 4, 4), np.float32)
        assert marked(model_, bare, hu, ones, time.monotonic() - 1) == (
            "radiomics.time-limit: no time was left to measure it",
        )
        assert marked(model_, bare, hu, ones * 0.4, time.monotonic() + 60) == (
            "radiomics.no-region: the model's map is nowhere 0.5 or more",
        )
    finally:
        model_.process.close()
    assert (model_.process.pid, model_.process.companion.process.pid) == (0, 0)


def marked(model_, finding, hu, chances, deadline):
    """The notes of a finding with this map."""
    areas = regions.Areas()
    areas.mark(model_, finding, hu, chances, (1, 1, 1))
    ((found, _),) = areas.measured([(finding, None)], deadline, 100)
    return found.quality


def test_what_is_hot_far_away_makes_nothing_larger_and_what_is_connected_is_inside():
    chances = np.zeros((40, 60, 60), np.float32)
    chances[10:14, 20:30, 20:30], chances[12, 25, 25] = 0.7, 0.9
    chances[14, 30, 30] = 0.6  # touches by its corner alone
    chances[0, 0, 0] = chances[39, 59, 59] = 0.8  # stray
    made = regions._region(np.zeros(chances.shape, np.int16), chances, (1.0, 1.0, 1.0), 605)
    assert (made["hu"].shape, made["hu"].base, made["seed"].tolist()) == ((5, 11, 11), None, [2, 5, 5])
    assert made["hot"].sum() == 401
    small = regions._region(np.zeros(chances.shape, np.int16), chances, (1.0, 1.0, 1.0), 604)
    assert small == "radiomics.too-large: the regions of the study are larger than the node measures"


def test_the_regions_of_one_study_share_one_room(package, monkeypatch):
    monkeypatch.setattr(regions, "MOST_VOXELS", 1000)
    model_ = measuring(package)
    try:
        finding = replace(judged(model_, box()), radiomics=(), quality=())
        areas, ones = regions.Areas(), np.ones((4, 10, 10), np.float32)
        found = [replace(finding) for _ in range(4)]
        for one in found:
            areas.mark(model_, one, np.zeros((4, 10, 10), np.int16), ones, (1, 1, 1))
        told = areas.measured([(one, None) for one in found], time.monotonic() + 60, 100)
    finally:
        model_.process.close()
    codes = [one.quality[0].partition(":")[0] for one, _ in told]
    assert codes == ["radiomics.region"] * 2 + ["radiomics.too-large"] * 2


def test_features_are_called_as_dicom_calls_their_codes():
    called = {code: meaning for codes in concepts["IBSI"].values() for code, (meaning, _) in codes.items()}
    assert {one.code for one in ibsi.FEATURES} - called.keys() == {one.code for one in ibsi.STATISTICS}
    for one in ibsi.FEATURES:
        assert one.concept == Code(one.code, "IBSI", called.get(one.code, one.name))


@given(hnp.arrays(np.bool_, (4, 5, 6), elements=st.booleans()), st.data())
def test_the_box_holds_all_that_is_connected_with_the_seed(hot, data):
    seed = data.draw(st.tuples(*(st.integers(0, n - 1) for n in hot.shape)))
    hot[seed] = True
    labels, _ = ndimage.label(hot, structure=np.ones((3, 3, 3)))
    box = regions._box(hot, seed)
    assert (labels[box] == labels[seed]).sum() == (labels == labels[seed]).sum()


def test_a_heat_map_of_slabs_is_measured_on_the_pixels_that_the_model_saw(tmp_path):
    model_ = measuring(asking(shutil.copytree(REFERENCE, tmp_path / "ref"), 'features = ["YEKZ", "Q4LE", "84IY"]'))
    try:
        finding = judged(model_, clean_study(ct_slices(head_phantom(79, kind="epidural", slices=22, rows=160))))
    finally:
        model_.process.close()
    assert finding.verdict is Verdict.FLAGGED
    got = {one.code.value: one.value for one in finding.radiomics}
    assert got.keys() == {"YEKZ", "Q4LE", "84IY"}
    spec = model_.card.spec
    cell = spec.slab_mm * (spec.size * spec.pixel_mm / 40) ** 2
    assert got["YEKZ"] == pytest.approx(max(1, round(got["YEKZ"] / cell)) * cell)  # whole cells of the map
    assert 20 < got["Q4LE"] < got["84IY"]
    side = f"{spec.size * spec.pixel_mm / 40:.3g}"
    assert f"at least 0.5 in cells of {spec.slab_mm:.3g} x {side} x {side} mm, on voxels of" in finding.quality[-1]


class Hangs(Measurer):
    def run(self, inputs, _time_limit_s):
        time.sleep(3600)


class Dies(Measurer):
    def run(self, inputs, _time_limit_s):
        os.kill(os.getpid(), signal.SIGKILL)


class DiesAtItsStart(Measurer):
    def __init__(self, features):
        os.kill(os.getpid(), signal.SIGKILL)


class StartsSlowly(Measurer):
    def __init__(self, features):
        time.sleep(3600)


def make(kind, asked, prepare):
    return kind(ibsi.chosen(asked))


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (Hangs, "radiomics.time-limit: not measured within 1 s"),
        (Dies, "radiomics.failed: not measured (WorkerDied)"),
    ],
)
def test_a_measurement_that_hangs_or_dies_takes_nothing_from_the_flag_and_is_not_tried_for_ever(
    package, monkeypatch, kind, note
):
    card = package / "card.toml"
    card.write_text(card.read_text().replace("[radiomics]", "[radiomics]\nseconds = 1"))
    monkeypatch.setattr(companion, "make_measurer", partial(make, kind))
    model_ = measuring(package)
    try:
        worker, beside = model_.process.pid, model_.process.companion
        began = time.monotonic()
        finding = judged(model_, box())
        assert time.monotonic() - began < 20
        assert (finding.verdict, finding.radiomics) == (Verdict.FLAGGED, ())
        assert note in finding.quality
        assert (model_.process.pid, model_.fault) == (worker, "")
        assert beside.ready(60) == ""  # anew, beside the study
        assert note in judged(model_, box()).quality
        restarts = beside.process.restarts
        assert judged(model_, box()).quality[-1].startswith("radiomics.unavailable: it was too slow or died 2 times")
        assert beside.process.restarts == restarts
        assert model_.unmeasured.endswith("restart the compute role to try again")
    finally:
        model_.process.close()


def test_one_that_failed_once_measures_the_next_study(package, monkeypatch):
    monkeypatch.setattr(companion, "make_measurer", partial(make, Dies))
    model_ = measuring(package)
    try:
        assert judged(model_, box()).radiomics == ()
        beside = model_.process.companion
        assert beside.ready(60) == ""
        beside.close()
        beside.process = ModelProcess("again", radiomics.make_measurer, beside.process._arguments)
        beside.start()
        assert beside.ready(60) == ""
        assert len(judged(model_, box()).radiomics) == len(ibsi.FEATURES)
        assert beside._lost == 0
    finally:
        model_.process.close()


def test_a_measurement_that_hangs_takes_no_other_model_its_time(tmp_path, package, monkeypatch):
    """The first model's measurer would take all the time of the study."""
    card = package / "card.toml"
    card.write_text(card.read_text().replace("[radiomics]", "[radiomics]\nseconds = 60"))
    (tmp_path / "other").mkdir()
    other = volume_package(tmp_path / "other", "[3.0, 1.0, 1.0]", lambda text: text.replace('"bright"', '"other"'))
    monkeypatch.setattr(companion, "make_measurer", partial(make, Hangs))
    monkeypatch.setattr(regions, "MOST_S", 4.0)
    models = [measuring(package), loaded(other)]
    try:
        began = time.monotonic()
        result = Triage(models, threads=1, time_limit_s=15).judge(box())
        took = time.monotonic() - began
    finally:
        for model_ in models:
            model_.process.close()
    assert (result.unavailable, [f.model.name for f in result.findings]) == ((), ["bright", "other"])
    assert [f.verdict for f in result.findings] == [Verdict.FLAGGED] * 2
    assert result.findings[0].quality[-1].startswith("radiomics.time-limit: not measured within ")
    assert took < 12


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (DiesAtItsStart, "radiomics.unavailable: the process that measures did not start: it died (exit code -9)"),
        (StartsSlowly, "radiomics.unavailable: the process that measures is still starting"),
    ],
)
def test_a_companion_that_does_not_start_keeps_no_model_from_its_work(package, monkeypatch, kind, note):
    monkeypatch.setattr(companion, "make_measurer", partial(make, kind))
    model_ = loaded(package)
    try:
        model_.process.companion.ready(20 if kind is DiesAtItsStart else 0)
        finding = judged(model_, box())
    finally:
        model_.process.close()
    assert (finding.verdict, finding.radiomics, model_.fault) == (Verdict.FLAGGED, (), "")
    assert finding.quality[-1].startswith(note)


def test_a_site_without_the_library_judges_and_is_told_how_to_get_it(package, monkeypatch):
    monkeypatch.setattr(radiomics, "find_spec", lambda _: None)
    model_ = loaded(package)
    try:
        finding = judged(model_, box())
        assert model_.process.companion.process.restarts == -1
    finally:
        model_.process.close()
    assert finding.verdict is Verdict.FLAGGED
    assert finding.quality[-1].startswith("radiomics.unavailable: triage.radiomics-missing: the card asks")
    assert finding.quality[-1].endswith("pip install 'edge-node[radiomics]' and restart")


def test_a_model_that_is_refused_leaves_no_handles(package):
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        with pytest.raises(Stop):
            loaded(package, make=engines.crashes_at_start)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


def test_a_card_that_does_not_ask_starts_nothing():
    model_ = loaded()
    try:
        assert model_.process.companion is None
    finally:
        model_.process.close()


@pytest.mark.parametrize(
    ("name", "what", "says"),
    [
        (REFERENCE.name, 'features = ["roundness"]', "no IBSI feature or family that this node measures: roundness"),
        (REFERENCE.name, "features = []", r"card\.toml:\d+: radiomics\.features"),
        (REFERENCE.name, 'features = ["RNU0"]\nseconds = 600', r"radiomics\.seconds"),
        ("ref-cr-chest", 'features = ["RNU0"]', r"card\.toml:\d+: radiomics: radiomics are of a volume"),
        ("ref-ct-body-part", 'features = ["RNU0"]', "radiomics are of a volume"),
    ],
)
def test_a_card_that_asks_for_what_there_is_not_is_refused_with_the_line(tmp_path, name, what, says):
    folder = asking(shutil.copytree(PACKAGES / name, tmp_path / "ref"), what)
    with pytest.raises(Stop, match=says):
        load_card(folder)
