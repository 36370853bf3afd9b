"""From the model's map of logits to one calibrated probability, one key slab and one place. Plain numpy, no model."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.triage.card_tables import OutputTable
from edge_node.triage.prepare import CannotJudge, Floats

TOP_CELLS: Final = 3
MIN_CELLS: Final = 60  # a slab with less cranial cavity (about 20 cm2) is not scored
NOTHING: Final = -20.0
MIN_INSIDE: Final = 0.25  # share of a cell that must lie in the cavity


def cell_mask(inside: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """Cells of the logit map that count: (slabs, size, size) cavity to (slabs, cells, cells)."""
    count, size, _ = inside.shape
    stride = size // cells
    share = inside.reshape(count, cells, stride, cells, stride).mean((2, 4))
    return np.asarray(share >= MIN_INSIDE)


def slab_scores(logits: Floats, mask: NDArray[np.bool_], *, least: int = MIN_CELLS) -> Floats:
    """Mean of the highest logits inside the cavity of each slab: (slabs, cells, cells) to (slabs,)."""
    flat = np.where(mask, logits, np.float32(NOTHING)).reshape(len(logits), -1)
    top = np.partition(flat, -TOP_CELLS, axis=1)[:, -TOP_CELLS:].mean(1)
    return np.where(mask.sum((1, 2)) >= least, top, np.float32(NOTHING)).astype(np.float32)


def study_logit(scores: Floats) -> float:
    """The highest mean of two neighbouring slabs, (slabs,): blood reaches beyond one slab, artefacts often do not."""
    return float(((scores[1:] + scores[:-1]) / 2).max()) if len(scores) > 1 else float(scores[0])


def probability(logit: float, slope: float, offset: float) -> float:
    """Platt calibration (slope and offset come from the card), 0..1."""
    return float(1 / (1 + np.exp(-np.clip(slope * logit + offset, -40, 40))))


def chances(logits: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Probability of each cell, (slabs, cells, cells); 0 outside of the mask."""
    return np.where(mask, 1 / (1 + np.exp(-np.clip(logits, -30, 30))), 0).astype(np.float32)


def softmax(logits: Floats) -> Floats:
    """Shares that sum to 1 along the second axis: (n, classes, …) to the same."""
    values = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(values / values.sum(1, keepdims=True), np.float32)


def activated(raw: NDArray[np.generic], output: OutputTable) -> Floats:
    """Probabilities (n, classes, z, y, x) out of what the model gives."""
    values = raw.astype(np.float32)
    if output.activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -40, 40))), np.float32)
    if output.activation == "softmax":
        values -= values.max(1, keepdims=True)
        np.exp(values, out=values)
        values /= values.sum(1, keepdims=True)
    elif values.min() < -1e-3 or values.max() > 1 + 1e-3:
        raise CannotJudge("model.output", f"output {output.name} is no probability, and the card names no activation")
    return np.clip(values, 0, 1)


def volume_score(map_: Floats, voxels: int) -> float:
    """Mean of the `voxels` highest probabilities, 0..1."""
    flat = map_.reshape(-1)
    count = min(voxels, flat.size)
    return float(np.partition(flat, -count)[-count:].mean())


def region(logits: Floats, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells of positive logit connected with the highest one of a slab (cells, cells); at least that one."""
    masked = np.where(mask, logits, np.float32(NOTHING))
    peak = np.unravel_index(int(masked.argmax()), masked.shape)
    hot = masked >= min(0.0, float(masked[peak]))
    grown = np.zeros_like(hot)
    grown[peak] = True
    while True:
        padded = np.pad(grown, 1)
        near = np.logical_or.reduce(
            [
                padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            ]
        )
        new = np.asarray(near & hot)
        if (new == grown).all():
            return new
        grown = new
