"""Synthetic frontal chest radiographs with known truth, for the demo, the tests and the reference model.

A film is a sum of path lengths along parallel rays (centimetres, as seen on the film: x to the patient's left, y to the
feet): body wall, lungs, heart and vessels, spine, ribs, clavicles, shoulder blades, breasts, diaphragm and what lies
below; then what the detector and its processing make of them. At most one kind of finding is put in. What imitates a
finding without being one (skin folds, shoulder blades, emphysema, calcifications, tubes, leads) is always there too.
Phantoms test software, not medicine: no figure measured on them says anything about patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_node.demo.film import Canvas, Floats, blurred, ramp
from edge_node.demo.head import field, floats

KINDS: Final = ("pneumothorax", "nodule", "consolidation")
# What each kind is called by a model: a nodule and a consolidation are both focal opacities.
FINDING_OF: Final = {"pneumothorax": "PTX", "nodule": "OPACITY", "consolidation": "OPACITY"}


@dataclass(frozen=True, slots=True, eq=False)
class ChestPhantom:
    """`film` is uint16 (rows, columns), 12 bits, dense is bright (MONOCHROME2), the patient's left at the right edge.

    `truth` is one of `KINDS` or None; `mask` marks the finding (bool, same shape), None without one.
    """

    film: NDArray[np.uint16]
    pixel_mm: float
    truth: str | None
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class _Body:
    """Measures of one patient in cm."""

    wall: float  # half the width of the lungs together
    apex: float
    base: float
    dome: float
    heart: float
    age: float  # 0 young .. 1 old
    emphysema: float
    depth: float  # of the chest, front to back
    female: bool
    turn: float


def chest_phantom(seed: int, *, kind: str | None, rows: int = 320, columns: int | None = None) -> ChestPhantom:
    """Make one film from `seed`; the same seed with another `kind` is the same patient with another finding.

    `columns` default to 0.82 to 1.05 of the rows. Raises ValueError for an unknown `kind`.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, 10])
    columns = columns or round(rows * rng.uniform(0.82, 1.05))
    field_cm = rng.uniform(29, 41)  # from the top to the bottom of the film
    g = Canvas.of(rng, rows, columns, field_cm)
    body = _Body(
        wall=float(rng.normal(13.2, 0.9)),
        apex=float(rng.normal(-13.6, 0.8)),
        base=float(rng.normal(10.5, 1.6)),
        dome=float(rng.uniform(1.5, 3.6)),
        heart=float(rng.uniform(0.8, 1.25)),
        age=float(rng.uniform()),
        emphysema=float(rng.uniform(0.3, 1)) if rng.random() < 0.15 else 0.0,
        depth=float(rng.normal(21, 2.5)),
        female=bool(rng.random() < 0.5),
        turn=float(rng.normal(0, 0.5)),
    )
    lungs = _lungs(rng, g, body)
    tissue, vessels = _soft(rng, g, body, lungs), _vessels(rng, g) * lungs.cover
    found = np.random.default_rng([seed, 11, KINDS.index(kind)]) if kind is not None else rng
    mask: NDArray[np.bool_] | None = None
    air = lungs.depth.copy()
    # A tenth of a lung is blood; air takes the place of tissue elsewhere.
    density = np.float32((0.30 + 0.06 * rng.normal()) * (1 - 0.35 * body.emphysema))
    if kind == "pneumothorax":
        mask, gap, line = _pneumothorax(found, g, lungs)
        vessels *= 1 - gap
        tissue += line
        air *= 1 + np.float32(found.uniform(0.5, 0.95)) * density / (1 - density) * gap  # no lung, no blood: darker
    elif kind is not None:
        filled, mask = (_nodules if kind == "nodule" else _consolidation)(found, g, lungs)
        tissue += filled
    path = tissue - air * (1 - density) + vessels * np.float32(1 - 0.7 * body.emphysema)
    path = np.maximum(path, 0) * np.float32(0.19) + _bones(rng, g, body)
    path += _things(rng, g, body, lungs)
    film = _developed(np.random.default_rng([seed, 12]), g, path)
    return ChestPhantom(film, 10 * g.step, kind, mask)


