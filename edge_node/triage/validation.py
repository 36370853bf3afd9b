"""What a model is worth at a site, from studies whose truth is known: every figure of the validation report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from edge_node.domain.finding import Verdict
from edge_node.triage import calibration, figures
from edge_node.triage.figures import Bin, Estimate, Numbers, Truth, wilson

FEW: Final = 20  # positives or others below which a figure of a group proves little
GROUPS: Final = ("sex", "age", "manufacturer", "protocol", "slice", "kind")
NOT_SAID: Final = "not said"
_AGES: Final = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (80, "65 to 79"), (999, "80 and over"))


@dataclass(frozen=True, slots=True)
class Case:
    """One study: its line in the truth, what is true, what the model said. `reason` says why it judged nothing;
    `groups` by the kinds of `GROUPS`, `seen` the facts of the input."""

    line: int
    truth: bool
    verdict: str  # of `Verdict`, or NOT_APPLICABLE, SKIPPED
    probability: float
    threshold: float
    reason: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str | float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def judged(self) -> bool:
        """Whether there is a probability."""
        return self.verdict in (Verdict.FLAGGED, Verdict.NOT_FLAGGED)

    @property
    def flagged(self) -> bool:
        """Whether the model raised it."""
        return self.verdict == Verdict.FLAGGED

    @property
    def cell(self) -> str:
        """hit, miss, false alarm or spared; "" when not judged."""
        if not self.judged:
            return ""
        return ("hit" if self.flagged else "miss") if self.truth else ("false alarm" if self.flagged else "spared")


@dataclass(frozen=True, slots=True)
class Site:
    """What the figures are made for: how many of 1 are positive, studies a day, and how many false alarms one miss
    weighs, for the operating point."""

    prevalence: float
    studies_per_day: float
    miss_weighs: float = 20.0


@dataclass(frozen=True, slots=True)
class Point:
    """An operating point, `why` it is shown."""

    why: str
    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    alerts_per_day: Estimate


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a kind; `few` warns that it proves little, `apart` that its interval excludes the whole's figure."""

    kind: str
    name: str
    positives: int
    others: int
    not_judged: int
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    few: bool
    apart: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole of a validation, without pictures."""

    positives: int
    others: int
    hits: int
    misses: int
    false_alarms: int
    spared: int
    not_judged: dict[str, int]  # reasons
    not_judged_positives: int
    auroc: Estimate
    in_force: Point
    worst_case: Estimate  # sensitivity when what was not judged counts as missed
    points: tuple[Point, ...]
    ece: float
    brier: float
    bins: tuple[Bin, ...]
    roc: tuple[tuple[float, float], ...]
    groups: tuple[Group, ...]
    temperature: float
    isotonic: tuple[tuple[float, float], ...]
    scores: tuple[tuple[float, bool], ...]  # of what was judged: probability, truth

    def plain(self) -> dict[str, Any]:
        """As JSON tells it; what is not known is null."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def age_band(text: str) -> str:
    """The band of a DICOM age string (PS3.5 6.2, AS); `NOT_SAID` for anything else."""
    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in "DWMY" or not unit:
        return NOT_SAID
    years = int(number) if unit == "Y" else 0 if unit in "DW" else int(number) // 12
    return next(name for below, name in _AGES if years < below)


def summarise(cases: Sequence[Case], site: Site) -> Figures:
    """Every figure. Raises ValueError when not one case of each kind was judged."""
    judged = [case for case in cases if case.judged]
    truth = np.array([case.truth for case in judged], np.bool_)
    p = np.array([case.probability for case in judged], np.float64)
    if not truth.any() or truth.all():
        raise ValueError("not one positive and one other case was judged")
    cells = {name: sum(case.cell == name for case in judged) for name in ("hit", "miss", "false alarm", "spared")}
    reasons: dict[str, int] = {}
    for case in cases:
        if not case.judged:
            word = f"{case.verdict}: {case.reason.split(':')[0] or 'no reason'}"
            reasons[word] = reasons.get(word, 0) + 1
    lost = sum(case.truth for case in cases if not case.judged)
    in_force = point("in force", judged[0].threshold, p, truth, site)
    return Figures(
        positives=sum(case.truth for case in cases),
        others=sum(not case.truth for case in cases),
        hits=cells["hit"],
        misses=cells["miss"],
        false_alarms=cells["false alarm"],
        spared=cells["spared"],
        not_judged=reasons,
        not_judged_positives=lost,
        auroc=figures.auroc(p, truth),
        in_force=in_force,
        worst_case=wilson(cells["hit"], cells["hit"] + cells["miss"] + lost),
        points=(in_force, *proposals(p, truth, site)),
        ece=figures.ece(p, truth),
        brier=figures.brier(p, truth),
        bins=tuple(figures.reliability(p, truth)),
        roc=tuple(figures.roc(p, truth)),
        groups=tuple(_groups(cases, in_force, figures.auroc(p, truth))),
        temperature=calibration.temperature(p, truth),
        isotonic=tuple(calibration.isotonic(p, truth)),
        scores=tuple(zip(p.tolist(), truth.tolist(), strict=True)),
    )


