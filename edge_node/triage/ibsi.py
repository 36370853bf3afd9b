"""The radiomics features that a card may ask for, by the names and codes of the Image Biomarker Standardisation
Initiative (IBSI reference manual, doi:10.1148/radiol.2020191145), and what each must be of its digital phantom.

Left out are features without a strong consensus on the phantom, those that compare every voxel with every other
(Moran's I, Geary's C), and all that need grey levels to be binned: a card says nothing about that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_node.domain.finding import Code

SCHEME: Final = "IBSI"
_HU: Final = "[hnsf'U]"
# 5 x 4 x 4 voxels of 2 mm (x, y, z), a row a string, slices apart; "." is outside of the region.
PHANTOM: Final = (
    ("14411", "14611", "41641", "44641"),
    ("14411", "11611", ".1311", "44611"),
    ("144..", "11111", "11.11", "11611"),
    ("144..", "11111", "11111", "11611"),
)
PHANTOM_MM: Final = 2.0


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: code and name of the IBSI, unit (UCUM) for an image in HU, what the library calls it, and its
    published value of the digital phantom with the tolerance (where none is published: half of the last digit);
    `meaning` is how PS3.16 calls the code, if it does and otherwise than the IBSI."""

    code: str
    name: str
    unit: str
    library: str
    phantom: float
    tolerance: float
    meaning: str = ""

    @property
    def concept(self) -> Code:
        """As a coded concept (PS3.16 Table 8-1 has the scheme, CID 7477 the meanings of the shape features; it has
        none of the intensity statistics, which keep the name of the IBSI)."""
        return Code(self.code, SCHEME, self.meaning or self.name)


MORPHOLOGY: Final = (
    Feature("RNU0", "Volume (mesh)", "mm3", "morph_volume", 556, 4, "Volume of Mesh"),
    Feature("YEKZ", "Volume (voxel counting)", "mm3", "morph_vol_approx", 592, 4, "Volume from Voxel Summation"),
    Feature("C0JK", "Surface area (mesh)", "mm2", "morph_area_mesh", 388, 3, "Surface Area of Mesh"),
    Feature("2PR5", "Surface to volume ratio", "/mm", "morph_av", 0.698, 0.004, "Surface to Volume Ratio"),
    Feature("SKGS", "Compactness 1", "1", "morph_comp_1", 0.0411, 0.0003),
    Feature("BQWJ", "Compactness 2", "1", "morph_comp_2", 0.599, 0.004),
    Feature("KRCK", "Spherical disproportion", "1", "morph_sph_dispr", 1.19, 0.01, "Spherical Disproportion"),
    Feature("QCFX", "Sphericity", "1", "morph_sphericity", 0.843, 0.005),
    Feature("25C7", "Asphericity", "1", "morph_asphericity", 0.186, 0.001),
    Feature("KLMA", "Centre of mass shift", "mm", "morph_com", 0.672, 0.004, "Centre of Mass Shift"),
    Feature("L0JK", "Maximum 3D diameter", "mm", "morph_diam", 13.1, 0.1, "Maximum 3D Diameter of a Mesh"),
    Feature("TDIC", "Major axis length", "mm", "morph_pca_maj_axis", 11.4, 0.1, "Major Axis in 3D Length"),
    Feature("P9VJ", "Minor axis length", "mm", "morph_pca_min_axis", 9.31, 0.06, "Minor Axis in 3D Length"),
    Feature("7J51", "Least axis length", "mm", "morph_pca_least_axis", 8.54, 0.05, "Least Axis in 3D Length"),
    Feature("Q3CK", "Elongation", "1", "morph_pca_elongation", 0.816, 0.005),
    Feature("N17B", "Flatness", "1", "morph_pca_flatness", 0.749, 0.005),
    Feature(
        "PBX1",
        "Volume density (axis-aligned bounding box)",
        "1",
        "morph_vol_dens_aabb",
        0.869,
        0.005,
        "Volume Density in Frame of Reference Axis Aligned Bounding Box",
    ),
    Feature(
        "R59B",
        "Area density (axis-aligned bounding box)",
        "1",
        "morph_area_dens_aabb",
        0.866,
        0.005,
        "Area Density in Frame of Reference Axis Aligned Bounding Box",
    ),
)
STATISTICS: Final = (
    Feature("Q4LE", "Mean intensity", _HU, "stat_mean", 2.15, 0.005),
    Feature("ECT3", "Intensity variance", f"{_HU}2", "stat_var", 3.05, 0.005),
    Feature("KE2A", "Intensity skewness", "1", "stat_skew", 1.08, 0.005),
    Feature("IPH6", "Excess intensity kurtosis", "1", "stat_kurt", -0.355, 0.0005),
    Feature("Y12H", "Median intensity", _HU, "stat_median", 1, 0.5),
    Feature("1GSF", "Minimum intensity", _HU, "stat_min", 1, 0.5),
    Feature("QG58", "10th intensity percentile", _HU, "stat_p10", 1, 0.5),
    Feature("8DWT", "90th intensity percentile", _HU, "stat_p90", 4, 0.5),
    Feature("84IY", "Maximum intensity", _HU, "stat_max", 6, 0.5),
    Feature("SALO", "Intensity interquartile range", _HU, "stat_iqr", 3, 0.5),
    Feature("2OJQ", "Intensity range", _HU, "stat_range", 5, 0.5),
    Feature("4FUA", "Intensity-based mean absolute deviation", _HU, "stat_mad", 1.55, 0.005),
    Feature("1128", "Intensity-based robust mean absolute deviation", _HU, "stat_rmad", 1.11, 0.005),
    Feature("N72L", "Intensity-based median absolute deviation", _HU, "stat_medad", 1.15, 0.005),
    Feature("7TET", "Intensity-based coefficient of variation", "1", "stat_cov", 0.812, 0.0005),
    Feature("9S40", "Intensity-based quartile coefficient of dispersion", "1", "stat_qcod", 0.6, 0.05),
    Feature("N8CA", "Intensity-based energy", f"{_HU}2", "stat_energy", 567, 0.5),
    Feature("5ZWQ", "Root mean square intensity", _HU, "stat_rms", 2.77, 0.005),
)
FAMILIES: Final = {"morphology": MORPHOLOGY, "statistics": STATISTICS}
FEATURES: Final = (*MORPHOLOGY, *STATISTICS)


def chosen(asked: Sequence[str]) -> tuple[Feature, ...]:
    """The features of a card's words, each a family, a code or a name, in the order of the manual.

    Raises ValueError for a word that is none of them.
    """
    wanted: set[str] = set()
    for word in asked:
        family = FAMILIES.get(word.lower())
        found = family or [one for one in FEATURES if word.upper() == one.code or word.lower() == one.name.lower()]
        if not found:
            raise ValueError(f"no IBSI feature or family that this node measures: {word}")
        wanted |= {one.code for one in found}
    return tuple(one for one in FEATURES if one.code in wanted)
