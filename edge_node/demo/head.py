"""The anatomy of a synthetic head: skull, brain, membranes, calcifications, skull base, face and neck.

Everything is an implicit surface (warped ellipsoids, in millimetres) turned into Hounsfield units voxel by voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Head coordinates of every voxel in mm: u to the patient's left, v to posterior, w to superior."""

    u: Floats
    v: Floats
    w: Floats
    dy: float

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.u.shape
        return z, y, x

    def blob(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
        """Approximate signed depth (mm, positive inside) below the surface of an ellipsoid."""
        terms = (
            (axis - c) * np.float32(1 / r) for axis, c, r in zip((self.u, self.v, self.w), centre, radii, strict=True)
        )
        r2 = sum(t * t for t in terms)
        return floats((1 - np.sqrt(r2)) * np.float32(min(radii)))

    def cover(self, depth: Floats, edge: float = 1.0) -> Floats:
        """Fraction 0..1 of a voxel inside, from signed depth in mm, with an edge about one pixel wide."""
        return floats(np.clip(depth / np.float32(edge * self.dy) + np.float32(0.5), 0, 1))


def floats(values: Any) -> Floats:
    """Single precision, whatever numpy promoted the arithmetic to."""
    return np.asarray(values, np.float32)


def field(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, ...]) -> Floats:
    """Smooth random field of about unit variance: a coarse normal grid, interpolated smoothly on each axis."""
    out = rng.standard_normal([c + 2 for c in cells]).astype(np.float32)
    for axis, (size, count) in enumerate(zip(shape, cells, strict=True)):
        position = np.linspace(0, count, size, dtype=np.float32)
        low = np.minimum(position.astype(int), count)
        t = position - low
        t = t * t * (3 - 2 * t)
        weights = np.zeros((size, count + 2), np.float32)
        weights[np.arange(size), low] = 1 - t
        weights[np.arange(size), low + 1] += t
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out) * np.float32(1.5)


def mix(target: Floats, cover: Floats, value: Floats | np.float32) -> None:
    """Blend `value` into `target` in place by `cover`."""
    target += cover * (value - target)


def skull_depth(rng: np.random.Generator, g: Grid) -> Floats:
    """Radial depth in mm below the inner table: positive in the cranial cavity, negative in bone and outside."""
    ax, ay, az = rng.normal(66, 3), rng.normal(82, 4), rng.normal(71, 3)
    power = rng.uniform(2.0, 2.4)
    taper = rng.uniform(0.0006, 0.0016)  # heads are narrower in front
    width = np.float32(ax) * (1 + np.float32(taper) * g.v)
    length = np.sqrt(g.u * g.u + g.v * g.v + g.w * g.w) + np.float32(1e-3)
    low = np.where(g.w < 0, np.float32(rng.uniform(0.7, 0.82)), np.float32(1))
    r = (
        (np.abs(g.u) / width) ** np.float32(power)
        + (np.abs(g.v) / np.float32(ay)) ** np.float32(power)
        + (np.abs(g.w) / (np.float32(az) * low)) ** np.float32(power)
    ) ** np.float32(1 / power)
    r = np.maximum(r, np.float32(0.02))
    uneven = field(rng, g.shape, (3, 5, 5)) * np.float32(1.2) + field(rng, g.shape, (7, 11, 11)) * np.float32(
        rng.uniform(0.3, 1.1)
    )
    return floats(length * (1 / r - 1) + uneven)


