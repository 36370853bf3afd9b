"""`edge-node model validate`: the very triage of the node over studies of known truth; measured, kept, compared."""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError, Quarantine, Stop
from edge_node.domain.finding import KeyImage
from edge_node.domain.model import Stage
from edge_node.service.models import card_of, device_of, source_of, terms_of
from edge_node.service.process import harden
from edge_node.service.truth import Known, known_studies
from edge_node.store import watch
from edge_node.store.database import Database
from edge_node.store.models import Registered
from edge_node.store.watch import Stream
from edge_node.triage import parity
from edge_node.triage.card_tables import FindingTable, ToleranceTable
from edge_node.triage.drift import prevalence_weights
from edge_node.triage.judge import Triage
from edge_node.triage.model import LoadedModel, load_model
from edge_node.triage.runner import check_onnxruntime_owner
from edge_node.triage.validation import Case, Figures, Site, summarise

PICTURES: Final = 4  # of each cell
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Example:
    """A picture of a case."""

    case: Case
    image: KeyImage


@dataclass(frozen=True, slots=True)
class Validation:
    """Everything a report says. `against` is the variant it was compared with, "" without."""

    at: float
    node: str
    model: str
    version: str
    package: str
    trust: str
    label: str
    variant: str
    provider: str
    sha256: str
    intended_use: str
    limits: tuple[str, ...]
    finding: str
    meaning: str
    site: Site
    figures: Figures
    cases: tuple[Case, ...]
    examples: tuple[Example, ...]
    remarks: tuple[str, ...]
    truth_sha256: str
    against: str = ""
    parity: parity.Parity | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON tells it: without pictures and single cases."""
        left_out = {"figures", "cases", "examples", "parity", "site"}
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        return told | {
            "site": dataclasses.asdict(self.site),
            "figures": self.figures.plain(),
            "parity": self.parity.plain() if self.parity else None,
        }


def validate(
    config: Config,
    one: Registered,
    folder: Path,
    truth: Path,
    site: Site,
    *,
    finding: str = "",
    variant: str = "",
    against: str = "",
    tell: Tell = lambda _done, _of: None,
) -> Validation:
    """Judge every study of the folder. `finding` is a short word of the card (default its first), `variant` the file
    that runs (default what runs here), `against` another one to compare with.

    Raises Quarantine ``validation.truth``, ``validation.no-studies``, ``validation.identified``,
    ``validation.one-sided``, ``validation.finding``, ``validation.same-variant``; Stop of a package that fails here.
    """
    import hashlib

    studies, remarks = known_studies(folder, truth)
    card = card_of(config, one)
    if card.file.says != "findings":
        raise Quarantine(
            "validation.finding",
            f"{one.name} says body parts: there is no finding of it to validate",
            hint="its suggestions stand in edge-node study show STUDY",
        )
    word = _finding(card.file.findings, finding)
    with _running(config, one, variant) as model:
        if against == model.variant:
            raise Quarantine(
                "validation.same-variant",
                f"{against} is the variant that is validated: compared with itself everything is equal",
                hint="--against another variant of the card: edge-node model show NAME",
            )
        cases, examples = _judge(config, model, word.code.value, studies, tell)
        loaded = model.identity, model.variant, model.provider
    try:
        figures = summarise(cases, site)
    except ValueError as error:
        raise Quarantine(
            "validation.one-sided", str(error), hint="a validation needs positives and others that the model can judge"
        ) from None
    compared = None
    if against:
        with _running(config, one, against) as model:
            others, _ = _judge(config, model, word.code.value, studies, tell, pictures=0)
        compared = _parity(others, cases, card.file.tolerance or ToleranceTable())
    identity, ran, provider = loaded
    return Validation(
        at=time.time(),
        node=config.node.name,
        model=one.name,
        version=one.version,
        package=one.package,
        trust=one.trust,
        label=identity.label,
        variant=ran,
        provider=provider,
        sha256=identity.sha256,
        intended_use=card.file.intended_use,
        limits=tuple(card.file.limits),
        finding=word.short,
        meaning=word.code.meaning,
        site=site,
        figures=figures,
        cases=tuple(cases),
        examples=tuple(examples),
        remarks=tuple(remarks),
        truth_sha256=hashlib.sha256(truth.read_bytes()).hexdigest(),
        against=against,
        parity=compared,
    )


def writable(out: Path) -> None:
    """Find out before the long work whether the report can be written. Raises Stop ``validation.unwritable``."""
    try:
        with out.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise Stop(
            "validation.unwritable", f"{out} cannot be written: {error.strerror}", hint="--out FILE", exit_code=77
        ) from None


def keep(database: Database, actor: str, made: Validation, code: str, who: str) -> None:
    """Record a validation: it is the reference of the watch over drift, and what promotion asks for."""
    stream = Stream(made.package, made.variant, code)
    judged = [case for case in made.cases if case.judged]
    figures = made.figures.plain()
    kept = {key: figures[key] for key in ("positives", "others", "auroc", "in_force", "ece")}
    seen = reference(judged, made.site.prevalence)
    told = {"auroc": figures["auroc"], "positives": figures["positives"], "others": figures["others"]}
    with database.write() as connection:
        watch.write_record(connection, actor, stream, "validation", who, {"figures": kept, "reference": seen}, told)
        if made.parity is not None:
            plain = made.parity.plain() | {"against": made.against}
            outcome = {"against": made.against, "breaches": list(made.parity.breaches), "short": made.parity.short}
            watch.write_record(connection, actor, stream, "parity", who, plain, outcome)


def reference(judged: Sequence[Case], prevalence: float) -> dict[str, Any]:
    """The judged cases as the watch keeps them: scores, flags, facts, and weights for the site's prevalence."""
    return {
        "scores": [round(case.probability, 6) for case in judged],
        "flagged": [case.flagged for case in judged],
        "weights": prevalence_weights([case.truth for case in judged], prevalence),
        "seen": [dict(case.seen) for case in judged],
    }


