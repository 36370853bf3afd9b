from __future__ import annotations

import hashlib
import re
import shutil
import statistics
import sys
import time

import numpy as np
import onnxruntime
import pytest

from edge_node.domain.errors import Stop
from edge_node.triage import runner
from edge_node.triage.card import load_card
from edge_node.triage.engine import BadOutput, Engine
from edge_node.triage.runner import (
    CPU,
    Device,
    OutOfTime,
    Runtime,
    check_onnxruntime_owner,
    cuda_devices,
    providers_for,
)
from tests.unit.triage.studies import ON_CPU, REFERENCE

without_gpu = pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a GPU")


@pytest.fixture
def package(tmp_path):
    return shutil.copytree(REFERENCE, tmp_path / "ref")


@pytest.fixture(scope="module")
def reference():
    return start(REFERENCE)


def repin(folder, name):
    """Write the present sha256 of a file into the card, as an attacker or a careless hand would."""
    path = folder / "card.toml"
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    text = path.read_text()
    path.write_text(re.sub(rf'(file = "{re.escape(name)}"\nsha256 = ")[0-9a-f]+', rf"\g<1>{digest}", text))


def start(folder):
    return Engine(load_card(folder), ON_CPU, Runtime())


def drop_int8(package):
    text = (package / "card.toml").read_text()
    (package / "card.toml").write_text(re.sub(r"\[variants\.int8\].*?(?=\[variants\.fp32\])", "", text, flags=re.S))
    (package / "model.onnx").unlink()


def logits(engine, tensor, seconds=30):
    return engine.run({"slabs": tensor}, seconds)["logits"][:, 0]


def test_the_cpu_runs_int8_and_says_so(reference):
    assert reference.provider == CPU
    assert reference.variant == "int8"


def test_without_int8_the_cpu_runs_fp32(package):
    drop_int8(package)
    assert start(package).variant == "fp32"


def test_int8_and_fp32_give_nearly_the_same_map(package):
    int8 = start(package)
    drop_int8(package)
    fp32 = start(package)
    tensor = load_card(package).golden("fp32")[0]["slabs"]
    a, b = logits(int8, tensor), logits(fp32, tensor)
    assert np.abs(a - b).mean() < 0.3
    assert ((a.max((1, 2)) > 0) == (b.max((1, 2)) > 0)).all()


def test_the_same_input_gives_the_same_output(reference):
    tensor = load_card(REFERENCE).golden("int8")[0]["slabs"]
    assert np.array_equal(logits(reference, tensor), logits(reference, tensor))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.5, 1.5])
def test_input_that_is_not_finite_or_out_of_range_is_refused(reference, bad):
    tensor = np.zeros((1, 5, 160, 160), np.float32)
    tensor[0, 2, 80, 80] = bad
    with pytest.raises(ValueError, match="finite"):
        logits(reference, tensor)


def test_its_threads_do_not_run_on_in_a_loop_when_there_is_nothing_to_do(reference):
    """Processor time in the tenth of a second after a run: with spinning threads it is most of what they need to be
    sure that nothing more comes, and grows with the cores."""
    card = load_card(REFERENCE)
    session = Runtime().open(card.model_bytes("int8"), (CPU,), Device("cpu", threads=4))
    inputs, _ = card.golden("int8")
    session.run(inputs, 60.0)
    rested = []
    for _ in range(5):
        session.run(inputs, 60.0)
        before = time.process_time()
        time.sleep(0.1)
        rested.append(time.process_time() - before)
    assert statistics.median(rested) < 0.01


def test_no_time_means_no_run(reference):
    tensor = np.zeros((1, 5, 160, 160), np.float32)
    with pytest.raises(OutOfTime):
        logits(reference, tensor, 0)


def test_a_run_that_takes_too_long_is_stopped(reference):
    with pytest.raises(OutOfTime):
        logits(reference, np.zeros((400, 5, 160, 160), np.float32), 0.02)


def test_a_model_that_answers_differently_than_when_it_was_made_is_refused(package):
    with np.load(package / "golden.npz") as arrays:
        changed = dict(arrays)
    changed["expected.int8.logits"] = changed["expected.int8.logits"] + np.float32(2)
    np.savez_compressed(package / "golden.npz", **changed)
    repin(package, "golden.npz")
    with pytest.raises(Stop, match=r"golden vectors differ by 2"):
        start(package)


def test_golden_vectors_must_cover_the_variant(package):
    with np.load(package / "golden.npz") as arrays:
        changed = {name: array for name, array in arrays.items() if name != "expected.int8.logits"}
    np.savez_compressed(package / "golden.npz", **changed)
    repin(package, "golden.npz")
    with pytest.raises(Stop, match="do not cover the variant int8"):
        start(package)


def test_a_file_that_is_no_model_is_refused(package):
    (package / "model.onnx").write_bytes(b"no model")
    repin(package, "model.onnx")
    with pytest.raises(Stop, match=r"card\.toml:60: .* is no ONNX model"):
        start(package)


def test_output_no_sound_model_gives_stops_the_role(package):
    path = package / "card.toml"
    path.write_text(path.read_text().replace("limit = 80.0", "limit = 0.001"))
    with pytest.raises(Stop, match="golden vectors cannot be run") as caught:
        start(package)
    assert isinstance(caught.value.__cause__, BadOutput)


@without_gpu
def test_cuda_is_not_asked_for_where_no_device_answers_though_onnxruntime_lists_it():
    assert providers_for(Device("auto"), Runtime()) == (CPU,)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with pytest.raises(Stop, match=r"libcuda\.so\.1"):
            providers_for(Device("auto", require_gpu=True), Runtime())


@without_gpu
@pytest.mark.parametrize(("provider", "require"), [("cuda", False), ("tensorrt", False), ("auto", True), ("cpu", True)])
def test_a_required_gpu_that_is_not_there_stops_the_role(provider, require):
    with pytest.raises(Stop) as caught:
        providers_for(Device(provider, require), Runtime())
    assert caught.value.code == "triage.no-gpu"
    assert caught.value.exit_code == 69


def test_exactly_one_distribution_owns_onnxruntime_here():
    check_onnxruntime_owner()


def test_two_owners_of_onnxruntime_are_refused_with_the_repair(tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime-gpu"):
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(Stop) as caught:
        check_onnxruntime_owner()
    assert caught.value.code == "triage.onnxruntime-owner"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in caught.value.hint


def test_no_onnxruntime_at_all_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(Stop, match="not installed"):
        check_onnxruntime_owner()


def test_the_driver_question_never_raises():
    assert runner.cuda_devices() >= 0