def brain(rng: np.random.Generator, g: Grid, depth: Floats) -> tuple[Floats, Floats, Floats]:
    """HU of the cavity's contents, cover of sulci and cisterns, cover of the ventricles."""
    atrophy = rng.beta(1.5, 3)  # 0 young .. 1 old
    cells = (max(6, g.shape[0] // 2), 22, 22)
    folds = field(rng, g.shape, cells)
    ribbon = np.clip((np.float32(rng.uniform(3.5, 6)) + 3 * folds - depth) / 3 + np.float32(0.5), 0, 1)
    gray, white = rng.normal(37, 1.5), rng.normal(29, 1.5)
    hu = np.float32(white) + np.float32(gray - white) * ribbon
    for side in (-1, 1):
        for centre, radii in (
            ((11, 8, 2), (9.0, 14.0, 9.0)),
            ((24, -8, 2), (7.0, 17.0, 11.0)),
            ((13, -24, 8), (5.0, 9.0, 10.0)),
        ):
            deep = g.cover(g.blob((side * centre[0], centre[1], centre[2]), radii), 4)
            hu = hu + deep * np.float32(gray - white) * (1 - ribbon)
    below = g.cover(-g.w - 22 - g.v * np.float32(0.15), 6) * g.cover(g.v - 8, 6)  # cerebellum
    hu = hu + below * (np.float32(gray - 2) - hu) * np.float32(0.8)
    hu = hu + field(rng, g.shape, (8, 12, 12)) * np.float32(0.9)
    if rng.random() < 0.3:  # small-vessel disease
        hu = hu - np.float32(rng.uniform(3, 7)) * np.clip(field(rng, g.shape, (6, 9, 9)), 0, 1) * g.cover(depth - 14, 6)
    if rng.random() < 0.2:  # an old or new infarct: dark, no haemorrhage
        side = rng.choice((-1, 1))
        core = g.blob(
            (side * rng.uniform(20, 50), rng.uniform(-40, 50), rng.uniform(0, 45)), tuple(rng.uniform(8, 28, 3))
        )
        hu = hu - np.float32(rng.uniform(5, 20)) * g.cover(core + 2 * folds, 4)

    sulci = np.clip((np.abs(folds) - np.float32(1.0 - 0.5 * atrophy)) * np.float32(2), 0, 1)
    reach = np.float32(7 + 12 * atrophy)
    csf = sulci * np.clip((reach - depth) / 6, 0, 1) * np.float32(0.55 + 0.4 * atrophy)
    csf = np.maximum(csf, np.clip((np.float32(0.4 + 3.0 * atrophy * rng.random()) - depth) / 2, 0, 1) * np.float32(0.7))
    wide = 0.7 + 0.8 * atrophy
    for side in (-1, 1):  # Sylvian fissures
        fissure = g.blob((side * 46, -14, 4), (16, 3 * wide + 1.5, 13)) + 2 * folds
        csf = np.maximum(csf, g.cover(fissure, 2) * np.float32(0.85))
    for centre, radii in (
        ((0, -14, -25), (13 * wide, 9.0, 6.0)),
        ((0, 17, -10), (13.0, 4 * wide + 1, 6.0)),
        ((0, 4, -30), (15.0, 5.0, 6.0)),
    ):
        csf = np.maximum(csf, g.cover(g.blob(centre, radii) + 2 * folds, 2))

    big = rng.uniform(0.75, 1.1) + 0.8 * atrophy
    ventricles = g.cover(g.blob((0, 0, -2), (1.5 + 2.0 * atrophy, 13, 9)), 1.5)
    ventricles = np.maximum(ventricles, g.cover(g.blob((0, 44, -32), (6, 5, 9)), 1.5))
    for side in (-1, 1):
        skew = rng.uniform(0.8, 1.25)
        for centre, radii in (
            ((9, -29, 9), (4.5, 14.0, 9.0)),
            ((12, -4, 17), (5.0, 26.0, 7.0)),
            ((22, 30, 9), (6.0, 15.0, 10.0)),
            ((30, 14, -14), (3.2, 12.0, 5.0)),
        ):
            horn = g.blob(
                (side * (centre[0] + 3 * atrophy), centre[1], centre[2]),
                (radii[0] * big * skew, radii[1] * (0.8 + 0.2 * big), radii[2] * (0.6 + 0.4 * big)),
            )
            ventricles = np.maximum(ventricles, g.cover(horn, 1.5))
    water = np.float32(rng.normal(7, 2))
    liquid = np.maximum(csf, ventricles)
    return (hu + liquid * (water - hu)).astype(np.float32), csf, ventricles


def membranes(rng: np.random.Generator, g: Grid, depth: Floats, hu: Floats) -> None:
    """Falx, tentorium, venous sinuses and dense vessels, drawn into `hu` in place; sometimes thick on purpose."""
    dura = np.float32(rng.uniform(42, 62))
    thick = rng.uniform(0.5, 1.1) if rng.random() < 0.75 else rng.uniform(1.1, 2.2)
    wavy = field(rng, g.shape, (3, 4, 4))
    near_middle = floats(np.float32(thick) - np.abs(g.u + np.float32(1.5) * wavy))
    falx = g.cover(near_middle) * g.cover(floats(g.w - 12 + np.abs(g.v) * np.float32(0.1)), 6)
    falx = falx * np.clip((np.float32(rng.uniform(26, 36)) - depth) / 4, 0, 1)
    mix(hu, falx, dura)
    leaf = g.w + 16 + np.abs(g.u) * np.float32(0.35) - g.v * np.float32(0.06)
    tent_thick = rng.uniform(0.8, 1.6) if rng.random() < 0.75 else rng.uniform(1.6, 2.8)
    tent = (
        g.cover(np.float32(tent_thick) - np.abs(leaf + 2 * wavy), 1.5)
        * g.cover(g.v - 18, 4)
        * g.cover(np.abs(g.u) - 6, 4)
    )
    mix(hu, tent, dura)
    blood = np.float32(rng.uniform(44, 70))
    sinus = g.cover(np.float32(rng.uniform(3, 5.5)) - np.abs(g.u) - depth * np.float32(0.4), 1.5) * g.cover(
        g.w - 5 + g.v * np.float32(0.6)
    )
    mix(hu, sinus, blood)
    for side in (-1, 1):  # transverse sinuses
        wide = rng.uniform(2, 7)  # one side is often the larger
        lateral = g.cover(g.blob((side * 34, 62, -27), (26, 10, wide)) + wavy, 1.5)
        sigmoid = g.cover(g.blob((side * 52, 44, -34), (wide, 8, 12)) + wavy, 1.5)
        mix(hu, np.maximum(lateral, sigmoid) * np.clip((4 + wide - depth) / 2, 0, 1), blood)
        vessel = g.cover(g.blob((side * rng.uniform(14, 24), -16, -17), (9, 1.5, 2.2)), 1)
        mix(hu, vessel * np.float32(0.8), blood)
    mix(hu, g.cover(g.blob((0, 2, -26), (1.8, 1.8, 9)), 1), blood)


def calcifications(rng: np.random.Generator, g: Grid, hu: Floats) -> None:
    """Pineal, choroid plexus, pallidum and falx calcifications: bright, common, and no haemorrhage."""
    specks: list[tuple[tuple[float, float, float], tuple[float, float, float]]] = []
    if rng.random() < 0.75:
        specks.append(((rng.normal(0, 1), rng.normal(19, 2), rng.normal(1, 2)), tuple(rng.uniform(1.5, 4.2, 3))))
    for side in (-1, 1):
        if rng.random() < 0.65:
            specks.append(
                ((side * rng.normal(24, 2), rng.normal(31, 3), rng.normal(9, 2)), tuple(rng.uniform(2, 5.5, 3)))
            )
        if rng.random() < 0.18:
            specks.append(
                ((side * rng.normal(19, 1), rng.normal(-6, 2), rng.normal(2, 2)), tuple(rng.uniform(2, 5, 3)))
            )
    for side in (-1, 1):  # carotid siphons, clinoids
        if rng.random() < 0.5:
            specks.append(
                (
                    (side * rng.uniform(7, 15), rng.uniform(-24, -12), rng.uniform(-32, -22)),
                    tuple(rng.uniform(1.2, 4, 3)),
                )
            )
    if rng.random() < 0.6:  # dorsum sellae
        specks.append(
            ((0.0, rng.uniform(-12, -4), rng.uniform(-34, -25)), (rng.uniform(5, 11), 2.5, rng.uniform(3, 6)))
        )
    if rng.random() < 0.2:
        specks.append(((0.0, rng.uniform(-65, -40), rng.uniform(30, 45)), (1.6, rng.uniform(4, 12), rng.uniform(4, 8))))
    grain = field(rng, g.shape, (max(8, g.shape[0]), 40, 40))
    for centre, radii in specks:
        mix(hu, g.cover(g.blob(centre, radii) + np.float32(0.6) * grain), np.float32(rng.uniform(95, 420)))


def shell(rng: np.random.Generator, g: Grid, depth: Floats, hu: Floats) -> Floats:
    """Bone, skull base, orbits, air cells, scalp and the air around the head."""
    thick = np.float32(rng.uniform(4.5, 8.5)) * (1 + np.float32(0.18) * field(rng, g.shape, (3, 5, 5)))
    grain = field(rng, g.shape, (max(8, g.shape[0]), 48, 48))
    middle = np.clip(1 - np.abs(depth + thick * np.float32(0.5)) / (thick * np.float32(0.38)), 0, 1)
    table = np.float32(rng.uniform(1000, 1500))
    bone = table - middle * (np.float32(rng.uniform(350, 800)) + 90 * grain)
    scalp_mm = np.float32(rng.uniform(3.5, 8)) * (1 + np.float32(0.25) * field(rng, g.shape, (3, 6, 6)))
    outer = depth + thick
    skin = np.where(outer + scalp_mm < 2.2, np.float32(45), np.float32(rng.uniform(-95, -20)) + 25 * grain)
    muscle = g.cover(-g.w - 18, 8) * g.cover(g.v - 10, 8) + g.cover(np.abs(g.u) - 45, 5) * g.cover(-g.w - 5, 10)
    skin = skin + np.clip(muscle, 0, 1) * (55 - skin) * np.float32(0.9)
    edge = g.cover(depth)
    out = edge * hu + (1 - edge) * bone
    edge = g.cover(outer)
    out = edge * out + (1 - edge) * skin

    # Skull base: petrous pyramids, clivus and sphenoid, anterior fossa floor, occipital squama.
    base = np.zeros_like(out)
    for side in (-1, 1):
        along = (g.u * np.float32(side) + g.v * np.float32(-0.9) - 8) * np.float32(0.72)
        across = (g.u * np.float32(side * 0.75) + g.v * np.float32(0.8) - 28) * np.float32(0.9)
        ridge = np.minimum(np.float32(9) - np.abs(across + grain), np.float32(34) - np.abs(along - 10))
        ridge = np.minimum(ridge, np.float32(-27) - g.w - np.abs(across) * np.float32(0.5))
        base = np.maximum(base, g.cover(ridge, 1.5))
        base = np.maximum(base, g.cover(g.blob((side * 42, -32, -34), (22, 4, 5)) + grain, 1.5))  # sphenoid wing
    base = np.maximum(base, g.cover(g.blob((0, -12, -44), (15, 18, 12)) + grain, 1.5))
    floor = np.minimum(np.float32(-36) - g.w + g.v * np.float32(0.12) * 0, np.float32(-26) - g.v)
    base = np.maximum(base, g.cover(floor + 2 * grain, 2) * np.float32(0.9))
    head = g.cover(outer)
    mix(out, base * head, np.float32(rng.uniform(650, 1100)) + 160 * grain)
    for side in (-1, 1):
        mix(out, g.cover(g.blob((side * 31, -66, -42), (18, 24, 15)), 1.5), np.float32(-75))
        mix(out, g.cover(g.blob((side * 31, -72, -42), (12, 12, 12)), 1.2), np.float32(18))
        mix(out, g.cover(g.blob((side * 31, -52, -42), (4, 14, 4)), 1.2), np.float32(40))
        cells = g.cover(g.blob((side * 52, 24, -40), (13, 16, 14)) + 4 * grain, 1.5) * (grain > -0.3)
        mix(out, cells * g.cover(-depth + 16, 2), np.float32(-850))
    if rng.random() < 0.85:
        mix(out, g.cover(g.blob((0, -16, -46), (10, 11, 8)) + grain), np.float32(-980))  # sphenoid sinus
        mix(out, g.cover(g.blob((0, -58, -46), (11, 24, 14)) + 3 * grain) * (grain > -0.6), np.float32(-930))
    if rng.random() < 0.7:
        mix(out, g.cover(g.blob((rng.normal(0, 6), -88, -14), (14, 5, 11)) + 2 * grain), np.float32(-980))
    edge = g.cover(outer + scalp_mm)
    out = edge * out + (1 - edge) * np.float32(-1000)
    _face_and_neck(rng, g, outer, grain, out)
    return floats(out)


def _face_and_neck(rng: np.random.Generator, g: Grid, outer: Floats, grain: Floats, out: Floats) -> None:
    """Below the skull: fat, muscles as bright as blood, jaws, cervical spine, airway; drawn in place."""
    body = g.blob((0, rng.uniform(-12, 0), -92), (rng.uniform(58, 68), rng.uniform(74, 86), rng.uniform(58, 68)))
    free = g.cover(body + 3 * grain * np.float32(0.3)) * (1 - g.cover(outer))
    mix(out, free, np.float32(rng.uniform(-100, -60)) + 15 * grain)
    muscle = np.float32(rng.uniform(50, 70))
    parts = [((s * 14.0, 62.0, -72.0), (11.0, 14.0, 30.0)) for s in (-1, 1)]  # nuchal
    parts += [((s * 34.0, 48.0, -70.0), (16.0, 10.0, 26.0)) for s in (-1, 1)]
    parts += [((s * 50.0, -22.0, -58.0), (9.0, 18.0, 26.0)) for s in (-1, 1)]  # masseter, temporal
    parts += [((s * 30.0, -20.0, -62.0), (11.0, 13.0, 16.0)) for s in (-1, 1)]  # pterygoid
    parts += [
        ((rng.normal(0, 35), rng.normal(10, 35), rng.uniform(-85, -55)), tuple(rng.uniform(5, 14, 3))) for _ in range(4)
    ]
    for centre, radii in parts:
        mix(out, g.cover(g.blob(centre, radii) + grain, 1.2) * free, muscle + np.float32(rng.normal(0, 4)))
    for s in (-1, 1):  # temporalis lies on the outer table, up to the vertex of the ear
        strip = g.cover(g.blob((s * 66, -22, -18), (12, 30, 34)), 2) * (1 - g.cover(outer)) * (out > -500)
        mix(out, strip, muscle)
        mix(out, g.cover(g.blob((s * 60, -20, -52), (3, 22, 4))) * free, np.float32(1000))  # zygoma, jaw
        mix(out, g.cover(g.blob((s * 46, -8, -78), (4, 12, 24))) * free, np.float32(1100))
        mix(out, g.cover(g.blob((s * 30, 22, -76), (9, 7, 9))) * free, np.float32(700) + 100 * grain)
    ring = g.cover(g.blob((0, 34, -74), (24, 24, 15))) * (1 - g.cover(g.blob((0, 36, -74), (15, 15, 60))))
    mix(out, ring * free, np.float32(900) + 100 * grain)
    mix(out, g.cover(g.blob((0, 36, -80), (13, 13, 40))) * free, np.float32(8))
    mix(out, g.cover(g.blob((0, 36, -80), (7, 6, 40))) * free, np.float32(35))
    maxilla = g.cover(g.blob((0, -58, -66), (34, 26, 16)) + 2 * grain)
    mix(out, maxilla * free * (np.abs(grain) > 0.25), np.float32(600))
    for centre, radii in (
        ((0, -56, -64), (9, 24, 18)),
        ((26, -56, -62), (13, 15, 14)),
        ((-26, -56, -62), (13, 15, 14)),
    ):
        mix(out, g.cover(g.blob(centre, radii) + 2 * grain) * free, np.float32(-980))
