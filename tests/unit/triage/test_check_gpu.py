"""scripts/check_gpu refuses clearly where there is no GPU, and tells the truth about one that pretends."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from edge_node.triage.card import load_card
from edge_node.triage.runner import cuda_devices
from tests.unit.triage.engines import FakeGpu, louder
from tests.unit.triage.studies import REFERENCE

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "check_gpu"


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("check_gpu", str(SCRIPT))
    spec = spec_from_loader("check_gpu", loader)
    module = module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


@pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a GPU")
def test_without_a_gpu_it_refuses_and_claims_nothing():
    done = subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 69
    assert "triage.no-gpu" in done.stderr
    assert "next: check nvidia-smi" in done.stderr
    assert done.stdout == ""


def test_a_gpu_is_told_with_provider_nodes_parity_and_speed_up(script, capsys):
    assert script.check(load_card(REFERENCE), "cuda", 4, 1, FakeGpu()) == 0
    out = capsys.readouterr().out
    assert "provider       CUDAExecutionProvider" in out
    assert "nodes          1 on CPUExecutionProvider, 21 on CUDAExecutionProvider" in out
    assert "variant        fp32" in out
    assert "decisions      agrees with the CPU: 0 of " in out
    assert "largest difference 0 over 4 items" in out
    assert "speed-up" in out


def test_a_silent_fall_back_is_no_gpu(script, capsys):
    assert script.check(load_card(REFERENCE), "cuda", 4, 1, FakeGpu(falls_back=True)) == 69
    assert "fell back to the CPU" in capsys.readouterr().out


def test_a_gpu_that_does_not_decide_as_the_cpu_is_told_with_its_figures(script, capsys):
    assert script.check(load_card(REFERENCE), "cuda", 4, 1, FakeGpu(wrong=louder)) == 1
    out = capsys.readouterr().out
    assert "decisions      model ref-ct-head-hyperdensity" in out
    assert "decisions differ from fp32 on the CPU" in out
    assert "verdict        GPU and CPU disagree" in out
