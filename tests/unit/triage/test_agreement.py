"""A model on an accelerator speaks only when it decides as the CPU does; the CPU itself is not asked twice."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from edge_node.domain.errors import Stop
from edge_node.triage import agreement, process
from edge_node.triage.card import load_card
from edge_node.triage.card_tables import ToleranceTable
from edge_node.triage.engine import Engine
from edge_node.triage.model import Source, Terms, admitted, load_model, make_engine
from edge_node.triage.runner import CPU, CUDA, Device, Runtime
from tests.unit.triage import engines
from tests.unit.triage.engines import FakeGpu
from tests.unit.triage.studies import PACKAGES, REFERENCE, loaded

ON_GPU = Device("auto", threads=1)
ALL = sorted(folder.name for folder in PACKAGES.glob("ref-*"))


def agreed(card, runtime, device=ON_GPU, **given):
    """What an engine finds of itself beside the CPU."""
    return Engine(card, device, runtime).agree(given.get("known"), given.get("limit_s", 600.0))


@pytest.mark.parametrize("name", ALL)
def test_the_reference_models_agree_on_a_sound_gpu_and_it_is_told_with_figures(name):
    found = agreed(load_card(PACKAGES / name), FakeGpu())
    assert (found["provider"], found["variant"], found["reference"]) == (CUDA, "fp32", "int8")
    assert found["device"]["items"] > found["variants"]["items"] >= 20
    assert (found["device"]["flips"], found["device"]["worst"]) == (0, 0.0)  # the GPU is fake: the same CPU
    assert 0 < found["variants"]["worst"] < 0.15
    assert found["seconds"] < 20
    assert "decisions differ from int8, probabilities by 0.0" in agreement.told(found)


class Counting(FakeGpu):
    """Also counts the runs on the CPU."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = []

    def open(self, model, providers, device):
        if providers == (CPU,):
            self.asked.append((device.variant, device.threads))
        return super().open(model, providers, device)


def test_on_the_cpu_there_is_one_session_and_nothing_to_compare():
    runtime = Counting()
    assert agreed(load_card(REFERENCE), runtime, Device("cpu", threads=1)) is None
    assert len(runtime.opened) == 1


def test_the_cpu_is_asked_with_one_thread_and_the_golden_vectors_are_not_proven_again(monkeypatch):
    proven, before = [], Engine.prove

    def counts(self, *limit):
        proven.append(self.variant)
        return before(self, *limit)

    monkeypatch.setattr(Engine, "prove", counts)
    runtime = Counting()
    assert agreed(load_card(REFERENCE), runtime, Device("auto", threads=8)) is not None
    assert (proven, runtime.asked) == (["fp32"], [("fp32", 1), ("int8", 1)])


def test_what_agreed_before_is_not_asked_again_where_the_same_runs_again():
    card, runtime = load_card(REFERENCE), Counting()
    known = agreed(card, runtime)
    again = Counting(wrong=engines.louder)
    assert agreed(card, again, known=known) == known
    assert again.asked == []
    for other in ({"variant": "fp16"}, {"provider": "TensorrtExecutionProvider"}):
        with pytest.raises(Stop, match="does not decide as the CPU does"):
            agreed(card, Counting(wrong=engines.louder), known={**known, **other})


def test_after_a_fall_back_to_the_cpu_there_is_nothing_to_compare():
    assert agreed(load_card(REFERENCE), FakeGpu(falls_back=True)) is None


def test_who_compares_variants_himself_may_open_any_of_them():
    device = Device("auto", threads=1, variant="fp32")
    engine = Engine(load_card(REFERENCE), device, FakeGpu(wrong=engines.louder))
    assert (engine.provider, engine.agree(None, 600)) == (CUDA, None)


def test_a_gpu_that_is_right_on_golden_vectors_only_is_found_out():
    with pytest.raises(Stop) as caught:
        agreed(load_card(REFERENCE), FakeGpu(wrong=engines.louder))
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

    with pytest.raises(Stop, match="what no sound model says \\(BadOutput\\)") as caught:
        agreed(load_card(REFERENCE), FakeGpu(wrong=broken))
    assert caught.value.code == "triage.parity"


def lost(_):
    raise engines.DeviceLost


