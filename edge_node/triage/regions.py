"""Radiomics of what a model flags, when its card asks: the region of its map, the figures, and why there are none.

The region is where the map says at least one half (or its highest value, if that is less), as far as it is connected
with the strongest place. Figures are measured on the image as the model saw it: its spacing, before windows.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.finding import Finding, Radiomic, Verdict
from edge_node.triage import ibsi
from edge_node.triage.engine import BadInput, BadOutput
from edge_node.triage.model import LoadedModel
from edge_node.triage.prepare import Floats
from edge_node.triage.process import WorkerDied
from edge_node.triage.runner import Arrays, DeviceLost, OutOfTime

MOST_VOXELS: Final = 64 << 20  # of the box round everything that is hot
_HALF: Final = 0.5


def measured(
    model: LoadedModel,
    finding: Finding,
    hu: NDArray[np.generic],
    chances: Floats,
    spacing: tuple[float, float, float],
    deadline: float,
    urgency: float,
) -> Finding:
    """The finding with the figures that the card asks for, if it is flagged; with a note where they are missing.

    `hu` is (z, y, x) on `spacing` mm, `chances` 0..1 on the same grid or on cells of whole pixels of it; `deadline` is
    monotonic, the smaller `urgency`, the sooner its turn. Raises nothing: what cannot be measured takes nothing from
    the finding."""
    asked = model.card.file.radiomics
    process = model.process.companion
    if asked is None or process is None or finding.verdict is not Verdict.FLAGGED:
        return finding
    features = ibsi.chosen(asked.features)
    limit = min(asked.seconds, deadline - time.monotonic())
    try:
        inputs = _region(hu, chances, spacing)
        if inputs is None:
            return _noted(finding, "radiomics.too-large: the region is larger than the node measures")
        values = process.run(inputs, limit, urgency)["values"]
    except OutOfTime:
        return _noted(finding, f"radiomics.time-limit: not measured within {max(0.0, limit):.3g} s")
    except (EdgeNodeError, WorkerDied, DeviceLost, BadInput, BadOutput) as error:
        return _noted(finding, f"radiomics.failed: not measured ({type(error).__name__})")
    if values.shape != (len(features),):
        return _noted(finding, "radiomics.failed: not measured (another answer than was asked for)")
    figures = tuple(
        Radiomic(one.concept, float(value), one.unit)
        for one, value in zip(features, values, strict=True)
        if np.isfinite(value)
    )
    found = replace(finding, radiomics=figures)
    missing = len(features) - len(figures)
    if missing:
        return _noted(
            found, f"radiomics.undefined: {missing} of {len(features)} figures are not defined for the region"
        )
    return found


def _noted(finding: Finding, note: str) -> Finding:
    return replace(finding, quality=(*finding.quality, note))


def _region(hu: NDArray[np.generic], chances: Floats, spacing: tuple[float, float, float]) -> Arrays | None:
    """What the process is asked: the box round everything hot, and the strongest place in it. None when the box is
    too large."""
    hot = chances >= min(_HALF, float(chances.max()))
    seed = np.unravel_index(int(chances.argmax()), chances.shape)
    edges = [np.flatnonzero(hot.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    box = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in edges)
    hot = hot[box]
    grown = tuple(n // m for n, m in zip(hu.shape, chances.shape, strict=True))
    if hot.size * int(np.prod(grown)) > MOST_VOXELS:
        return None
    for axis, times in enumerate(grown):
        hot = np.repeat(hot, times, axis=axis) if times > 1 else hot
    whole = tuple(slice(one.start * n, one.stop * n) for one, n in zip(box, grown, strict=True))
    place = [(int(s) - one.start) * n for s, one, n in zip(seed, box, grown, strict=True)]
    return {
        "hu": np.ascontiguousarray(hu[whole], np.float32),
        "hot": hot.astype(np.uint8),
        "seed": np.array(place, np.int64),
        "spacing": np.array(spacing, np.float64),
    }
