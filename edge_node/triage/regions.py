"""Radiomics of what models flag, where their cards ask: the region of the map, the figures, and why there are none.

The region is where the map says at least one half, as far as it is connected with the strongest place. Figures are
measured on the image as the model saw it (its spacing, before windows), when all models of the study have judged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.finding import Finding, KeyImage, Radiomic, Verdict
from edge_node.triage import ibsi
from edge_node.triage.companion import Unmeasured
from edge_node.triage.model import LoadedModel
from edge_node.triage.prepare import Floats
from edge_node.triage.process import GRACE_S
from edge_node.triage.runner import Arrays

MOST_S: Final = 10.0  # for all findings of a study together
MOST_VOXELS: Final = 16 << 20  # of the boxes round the regions of a study: they are kept until all models have judged
LEVEL: Final = 0.5
Triple = tuple[float, float, float]


class Areas:
    """What is to be measured of one study, cut out while the maps are there."""

    def __init__(self) -> None:
        # The finding is kept so that its id stays its own.
        self._found: dict[int, tuple[Finding, LoadedModel, Arrays | str, str]] = {}
        self._room = MOST_VOXELS

    def mark(
        self, model: LoadedModel, finding: Finding, hu: NDArray[np.generic], chances: Floats, spacing: Triple
    ) -> None:
        """Remember the region of a finding, if it is flagged and the card asks. `hu` is (z, y, x) on `spacing` mm,
        `chances` 0..1 on the same grid or on cells of whole pixels of it."""
        if model.process.companion is not None and finding.verdict is Verdict.FLAGGED:
            region = _region(hu, chances, spacing, self._room)
            if not isinstance(region, str):
                self._room -= region["hot"].size
            self._found[id(finding)] = (finding, model, region, _told(hu, chances, spacing))

    def measured(
        self, findings: Sequence[tuple[Finding, KeyImage | None]], deadline: float, urgency: float
    ) -> list[tuple[Finding, KeyImage | None]]:
        """The findings with the figures that were asked for, or with a note where they are missing: `MOST_S` for all,
        never beyond `deadline` (monotonic); the smaller `urgency`, the sooner their turn. Raises nothing: what cannot
        be measured takes nothing from a finding."""
        end = min(deadline, time.monotonic() + MOST_S)
        return [(self._measured(finding, end, urgency), image) for finding, image in findings]

    def _measured(self, finding: Finding, end: float, urgency: float) -> Finding:
        if id(finding) not in self._found:
            return finding
        _, model, region, told = self._found.pop(id(finding))
        asked, companion = model.card.file.radiomics, model.process.companion
        assert asked is not None
        assert companion is not None
        if isinstance(region, str):
            return _noted(finding, region)
        features = ibsi.chosen(asked.features)
        # What does not heed its limit is ended so much later.
        limit = min(asked.seconds, end - time.monotonic() - GRACE_S)
        try:
            values = companion.measure(region | {"hu": region["hu"].astype(np.float32)}, limit, urgency)
        except Unmeasured as error:
            return _noted(finding, str(error))
        if values.shape != (len(features),):
            return _noted(finding, "radiomics.failed: not measured (another answer than was asked for)")
        figures = tuple(
            Radiomic(one.concept, float(value), one.unit)
            for one, value in zip(features, values, strict=True)
            if np.isfinite(value)
        )
        notes = [told]
        if missing := len(features) - len(figures):
            notes.append(f"radiomics.undefined: {missing} of {len(features)} figures are not defined for the region")
        return _noted(replace(finding, radiomics=figures), *notes)


def _noted(finding: Finding, *notes: str) -> Finding:
    return replace(finding, quality=(*finding.quality, *notes))


def _told(hu: NDArray[np.generic], chances: Floats, spacing: Triple) -> str:
    """What the figures are of."""
    grown = [n // m for n, m in zip(hu.shape, chances.shape, strict=True)]
    cell = [mm * n for mm, n in zip(spacing, grown, strict=True)]
    cells = f" in cells of {_mm(cell)}" if max(grown) > 1 else ""
    return (
        f"radiomics.region: of the area where the model's map is at least {LEVEL:g}{cells}, on voxels of "
        f"{_mm(spacing)}; not a segmentation"
    )


def _mm(lengths: Sequence[float]) -> str:
    return " x ".join(f"{one:.3g}" for one in lengths) + " mm"


def _region(hu: NDArray[np.generic], chances: Floats, spacing: Triple, room: int) -> Arrays | str:
    """What the process is asked: the box round the region, and the strongest place in it; or why there is none. `room`
    is how many voxels the box may have."""
    strongest = int(chances.argmax())
    if not chances.flat[strongest] >= LEVEL:
        return f"radiomics.no-region: the model's map is nowhere {LEVEL:g} or more"
    hot = chances >= LEVEL
    seed = [int(one) for one in np.unravel_index(strongest, chances.shape)]
    box = _box(hot, seed)
    hot = hot[box]
    grown = [n // m for n, m in zip(hu.shape, chances.shape, strict=True)]
    if hot.size * int(np.prod(grown)) > room:
        return "radiomics.too-large: the regions of the study are larger than the node measures"
    for axis, times in enumerate(grown):
        hot = np.repeat(hot, times, axis=axis) if times > 1 else hot
    whole = tuple(slice(one.start * n, one.stop * n) for one, n in zip(box, grown, strict=True))
    place = [(s - one.start) * n for s, one, n in zip(seed, box, grown, strict=True)]
    return {
        "hu": hu[whole].copy(),
        "hot": hot.astype(np.uint8),
        "seed": np.array(place, np.int64),
        "spacing": np.array(spacing, np.float64),
    }


def _box(hot: NDArray[np.bool_], seed: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box round the seed that nothing hot touches from outside: all that is connected with it (corners
    count) is inside, and what is hot elsewhere does not make it larger."""
    low, high = list(seed), [one + 1 for one in seed]
    grows = True
    while grows:
        grows = False
        for axis in range(3):
            for ends, at, step in ((low, low[axis] - 1, -1), (high, high[axis], 1)):
                near = [slice(max(0, a - 1), b + 1) for a, b in zip(low, high, strict=True)]
                near[axis] = slice(at, at + 1)
                if 0 <= at < hot.shape[axis] and hot[tuple(near)].any():
                    ends[axis] += step
                    grows = True
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))
