"""Engines on a fake GPU: what really runs is what is told, and a full device makes batches smaller."""

from __future__ import annotations

import numpy as np
import pytest

from edge_node.domain.errors import Stop
from edge_node.triage.card import load_card
from edge_node.triage.engine import BadInput, Engine
from edge_node.triage.runner import (
    CPU,
    CUDA,
    TENSORRT,
    Device,
    DeviceLost,
    OutOfDeviceMemory,
    Runtime,
    failure,
    providers_for,
)
from tests.unit.triage.engines import FakeGpu
from tests.unit.triage.studies import REFERENCE

WANTS_GPU = Device("auto", threads=1)
NEEDS_GPU = Device("auto", require_gpu=True, threads=1)


def slabs(count):
    return {"slabs": np.random.default_rng(1).random((count, 5, 160, 160)).astype(np.float32)}


def test_on_a_gpu_the_variant_for_gpus_runs_and_the_provider_is_told():
    engine = Engine(load_card(REFERENCE), WANTS_GPU, FakeGpu())
    assert (engine.variant, engine.provider) == ("fp32", CUDA)
    assert engine.placement == {CUDA: 21, CPU: 1}


def test_a_fall_back_is_found_out_and_the_variant_for_the_cpu_taken():
    gpu = FakeGpu(falls_back=True)
    engine = Engine(load_card(REFERENCE), WANTS_GPU, gpu)
    assert (engine.variant, engine.provider) == ("int8", CPU)
    assert gpu.opened == [(CUDA, CPU), (CPU,)]


def test_where_a_gpu_is_required_a_fall_back_stops():
    with pytest.raises(Stop) as caught:
        Engine(load_card(REFERENCE), NEEDS_GPU, FakeGpu(falls_back=True))
    assert caught.value.code == "triage.no-gpu"
    assert "put the model on CPUExecutionProvider" in caught.value.message


def test_where_a_gpu_is_required_the_cpu_is_not_even_asked_to_help():
    gpu = FakeGpu()
    Engine(load_card(REFERENCE), NEEDS_GPU, gpu)
    assert gpu.opened == [(CUDA,)]


def test_tensorrt_is_asked_before_cuda_and_only_where_it_is_built_in():
    class Built(FakeGpu):
        def available(self):
            return (TENSORRT, CUDA, CPU)

    assert providers_for(Device("tensorrt"), Built()) == (TENSORRT, CUDA, CPU)
    with pytest.raises(Stop, match="built without Tensorrt"):
        providers_for(Device("tensorrt"), FakeGpu())


def test_a_full_device_makes_batches_smaller_and_the_answer_stays_the_same():
    roomy, tight = (Engine(load_card(REFERENCE), WANTS_GPU, FakeGpu(room=room)) for room in (1000, 3))
    inputs = slabs(11)
    np.testing.assert_allclose(roomy.run(inputs, 60)["logits"], tight.run(inputs, 60)["logits"], rtol=1e-4, atol=1e-4)
    assert tight.batch == 2
    assert roomy.batch == 16


def test_a_device_without_room_for_one_says_so():
    engine = Engine(load_card(REFERENCE), WANTS_GPU, FakeGpu(room=2))
    engine._session.room = 0
    with pytest.raises(OutOfDeviceMemory):
        engine.run(slabs(1), 60)


def test_the_memory_limit_goes_to_the_device():
    options = Runtime()._options(CUDA, Device("cuda", memory_mb=512))
    assert options["gpu_mem_limit"] == str(512 << 20)
    assert Runtime()._options(TENSORRT, Device("tensorrt"))["trt_engine_cache_enable"] == "0"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : BFCArena::AllocateRawInternal Failed to allocate memory", OutOfDeviceMemory),
        ("CUDA failure 2: out of memory ; GPU=0", OutOfDeviceMemory),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", OutOfDeviceMemory),
        ("CUDA failure 999: unknown error ; GPU=0", DeviceLost),
        ("CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED", DeviceLost),
        ("an illegal memory access was encountered", DeviceLost),
        ("Non-zero status code returned while running Conv node", RuntimeError),
    ],
)
def test_what_onnxruntime_says_is_understood_and_never_repeated(text, kind):
    error = failure(text, "Fail")
    assert type(error) is kind
    assert text not in str(error)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"slabs": np.zeros((1, 4, 160, 160), np.float32)},
        {"slabs": np.zeros((1, 5, 160, 160), np.float64)},
        {"slabs": np.zeros((0, 5, 160, 160), np.float32)},
    ],
)
def test_input_of_another_kind_than_the_card_says_is_refused(inputs):
    engine = Engine(load_card(REFERENCE), Device("cpu", threads=1), Runtime())
    with pytest.raises(BadInput):
        engine.run(inputs, 10)
