"""Where vendors burn identity in: rules from `%filter` sections of deid's recipe language, and the areas they give.

Ours where deid's engine is wrong: a line that begins with ``||`` is an alternative, not one more condition; the
coordinates of a rule never reach the next image; ``equals`` takes alternatives (``600|768``) as `contains` does;
several values of one attribute are joined by a backslash; a rule that keeps an area (`keepcoordinates`) takes back
only what rules of the same text masked. Rules are asked for their conditions once a series and kind of image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from edge_node.deid.pixels import Mask
from edge_node.domain.errors import Stop

_WITH_VALUE = ("contains", "notcontains", "equals", "notequals")
_WITHOUT = ("missing", "present", "empty")
_TESTS = "|".join((*_WITH_VALUE, *_WITHOUT))
_AREA = re.compile(r"(ctp)?(keep)?coordinates\s+(.+)", re.IGNORECASE)
_MISSPELT = {"Manfacturer": "Manufacturer", "Manufacture": "Manufacturer"}  # in the filters that deid ships
_REGIONS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one attribute; `alternative` joins it to those before it with or, else with and."""

    test: str
    keyword: str
    value: str
    alternative: bool


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle (left, top, right, bottom; right and bottom outside), the whole image, or the items of `source`."""

    keep: bool
    box: tuple[int, int, int, int] | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class BoxRule:
    """One LABEL that has coordinates. `lines` are joined left to right, each by the `alternative` of its first test."""

    label: str
    lines: tuple[tuple[Condition, ...], ...]
    areas: tuple[Area, ...]

    @property
    def keywords(self) -> frozenset[str]:
        """The attributes that decide whether it holds."""
        return frozenset(c.keyword for line in self.lines for c in line)

    def holds(self, ds: Dataset) -> bool:
        """Whether its conditions hold; a rule without any always does."""
        flag = True
        for number, line in enumerate(self.lines):
            one = _joined(line, ds)
            flag = one if number == 0 else (flag or one if line[0].alternative else flag and one)
        return flag


def _joined(line: tuple[Condition, ...], ds: Dataset) -> bool:
    flag = _passes(line[0], ds)
    for condition in line[1:]:
        one = _passes(condition, ds)
        flag = flag or one if condition.alternative else flag and one
    return flag


def _passes(condition: Condition, ds: Dataset) -> bool:
    tag = _tag(condition.keyword)
    there = tag is not None and tag in ds
    if condition.test in ("missing", "present"):
        return there == (condition.test == "present")
    text = _text(ds, tag)
    if condition.test == "empty":
        return there and not text.strip("\\ ")
    if condition.test.endswith("contains"):
        found = re.search(condition.value, text, re.IGNORECASE) is not None
    else:
        wanted = [part.strip().lower() for part in condition.value.split("|")]
        found = any(part.strip().lower() in wanted for part in text.split("\\"))
    return found != condition.test.startswith("not")


def _tag(keyword: str) -> int | None:
    """Tag of a keyword or ``0xggggeeee``; None for a name that no dictionary knows (such an attribute is missing)."""
    if keyword.startswith("0x"):
        return int(keyword, 16)
    tag = tag_for_keyword(_MISSPELT.get(keyword, keyword))
    return None if tag is None else int(tag)


def _text(ds: Dataset, tag: int | None) -> str:
    value: Any = ds[tag].value if tag is not None and tag in ds else None
    if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
        return "\\".join(str(one) for one in value)
    return "" if value is None else str(value)


def load_box_rules(text: str, where: str) -> tuple[BoxRule, ...]:
    """The rules with coordinates among the `%filter` sections of `text`.

    Other sections and labels without coordinates are not ours. Raises Stop("deid.filter-invalid") with `where` and
    line.
    """
    rules: list[BoxRule] = []
    section, current = "", None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("%"):
            section, current = line.split()[0].lower(), None
        elif section == "%filter" and re.match(r"label\b", line, re.IGNORECASE):
            current = _Draft(line[5:].split("#")[0].strip(), f"{where}:{number}")
            rules.append(BoxRule(current.label, (), ()))
        elif section == "%filter":
            if current is None:
                _invalid(f"{where}:{number}", "a filter line stands before any LABEL")
            current.where = f"{where}:{number}"
            current.take(line)
            rules[-1] = BoxRule(current.label, tuple(current.lines), tuple(current.areas))
    return tuple(rule for rule in rules if rule.areas)


def _invalid(where: str, what: str) -> NoReturn:
    raise Stop("deid.filter-invalid", f"{where}: {what}", hint="edge-node deid lint")


@dataclass(slots=True)
class _Draft:
    label: str
    where: str
    lines: list[tuple[Condition, ...]] = field(default_factory=list)
    areas: list[Area] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Read one line below LABEL."""
        line = line.split(" #", maxsplit=1)[0].strip()
        area = _AREA.fullmatch(line)
        if area:
            self.areas.append(self.area(bool(area[1]), bool(area[2]), area[3].strip()))
            return
        found, alternative = [], False
        for part in re.split(rf"(\|\||\+)(?=\s*(?:{_TESTS})\b)", line, flags=re.IGNORECASE):
            if part in ("||", "+"):
                alternative = part == "||"
            elif part.strip():
                found.append(self.condition(part.strip(), alternative))
        if not found:
            _invalid(self.where, "a filter line without a test")
        self.lines.append(tuple(found))

    def condition(self, part: str, alternative: bool) -> Condition:
        words = part.split(maxsplit=2)
        test = words[0].lower()
        if test not in (*_WITH_VALUE, *_WITHOUT):
            _invalid(self.where, f"{words[0]!r} is no test ({', '.join((*_WITH_VALUE, *_WITHOUT))})")
        if len(words) != (3 if test in _WITH_VALUE else 2):
            _invalid(self.where, f"{test} takes an attribute" + (" and a value" if test in _WITH_VALUE else ""))
        value = words[2] if len(words) == 3 else ""
        try:
            re.compile(value)
        except re.error:
            _invalid(self.where, "the value is no regular expression")
        return Condition(test, words[1], value, alternative)

    def area(self, ctp: bool, keep: bool, text: str) -> Area:
        if text.lower() == "all":
            return Area(keep)
        if text.startswith("from:"):
            return Area(keep, source=text[5:].strip())
        numbers = [part.strip() for part in text.split(",")]
        if len(numbers) != 4 or not all(part.isdecimal() for part in numbers):
            _invalid(self.where, "coordinates are four numbers, all, or from:SEQUENCE")
        left, top, right, bottom = map(int, numbers)
        return Area(keep, (left, top, left + right, top + bottom) if ctp else (left, top, right, bottom))


