"""What the scripts that train reference models share: export, quantization, calibration, and the words of a card."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MISSED = 0.04  # share of the calibration phantoms with a finding, at the threshold
LABEL = "reference model, synthetic training data, not for clinical use"
FILES = {"int8": "model.onnx", "fp32": "model.fp32.onnx"}
TOLERANCE = {"int8": 0.5, "fp32": 0.02}  # of the golden vectors, in logits


def export(
    net: Any, folder: Path, port: str, outputs: Sequence[str], shape: tuple[int, ...], cases: np.ndarray
) -> None:
    """model.fp32.onnx, then model.onnx: static QDQ, activations UInt8, weights Int8 per channel.

    `shape` is that of one input without the batch, `cases` float32 (n, *shape) what the activations are measured on.
    """
    import torch
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    fp32 = folder / FILES["fp32"]
    torch.onnx.export(
        net,
        (torch.zeros(1, *shape),),
        str(fp32),
        input_names=[port],
        output_names=list(outputs),
        dynamic_axes={name: {0: "n"} for name in (port, *outputs)},
        opset_version=17,
        dynamo=False,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.items = iter(np.array_split(cases, max(1, len(cases) // 8)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            item = next(self.items, None)
            return None if item is None else {port: item}

    with tempfile.TemporaryDirectory() as scratch:
        ready = Path(scratch) / "ready.onnx"
        quant_pre_process(str(fp32), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(folder / FILES["int8"]),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Seven-bit weights: eight would saturate on processors without VNNI, and differ from machine to machine.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def answers(path: Path, port: str, cases: np.ndarray) -> list[np.ndarray]:
    """All outputs of a model file on the CPU, float32, for cases (n, …)."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [session.run(None, {port: cases[i : i + 16]}) for i in range(0, len(cases), 16)]
    return [np.concatenate([part[k] for part in parts]) for k in range(len(parts[0]))]


def platt(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and offset by damped Newton steps with Platt's smoothed targets.

    The ridge towards a slope of 0.5 keeps the answer soft when phantoms are told apart without a fault.
    """
    yes, no = truth.sum(), (~truth).sum()
    target = np.where(truth, (yes + 1) / (yes + 2), 1 / (no + 2))
    prior = np.array([0.5, 0.0])
    w = prior.copy()
    design = np.stack((logits, np.ones_like(logits)), 1)
    for _ in range(500):
        p = 1 / (1 + np.exp(-design @ w))
        gradient = design.T @ (p - target) + np.array([20.0, 0.0]) * (w - prior)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag([20.0, 1e-6])
        w = w - np.clip(np.linalg.solve(hessian, gradient), -0.2, 0.2)
    return float(w[0]), float(w[1])


def probabilities(logits: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Calibrated probabilities of logits."""
    return np.asarray(1 / (1 + np.exp(-(slope * logits + offset))))


def threshold(p: np.ndarray, truth: np.ndarray, alarms: float = 1.0) -> float:
    """The highest threshold that misses no more than `MISSED` of the calibration phantoms; higher still where that
    would flag more than the share `alarms` of those without the finding.

    As high as it may be, because among real studies few are positive: false alarms are what tires the readers.
    On phantoms alone the middle of the gap between both groups would be as specific and a little more sensitive.
    """
    low = np.floor(np.quantile(p[truth], MISSED) * 1000)
    return round(float(max(low, np.ceil(np.quantile(p[~truth], 1 - alarms) * 1000))) / 1000, 3)


def sha256(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def golden(folder: Path, port: str, outputs: Sequence[str], cases: np.ndarray) -> None:
    """Inputs (0..1, kept as bytes) and what each variant must answer to them."""
    kept = np.rint(cases * 255).astype(np.uint8)
    arrays = {f"input.{port}": kept}
    for variant, file in FILES.items():
        given = answers(folder / file, port, kept.astype(np.float32) / np.float32(255))
        arrays |= {f"expected.{variant}.{name}": array for name, array in zip(outputs, given, strict=True)}
    np.savez_compressed(folder / "golden.npz", **arrays)


def variant_lines(folder: Path, points: dict[str, dict[str, tuple[float, float, float]]]) -> list[str]:
    """The tables of variants and golden vectors; `points` are threshold, slope and offset by variant and finding."""
    lines = []
    for variant, file in FILES.items():
        lines += [
            f"[variants.{variant}]",
            f'file = "{file}"',
            f'sha256 = "{sha256(folder / file)}"',
            "opset = 17",
            f"golden_tolerance = {TOLERANCE[variant]}  # logits",
            *(
                f"points.{short} = {{ threshold = {t}, slope = {slope:.6f}, offset = {offset:.6f} }}"
                for short, (t, slope, offset) in points[variant].items()
            ),
            "",
        ]
    return [*lines, "[golden]", 'file = "golden.npz"', f'sha256 = "{sha256(folder / "golden.npz")}"', ""]
