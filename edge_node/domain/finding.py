"""What triage says about a study: advisory, pseudonymous, complete enough to be reproduced."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from edge_node.domain.model import Stage
from edge_node.domain.priors import Priors
from edge_node.domain.quality import InputQuality, quality_from_plain

ADVISORY = "ADVISORY ONLY - NOT FOR DIAGNOSTIC USE. A radiologist must read this study."

# The reason of a result that a human withdrew begins so; any other result that is not judged withdraws nothing.
WITHDRAWN = "triage.withdrawn"
WITHDRAWN_UNSAFE = "triage.withdrawn-unsafe"


class Verdict(StrEnum):
    """There is no "normal" and no "negative": a model that raises nothing says NOT_FLAGGED."""

    FLAGGED = "FLAGGED"
    NOT_FLAGGED = "NOT_FLAGGED"
    CANNOT_JUDGE = "CANNOT_JUDGE"


class TriageOutcome(StrEnum):
    """FINDING: at least one model judged. NOT_APPLICABLE: no model's selection rule fits. SKIPPED: see `reason`."""

    FINDING = "FINDING"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8): value, scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model spoke: card name and version, sha256 (hex) of the ONNX file that ran, its variant, its label; how far
    it may speak (`Stage`), the address of its package, and whose word that package has."""

    name: str
    version: str
    sha256: str
    variant: str
    label: str  # e.g. "reference model, synthetic training data, not for clinical use"
    stage: str = Stage.LIVE
    package: str = ""
    trust: str = ""


@dataclass(frozen=True, slots=True)
class Radiomic:
    """One figure of the region of a finding: a feature of the IBSI, its value, its unit (UCUM)."""

    code: Code
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One model's judgement of one study.

    `probability` and `threshold` in 0..1; `category` is the ACR actionable category 1, 2 or 3;
    `box` is (top, left, bottom, right) in pixels of the key image, frame `key_frame` (1-based) of `key_sop_uid`
    (pseudonymous); `seconds` is decode to score; `provider` is what onnxruntime reports after the run;
    `reason` says why CANNOT_JUDGE; `quality` lists warnings about the input; `seen` are facts of the input for the
    watch over drift (words and numbers by name, nothing of a patient); `radiomics` are figures of the flagged region,
    if the card of the model asks for any.
    """

    verdict: Verdict
    model: ModelIdentity
    provider: str
    code: Code
    probability: float
    threshold: float
    category: int
    series_uid: str
    key_sop_uid: str
    key_frame: int
    box: tuple[int, int, int, int] | None
    seconds: float
    reason: str = ""
    quality: tuple[str, ...] = ()
    seen: tuple[tuple[str, str | float], ...] = ()
    radiomics: tuple[Radiomic, ...] = ()


@dataclass(frozen=True, slots=True)
class Mask:
    """Where a finding lies on its original image: rows x columns bits, row by row, the first in the lowest bit of a
    byte, the last byte filled up with zeros (PS3.5 8.1.1)."""

    rows: int
    columns: int
    bits: bytes


@dataclass(frozen=True, slots=True)
class KeyImage:
    """The key image as it will be shown: RGB, rows x columns x 3 bytes, finding and banner drawn in; `mask` is the
    model's mark on the matrix of the image it was drawn from, None when it made none."""

    rows: int
    columns: int
    rgb: bytes
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a series seems to show, for people and for selection. It is never written into an object of the study.

    `kind` is body-part; `value` is what a header would say (HEAD), OTHER none of what the model knows; `probability` in
    0..1; `said` is what the header says itself, "" when it says nothing.
    """

    kind: str
    value: str
    code: Code
    probability: float
    series_uid: str
    said: str
    model: ModelIdentity
    provider: str


@dataclass(frozen=True, slots=True)
class TriageResult:
    """The answer of the triage step for one study revision."""

    outcome: TriageOutcome
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    key_image: KeyImage | None = None
    unavailable: tuple[str, ...] = ()  # models that should have judged and could not: name, version, reason
    inputs: tuple[InputQuality, ...] = ()  # input quality of the series that were looked at
    suggestions: tuple[Suggestion, ...] = ()  # no finding: nothing is told to the hospital because of one
    priors: Priors | None = None  # which earlier studies were here, if a model asked for any

    @property
    def top(self) -> Finding | None:
        """The first finding: those that are told before those in shadow, flagged first, then the most urgent category,
        then the highest probability."""
        return min(self.findings, key=_rank, default=None)


def _rank(f: Finding) -> tuple[bool, bool, int, float]:
    return f.model.stage == Stage.SHADOW, f.verdict is not Verdict.FLAGGED, f.category, -f.probability


def result_to_json(result: TriageResult) -> str:
    """JSON of everything but the pixels of the key image."""
    plain: dict[str, Any] = {
        "outcome": str(result.outcome),
        "reason": result.reason,
        "findings": [asdict(f) for f in result.findings],
        "unavailable": list(result.unavailable),
        "inputs": [asdict(one) for one in result.inputs],
        "suggestions": [asdict(one) for one in result.suggestions],
        **({"priors": asdict(result.priors)} if result.priors else {}),
    }
    return json.dumps(plain, sort_keys=True)


def result_from_json(text: str, key_image: KeyImage | None = None) -> TriageResult:
    """Inverse of `result_to_json`."""
    plain = json.loads(text)
    findings = tuple(
        Finding(
            **{
                **f,
                "verdict": Verdict(f["verdict"]),
                "model": ModelIdentity(**f["model"]),
                "code": Code(**f["code"]),
                "box": tuple(f["box"]) if f["box"] else None,
                "quality": tuple(f["quality"]),
                "seen": tuple((name, value) for name, value in f.get("seen", ())),
                "radiomics": tuple(Radiomic(**one | {"code": Code(**one["code"])}) for one in f.get("radiomics", ())),
            }
        )
        for f in plain["findings"]
    )
    unavailable = tuple(plain.get("unavailable", ()))
    inputs = tuple(quality_from_plain(one) for one in plain.get("inputs", ()))
    suggestions = tuple(
        Suggestion(**one | {"code": Code(**one["code"]), "model": ModelIdentity(**one["model"])})
        for one in plain.get("suggestions", ())
    )
    asked = plain.get("priors")
    priors = Priors(asked["code"], tuple(asked["studies"])) if asked else None
    outcome = TriageOutcome(plain["outcome"])
    return TriageResult(outcome, plain["reason"], findings, key_image, unavailable, inputs, suggestions, priors)
