"""The timeline of the report: one inline SVG bar per study, stretched to whatever width the page has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edge_node.demo.report_data import StudyEvents, StudyRow

_WIDTH = 1000.0  # units of the bars' view box


def _phases(events: StudyEvents) -> list[tuple[str, str, float, float]]:
    """(class, words, from, to) of what happened, in seconds; forwarding runs beside the write-back, on its own lane."""
    pairs = (
        ("f-in", "receiving", events.first_image, events.last_image),
        ("f-wait", "waiting for more images", events.last_image, events.settled),
        ("f-think", "triage", events.settled, events.triaged),
        ("f-back", "to the worklist", events.triaged, events.worklist),
        ("f-out", "to the trainer", events.triaged, events.delivered),
    )
    return [(name, words, a, b) for name, words, a, b in pairs if a is not None and b is not None]


def _step(end: float) -> float:
    """A round distance between ticks: 1, 2 or 5 times a power of ten, so that there are four to eight."""
    raw = end / 6
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if raw <= power * factor)


def timeline(studies: Sequence[StudyRow], text: Callable[[object], str], seconds: Callable[[float], str]) -> str:
    """HTML of the whole timeline; `text` escapes, `seconds` writes a duration."""
    phases = {study.number: _phases(study.events) for study in studies}
    end = max((b for rows in phases.values() for *_, b in rows), default=0.0) or 1.0
    step = _step(end)
    ticks = [step * i for i in range(math.ceil(end / step) + 1)]
    scale = _WIDTH / ticks[-1]
    grid = "".join(f'<line class="f-grid" x1="{t * scale:.1f}" x2="{t * scale:.1f}" y1="0" y2="18"/>' for t in ticks)
    rows = "".join(_row(study, phases[study.number], scale, grid, text, seconds) for study in studies)
    labels = "".join(f"<span>{t:g}</span>" for t in ticks)
    axis = f'<div class="axis"><span>seconds</span><div class="ticks">{labels}</div><span></span></div>'
    legend = "".join(
        f'<li><i class="{name}"></i>{words}</li>'
        for name, words in (
            ("f-in", "Receiving and de-identifying"),
            ("f-wait", "Waiting for more images"),
            ("f-think", "Triage"),
            ("f-back", "Back to PACS and worklist"),
            ("f-out", "On to the trainer"),
        )
    )
    return f'<ul class="legend">{legend}</ul><div class="card time">{rows}{axis}</div>'


def _row(
    study: StudyRow,
    phases: list[tuple[str, str, float, float]],
    scale: float,
    grid: str,
    text: Callable[[object], str],
    seconds: Callable[[float], str],
) -> str:
    bars = "".join(
        f'<rect class="{name}" x="{a * scale:.1f}" width="{max((b - a) * scale, 3):.1f}" '
        f'y="{12 if name == "f-out" else 1}" height="{5 if name == "f-out" else 9}"/>'
        for name, _, a, b in phases
    )
    told = "; ".join(f"{words} {seconds(b - a)}" for _, words, a, b in phases) or "did not pass the door"
    wait = study.events.seconds_to_worklist
    took = f'<span class="took">{seconds(wait)}</span>' if wait is not None else '<span class="took none">held</span>'
    return (
        f'<div class="row"><span class="name"><b>{study.number}</b>{text(study.description)}</span>'
        f'<svg class="bars" viewBox="0 0 {_WIDTH:g} 18" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(told)}">{grid}{bars}</svg>{took}</div>'
    )
