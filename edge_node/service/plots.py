"""Plots as inline SVG: for the validation report and the status page. No script, no font, no address of anything."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Final

from edge_node.triage.figures import Bin

SIZE: Final = 300
_LEFT, _TOP, _FOOT = 46, 14, 40

STYLE: Final = (
    "svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}"
    ".axis{stroke:var(--dim);stroke-width:1;fill:none}.grid{stroke:var(--line);stroke-width:1}"
    ".curve{stroke:var(--mark);stroke-width:2;fill:none}.dot{fill:var(--mark)}.bar{fill:var(--mark);opacity:.75}"
    ".other{fill:var(--dim);opacity:.55}.guide{stroke:var(--dim);stroke-dasharray:4 4;fill:none}"
    ".limit{stroke:var(--red);stroke-dasharray:5 3;fill:none}.alarm{fill:var(--red)}"
)


def roc_plot(corners: Sequence[tuple[float, float]], at: tuple[float, float]) -> str:
    """The ROC curve with the operating point `at` (false alarm rate, sensitivity)."""
    line = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in corners)
    inside = (
        f'<line class="guide" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
        f'<polyline class="curve" points="{line}"/>'
        f'<circle class="alarm" cx="{_x(at[0]):.1f}" cy="{_y(at[1]):.1f}" r="5"><title>operating point</title></circle>'
    )
    return _unit_plot(inside, "1 - specificity", "sensitivity", "ROC curve; the dot is the operating point")


def calibration_plot(bins: Sequence[Bin]) -> str:
    """What was said against what was true, with Wilson intervals; dots grow with the number of cases."""
    most = max((one.count for one in bins), default=1)
    inside = f'<line class="guide" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    for one in bins:
        x = _x(one.said)
        inside += (
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(one.true.low):.1f}" y2="{_y(one.true.high):.1f}"/>'
            f'<circle class="dot" cx="{x:.1f}" cy="{_y(one.true.value):.1f}" '
            f'r="{3 + 4 * math.sqrt(one.count / most):.1f}">'
            f"<title>{one.count} cases</title></circle>"
        )
    return _unit_plot(inside, "probability that was said", "share that was true", "Calibration with 95 % intervals")


def score_plot(scores: Sequence[tuple[float, bool]], threshold: float) -> str:
    """Histograms of the probability: positives above the line, others below, the threshold dashed."""
    bins = 20
    up, down = [0] * bins, [0] * bins
    for p, truth in scores:
        (up if truth else down)[min(bins - 1, int(p * bins))] += 1
    most = max(*up, *down, 1)
    middle, half, width = _y(0.5), SIZE / 2 - 6, SIZE / bins
    inside = f'<line class="axis" x1="{_x(0)}" x2="{_x(1)}" y1="{middle}" y2="{middle}"/>'
    for at, (a, b) in enumerate(zip(up, down, strict=True)):
        x = _x(at / bins) + 1
        for count, css, y in ((a, "bar", middle - half * a / most), (b, "other", middle)):
            if count:
                inside += (
                    f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                    f'height="{half * count / most:.1f}"><title>{count} cases</title></rect>'
                )
    inside += f'<line class="limit" x1="{_x(threshold):.1f}" x2="{_x(threshold):.1f}" y1="{_y(1)}" y2="{_y(0)}"/>'
    inside += (
        f'<text x="{_x(0) + 6}" y="{_y(1) + 14}">positives</text><text x="{_x(0) + 6}" y="{_y(0) - 6}">others</text>'
    )
    return _frame(inside, "probability", "cases", "Scores of positives and others; dashed: threshold", ticks_y=False)


def trend(values: Sequence[float | None], alarms: Sequence[bool], band: tuple[float, float] | None, label: str) -> str:
    """A small line over time, oldest first, alarms as red dots, `band` what is expected."""
    width, height, pad = 260, 56, 6
    known = [v for v in values if v is not None]
    if not known:
        return ""
    ends = [*known, *(band or ())]
    low, high = min(ends), max(ends)
    room = (high - low) or abs(high) or 1.0

    def x(at: int) -> float:
        return pad + at * (width - 2 * pad) / max(1, len(values) - 1)

    def y(value: float) -> float:
        return float(height - pad - (value - low) / room * (height - 2 * pad))

    parts = []
    if band:
        top, foot = y(band[1]), y(band[0])
        parts.append(
            f'<rect class="other" style="opacity:.2" x="0" width="{width}" y="{top:.1f}" '
            f'height="{max(1.0, foot - top):.1f}"/>'
        )
    line = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values) if v is not None)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    for i, v in enumerate(values):
        if v is not None:
            css = "alarm" if alarms[i] else "dot"
            parts.append(f'<circle class="{css}" cx="{x(i):.1f}" cy="{y(v):.1f}" r="{4 if alarms[i] else 2.5}"/>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(label)}"><title>{html.escape(label)}</title>{"".join(parts)}</svg>'
    )


def _unit_plot(inside: str, x: str, y: str, label: str) -> str:
    return _frame(inside, x, y, label, ticks_y=True)


def _frame(inside: str, x: str, y: str, label: str, *, ticks_y: bool) -> str:
    marks = ""
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        word = f"{part:.2f}".rstrip("0").rstrip(".")
        marks += f'<line class="grid" x1="{_x(part)}" x2="{_x(part)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        marks += f'<text x="{_x(part)}" y="{_y(0) + 16}" text-anchor="middle">{word}</text>'
        if ticks_y:
            marks += f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(part)}" y2="{_y(part)}"/>'
            marks += f'<text x="{_x(0) - 6}" y="{_y(part) + 4}" text-anchor="end">{word}</text>'
    width, height = _LEFT + SIZE + 14, _TOP + SIZE + _FOOT
    turned = f"rotate(-90 12 {_y(0.5)})"
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(label)}"><title>{html.escape(label)}</title>{marks}'
        f'<rect class="axis" x="{_x(0)}" y="{_y(1)}" width="{SIZE}" height="{SIZE}"/>{inside}'
        f'<text x="{_x(0.5)}" y="{height - 6}" text-anchor="middle">{html.escape(x)}</text>'
        f'<text x="12" y="{_y(0.5)}" text-anchor="middle" transform="{turned}">{html.escape(y)}</text></svg>'
    )


def _x(part: float) -> float:
    return _LEFT + part * SIZE


def _y(part: float) -> float:
    return _TOP + (1 - part) * SIZE
