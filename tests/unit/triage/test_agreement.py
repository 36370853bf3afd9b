"""A model on an accelerator speaks only when it decides as the CPU does; the CPU itself is not asked twice."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest

from edge_node.domain.errors import Stop
from edge_node.triage import agreement
from edge_node.triage.card import load_card
from edge_node.triage.card_tables import ToleranceTable
from edge_node.triage.engine import Engine
from edge_node.triage.runner import CPU, CUDA, Device, Runtime
from tests.unit.triage import engines
from tests.unit.triage.engines import FakeGpu
from tests.unit.triage.studies import PACKAGES, REFERENCE, loaded

ON_GPU = Device("auto", threads=1)
ALL = sorted(folder.name for folder in PACKAGES.glob("ref-*"))


@pytest.mark.parametrize("name", ALL)
def test_the_reference_models_agree_on_a_sound_gpu_and_it_is_told_with_figures(name):
    engine = Engine(load_card(PACKAGES / name), ON_GPU, FakeGpu())
    assert engine.parity is not None
    assert (engine.parity.provider, engine.parity.variant, engine.parity.reference) == (CUDA, "fp32", "int8")
    assert engine.parity.device.items > engine.parity.variants.items >= 30
    assert (engine.parity.device.flips, engine.parity.device.worst) == (0, 0.0)  # the GPU is fake: the same CPU
    assert 0 < engine.parity.variants.worst < 0.15
    assert engine.parity.seconds < 20
    assert "decisions differ from int8, probabilities by 0.0" in agreement.told(engine.parity.plain())


def test_on_the_cpu_there_is_one_session_and_nothing_to_compare():
    class Counting(Runtime):
        opened = 0

        def open(self, model, providers, device):
            self.opened += 1
            return super().open(model, providers, device)

    runtime = Counting()
    assert Engine(load_card(REFERENCE), Device("cpu", threads=1), runtime).parity is None
    assert runtime.opened == 1


def test_after_a_fall_back_to_the_cpu_there_is_nothing_to_compare():
    assert Engine(load_card(REFERENCE), ON_GPU, FakeGpu(falls_back=True)).parity is None


def test_who_compares_variants_himself_may_open_any_of_them():
    device = Device("auto", threads=1, variant="fp32")
    engine = Engine(load_card(REFERENCE), device, FakeGpu(wrong=engines.louder))
    assert (engine.provider, engine.parity) == (CUDA, None)


def test_a_gpu_that_is_right_on_golden_vectors_only_is_found_out():
    with pytest.raises(Stop) as caught:
        Engine(load_card(REFERENCE), ON_GPU, FakeGpu(wrong=engines.louder))
    error = caught.value
    assert error.code == "triage.parity"
    assert "variant fp32 on CUDAExecutionProvider does not decide as the CPU does" in error.message
    assert "probabilities differ from fp32 on the CPU by up to 0." in error.message
    assert "probabilities differ from int8 on the CPU by up to 0." in error.message
    assert "edge-node model verify ref-ct-head-hyperdensity 1.1.0" in error.hint
    assert "triage.provider = 'cpu'" in error.hint


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_a_gpu_that_says_what_no_model_says_does_not_speak(value):
    def broken(outputs):
        return {name: np.full_like(array, value) for name, array in outputs.items()}

    with pytest.raises(Stop, match="cannot be compared \\(BadOutput\\)") as caught:
        Engine(load_card(REFERENCE), ON_GPU, FakeGpu(wrong=broken))
    assert caught.value.code == "triage.parity"


def test_a_device_lost_in_the_middle_of_it_is_no_agreement():
    def lost(_):
        raise engines.DeviceLost

    with pytest.raises(Stop, match="cannot be compared \\(DeviceLost\\)"):
        Engine(load_card(REFERENCE), ON_GPU, FakeGpu(wrong=lost))


def test_a_decision_that_turns_counts_though_its_probability_hardly_moves():
    apart = agreement.Apart().more(20, 20, 1, 0.001)
    assert apart.breaches(ToleranceTable(), "int8 on the CPU") == [
        "1 of 20 decisions differ from int8 on the CPU, allowed 3.0%"
    ]
    assert apart.breaches(ToleranceTable(flips=0.05), "int8 on the CPU") == []


def test_a_difference_that_is_no_number_is_no_agreement():
    assert agreement.Apart(10, 10, 0, float("nan")).breaches(ToleranceTable(), "x") != []


def test_what_is_compared_ends_in_time_and_too_little_proves_nothing(monkeypatch):
    monkeypatch.setattr(agreement, "ENOUGH_S", -1.0)
    engine = Engine(load_card(REFERENCE), ON_GPU, FakeGpu())
    assert engine.parity is not None
    assert engine.parity.device.items == agreement.LEAST  # two golden slabs, and these mirrored
    monkeypatch.setattr(agreement, "LIMIT_S", -1.0)
    with pytest.raises(Stop, match="not compared within") as caught:
        Engine(load_card(REFERENCE), ON_GPU, FakeGpu())
    assert caught.value.code == "triage.parity"
    few = agreement.Apart().more(2, 2, 0, 0.0)
    assert few.breaches(ToleranceTable(), "x") == ["only 2 of at least 4 items were compared with x in -1 s"]


def test_two_starts_are_shown_the_same_and_only_what_a_card_takes():
    for name in ALL:
        card = load_card(PACKAGES / name)
        engine = Engine(card, Device("cpu", threads=1), Runtime())
        first, second = (list(agreement.probes(card, "fp32")) for _ in range(2))
        assert [near for near, _ in first].count(False) == 4
        for (_, one), (_, two) in zip(first, second, strict=True):
            for key, array in one.items():
                np.testing.assert_array_equal(array, two[key])
            engine._check_inputs(one)


def test_a_worker_that_does_not_agree_is_no_model(tmp_path):
    package = shutil.copytree(REFERENCE, tmp_path / "ref")
    with pytest.raises(Stop) as caught:
        loaded(package, make=partial(engines.build, engines.WrongOnItsGpu))
    assert caught.value.code == "triage.parity"


def test_what_a_worker_found_reaches_its_parent(tmp_path):
    package = shutil.copytree(REFERENCE, tmp_path / "ref")
    model = loaded(package, make=partial(engines.build, engines.LosesItsGpu))
    try:
        assert model.started.parity is not None
        assert model.started.parity["reference"] == "int8"
        assert model.started.parity["device"]["flips"] == 0
    finally:
        model.process.close()
    model = loaded(package)
    try:
        assert (model.provider, model.started.parity) == (CPU, None)
    finally:
        model.process.close()
