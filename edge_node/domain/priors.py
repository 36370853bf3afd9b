"""Earlier studies of a patient: what a model asks for, and what of it was here when the study was judged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class PriorAsk:
    """What one model asks for: the `most` newest studies of the `within_days` days before that fit the rule (of
    `triage.rule`, over what an archive says of a study); `speaks` says that somebody waits for this model."""

    model: str
    most: int
    within_days: int
    rule: str
    speaks: bool


@dataclass(frozen=True, slots=True)
class Priors:
    """Which earlier studies were here when a study was judged: a stable code, and their study keys."""

    code: str
    studies: tuple[str, ...] = ()


def asks_to_json(asks: Iterable[PriorAsk]) -> str:
    """As the ledger keeps them; they come from model cards and say nothing of a patient."""
    return json.dumps([asdict(one) for one in asks])


def asks_from_json(text: str) -> tuple[PriorAsk, ...]:
    """Inverse of `asks_to_json`."""
    return tuple(PriorAsk(**one) for one in json.loads(text))