def vendor_rules() -> tuple[BoxRule, ...]:
    """The rules with coordinates that the deid package ships, read without importing it."""
    try:
        path = Path(str(distribution("deid").locate_file("deid/data/deid.dicom")))
        text = path.read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError):
        raise Stop(
            "deid.filters-missing", "the filters of the deid package cannot be read", hint="pip install deid"
        ) from None
    return load_box_rules(text, "deid.dicom")


class Boxes:
    """Sets of rules, ready for many images; remembers what holds for a series and kind of image."""

    def __init__(self, sets: Iterable[Sequence[BoxRule]]) -> None:
        self._sets = [tuple(rules) for rules in sets]
        keywords = {keyword for rules in self._sets for rule in rules for keyword in rule.keywords}
        self._tags = sorted({tag for tag in map(_tag, keywords) if tag is not None})
        self._known: dict[tuple[str, ...], list[tuple[BoxRule, ...]]] = {}

    def mask(self, ds: Dataset, series_uid: str, rows: int, columns: int) -> Mask:
        """What the rules say of one image, (rows, columns)."""
        area = np.zeros((rows, columns), bool)
        for rules in self._holding(ds, series_uid):
            own = np.zeros_like(area)
            for rule in rules:
                for one in rule.areas:
                    _paint(own, one, ds)
            area |= own
        return area

    def _holding(self, ds: Dataset, series_uid: str) -> list[tuple[BoxRule, ...]]:
        kind = (series_uid, *(_text(ds, tag) + ("\0" if tag in ds else "") for tag in self._tags))
        if kind not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[kind] = [tuple(rule for rule in rules if rule.holds(ds)) for rules in self._sets]
        return self._known[kind]


def _paint(mask: Mask, area: Area, ds: Dataset) -> None:
    if area.source:
        for item in ds.get(area.source) or ():
            if all(name in item for name in _REGIONS):
                left, top, right, bottom = (int(item[name].value) for name in _REGIONS)
                mask[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = not area.keep  # both ends lie inside
    elif area.box is None:
        mask[:] = not area.keep
    else:
        left, top, right, bottom = area.box
        mask[top:bottom, left:right] = not area.keep