@dataclass(frozen=True, slots=True, eq=False)
class _Lungs:
    """`depth` cm of lung along each ray; `wall` cm from each point to the inner chest wall or the apex, positive
    inside; `side` -1 for the patient's right; `cover` 0..1."""

    depth: Floats
    wall: Floats
    cover: Floats


def _lungs(rng: np.random.Generator, g: Canvas, b: _Body) -> _Lungs:
    out = np.zeros(g.shape, np.float32)
    cover = np.zeros(g.shape, np.float32)
    wall = np.full(g.shape, -9, np.float32)
    for side in (-1, 1):
        x = g.x * side
        low = b.base + (0.0 if side < 0 else rng.uniform(0.2, 1.6))
        t = np.clip((g.y - b.apex) / (low - b.apex + 4), 0, 1.2)
        outer = (
            b.wall
            * np.clip(t * 2.1, 0, 1) ** np.float32(rng.uniform(0.27, 0.42))
            * (1 - np.float32(0.05) * np.clip(t - 0.75, 0, 1))
        )
        outer = outer + side * b.turn
        inner = np.float32(rng.uniform(1.9, 2.9)) + np.float32(1.1) * np.abs(t - 0.3) - side * b.turn
        middle = np.float32(b.wall * 0.56)
        dome = low - b.dome * (1 - ((x - middle) / np.float32(b.wall * 0.5)) ** 2)
        dome = np.minimum(dome, low + rng.uniform(0.8, 2.4))
        blunt = rng.uniform(0.5, 1.6) if rng.random() < 0.12 else 0.0
        edge = np.minimum(outer - x, 1.4 * (g.y - b.apex) * np.clip((x + 2) / 4, 0, 1))
        inside = np.minimum(np.minimum(edge, x - inner), (dome - blunt * np.clip((x - middle) / 4, 0, 1) - g.y) * 0.9)
        here = ramp(inside, 0.12) * (x > 0)
        round_ = np.sqrt(np.clip(1 - ((x - middle) / (b.wall * 0.53)) ** 2, 0, 1))
        tall = np.sqrt(np.clip((g.y - b.apex) / 6, 0, 1))
        depth = np.float32(0.62 * b.depth) * np.clip(inside / 2.5, 0, 1) ** np.float32(0.5) * (0.35 + 0.65 * round_)
        out = np.where(x > 0, depth * tall * here, out)
        cover = np.where(x > 0, here, cover)
        wall = np.where(x > 0, edge, wall)
    return _Lungs(out.astype(np.float32), wall.astype(np.float32), cover.astype(np.float32))


