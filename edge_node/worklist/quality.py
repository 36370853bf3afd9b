"""What is wrong with a study as it came, for the technologist: never a word of what was looked for or found in it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from edge_node.domain.finding import TriageOutcome, TriageResult, Verdict

MISSING, GAP, UNREADABLE, GEOMETRY, CLIPPING, BODY_PART = (
    "missing",
    "gap",
    "unreadable",
    "geometry",
    "clipping",
    "body-part",
)
# What triage says of its input (the code before the colon), in the technologist's words.
_SEEN = {
    "geometry.gap": (GAP, "gap between slices"),
    "select.unreadable": (UNREADABLE, "images cannot be read"),
    "decode.undecodable": (UNREADABLE, "images cannot be decoded"),
    "triage.unreadable": (UNREADABLE, "images cannot be read"),
    "geometry.missing": (GEOMETRY, "images without position or scale"),
    "rescale.missing": (GEOMETRY, "images without position or scale"),
    "geometry.mixed": (GEOMETRY, "slices of different geometry in one series"),
    "quality.truncated": (CLIPPING, "the patient reaches the edge of the field of view"),
    "quality.border": (CLIPPING, "the patient reaches the edge of the field of view"),
}
_NUMBERED = frozenset({"geometry.gap", "select.unreadable", "decode.undecodable", "geometry.mixed"})
_ANNOUNCED = re.compile(r"(\d+) of (\d+) announced missing\b")
_LACKS = re.compile(r"lacks (.+?) after \d+ s")
_COUNT = re.compile(r"\d+(?: of \d+)?(?: mm)?")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `kind` stable, `reason` one line ("images missing: 3 of 40")."""

    kind: str
    reason: str


def faults_of(*, settle_reason: str, body_part: str, result: TriageResult, wanted: Collection[str]) -> list[Fault]:
    """What is wrong with a revision of a study, of the kinds that are `wanted`; each kind once."""
    found: dict[str, str] = {}
    announced, lacks = _ANNOUNCED.match(settle_reason), _LACKS.match(settle_reason)
    if announced:
        found[MISSING] = f"images missing: {announced[1]} of {announced[2]}"
    elif lacks:
        found[MISSING] = f"images missing: {lacks[1]}"
    if not body_part.strip():
        found[BODY_PART] = "body part not stated"
    for said in _said(result):
        code, _, text = said.partition(": ")
        if code in _SEEN:
            kind, words = _SEEN[code]
            count = _COUNT.search(text) if code in _NUMBERED else None
            found.setdefault(kind, f"{words}: {count[0]}" if count else words)
    return [Fault(kind, reason) for kind, reason in found.items() if kind in wanted]


def decided(result: TriageResult) -> frozenset[str]:
    """The kinds that this result can say are mended: what the images show only where a model looked at them."""
    looked = result.outcome is TriageOutcome.FINDING
    seen = {GAP, UNREADABLE, GEOMETRY, CLIPPING} if looked else set()
    return frozenset({MISSING, BODY_PART} | seen)


def _said(result: TriageResult) -> list[str]:
    said = [result.reason] if result.outcome is TriageOutcome.SKIPPED else []
    for one in result.findings:
        said += [one.reason] if one.verdict is Verdict.CANNOT_JUDGE else []
        said += one.quality
    return said
