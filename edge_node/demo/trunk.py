"""Synthetic CT of what is no head: chest, abdomen, pelvis, legs, neck and a test object, for the body-part recogniser.

Coarser than the head on purpose: a recogniser sees a slice at 8 mm a pixel. Ellipsoids in millimetres, turned into
Hounsfield units voxel by voxel. Phantoms test software, not medicine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.demo.head import Floats, Grid, field, mix

AIR: Final = np.float32(-1000)
REGIONS: Final = ("chest", "abdomen", "pelvis", "legs", "neck", "test-object")
# What a header would say; the recogniser calls the last four OTHER.
BODY_PART: Final = {"chest": "CHEST", "abdomen": "ABDOMEN", "pelvis": "PELVIS", "legs": "LEG", "neck": "NECK"}
_EXTENT_MM: Final = {
    "chest": (150, 250),
    "abdomen": (130, 230),
    "pelvis": (150, 240),
    "legs": (200, 500),
    "neck": (70, 110),
    "test-object": (60, 200),
}


@dataclass(frozen=True, slots=True, eq=False)
class TrunkPhantom:
    """`volume` is int16 HU, (slices, rows, columns): inferior to superior, anterior to posterior, right to left;
    `spacing` is (z, y, x) in mm; `region` one of `REGIONS`."""

    volume: NDArray[np.int16]
    spacing: tuple[float, float, float]
    region: str


def trunk_phantom(seed: int, region: str, *, slices: int = 12, rows: int = 128) -> TrunkPhantom:
    """Make one volume from `seed`. Raises KeyError for an unknown region."""
    rng = np.random.default_rng([seed, 20, REGIONS.index(region) if region in REGIONS else 99])
    extent = float(rng.uniform(*_EXTENT_MM[region]))
    fov = float(rng.uniform(200, 300) if region == "neck" else rng.uniform(330, 480))
    dy, dz = fov / rows, extent / slices
    w = ((np.arange(slices) - (slices - 1) / 2) * dz).astype(np.float32)[:, None, None]
    y = ((np.arange(rows) - (rows - 1) / 2) * dy - rng.normal(0, 8)).astype(np.float32)[None, :, None]
    x = ((np.arange(rows) - (rows - 1) / 2) * dy - rng.normal(0, 8)).astype(np.float32)[None, None, :]
    yaw = np.float32(np.deg2rad(rng.normal(0, 5)))
    c, s = np.cos(yaw), np.sin(yaw)
    zero = np.zeros((slices, 1, 1), np.float32)
    g = Grid(x * c + y * s + zero, y * c - x * s + zero, w + 0 * x + 0 * y, dy)
    hu = np.full(g.shape, AIR, np.float32)
    _REGIONS[region](rng, g, hu)
    if rng.random() < 0.8:
        _table(rng, g, hu)
    sigma = np.float32(rng.uniform(4, 25))
    hu += rng.standard_normal(hu.shape, dtype=np.float32) * sigma
    return TrunkPhantom(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), (dz, dy, dy), region)


def _oval(g: Grid, half_width: float, half_depth: float, power: float = 2.3) -> Floats:
    """Depth in mm below the skin of a body of one section all along."""
    r = (np.abs(g.u / half_width) ** power + np.abs(g.v / half_depth) ** power) ** (1 / power)
    return np.asarray((1 - r) * min(half_width, half_depth), np.float32)


def _put(
    g: Grid, hu: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float], value: float
) -> None:
    mix(hu, g.cover(g.blob(centre, radii), 1.5), np.float32(value))


def _wall(rng: np.random.Generator, g: Grid, hu: Floats, half_width: float, half_depth: float, fat: float) -> Floats:
    """Skin, fat and muscle of the trunk; the depth below the skin."""
    skin = _oval(g, half_width, half_depth, rng.uniform(2.1, 2.7)) + np.float32(2) * field(rng, g.shape, (2, 5, 5))
    mix(hu, g.cover(skin), np.float32(rng.uniform(-110, -85)))
    mix(hu, g.cover(skin - np.float32(fat)), np.float32(rng.uniform(40, 60)))
    return np.asarray(skin, np.float32)


def _spine(rng: np.random.Generator, g: Grid, hu: Floats, back: float, size: float) -> None:
    bone = rng.uniform(180, 350)
    period = np.float32(2 * np.pi / (size * 1.5))
    body = g.blob((0, back, 0), (size, size * 0.75, 1e4)) + np.float32(0.8) * np.sin(g.w * period)
    mix(hu, g.cover(body, 1.5), np.float32(bone * 1.8))
    mix(hu, g.cover(body - 2.5, 1.5), np.float32(bone))
    _put(g, hu, (0, back + size * 1.25, 0), (size * 0.5, size * 0.42, 1e4), 35)
    for side in (-1, 1):
        _put(g, hu, (side * size * 0.75, back + size * 1.2, 0), (size * 0.28, size * 0.5, 1e4), bone * 2)
    _put(g, hu, (0, back + size * 2.1, 0), (size * 0.18, size * 0.6, 1e4), bone * 1.6)


def _chest(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    a, b, fat = rng.uniform(150, 200), rng.uniform(98, 138), rng.uniform(8, 30)
    skin = _wall(rng, g, hu, a, b, fat)
    blood = rng.uniform(38, 60) if rng.random() < 0.5 else rng.uniform(120, 320)
    inner = skin - np.float32(fat + rng.uniform(14, 22))
    turn = np.arctan2(g.v, g.u)
    ribs = np.sin(g.w * np.float32(2 * np.pi / rng.uniform(24, 32)) + np.float32(rng.uniform(2, 4)) * np.abs(turn))
    shell = g.cover(6 - np.abs(inner + 5)) * (ribs > 0.25) * (np.abs(g.u) > 18)
    mix(hu, shell.astype(np.float32), np.float32(rng.uniform(350, 700)))
    lung = np.float32(rng.uniform(-890, -760))
    vessels = np.clip(field(rng, g.shape, (g.shape[0], 30, 30)) - 1.2, 0, 1) * 500
    for side in (-1, 1):
        rounded = g.blob((side * a * 0.43, 0, rng.uniform(-20, 20)), (a * 0.37, b * 0.72, rng.uniform(130, 190)))
        mix(hu, g.cover(np.minimum(rounded, inner), 1.5), (lung + vessels).astype(np.float32))
    _put(g, hu, (rng.uniform(15, 35), -b * 0.22, rng.uniform(-80, -20)), (62, 48, rng.uniform(50, 75)), blood)
    _put(g, hu, (22, b * 0.42, 0), (12, 12, 1e4), blood)
    _put(g, hu, (0, -10, 75), (38, 30, 45), rng.uniform(-60, 40))
    for at in ((-12, -18, 70), (8, -8, 60), (22, -2, 75)):
        _put(g, hu, at, (9, 9, 40), blood)
    _put(g, hu, (0, 8, 95), (8, 8, 60), -990)
    for side in (-1, 1):
        _put(g, hu, (side * 14, 18, 20), (6, 6, 22), -960)
    if rng.random() < 0.6:  # the dome of the liver
        _put(g, hu, (-a * 0.38, -5, -150), (a * 0.4, b * 0.75, rng.uniform(30, 90)), rng.uniform(45, 110))
    _spine(rng, g, hu, b * 0.55, 20)
    for side in (-1, 1):
        blade = np.abs(g.v - b * 0.68 + np.abs(g.u - side * a * 0.6) * 0.35)
        mix(hu, g.cover(4 - blade) * g.cover(30 - np.abs(g.u - side * a * 0.6)) * (g.w > 10), np.float32(450))
    if rng.random() < 0.3:  # arms down
        for side in (-1, 1):
            _put(g, hu, (side * (a + 42), 15, 0), (36, 36, 1e4), 45)
            _put(g, hu, (side * (a + 42), 15, 0), (11, 11, 1e4), 900)


def _abdomen(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    a, b, fat = rng.uniform(140, 200), rng.uniform(95, 150), rng.uniform(8, 42)
    skin = _wall(rng, g, hu, a, b, fat)
    inner = skin - np.float32(fat + rng.uniform(10, 16))
    mix(hu, g.cover(inner), np.float32(rng.uniform(-105, -80)))
    a, b = a - fat - 12, b - fat - 12
    contrast = rng.random() < 0.5
    organ, blood = (rng.uniform(90, 130), rng.uniform(120, 260)) if contrast else (rng.uniform(45, 65), 42.0)
    inside = g.cover(inner - 3)
    made = hu.copy()
    for _ in range(int(rng.integers(14, 30))):  # bowel: gas above fluid, or contrast medium
        at = (rng.uniform(-0.8, 0.8) * a, rng.uniform(-0.75, 0.35) * b, rng.uniform(-130, 60))
        r = float(rng.uniform(11, 24))
        radii = (r * rng.uniform(0.8, 2), r, r * rng.uniform(0.8, 1.8))
        _put(g, made, at, radii, rng.uniform(20, 45) if rng.random() < 0.8 else rng.uniform(150, 400))
        if rng.random() < 0.4:
            gas = g.cover(g.blob(at, (radii[0] * 0.8, radii[1] * 0.8, radii[2] * 0.8))) * (g.v < at[1])
            mix(made, gas.astype(np.float32), np.float32(-950))
    high = rng.uniform(20, 70)
    _put(g, made, (-a * 0.42, -b * 0.05, high), (a * 0.52, b * 0.82, rng.uniform(65, 100)), organ)
    _put(g, made, (a * 0.62, b * 0.3, high), (a * 0.24, b * 0.42, 55), organ)
    _put(g, made, (a * 0.4, -b * 0.4, high), (a * 0.32, b * 0.32, 45), rng.uniform(5, 40))
    for side in (-1, 1):
        kidney = rng.uniform(140, 220) if contrast else 34
        _put(g, made, (side * 62, b * 0.42, rng.uniform(-50, -10)), (27, 30, 56), kidney)
        _put(g, made, (side * 58, b * 0.40, -30), (10, 11, 22), -60 if not contrast else 80)
        _put(g, made, (side * 42, b * 0.52, -70), (20, 22, 80), 55)
    _put(g, made, (0, b * 0.1, 5), (48, 12, 14), organ * 0.8)
    _put(g, made, (10, b * 0.28, 0), (10, 10, 1e4), blood)
    _put(g, made, (-16, b * 0.28, 0), (12, 9, 1e4), blood)
    if rng.random() < 0.5:  # the lowest part of the lungs
        for side in (-1, 1):
            _put(g, made, (side * a * 0.6, b * 0.35, 125), (a * 0.34, b * 0.5, rng.uniform(20, 60)), -840)
    hu += inside * (made - hu)
    _spine(rng, g, hu, b * 0.6, 23)
    for side in (-1, 1):  # lower ribs
        spot = rng.uniform(0.3, 0.9)
        _put(g, hu, (side * a * 0.95, b * spot * 0.5, 60), (6, 12, 40), 500)


def _pelvis(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    a, b, fat = rng.uniform(165, 215), rng.uniform(95, 135), rng.uniform(12, 45)
    _wall(rng, g, hu, a, b, fat)
    _put(g, hu, (0, -10, 20), (a * 0.6, b * 0.55, 160), -90)
    for _ in range(8):
        _put(
            g, hu, (rng.uniform(-70, 70), rng.uniform(-45, 30), rng.uniform(0, 110)), (20, 16, 22), rng.uniform(20, 50)
        )
    bone = rng.uniform(350, 650)
    for side in (-1, 1):
        wing = np.abs((g.u * side - 85) * 0.75 + (g.v - 10) * 0.65 - g.w * np.float32(0.18))
        there = g.cover(55 - np.abs(g.v - 15)) * g.cover(g.w + 15, 4) * g.cover(g.u * side - 40) * (g.w < 110)
        mix(hu, g.cover(9 - wing) * there.astype(np.float32), np.float32(bone))
        _put(g, hu, (side * 92, 5, -45), (25, 25, 26), bone)
        _put(g, hu, (side * 118, 10, -70), (26, 24, 32), bone * 0.9)
        _put(g, hu, (side * 62, 0, -55), (14, 34, 26), bone)
        _put(g, hu, (side * 130, 5, -150), (17, 17, 60), bone * 1.4)
        _put(g, hu, (side * 70, 75, 0), (50, 26, 130), 55)
    _put(g, hu, (0, 60, 55), (45, 20, 70), bone * 0.8)
    _put(g, hu, (0, -30, -35), (40, 34, 32), rng.uniform(0, 15))
    _put(g, hu, (0, 38, -20), (16, 16, 50), rng.choice((-900, 30)))


def _legs(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    apart, r = rng.uniform(75, 110), rng.uniform(48, 80)
    knee = rng.uniform(-150, 150)
    for side in (-1, 1) if rng.random() < 0.8 else (1,):
        at = side * apart
        slim = r * (1 - 0.0008 * (g.w + 100))
        off = np.sqrt((g.u - at) ** 2 + g.v**2)
        skin = np.asarray(slim - off, np.float32)
        mix(hu, g.cover(skin), np.float32(-100))
        mix(hu, g.cover(skin - np.float32(rng.uniform(5, 18))), np.float32(55))
        wide = 14 + 18 * np.exp(-(((g.w - knee) / 40) ** 2))
        ring = np.asarray(wide - off, np.float32)
        mix(hu, g.cover(ring), np.float32(rng.uniform(900, 1300)))
        mix(hu, g.cover(ring - 5), np.float32(rng.uniform(-40, 150)))
        if rng.random() < 0.5:
            _put(g, hu, (at + side * 22, 22, -250), (7, 7, 200), 900)


def _neck(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    a = rng.uniform(52, 75)
    b = a * rng.uniform(0.9, 1.1)
    _wall(rng, g, hu, a, b, rng.uniform(3, 12))
    _put(g, hu, (0, -b * 0.42, 0), (10, 10, 1e4), -990)
    for side in (-1, 1):
        _put(g, hu, (side * 18, -b * 0.35, -15), (11, 13, 24), 95)
        _put(g, hu, (side * 27, -b * 0.1, 0), (8, 8, 1e4), rng.uniform(40, 260))
        _put(g, hu, (side * 24, b * 0.25, 0), (14, 10, 1e4), -80)
    _put(g, hu, (0, -b * 0.5, 35), (20, 6, 4), 500)
    if rng.random() < 0.5:  # lower jaw
        arch = np.abs(np.hypot(g.u, g.v + 10) - 42)
        mix(hu, g.cover(7 - arch) * g.cover(-g.v - 5) * g.cover(g.w - 25), np.float32(1000))
    _spine(rng, g, hu, b * 0.22, 13)


def _test_object(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    r = rng.uniform(75, 170)
    off = np.asarray(r - np.hypot(g.u, g.v), np.float32)
    mix(hu, g.cover(off), np.float32(rng.uniform(80, 140)))
    mix(hu, g.cover(off - 6), np.float32(rng.uniform(-15, 60)))
    for k in range(int(rng.integers(0, 9))):
        turn = 2 * np.pi * k / 8
        at = (r * 0.6 * np.cos(turn), r * 0.6 * np.sin(turn), 0.0)
        size = rng.uniform(5, 16)
        _put(g, hu, at, (size, size, 1e4), rng.choice((-1000, -100, 120, 340, 950)))


def _table(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    """A thin curved shell under the patient, drawn in air only."""
    low = float(np.max(np.where(hu > -400, g.v, -200))) + rng.uniform(2, 8)
    bow = np.float32(rng.uniform(0, 0.0012))
    off = np.abs(g.v - low + bow * g.u * g.u - 3)
    shell = (off < 3) & (np.abs(g.u) < rng.uniform(190, 240)) & (hu < -500)
    hu[shell] = np.float32(rng.uniform(-200, 100))


_REGIONS: Final[dict[str, Callable[[np.random.Generator, Grid, Floats], None]]] = {
    "chest": _chest,
    "abdomen": _abdomen,
    "pelvis": _pelvis,
    "legs": _legs,
    "neck": _neck,
    "test-object": _test_object,
}