def _soft(rng: np.random.Generator, g: Canvas, b: _Body, lungs: _Lungs) -> Floats:
    """Thickness of soft tissue along each ray, the lungs' place included; mediastinum, heart, breasts, belly."""
    fat = rng.uniform(1.5, 5)
    half = b.wall + fat + 3.2 * np.clip((-g.y - 6) / 5, 0, 1.6) ** 2  # shoulders
    half = np.where(g.y < b.apex - 1.5, np.maximum(half - 5.5 * (b.apex - 1.5 - g.y), rng.uniform(5, 6.5)), half)
    across = np.clip(1 - (g.x / half) ** 2, 0, 1)
    body = np.float32(b.depth) * across ** np.float32(0.33) * (0.82 + 0.012 * (g.y + 14))
    body = body * (1 - np.float32(0.35) * np.clip((-g.y - 12) / 5, 0, 1))
    heart = g.blob((2.3 * b.heart, b.base - 4.6), (6.0 * b.heart, 5.6 * b.heart), rng.uniform(-0.6, -0.2))
    right = g.blob((-1.6, b.base - 4.6), (3.1 * b.heart, 5), 0)
    thick = np.sqrt(np.maximum(np.clip(heart, 0, 1), np.clip(right, 0, 1)))
    replaced = np.float32(0.75) * thick * lungs.depth  # the heart lies where lung would be
    middle = ramp(rng.uniform(2.0, 3.2) - np.abs(g.x + rng.normal(0, 0.3)), 1.0)
    replaced += middle * np.float32(rng.uniform(2, 6))
    knob = g.blob((rng.uniform(2.2, 3.2), rng.uniform(-6, -4.5)), (rng.uniform(1.2, 2.1),) * 2, 0)
    replaced += np.sqrt(np.clip(knob, 0, 1)) * np.float32(3)
    for side in (-1, 1):  # hila
        for _ in range(4):
            at = (side * rng.uniform(2.8, 5.2), rng.uniform(-3, 1.5))
            radii = (rng.uniform(0.6, 1.4), rng.uniform(0.8, 2.2))
            replaced += np.sqrt(np.clip(g.blob(at, radii, rng.uniform(-1, 1)), 0, 1)) * np.float32(
                rng.uniform(0.5, 1.6)
            )
        if b.female:
            size = rng.uniform(4.5, 7)
            breast = g.blob((side * rng.uniform(6.5, 9), rng.uniform(5, 9)), (size, size * rng.uniform(0.8, 1)), 0)
            replaced += np.clip(breast, 0, 1) ** np.float32(0.6) * np.float32(rng.uniform(1, 4))
    uneven = field(rng, g.shape, (6, 6)) * np.float32(0.35)
    belly = ramp(g.y - b.base, 2) * np.float32(rng.uniform(0, 2))
    tissue = body + replaced + belly + uneven * (body > 0)
    trachea = np.clip(1 - (g.x - 0.25 * np.sin(g.y / 4)) ** 2 / np.float32(0.9**2), 0, 1) ** np.float32(0.5)
    tissue = tissue - trachea * ramp(-g.y - 3, 0.5) * np.float32(1.5)
    if rng.random() < 0.85:  # stomach and bowel below the left dome
        for _ in range(int(rng.integers(1, 5))):
            at = (rng.uniform(3, 11), b.base + rng.uniform(1.5, 6))
            gas = g.blob(at, (rng.uniform(1, 3.2), rng.uniform(0.8, 2)), rng.uniform(-0.5, 0.5))
            tissue = tissue - np.sqrt(np.clip(gas, 0, 1)) * np.float32(rng.uniform(1, 5))
    return floats(np.maximum(tissue, 0))


def _vessels(rng: np.random.Generator, g: Canvas) -> Floats:
    """Branching vessels from both hila, cm of blood; thin and few at the edge of the lungs, as in life."""
    out = np.zeros(g.shape, np.float32)
    weight = np.float32(rng.uniform(1.6, 3.6))
    for side in (-1, 1):
        for angle in np.linspace(-1.35, 1.4, 14) + rng.normal(0, 0.08, 14):
            start = np.array([side * rng.uniform(2.8, 4), rng.uniform(-2.2, 1.2)])
            _branch(rng, g, out, start, float(angle), side, rng.uniform(0.16, 0.30), 4)
    fine = np.clip(field(rng, g.shape, (46, 46)), 0.4, 2) - 0.4  # what is too small to be followed
    return (blurred(out, 1) * weight * 2.2 + fine * weight * np.float32(0.14)).astype(np.float32)


def _branch(
    rng: np.random.Generator, g: Canvas, out: Floats, at: NDArray[np.float64], angle: float, side: int, r: float, n: int
) -> None:
    for _ in range(3):
        step = rng.uniform(0.9, 1.6)
        to = at + step * np.array([side * np.cos(angle), np.sin(angle)])
        g.tube(out, at, to, r, r)
        at, angle, r = to, angle + rng.normal(0, 0.14), r * rng.uniform(0.9, 0.97)
    if n > 1:
        for turn in (-1, 1):
            if rng.random() < 0.85:
                _branch(
                    rng, g, out, at, angle + turn * rng.uniform(0.2, 0.55), side, r * rng.uniform(0.68, 0.88), n - 1
                )