class NoCpu(FakeGpu):
    """A machine whose CPU cannot load the file, or gives nonsense; the GPU is sound."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def open(self, model, providers, device):
        if providers != (CPU,):
            return super().open(model, providers, device)
        if self.fault == "load":
            raise ValueError
        session = super().open(model, providers, device)
        session.run = lambda inputs, limit: {"logits": np.full((len(inputs["slabs"]), 1, 40, 40), np.nan, np.float32)}
        return session


@pytest.mark.parametrize(
    ("runtime", "limit_s", "why"),
    [
        (FakeGpu(wrong=lost), 600.0, "they cannot be compared (DeviceLost)"),
        (FakeGpu(), -1.0, "it was not compared with the CPU within 0 s"),
        (NoCpu("load"), 600.0, "the CPU is no measure: onnxruntime cannot load the variant fp32 there"),
        (NoCpu("nonsense"), 600.0, "the CPU is no measure: the CPU fails (BadOutput)"),
    ],
)
def test_what_cannot_be_compared_is_not_called_wrong_and_does_not_speak(runtime, limit_s, why):
    with pytest.raises(Stop) as caught:
        agreed(load_card(REFERENCE), runtime, limit_s=limit_s)
    assert caught.value.code == "triage.parity-unproven"
    assert caught.value.message.endswith(f"is not proven to decide as the CPU does: {why}")


def test_decisions_that_turn_count_though_their_probabilities_hardly_move_but_a_single_one_proves_nothing():
    apart = agreement.Apart().more(20, 20, 2, 0.001)
    assert apart.breaches(ToleranceTable(), "fp32 on the CPU") == [
        "2 of 20 decisions differ from fp32 on the CPU, allowed 3.0%"
    ]
    assert apart.breaches(ToleranceTable(flips=0.1), "fp32 on the CPU") == []
    assert agreement.Apart().more(20, 20, 1, 0.001).breaches(ToleranceTable(flips=0.0), "fp32 on the CPU") == []


def test_another_variant_is_judged_by_its_probabilities_alone():
    few, many = agreement.Apart(20, 20, 0, 0.0), agreement.Apart(20, 20, 9, 0.1)
    assert agreement.Agreement(CUDA, "fp32", "int8", few, many, 1.0).breaches(ToleranceTable()) == []
    assert agreement.Agreement(CUDA, "fp32", "int8", many, few, 1.0).breaches(ToleranceTable()) != []
    apart = replace(many, worst=0.2)
    assert agreement.Agreement(CUDA, "fp32", "int8", few, apart, 1.0).breaches(ToleranceTable()) == [
        "probabilities differ from int8 on the CPU by up to 0.200, allowed 0.15"
    ]


@pytest.mark.parametrize(("p", "q", "flips"), [(0.49, 0.51, 0), (0.485, 0.515, 0), (0.47, 0.505, 1), (0.51, 0.53, 0)])
def test_a_decision_turns_only_beyond_a_tie_and_at_the_threshold_in_force(p, q, flips):
    card = load_card(REFERENCE)
    short = card.first.short
    at_half = replace(card, thresholds={f"{card.file.name}/{short}": 0.5})
    sides = [("fp32", {short: np.array([value])}) for value in (p, q)]
    assert agreement._compared(at_half, *sides) == (1, flips, pytest.approx(q - p))
    elsewhere = replace(card, thresholds={f"{card.file.name}/{short}": 0.9})
    assert agreement._compared(elsewhere, *sides)[1] == 0


@pytest.mark.parametrize("order", [(np.nan, 0.1), (0.1, np.nan)])
def test_a_difference_that_is_no_number_is_no_agreement_whatever_came_before_or_after(order):
    apart = agreement.Apart()
    for worst in order:
        apart = apart.more(10, 10, 0, worst)
    assert apart.breaches(ToleranceTable(), "x") == ["probabilities differ from x by up to nan, allowed 0.15"]


def test_the_worker_compares_at_the_thresholds_in_force(tmp_path):
    package = shutil.copytree(REFERENCE, tmp_path / "ref")
    card = load_card(package)
    terms = Terms(unsigned=True, site="north", thresholds={f"{card.file.name}/{card.first.short}": 0.123})
    model = load_model(Source(package), terms, Device("cpu", threads=1), make=engines.tells_its_card)
    model.process.close()
    assert (model.started.placement, model.started.worst) == ({"north": 1}, 0.123)
    engine = make_engine(admitted(Source(package), terms)[0], Device("cpu", threads=1), None)
    assert engine.card.point("int8", engine.card.first).threshold == 0.123


def test_a_worker_runs_no_other_package_than_was_checked(tmp_path):
    package = shutil.copytree(REFERENCE, tmp_path / "ref")
    card = load_card(package)
    (package / "card.toml").write_text((package / "card.toml").read_text() + "\n# more\n")
    with pytest.raises(Stop, match="another package than was checked before") as caught:
        make_engine(card, Device("cpu", threads=1), None)
    assert caught.value.code == "triage.model-invalid"


def test_the_time_to_compare_is_what_the_start_has_left(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "START_S", process.SPARE_S - 0.5)
    with pytest.raises(Stop) as caught:
        loaded(shutil.copytree(REFERENCE, tmp_path / "ref"), make=partial(engines.build, engines.SoundGpu))
    assert caught.value.code == "triage.parity-unproven"


def test_a_worker_that_died_is_not_compared_again_in_the_middle_of_the_work(tmp_path):
    model = loaded(shutil.copytree(REFERENCE, tmp_path / "ref"), make=partial(engines.build, engines.WrongOnceItDied))
    try:
        before = model.started.parity
        assert before is not None
        (tmp_path / "failed-once").touch()  # from now on a comparison would find it out
        os.kill(model.process.pid, signal.SIGKILL)
        inputs, _ = model.card.golden("fp32")
        assert model.run(inputs, time.monotonic() + 60, 0)
        assert (model.process.restarts, model.started.parity, model.fault) == (1, before, "")
    finally:
        model.process.close()


def test_of_large_items_few_are_shown_one_at_a_time(monkeypatch):
    card = load_card(REFERENCE)
    monkeypatch.setattr(agreement, "LARGE", 100)
    shown = list(agreement.probes(card, "fp32"))
    assert [near for near, _ in shown] == [True] * 4 + [False] * 2
    assert {len(inputs["slabs"]) for _, inputs in shown} == {1}


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
