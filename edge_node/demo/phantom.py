"""Synthetic head CT volumes with known truth, for the demo, the tests and the reference model.

A phantom is an implicit head (nested warped ellipsoids in millimetres) sampled on a scanner grid: scalp, skull with
diploe, skull base with air cells, brain with cortex, sulci, ventricles, cisterns, falx and tentorium, the
calcifications of every adult head, beam hardening, correlated noise, a head holder, and at most one haemorrhage.
Phantoms test software, not medicine: no figure measured on them says anything about patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.demo.head import (
    Floats,
    Grid,
    brain,
    calcifications,
    field,
    floats,
    membranes,
    shell,
    skull_depth,
)

KINDS: Final = ("intraparenchymal", "subdural", "epidural", "subarachnoid", "intraventricular")


@dataclass(frozen=True, slots=True, eq=False)
class HeadPhantom:
    """`volume` is int16 HU, (slices, rows, columns): inferior to superior, anterior to posterior, right to left.

    So ImageOrientationPatient is 1\\0\\0\\0\\1\\0 and slice k lies `k * spacing[0]` mm above slice 0.
    `spacing` is (z, y, x) in mm; `truth` is one of `KINDS` or None; `mask` marks the haemorrhage (bool, same shape).
    """

    volume: NDArray[np.int16]
    spacing: tuple[float, float, float]
    truth: str | None
    mask: NDArray[np.bool_] | None


def head_phantom(
    seed: int, *, kind: str | None, slices: int = 24, rows: int = 256, fov_mm: float | None = None
) -> HeadPhantom:
    """Make one head from `seed`; the same seed with another `kind` is the same head with another haemorrhage.

    `rows` is also the number of columns; `fov_mm` (default 225..250 from the seed) the width of the field of view;
    the slices always cover 122..152 mm, down from the vertex. Raises ValueError for an unknown `kind`.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, 0])
    fov = fov_mm or float(rng.uniform(225, 250))
    dy = fov / rows
    dz = float(rng.uniform(122, 152)) / slices
    grid, scanner = _place(rng, slices, rows, dz, dy)

    depth = skull_depth(rng, grid)
    hu, csf, ventricles = brain(rng, grid, depth)
    bleed: Floats | None = None
    if kind is not None:
        hu, bleed = _haemorrhage(
            np.random.default_rng([seed, 1, KINDS.index(kind)]), kind, grid, depth, hu, csf, ventricles
        )
    membranes(rng, grid, depth, hu)
    calcifications(rng, grid, hu)
    hu = shell(rng, grid, depth, hu)
    if bleed is not None:
        bleed = bleed * grid.cover(depth - 0.5)
    _head_holder(rng, scanner, depth, hu)
    hu = _acquire(np.random.default_rng([seed, 2]), grid, depth, hu)
    mask = None if bleed is None else bleed > 0.5
    return HeadPhantom(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), (dz, dy, dy), kind, mask)


def _place(
    rng: np.random.Generator, slices: int, rows: int, dz: float, dy: float
) -> tuple[Grid, tuple[Floats, Floats]]:
    """Head coordinates on the scanner grid, with rotation, tilt, nod and off-centre placing; and scanner (y, x)."""
    top = rng.uniform(70, 82)
    z = (top - np.arange(slices)[::-1] * dz).astype(np.float32)[:, None, None]
    y = ((np.arange(rows) - (rows - 1) / 2) * dy).astype(np.float32)[None, :, None]
    x = ((np.arange(rows) - (rows - 1) / 2) * dy).astype(np.float32)[None, None, :]
    yaw, roll, nod = np.deg2rad(rng.normal(0, (5, 4, 7)))
    oy, ox = rng.normal(-4, 4), rng.normal(0, 4)
    cy, sy, cr, sr, cn, sn = (f(a) for a in (yaw, roll, nod) for f in (np.cos, np.sin))
    turn = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
        @ np.array([[1, 0, 0], [0, cn, -sn], [0, sn, cn]])
    ).astype(np.float32)
    u, v, w = (turn[i, 0] * (x - ox) + turn[i, 1] * (y - oy) + turn[i, 2] * z for i in range(3))
    return Grid(u, v, w, dy), (y[0], x[0])