def point(why: str, threshold: float, p: Numbers, truth: Truth, site: Site) -> Point:
    """What a threshold does at the site."""
    flagged = p >= threshold
    yes, no = int(truth.sum()), int((~truth).sum())
    hits, spared = int((flagged & truth).sum()), int((~flagged & ~truth).sum())
    sensitive, specific = wilson(hits, yes), wilson(spared, no)
    share = figures.alert_share(sensitive, specific, site.prevalence)
    alerts = Estimate(*(site.studies_per_day * part for part in (share.value, share.low, share.high)))
    # The share of the not flagged that are truly other is the predictive value with the roles exchanged.
    npv = figures.ppv((spared, no), (hits, yes), 1 - site.prevalence)
    return Point(
        why, threshold, sensitive, specific, figures.ppv((hits, yes), (spared, no), site.prevalence), npv, alerts
    )


def proposals(p: Numbers, truth: Truth, site: Site) -> list[Point]:
    """Operating points to choose from: two sensitivities, and the least harm at the site's prevalence.

    Harm of a threshold: prevalence x misses x `miss_weighs` + (1 - prevalence) x false alarms. Thresholds lie halfway
    between scores that were seen, so that none depends on the last digit of one case.
    """
    scores = np.unique(p)
    between = np.concatenate(([max(0.0, scores[0] / 2)], (scores[1:] + scores[:-1]) / 2))
    sensitivity = np.array([(p[truth] >= t).mean() for t in between])
    specificity = np.array([(p[~truth] < t).mean() for t in between])
    made = []
    for goal in (0.9, 0.95):
        reach = np.flatnonzero(sensitivity >= goal)
        if len(reach):
            made.append(point(f"sensitivity of {goal:.0%} or more", float(between[reach[-1]]), p, truth, site))
    harm = site.prevalence * (1 - sensitivity) * site.miss_weighs + (1 - site.prevalence) * (1 - specificity)
    best = np.flatnonzero(harm <= harm.min() + 1e-12)
    why = f"least harm at a prevalence of {site.prevalence:.1%}, one miss weighing {site.miss_weighs:g} false alarms"
    return [*made, point(why, float(between[best[len(best) // 2]]), p, truth, site)]


def _groups(cases: Sequence[Case], whole: Point, area: Estimate) -> list[Group]:
    out = []
    for kind in GROUPS:
        names = sorted({case.groups.get(kind, NOT_SAID) for case in cases})
        if names == [NOT_SAID]:
            continue
        for name in names:
            # A kind of finding has no others of its own: it is compared with all of them.
            here = [
                case
                for case in cases
                if case.groups.get(kind, NOT_SAID) == name or (kind == "kind" and not case.truth and name != NOT_SAID)
            ]
            if kind == "kind" and not any(case.truth for case in here):
                continue
            judged = [case for case in here if case.judged]
            truth = np.array([case.truth for case in judged], np.bool_)
            p = np.array([case.probability for case in judged], np.float64)
            yes, no = int(truth.sum()), len(judged) - int(truth.sum())
            sensitive = wilson(sum(c.flagged and c.truth for c in judged), yes)
            specific = wilson(sum(not c.flagged and not c.truth for c in judged), no)
            made = figures.auroc(p, truth)
            apart = any(
                part.known and not part.low <= of_all.value <= part.high
                for part, of_all in ((sensitive, whole.sensitivity), (specific, whole.specificity), (made, area))
            )
            few = min(yes, no) < FEW
            out.append(Group(kind, name, yes, no, len(here) - len(judged), made, sensitive, specific, few, apart))
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 9) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
