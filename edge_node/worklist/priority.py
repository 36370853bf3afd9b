"""One decision about the reading order: two tiers and a virtual deadline.

Every study gets a target time to read, T minutes from its arrival, by order and patient class; a flagged finding can
only shorten it. Tier 0 (T of an hour or less) is read before tier 1, within a tier the earlier deadline comes first.
The key never changes with time, so a routine study grows old past newer ones without ever passing a critical one.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from edge_node.domain.finding import Finding, Verdict
from edge_node.domain.worklist import Priority

ORDER_MINUTES = {"STAT": 60.0, "URGENT": 240.0, "ROUTINE": 720.0}
CLASS_FACTOR = {"E": 0.75, "I": 0.9, "O": 1.0}
CLASS_WORDS = {"E": "emergency", "I": "inpatient", "O": "outpatient"}
CATEGORY_MINUTES = {1: 15.0, 2: 60.0, 3: 480.0}  # ACR actionable findings: minutes, an hour, days
STRICT_TIER_MINUTES = 60.0
MEDIUM_MINUTES = 240.0
DEFAULT_THRESHOLD = 0.5


def decide(*, arrival: float, order: str, patient_class: str, finding: Finding | None) -> Priority:
    """Where a study belongs in the reading order.

    `arrival` is seconds since the epoch; `order` STAT, URGENT or ROUTINE (anything else counts as ROUTINE);
    `patient_class` E, I or O (anything else counts as O); `finding` the deciding finding, if a model judged.
    Only a FLAGGED finding changes the target, and only to a shorter one. The level follows PS3.3 C.30.2, where HIGH
    is the equivalent of STAT. The reason is one line without identity; its times are local to the node.
    """
    ordered = _ordered_minutes(order, patient_class)
    target, raised = ordered, False
    if finding is not None and finding.verdict is Verdict.FLAGGED:
        by_finding = _finding_minutes(finding.probability, finding.threshold, finding.category)
        raised = by_finding < ordered
        target = min(ordered, by_finding)
    due = arrival + target * 60.0
    return Priority(
        tier=_tier(target),
        due=due,
        target_minutes=target,
        level="HIGH" if _tier(target) == 0 else "MEDIUM" if target <= MEDIUM_MINUTES else "LOW",
        raised_by_ai=raised,
        reason=_reason(order, patient_class, finding, target, arrival, due),
    )


def sort_key(study: dict[str, Any]) -> tuple[int, float, float, str]:
    """Key of a reading list entry, smallest is read first; the same rule as `decide`, in minutes.

    `study` has id, arrival (minutes), order, patient_class, ai ({finding: probability} or None) and flagged; ready is
    accepted and not used, for knowing earlier is no reason to read earlier. Optional: category ({finding: 1..3},
    else 1) and threshold (else 0.5). Ties fall to the earlier arrival, then to the id.
    """
    target = _ordered_minutes(study.get("order", ""), study.get("patient_class", ""))
    scores: dict[str, float] = study.get("ai") or {}
    threshold = float(study.get("threshold", DEFAULT_THRESHOLD))
    categories: dict[str, int] = study.get("category") or {}
    flagged = study.get("flagged")
    for name, probability in scores.items():
        # Whoever judged has the last word; without a judgement the threshold decides.
        if flagged is False or (flagged is None and not probability >= threshold):
            continue
        target = min(target, _finding_minutes(probability, threshold, categories.get(name, 1)))
    arrival = float(study["arrival"])
    return (_tier(target), arrival + target, arrival, str(study.get("id", "")))


def _ordered_minutes(order: str, patient_class: str) -> float:
    return ORDER_MINUTES.get(order, ORDER_MINUTES["ROUTINE"]) * CLASS_FACTOR.get(patient_class, 1.0)


def _finding_minutes(probability: float, threshold: float, category: int) -> float:
    """Tacr at p = 1, twice Tacr at the threshold; a score that is no number gets the slowest of its category."""
    minutes = CATEGORY_MINUTES.get(category, CATEGORY_MINUTES[3])
    if not math.isfinite(probability):
        return 2.0 * minutes
    if threshold >= 1.0:
        return minutes
    doubt = (1.0 - probability) / (1.0 - threshold)
    return minutes * (1.0 + min(1.0, max(0.0, doubt)))


def _tier(target: float) -> int:
    return 0 if target <= STRICT_TIER_MINUTES else 1


def _reason(order: str, patient_class: str, finding: Finding | None, target: float, arrival: float, due: float) -> str:
    ordered = f"{order if order in ORDER_MINUTES else 'ROUTINE'} order"
    if patient_class in CLASS_WORDS:
        ordered += f", {CLASS_WORDS[patient_class]}"
    if finding is None:
        why = ordered
    elif finding.verdict is Verdict.FLAGGED:
        why = (
            f"{finding.code.meaning} {finding.probability:.2f} (threshold {finding.threshold:.2f}), "
            f"category {finding.category}"
        )
        if target == _ordered_minutes(order, patient_class):
            why += f", {ordered}"
    elif finding.verdict is Verdict.NOT_FLAGGED:
        why = f"{finding.code.meaning} not flagged, {ordered}"
    else:
        why = f"{finding.code.meaning} could not be judged, {ordered}"
    return f"{why}, target {target:.0f} min, due {_clock(arrival, due)}"


def _clock(arrival: float, due: float) -> str:
    """Local time of day; with the date when the deadline is not on the day of arrival."""
    came, until = datetime.fromtimestamp(arrival).astimezone(), datetime.fromtimestamp(due).astimezone()
    return until.strftime("%H:%M" if came.date() == until.date() else "%Y-%m-%d %H:%M")
