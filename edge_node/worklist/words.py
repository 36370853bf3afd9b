"""A result in words and in our private codes, the same in every dialect it is written in."""

from __future__ import annotations

from collections.abc import Iterable

from edge_node.domain.finding import ADVISORY, Code, Finding, TriageResult, Verdict

SCHEME = "99EDGENODE"
VERDICTS = {
    Verdict.FLAGGED: Code("FLAGGED", SCHEME, "Flagged for prioritised reading"),
    Verdict.NOT_FLAGGED: Code("NOT_FLAGGED", SCHEME, "Not flagged by triage"),
    Verdict.CANNOT_JUDGE: Code("CANNOT_JUDGE", SCHEME, "Could not be judged by triage"),
}
VERDICT = Code("TRIAGE_VERDICT", SCHEME, "Triage verdict")
LOOKED_FOR = Code("LOOKED_FOR", SCHEME, "Finding looked for")
CATEGORY = Code("TRIAGE_CATEGORY", SCHEME, "Triage category")
LEVEL = Code("TRIAGE_LEVEL", SCHEME, "Triage level")
LEVELS = {
    "HIGH": Code("HIGH", SCHEME, "Read within the hour"),
    "MEDIUM": Code("MEDIUM", SCHEME, "Read within four hours"),
    "LOW": Code("LOW", SCHEME, "Read in the order of arrival"),
}
DRAFT = Code("REPORT_DRAFT", SCHEME, "Preliminary automated report, advisory")
SERVICE = Code("AI_TRIAGE", SCHEME, "AI triage result, preliminary")
PROBABILITY = Code("122157", "DCM", "Probability")
ACR_CATEGORIES = {  # CID 7035
    1: Code("RID49480", "RADLEX", "ACR Category 1 Actionable Finding"),
    2: Code("RID49481", "RADLEX", "ACR Category 2 Actionable Finding"),
    3: Code("RID49482", "RADLEX", "ACR Category 3 Actionable Finding"),
}
UNITS = {  # UCUM
    "1": "no units",
    "mm": "millimeter",
    "mm2": "square millimeter",
    "mm3": "cubic millimeter",
    "/mm": "per millimeter",
    "[hnsf'U]": "Hounsfield unit",
    "[hnsf'U]2": "square Hounsfield unit",
}
LATE = "LATE: reading of this study had begun before this result."
_FIGURES = "radiomics."
NOT_A_DIAGNOSIS = "AI output, not a diagnosis."


def about(finding: Finding) -> str:
    """The finding in sentences, without the advisory, nor what its figures are of: see `radiomics`."""
    meaning = finding.code.meaning
    if finding.verdict is Verdict.FLAGGED:
        said = f"{meaning}: flagged for prioritised reading, probability {finding.probability:.2f}"
        said += f" (threshold {finding.threshold:.2f}), category {finding.category}."
    elif finding.verdict is Verdict.NOT_FLAGGED:
        said = f"{meaning}: not flagged, probability {finding.probability:.2f} (threshold {finding.threshold:.2f})."
        said += " This does not exclude any finding."
    else:
        said = f"{meaning}: could not be judged ({finding.reason or 'no reason given'})."
    odd = [note for note in finding.quality if not note.startswith(_FIGURES)]
    warnings = f" Input: {'; '.join(odd)}." if odd else ""
    label = f" Model: {finding.model.label}." if finding.model.label else ""
    return f"{said}{warnings}{label}"


def radiomics(finding: Finding) -> str:
    """What the figures of a finding are of, and why some are missing, in one sentence for those who read them; "" where
    none were asked for. How a node gets what it lacks is for its administrator."""
    notes = [note.removeprefix(_FIGURES).partition(": ") for note in finding.quality if note.startswith(_FIGURES)]
    said = ["not available on this node" if code == "unavailable" else text for code, _, text in notes]
    return f" Radiomics: {'; '.join(said)}." if said else ""


def advised(finding: Finding) -> str:
    """The finding in sentences, the advisory first."""
    return f"{ADVISORY} {about(finding)}"


def told_late(said: str, late: bool) -> str:
    """What is said, with the word that it came late where it did."""
    return f"{LATE} {said}" if late else said


def ranked(result: TriageResult) -> list[Finding]:
    """The findings of a result, the deciding one first."""
    top = result.top
    return [] if top is None else [top, *(one for one in result.findings if one is not top)]


def withdrawn(earlier: TriageResult | None, now: list[Finding], unavailable: Iterable[str] = ()) -> list[Finding]:
    """What an earlier result spoke of and this one does not: another concept, or another model's word on it.

    What a model said that is `unavailable` now (`TriageResult.unavailable`) is not among it: see `standing`.
    """
    missing = models_of(unavailable)
    return [one for one in _unspoken(earlier, now) if one.model.name not in missing]


def standing(earlier: TriageResult | None, now: list[Finding], unavailable: Iterable[str]) -> list[Finding]:
    """What an earlier result spoke of and this one does not because the model could not judge: nobody took it back."""
    missing = models_of(unavailable)
    return [one for one in _unspoken(earlier, now) if one.model.name in missing]


def told_of_earlier(gone: Iterable[Finding], kept: Iterable[Finding]) -> list[str]:
    """In sentences what became of what an earlier result said."""
    return [
        *(f"Withdrawn: what was said of {one.code.meaning}." for one in gone),
        *(f"Not judged again, what was said of {one.code.meaning} stands." for one in kept),
    ]


def models_of(unavailable: Iterable[str]) -> frozenset[str]:
    """Names of the models in `TriageResult.unavailable`."""
    return frozenset(one.partition(" ")[0] for one in unavailable)


def _unspoken(earlier: TriageResult | None, now: list[Finding]) -> list[Finding]:
    if earlier is None:
        return []
    spoken = {(one.code.scheme, one.code.value, one.model.name) for one in now}
    return [one for one in ranked(earlier) if (one.code.scheme, one.code.value, one.model.name) not in spoken]
