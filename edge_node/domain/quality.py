"""How good the images of a series are, in figures: scores, their limits, and what a technologist should hear of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of a series.

    `name` is a stable word; `value` in `unit` ("" for a share of 0 to 1 or a count); `limit` the most that is good
    (`rising`), else the least; `text` a sentence without identifiers, "" while the measure is good.
    """

    name: str
    value: float
    unit: str
    limit: float
    rising: bool
    text: str

    @property
    def good(self) -> bool:
        """Whether the value is within its limit."""
        return self.value <= self.limit if self.rising else self.value >= self.limit

    @property
    def note(self) -> str:
        """As it stands in the quality notes of a finding, "" while the measure is good."""
        return "" if self.good else f"quality.{self.name}: {self.text}"


@dataclass(frozen=True, slots=True)
class InputQuality:
    """The scores of one series (pseudonymous UID) and whether it was looked at in pixels or only in its headers."""

    series_uid: str
    modality: str
    pixels: bool
    scores: tuple[Score, ...]

    @property
    def alerts(self) -> tuple[Score, ...]:
        """What is beyond its limit: for the technologist, as long as the patient is still there."""
        return tuple(score for score in self.scores if not score.good)


def quality_from_plain(plain: Mapping[str, Any]) -> InputQuality:
    """Inverse of `dataclasses.asdict`."""
    scores = tuple(Score(**score) for score in plain["scores"])
    return InputQuality(plain["series_uid"], plain["modality"], plain["pixels"], scores)