def _bones(rng: np.random.Generator, g: Canvas, b: _Body) -> Floats:
    """Attenuation of spine, ribs, clavicles and shoulder blades."""
    spine_x = g.x - np.float32(rng.normal(0, 0.25)) * np.sin(g.y / 9)
    disc = 0.75 + 0.25 * np.sin(g.y * np.float32(2 * np.pi / rng.uniform(2.1, 2.6)))
    out = ramp(1.7 - np.abs(spine_x), 0.25) * disc.astype(np.float32) * np.float32(rng.uniform(0.15, 0.8))
    strength = np.float32(np.exp(rng.uniform(np.log(0.07), np.log(0.4))))
    gap = (b.base + 3.5 - b.apex) / 10.2
    cross, tip = rng.uniform(0.6, 1.6), rng.uniform(0.3, 0.5)
    for side in (-1, 1):
        x = g.x * side
        for i in range(11):
            y0 = b.apex + 0.6 + gap * i + rng.normal(0, 0.08)
            reach = b.wall * min(1.0, (0.32 + 0.24 * i) ** 0.5) + side * b.turn + 0.25
            u = np.clip((x - 1.5) / (reach - 1.5), 0, 1)
            behind = y0 - cross * np.sin(u * 2.4) + 3.6 * u**3.2
            half = np.float32(rng.uniform(0.42, 0.58))
            out += _rib(g.y - behind, half, g.step) * ramp(x - 1.5, 0.2) * ramp(reach - x, 0.2) * strength
            # The outer wall, where the rib runs along the ray, is the densest part of it.
            along = np.exp(-(((x - reach + 0.3) / 0.35) ** 2)) * np.exp(-(((g.y - behind - 1.2) / 1.3) ** 2))
            out += along.astype(np.float32) * strength * np.float32(0.8)
            if i < 7:
                front = y0 + 4.4 + tip * 3 - 2.6 * u**2 + 4.8 * (1 - u) ** 1.4 * 0.8
                fades = np.clip((u - tip) / 0.15, 0, 1)  # cartilage does not show
                out += _rib(g.y - front, half * 1.15, g.step) * fades * ramp(reach - x, 0.2) * strength * 0.75
        rise, start = rng.uniform(0.5, 2.8), rng.uniform(1.0, 1.8)
        v = np.clip((x - start) / 13.5, 0, 1.2)
        bar = g.y - (b.apex + rng.uniform(1.5, 3.2) - rise * v - 0.5 * np.sin(v * 6))
        out += _rib(bar, np.float32(0.55), g.step) * ramp(x - start, 0.3) * ramp(15.5 - x, 0.3) * strength * 1.1
        inward = rng.uniform(-1.5, 2.2)  # over the lung when the arms hang
        blade = np.minimum(x - (b.wall - inward + 0.12 * (g.y + 8)), np.minimum(g.y + 12.5, 2.5 - g.y - 0.4 * (x - 13)))
        out += (ramp(blade, 0.2) * 0.5 + np.exp(-((blade - 0.25) ** 2) / 0.06) * 0.5).astype(np.float32) * strength
        arm = g.blob((side * (b.wall + rng.uniform(4.5, 6)), b.apex + 2.5), (2.4, 2.4), 0)
        out += np.clip(arm * 3, 0, 1) * np.float32(0.5)
    calcified = 1 + np.float32(0.06) * field(rng, g.shape, (40, 40))
    return floats(out * calcified)


def _rib(off: Floats, half: float | np.float32, pixel: float) -> Floats:
    """A hollow bar seen from the side: its rims are denser than its middle."""
    a = np.abs(off) / np.float32(half)
    rim = np.exp(-(((a - 0.82) / 0.22) ** 2))
    return (ramp((1 - a) * half, max(0.06, pixel / 2)) * 0.6 + rim * 0.4).astype(np.float32)


