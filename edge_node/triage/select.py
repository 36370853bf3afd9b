"""Which series of a study a model may judge, from the headers of all its slices, never from the first one alone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from edge_node.triage.headers import SliceHeader
from edge_node.triage.prepare import MAX_MINORITY, CannotJudge
from edge_node.triage.rule import Rule, Values

# Kernels for bone and lung: GE by word, Siemens (H60s, Hr68, J70h) by number.
_SHARP: Final = re.compile(r"bone|lung|sharp|edge|\b[BHJ]r?[6-9]\d", re.IGNORECASE)
# One value for the whole series or study (PS3.3 C.7.3.1, C.7.2.1): an image that lacks it has that of the others.
_COMMON: Final = ("Modality", "BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")
# What is left out of every head CT, and worth no word in the report.
_EXPECTED: Final = frozenset({"select.localizer", "select.screen"})
WORDS: Final = {
    "select.localizer": "localizers",
    "select.screen": "screens or dose sheets",
    "select.colour": "colour images",
    "select.derived": "derived images",
    "select.8-bit": "images of 8 bits or less",
    "select.frames-without-place": "multi-frame objects without places",
    "select.mixed": "images that the rule does not fit",
    "select.lateral": "lateral views",
}


@dataclass(frozen=True, slots=True)
class Series:
    """Usable slices of one series, what was left out of it (reason: how many), and what is odd about it."""

    uid: str
    slices: tuple[SliceHeader, ...]
    attributes: dict[str, Values]
    left_out: dict[str, int]
    refusal: str = ""  # why the rule neither fits nor does not fit

    def rank(self) -> tuple[bool, bool, bool, float, int, str]:
        """Smaller is preferred: judgeable, soft kernel, no contrast, slices near 4 mm, more of them; then the UID."""
        thickness = self.attributes.get("SliceThickness", ())
        mm = thickness[0] if thickness and isinstance(thickness[0], float) else 5.0
        words = [str(v) for name in ("ConvolutionKernel", "SeriesDescription") for v in self.attributes.get(name, ())]
        sharp = any(_SHARP.search(word) for word in words)
        contrast = bool(self.attributes.get("ContrastBolusAgent"))
        return bool(self.refusal), sharp, contrast, abs(mm - 4.0), -len(self.slices), self.uid

    @property
    def notes(self) -> tuple[str, ...]:
        """What the report should say about its slices."""
        left = [_counted(why, n) for why, n in sorted(self.left_out.items()) if why not in _EXPECTED]
        odd = Counter(note for one in self.slices for note in one.notes)
        return (*left, *(f"{note} ({n} of {len(self.slices)})" for note, n in sorted(odd.items())))

    def check(self) -> None:
        """Raises `CannotJudge` ``select.mixed``."""
        if self.refusal:
            raise CannotJudge("select.mixed", self.refusal)


def candidates(headers: list[SliceHeader], rule: Rule) -> list[Series]:
    """Series that fit the rule, the preferred one first.

    A few images that do not fit are left out (`MAX_MINORITY`); a series of which only a part fits cannot be judged, for
    nobody knows what it is.
    """
    out = []
    for uid, members in _by_series(headers).items():
        usable = [h for h in members if not h.unfit]
        left_out = Counter(h.unfit for h in members if h.unfit)
        told = _completed(usable)
        fitting = [h for h, attributes in zip(usable, told, strict=True) if rule.matches(attributes)]
        if not fitting or len(fitting) <= MAX_MINORITY * len(usable):
            continue
        refusal = ""
        if strangers := len(usable) - len(fitting):
            left_out["select.mixed"] = strangers
            if strangers > MAX_MINORITY * len(usable):
                refusal = f"the model's rule fits {len(fitting)} of {len(usable)} images of one series"
        attributes = told[usable.index(fitting[0])]
        out.append(Series(uid, tuple(fitting), attributes, dict(left_out), refusal))
    return sorted(out, key=Series.rank)


def unfit_words(headers: list[SliceHeader], rules: list[Rule]) -> str:
    """Which images were left out although a rule would fit their series, in words; "" if there is none."""
    counts: Counter[str] = Counter()
    for members in _by_series(headers).values():
        if any(not h.unfit for h in members):
            continue
        # A rule may itself exclude localizers and the like: here their kind must not count.
        told = [attributes | {"ImageType": ()} for attributes in _completed(members)]
        if any(rule.matches(attributes) for attributes in told for rule in rules):
            counts.update(h.unfit for h in members)
    return "; ".join(_counted(why, n) for why, n in sorted(counts.items()))


def _counted(why: str, count: int) -> str:
    return f"{why}: {count} {WORDS[why]} left out"


def _by_series(headers: list[SliceHeader]) -> dict[str, list[SliceHeader]]:
    groups: dict[str, list[SliceHeader]] = {}
    for header in sorted(headers, key=lambda h: (h.item.series_uid, h.item.sop_uid, h.frame)):
        groups.setdefault(header.item.series_uid, []).append(header)
    return groups


def _completed(members: list[SliceHeader]) -> list[dict[str, Values]]:
    """Attributes of each slice; what only some of a series say holds for all, if they agree."""
    common: dict[str, Values] = {"Instances": (float(len(members)),)}
    for name in _COMMON:
        said = {h.attributes[name] for h in members if name in h.attributes}
        if len(said) == 1:
            common[name] = said.pop()
    return [common | h.attributes for h in members]
