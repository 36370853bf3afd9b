"""Radiomics of one region, measured by MIRP in a process of its own: the only importer of mirp and scipy in this house.

MIRP is an extra (`edge-node[radiomics]`). Single features are asked for, by its modules rather than by its pipeline,
which would also compute those that take hours. At every start the features are measured on the digital phantom of the
IBSI and compared with the published values: another version that measures otherwise measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.domain.errors import Stop
from edge_node.triage import ibsi
from edge_node.triage.ibsi import Feature
from edge_node.triage.runner import Arrays

PROVIDER: Final = "mirp"
MOST_VOXELS: Final = 4_000_000  # of the region: a head has fewer of 1 mm3


class Measurer:
    """Features of a region, in the order they were asked for; `variant` is the version of the library, `worst` the
    largest difference from the phantom in units of its tolerance."""

    provider = PROVIDER
    placement: Mapping[str, int] = {}

    def __init__(self, features: Sequence[Feature]) -> None:
        """Raises `Stop` ``triage.radiomics-missing``, ``triage.radiomics-unproven``."""
        check_installed()
        self._features = tuple(features)
        try:
            self.variant = version(PROVIDER)
        except PackageNotFoundError:
            raise _missing() from None
        self.worst = self.prove()

    def run(self, inputs: Arrays, _time_limit_s: float) -> Arrays:
        """``values`` (float64) of the region of ``hot`` (uint8, z y x) that is connected with ``seed`` (its corners
        count), in ``hu`` (float32, z y x) with ``spacing`` in mm; NaN where a feature is not defined. Raises
        RuntimeError when the region is too large."""
        from scipy import ndimage

        labels, _ = ndimage.label(inputs["hot"], structure=np.ones((3, 3, 3)))
        mine = labels == labels[tuple(inputs["seed"])]
        box = ndimage.find_objects(mine.astype(np.uint8))[0]
        region = np.asarray(mine[box])
        if int(region.sum()) > MOST_VOXELS:
            raise RuntimeError("the region is too large")
        z, y, x = (float(one) for one in inputs["spacing"])
        hu = inputs["hu"][box].astype(np.float32)
        try:
            values = self._measured(hu, region, (z, y, x))
        except Exception as error:  # whatever a library of geometry raises about a strange shape
            raise RuntimeError(f"not measured ({type(error).__name__})") from None
        return {"values": values, "voxels": np.array([int(region.sum())], np.int64)}

    def agree(self, _known: object, _limit_s: float) -> None:
        """The CPU alone measures."""

    def prove(self) -> float:
        """The published values of the digital phantom. Raises `Stop` ``triage.radiomics-unproven``."""
        rows = np.array([[list(row) for row in part] for part in ibsi.PHANTOM])
        region = rows != "."
        hu = np.where(region, rows, "0").astype(np.float32)
        try:
            got = self._measured(hu, region, (ibsi.PHANTOM_MM,) * 3)
        except Exception as error:  # another version: whatever its modules raise
            raise self._unproven(f"its features cannot be asked for ({type(error).__name__})") from error
        apart = [abs(value - one.phantom) / one.tolerance for value, one in zip(got, self._features, strict=True)]
        for off, one in zip(apart, self._features, strict=True):
            if not off <= 1 + 1e-6:
                raise self._unproven(f"{one.name} ({one.code}) of the IBSI phantom is not as it is published")
        return float(max(apart))

    def _unproven(self, why: str) -> Stop:
        return Stop(
            "triage.radiomics-unproven",
            f"mirp {self.variant}: {why}",
            hint="install the version that edge-node was made with: pip install 'edge-node[radiomics]'",
        )

    def _measured(
        self, hu: NDArray[np.float32], region: NDArray[np.bool_], spacing: tuple[float, float, float]
    ) -> NDArray[np.float64]:
        from mirp._features.feature_generator import generate_features
        from mirp._images.generic_image import GenericImage
        from mirp._masks.base_mask import BaseMask
        from mirp.settings.feature_parameters import FeatureExtractionSettingsClass

        place = {
            "sample_name": "region",
            "image_spacing": spacing,
            "image_origin": (0.0, 0.0, 0.0),
            "image_orientation": np.eye(3),
            "image_dimensions": hu.shape,
        }
        image = GenericImage(image_data=hu, image_modality="generic", **place)
        mask = BaseMask(roi_name="region", image_data=region, **place)
        mask.generate_masks()
        settings = FeatureExtractionSettingsClass(by_slice=False, base_feature_families="statistical")
        # All percentiles go by one name.
        names = {"stat_p" if one.library in ("stat_p10", "stat_p90") else one.library for one in self._features}
        made = list(generate_features(settings, features=sorted(names)))
        for feature in made:
            feature.compute(image=image, mask=mask)
        values = {str(feature.abbr_name): float(feature.value) for feature in made}
        for feature in made:
            feature.clear_cache()
        return np.array([values.get(one.library, np.nan) for one in self._features], np.float64)


def make_measurer(asked: Sequence[str], prepare: Callable[[], None] | None) -> Measurer:
    """In the process: `prepare` runs first."""
    if prepare is not None:
        prepare()
    return Measurer(ibsi.chosen(asked))


def check_installed() -> None:
    """Raises `Stop` ``triage.radiomics-missing``."""
    if find_spec(PROVIDER) is None:
        raise _missing()


def _missing() -> Stop:
    return Stop(
        "triage.radiomics-missing",
        "the card asks for radiomics, and the library for it (mirp) is not installed",
        hint="pip install 'edge-node[radiomics]' and restart",
    )
