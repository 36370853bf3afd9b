"""Whether one variant of a model may stand in for another: decisions, probabilities and areas on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from edge_node.triage.card_tables import ToleranceTable
from edge_node.triage.figures import Estimate, Numbers, Truth, auroc_difference, wilson

ENOUGH_OF_A_GROUP: Final = 20


@dataclass(frozen=True, slots=True)
class Parity:
    """What came of a comparison on cases that both variants judged; `breaches` are what the card does not allow,
    `short` is why the cases are too few to let the variant speak ("" if they are enough)."""

    positives: int
    others: int
    flips: int
    flip_share: Estimate
    new_misses: int
    miss_bound: float  # new misses that these cases cannot exclude, as a share of the positives
    worst_probability: float
    area_difference: Estimate
    breaches: tuple[str, ...]
    short: str

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


def compare(
    reference: tuple[Numbers, Truth],
    other: tuple[Numbers, Truth],
    truth: Truth,
    groups: Mapping[str, Sequence[str]],
    allowed: ToleranceTable,
) -> Parity:
    """`reference` and `other` are (probabilities, flags) of the same cases; `groups` names a group of each case."""
    (p, flags), (q, other_flags) = reference, other
    positives, others = int(truth.sum()), int((~truth).sum())
    flips = int((flags != other_flags).sum())
    misses = int((truth & flags & ~other_flags).sum())
    worst = float(np.abs(p - q).max()) if len(p) else 0.0
    area = auroc_difference(q, p, truth)
    breaches: list[str] = []
    if len(p) and flips / len(p) > allowed.flips:
        breaches.append(f"{flips} of {len(p)} decisions differ, allowed {allowed.flips:.1%}")
    if misses > allowed.new_misses:
        breaches.append(f"{misses} positives are missed that the other variant flags, allowed {allowed.new_misses}")
    if worst > allowed.probability:
        breaches.append(f"probabilities differ by up to {worst:.3f}, allowed {allowed.probability:g}")
    if area.known and area.value < -allowed.auroc:
        breaches.append(f"the AUROC is {-area.value:.4f} lower, allowed {allowed.auroc:g}")
    for kind, names in groups.items():
        for name in sorted(set(names)):
            here = truth & (np.array(names) == name)
            count = int(here.sum())
            drop = float(flags[here].mean() - other_flags[here].mean()) if count else 0.0
            if count >= ENOUGH_OF_A_GROUP and drop > allowed.sensitivity:
                breaches.append(
                    f"{kind} {name}: the sensitivity is {drop:.1%} lower, allowed {allowed.sensitivity:.0%}"
                )
    few = positives < allowed.positives or others < allowed.others
    short = (
        f"{positives} positives and {others} others, at least {allowed.positives} and {allowed.others} are needed"
        if few
        else ""
    )
    bound = wilson(misses, positives).high if misses else min(1.0, 3 / positives) if positives else 1.0
    return Parity(positives, others, flips, wilson(flips, len(p)), misses, bound, worst, area, tuple(breaches), short)


def declared(statement: object, allowed: ToleranceTable) -> list[str]:
    """What a card's own statement of parity (`held_out.parity`) says past its tolerance; empty without a statement."""
    if not isinstance(statement, dict):
        return []
    limits = {
        "new_misses": allowed.new_misses,
        "max_probability_difference": allowed.probability,
        "auroc_difference": allowed.auroc,
    }
    found: list[str] = []
    for name, limit in limits.items():
        value = statement.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        size = -value if name == "auroc_difference" else value
        if not size <= limit:
            found.append(f"the card says {name} = {value:g}, allowed {limit:g}")
    return found