def _pneumothorax(rng: np.random.Generator, g: Canvas, lungs: _Lungs) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Mask of the free air, its cover 0..1, and the cm of the pleural line between it and the lung."""
    side = float(rng.choice((-1, 1)))
    size = rng.uniform(1.4, 5.0)
    tops = np.float32(rng.uniform(0.15, 1))  # the patient stood: air rises
    height = np.clip((g.y + 14) / 22, 0, 1)
    wanted = size * (1 - tops * height) + np.float32(0.18) * field(rng, g.shape, (5, 5))
    inside = lungs.cover * (g.x * side > 0)
    edge = wanted - lungs.wall
    gap = ramp(edge, 0.1) * inside * (wanted > 0.35)
    line = np.exp(-((edge / 0.09) ** 2)) * inside * (wanted > 0.35)
    return gap > 0.5, gap.astype(np.float32), (line * np.float32(rng.uniform(0.7, 1.6))).astype(np.float32)


def _place(rng: np.random.Generator, g: Canvas, lungs: _Lungs, inside: float) -> tuple[float, float]:
    """A point of the lungs, at least `inside` cm from their outer wall."""
    rows, columns = np.nonzero((lungs.cover > 0.95) & (lungs.wall > inside))
    pick = int(rng.integers(len(rows)))
    return float(g.x[0, columns[pick]]), float(g.y[rows[pick], 0])


def _nodules(rng: np.random.Generator, g: Canvas, lungs: _Lungs) -> tuple[Floats, NDArray[np.bool_]]:
    """Round masses of 1.5 to 6 cm: cm of tissue, and where."""
    out = np.zeros(g.shape, np.float32)
    mask = np.zeros(g.shape, np.bool_)
    for _ in range(1 if rng.random() < 0.7 else int(rng.integers(2, 9))):
        r = float(np.exp(rng.uniform(np.log(0.75), np.log(3.2))))
        at = _place(rng, g, lungs, 0.3)
        rough = 1 + np.float32(0.12) * field(rng, g.shape, (24, 24))
        ball = g.blob(at, (r * rng.uniform(0.85, 1.2), r), rng.uniform(-1, 1)) * rough
        out += np.sqrt(np.clip(ball, 0, 1)) * np.float32(2 * r * rng.uniform(0.7, 1))
        mask |= ball > 0.05
    return out * lungs.cover, mask & (lungs.cover > 0.5)


def _consolidation(rng: np.random.Generator, g: Canvas, lungs: _Lungs) -> tuple[Floats, NDArray[np.bool_]]:
    """A patch of lung filled with fluid, with ragged edges: cm of tissue, and where."""
    r = rng.uniform(2.2, 5)
    at = _place(rng, g, lungs, 1)
    shape = g.blob(at, (r, r * rng.uniform(0.7, 1.3)), rng.uniform(-1, 1))
    ragged = shape + np.float32(0.42) * field(rng, g.shape, (16, 16)) + np.float32(0.2) * field(rng, g.shape, (50, 50))
    cover = np.clip(ragged * 1.6, 0, 1) * np.clip(shape * 4 + 1, 0, 1)
    filled = cover * lungs.depth * np.float32(rng.uniform(0.22, 0.6)) * lungs.cover
    return filled.astype(np.float32), (cover > 0.35) & (lungs.cover > 0.5)


def _things(rng: np.random.Generator, g: Canvas, b: _Body, lungs: _Lungs) -> Floats:
    """Attenuation of what is no finding: folds of skin, calcifications, nipples, leads, lines, tubes, markers."""
    out = np.zeros(g.shape, np.float32)
    for _ in range(int(rng.random() < 0.3) + int(rng.random() < 0.15)):  # a fold has an edge, but vessels go beyond it
        side, lean = rng.choice((-1, 1)), rng.uniform(-0.25, 0.25)
        away = g.x * side - rng.uniform(6, 12) + lean * g.y + 0.4 * np.sin(g.y / rng.uniform(3, 8))
        long = ramp(g.y - rng.uniform(-13, -4), 1) * ramp(rng.uniform(2, 11) - g.y, 1)
        out += ramp(away, 0.12) * np.exp(-np.clip(away, 0, 9) / rng.uniform(1, 3)) * long * rng.uniform(0.04, 0.16)
    for _ in range(int(rng.poisson(0.5 + b.age))):  # calcified, small and dense
        at = _place(rng, g, lungs, 0.3)
        out += np.sqrt(np.clip(g.blob(at, (rng.uniform(0.12, 0.3),) * 2, 0), 0, 1)) * np.float32(rng.uniform(0.2, 0.5))
    if rng.random() < 0.2:
        for side in (-1, 1):
            at = (side * rng.uniform(7, 9), rng.uniform(3, 7))
            out += np.clip(g.blob(at, (0.45, 0.45), 0), 0, 1) * np.float32(rng.uniform(0.03, 0.08))
    for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.35 else 0):  # electrodes and their leads
        start = np.array([rng.uniform(-13, 13), rng.uniform(-12, 10)])
        out += ramp(0.5 - np.hypot(g.x - start[0], g.y - start[1]), 0.1) * np.float32(rng.uniform(0.3, 1))
        g.curve(rng, out, start, rng.uniform(8, 20), 0.09, 0.35)
    if rng.random() < 0.25:  # catheter down the great vein
        g.curve(rng, out, np.array([rng.uniform(-4, -1), -15]), rng.uniform(8, 16), 0.1, 0.3, np.pi / 2)
    if rng.random() < 0.06:  # pacemaker
        at = (rng.choice((-1, 1)) * rng.uniform(6, 9), rng.uniform(-9, -7))
        out += ramp(g.blob(at, (2, 2.3), 0) * 2, 0.2) * np.float32(1.2)
    if rng.random() < 0.6:  # letter of the side
        at = (rng.choice((-1, 1)) * rng.uniform(12, 16), rng.uniform(-16, -12))
        out += ramp(0.7 - np.maximum(np.abs(g.x - at[0]) * 1.6, np.abs(g.y - at[1])), 0.1) * np.float32(1.5)
    return out.astype(np.float32)


def _developed(rng: np.random.Generator, g: Canvas, path: Floats) -> NDArray[np.uint16]:
    """What detector and processing make of the attenuation: scatter, noise, sharpening, grey scale, collimation."""
    path = blurred(path, int(rng.random() < 0.3))
    through = np.exp(-path)
    scatter = np.float32(rng.uniform(0.02, 0.25)) * blurred(through, 12)
    photons = np.float32(10 ** rng.uniform(3.3, 4.6))
    dose = (through + scatter) / np.median(through + scatter) * photons
    dose = np.maximum(dose + np.sqrt(dose) * rng.standard_normal(g.shape, dtype=np.float32), 1)
    value = -np.log(dose)
    for reach in (3, 18):
        value = value + np.float32(rng.uniform(0, 0.7)) * (value - blurred(value, reach))
    low, high = np.percentile(value, (rng.uniform(0.2, 6), rng.uniform(94, 99.8)))
    grey = np.clip((value - low) / (high - low), -0.2, 1.3)
    bend = rng.uniform(-0.9, 0.35)
    grey = np.clip(grey, 0, 1) ** np.float32(np.exp(bend))
    if rng.random() < 0.25:  # collimated: a frame of nothing
        edge = rng.uniform(0, 0.09, 4)
        rows, columns = g.shape
        frame = np.ones(g.shape, np.bool_)
        frame[
            int(edge[0] * rows) : rows - int(edge[1] * rows), int(edge[2] * columns) : columns - int(edge[3] * columns)
        ] = False
        grey = np.where(frame, np.float32(rng.choice((0.0, 1.0))), grey)
    floor, top = rng.uniform(0, 900), rng.uniform(2200, 4095)
    return np.asarray(np.rint(floor + grey * (top - floor)), np.uint16)