@contextmanager
def _running(config: Config, one: Registered, variant: str) -> Iterator[LoadedModel]:
    check_onnxruntime_owner()
    device = replace(device_of(config), variant=variant)
    source = replace(source_of(config, one), stage=Stage.SHADOW)
    model = load_model(source, terms_of(config), device, prepare=harden)
    try:
        yield model
    finally:
        model.process.close()


def _judge(
    config: Config, model: LoadedModel, code: str, studies: Sequence[Known], tell: Tell, pictures: int = PICTURES
) -> tuple[list[Case], list[Example]]:
    triage = Triage([model], time_limit_s=config.triage.time_limit_s, threads=config.triage.threads)
    cases: list[Case] = []
    best: dict[str, list[tuple[float, int, Example]]] = {}
    for number, known in enumerate(studies, 1):
        case, image = _case(triage, code, known)
        cases.append(case)
        if image is not None and case.cell and pictures:
            # The most wrong of the wrong; of the right those that were nearly wrong.
            wrong = case.probability if not case.truth else 1 - case.probability
            heap = best.setdefault(case.cell, [])
            heapq.heappush(heap, (wrong, -number, Example(case, image)))
            if len(heap) > pictures:
                heapq.heappop(heap)
        tell(number, len(studies))
    order = ("miss", "false alarm", "hit", "spared")
    return cases, [example for cell in order for _, _, example in sorted(best.get(cell, []), reverse=True)]


def _case(triage: Triage, code: str, known: Known) -> tuple[Case, KeyImage | None]:
    began = time.monotonic()
    try:
        result = triage.judge(known.study, 1000.0)
    except EdgeNodeError as error:
        return Case(known.line, known.truth, "SKIPPED", 0.0, 0.0, error.code, _any(known)), None
    seconds = time.monotonic() - began
    found = next((one for one in result.findings if one.code.value == code), None)
    if found is None:
        return Case(
            known.line, known.truth, str(result.outcome), 0.0, 0.0, result.reason, _any(known), {}, seconds
        ), None
    groups = known.groups.get(found.series_uid, _any(known))
    case = Case(
        known.line,
        known.truth,
        str(found.verdict),
        found.probability,
        found.threshold,
        found.reason,
        groups,
        dict(found.seen),
        seconds,
    )
    return case, result.key_image if found is result.top else None


def _any(known: Known) -> dict[str, str]:
    return next(iter(known.groups.values()))


def _parity(first: Sequence[Case], second: Sequence[Case], allowed: ToleranceTable) -> parity.Parity:
    """`second`, what shall run, against `first`."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a.judged and b.judged]
    kinds = sorted({kind for _, b in both for kind in b.groups})

    def arrays(which: int) -> tuple[Any, Any]:
        return (
            np.array([pair[which].probability for pair in both], np.float64),
            np.array([pair[which].flagged for pair in both], np.bool_),
        )

    truth = np.array([b.truth for _, b in both], np.bool_)
    groups = {kind: [b.groups[kind] for _, b in both] for kind in kinds}
    made = parity.compare(arrays(0), arrays(1), truth, groups, allowed)
    apart = sum(a.judged != b.judged for a, b in zip(first, second, strict=True))
    if not apart:
        return made
    return replace(made, breaches=(*made.breaches, f"{apart} studies can be judged by one of both only"))


def _finding(findings: Sequence[FindingTable], short: str) -> FindingTable:
    for one in findings:
        if short in ("", one.short):
            return one
    raise Quarantine(
        "validation.finding",
        f"the model has no finding {short}; it has {', '.join(one.short for one in findings)}",
        hint="edge-node model show NAME",
    )