def _haemorrhage(
    rng: np.random.Generator, kind: str, g: Grid, depth: Floats, hu: Floats, csf: Floats, ventricles: Floats
) -> tuple[Floats, Floats]:
    """Volume with the haemorrhage drawn in, and its cover 0..1; redrawn until it is worth the name (about 2 ml)."""
    inside = depth > 0
    wanted = max(30.0, 0.0012 * float(np.count_nonzero(inside)))
    for _ in range(12):
        cover, rim = _bleed_shape(rng, kind, g, depth, csf, ventricles)
        if float(np.count_nonzero((cover > 0.5) & inside)) >= wanted:
            break
        wanted *= 0.8
    blood = np.float32(rng.uniform(57, 82) if kind != "subarachnoid" else rng.uniform(53, 72))
    texture = blood + field(rng, g.shape, (6, 14, 14)) * np.float32(rng.uniform(1, 5))
    hu = hu - rim * np.float32(rng.uniform(4, 12))
    return (hu + cover * (texture - hu)).astype(np.float32), cover


def _bleed_shape(
    rng: np.random.Generator, kind: str, g: Grid, depth: Floats, csf: Floats, ventricles: Floats
) -> tuple[Floats, Floats]:
    """Cover of one haemorrhage and of its oedema."""
    side = float(rng.choice((-1, 1)))
    none = np.zeros_like(depth)
    rough = field(rng, g.shape, (7, 14, 14))
    if kind == "intraparenchymal":
        if rng.random() < 0.25:  # cerebellum
            centre = (side * rng.uniform(10, 32), rng.uniform(42, 58), rng.uniform(-42, -26))
            scale = rng.uniform(7, 15)
        elif rng.random() < 0.5:  # deep
            centre = (side * rng.uniform(14, 30), rng.uniform(-15, 18), rng.uniform(-5, 16))
            scale = rng.uniform(6.5, 18)
        else:  # lobar
            centre = (side * rng.uniform(18, 46), rng.uniform(-50, 55), rng.uniform(5, 45))
            scale = rng.uniform(7, 21)
        radii = tuple(float(r) for r in scale * rng.uniform(0.75, 1.3, 3))
        core = g.blob(centre, (radii[0], radii[1], radii[2])) + np.float32(0.13 * scale) * rough
        cover = g.cover(core, 1.5) * g.cover(depth - 1)
        rim = np.clip((core + np.float32(rng.uniform(3, 9))) / 3, 0, 1) * g.cover(depth - 1)
        return cover, rim * (1 - cover)
    if kind in ("subdural", "epidural"):
        azimuth, height = rng.uniform(-1.1, 1.1), rng.uniform(-0.05, 0.75)
        aim = np.array([side * np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        length = np.sqrt(g.u * g.u + g.v * g.v + g.w * g.w) + np.float32(1)
        cosine = (g.u * np.float32(aim[0]) + g.v * np.float32(aim[1]) + g.w * np.float32(aim[2])) / length
        angle = np.arccos(np.clip(cosine, -1, 1))
        if kind == "subdural":
            half, thick = rng.uniform(0.75, 1.35), rng.uniform(6, 14)
            wall = np.float32(thick) * np.clip(1 - (angle / np.float32(half)) ** 2, 0, 1) ** np.float32(0.6)
            same = g.cover(g.u * np.float32(side) - 2, 2)
        else:
            half, thick = rng.uniform(0.35, 0.62), rng.uniform(10, 26)
            wall = np.float32(thick) * np.clip(1 - (angle / np.float32(half)) ** 2, 0, 1)
            same = np.ones_like(depth)
        wall = wall * (1 + np.float32(0.08) * rough)
        return floats(g.cover(floats(wall - depth - 0.5), 1.2) * same * (wall > 1)), none
    if kind == "subarachnoid":
        if rng.random() < 0.6:  # aneurysmal: basal cisterns and Sylvian fissures
            place = g.blob((0, -8, -18), (60, 40, 26)) + 6 * rough
        else:  # convexity
            place = g.blob(
                (side * rng.uniform(40, 55), rng.uniform(-35, 45), rng.uniform(5, 40)), tuple(rng.uniform(26, 45, 3))
            )
        star = np.zeros_like(depth)
        for centre, radii in (((0, -14, -25), (16, 10, 7)), ((0, 17, -10), (15, 5, 6)), ((0, 4, -30), (15, 5, 6))):
            star = np.maximum(star, g.cover(g.blob(centre, radii) + 2 * rough, 2))
        for other in (-1, 1):
            star = np.maximum(star, g.cover(g.blob((other * 46, -14, 4), (19, 4.5, 14)) + 2 * rough, 2))
        where = np.maximum(np.clip(csf * np.float32(1.6), 0, 1), star) * g.cover(depth)
        return where * np.clip(place / 5 + np.float32(0.5), 0, 1), none
    filled = rng.uniform(0.25, 1)  # intraventricular: blood settles posteriorly
    level = np.float32(48 - 80 * filled)
    grown = np.clip(ventricles * np.float32(1.4), 0, 1)
    chosen = g.cover(g.u * np.float32(side) + 4, 3) if rng.random() < 0.4 else np.float32(1)
    return grown * np.clip((g.v - level + 3 * rough) / 3, 0, 1) * chosen, none


def _head_holder(rng: np.random.Generator, scanner: tuple[Floats, Floats], depth: Floats, hu: Floats) -> None:
    """A padded shell below the head, fixed to the scanner, drawn only where the head is not."""
    y, x = scanner
    radius, wall = rng.uniform(104, 116), rng.uniform(1.5, 3)
    away = np.sqrt((x * np.float32(rng.uniform(0.95, 1.1))) ** 2 + (y + np.float32(4)) ** 2)
    low = y > np.float32(rng.uniform(20, 55))
    shape = np.where(low & (np.abs(away - radius) < wall), rng.uniform(-250, 180), np.float32(-1000)).astype(np.float32)
    foam = low & (away < radius - wall) & (away > radius - rng.uniform(5, 14))
    shape = np.where(foam, np.float32(rng.uniform(-960, -880)), shape)
    outside = (hu < -900) & (depth < -6)
    np.copyto(hu, np.broadcast_to(shape, hu.shape), where=outside)


def _acquire(rng: np.random.Generator, g: Grid, depth: Floats, hu: Floats) -> Floats:
    """What the scanner adds: slice-thickness blur, point spread, beam hardening, streaks, noise, calibration error."""
    hu = _blur(hu, 0, rng.uniform(0.08, 0.3))
    sharp = rng.uniform(0.08, 0.22)
    hu = _blur(_blur(hu, 1, sharp), 2, sharp)
    inside = g.cover(depth)
    hu = hu + inside * np.float32(rng.uniform(2, 18)) * np.exp(-np.maximum(depth, 0) / np.float32(rng.uniform(3, 9)))
    bar = np.exp(-(((g.w + 36) / 9) ** 2) - ((g.v - 22) / np.float32(8)) ** 2) * np.clip(1 - np.abs(g.u) / 45, 0, 1)
    hu = hu - inside * bar * np.float32(rng.uniform(3, 26))
    angle = np.arctan2(g.v - 10, g.u)
    for _ in range(3):
        streak = np.cos(angle * int(rng.integers(5, 22)) + np.float32(rng.uniform(0, 6.3)))
        hu = hu + inside * streak * np.clip(-g.w / 45, 0, 1) * np.float32(rng.uniform(0, 4.5))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    grain = rng.uniform(0.1, 0.29)
    noise = _blur(_blur(noise, 1, grain), 2, grain)
    sigma = np.float32(rng.uniform(1.5, 5.0)) * (1 + np.float32(0.5) * np.clip(-g.w / 50, 0, 1))
    noise = noise / noise.std() * sigma
    return floats(hu + noise + np.float32(rng.normal(0, 1.5)))


def _blur(a: Floats, axis: int, side: float) -> Floats:
    """Three-tap blur along one axis: (side, 1 - 2 side, side), edges repeated."""
    before = np.concatenate((np.take(a, [0], axis), np.delete(a, -1, axis)), axis)
    after = np.concatenate((np.delete(a, 0, axis), np.take(a, [-1], axis)), axis)
    return (a * np.float32(1 - 2 * side) + (before + after) * np.float32(side)).astype(np.float32)
