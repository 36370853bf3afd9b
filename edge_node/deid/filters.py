"""`%filter` sections: which images are meant, and which boxes of their pixels are to be masked or kept.

Plain data for the step that cleans pixels; nothing here looks at an image. The shape:

``Filter(group, label, checks, boxes, line)`` is one ``LABEL``. `group` is the section's name (``graylist``,
``blacklist``, ``whitelist`` or the site's own), in file order: the first group that holds an image counts.

`checks` are alternatives: a line that begins with neither ``+`` nor ``||`` begins a new one, and the label holds an
image if any of them is true (deid's documentation; its engine joins all lines with "and"). A check is a tuple of
``(operator, line)``, read from left to right, operator ``""`` for the first, else ``and`` or ``or``. A line is a tuple
of ``(operator, Condition)`` in the same way: what stands on one line is worked out first, as if in brackets. A label
without any line holds every image.

``Condition(test, field, value)``: `test` is contains, notcontains, equals, notequals, missing, present or empty;
`field` an attribute's tag, looked for at the top level; `value` an expression (contains, notcontains) or a text, both
compared without regard to case and outer spaces, "" where the test takes none. A text of equals may name alternatives
(``600|768``), as an expression may. Each value of a multi-valued attribute is compared by itself; the not-forms are
true if no value fits.

``Box(keep, area, source)``: `keep` False masks the area, True masks everything else. `area` is (left, top, right,
bottom) in pixels, right and bottom exclusive, ``()`` for the whole image; or `source` is the tag of a sequence
(``coordinates from:SequenceOfUltrasoundRegions``) whose items hold RegionLocationMinX0 … MaxY1, then `area` is ``()``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_node.deid.fields import BadField, keywords, parse_tag, regex_trouble

TESTS = ("contains", "notcontains", "equals", "notequals", "missing", "present", "empty")
_WITH_VALUE = TESTS[:4]
_BOXES = ("coordinates", "keepcoordinates", "ctpcoordinates", "ctpkeepcoordinates")


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one attribute."""

    test: str
    field: int
    value: str = ""


Line = tuple[tuple[str, Condition], ...]
Check = tuple[tuple[str, Line], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """An area of the image; see the module's text."""

    keep: bool
    area: tuple[int, int, int, int] | tuple[()] = ()
    source: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """One LABEL; see the module's text."""

    group: str
    label: str
    checks: tuple[Check, ...]
    boxes: tuple[Box, ...]
    line: int

    @property
    def fields(self) -> frozenset[int]:
        """Tags of the attributes that decide whether it holds."""
        return frozenset(condition.field for check in self.checks for _, line in check for _, condition in line)

    def holds(self, values: Callable[[int], Sequence[str] | None]) -> bool:
        """True if the label holds an image. `values(tag)` gives the texts of a top-level attribute, None if absent."""
        return not self.checks or any(_all_of(check, lambda line: _line(line, values)) for check in self.checks)


def _line(line: Line, values: Callable[[int], Sequence[str] | None]) -> bool:
    return _all_of(line, lambda condition: _true(condition, values(condition.field)))


def _all_of(parts: Sequence[tuple[str, object]], true: Callable[..., bool]) -> bool:
    answer = True
    for operator, part in parts:
        answer = (answer or true(part)) if operator == "or" else (answer and true(part))
    return answer


def _true(condition: Condition, values: Sequence[str] | None) -> bool:
    test, wanted = condition.test, condition.value.lower().strip()
    if test in ("missing", "present"):
        return (values is None) == (test == "missing")
    if test == "empty":
        return values is not None and not any(value.strip() for value in values)
    said = [value.lower().strip() for value in values or ()]
    if test in ("equals", "notequals"):
        among = {text.strip() for text in (wanted, *wanted.split("|"))}
        return any(value in among for value in said) == (test == "equals")
    search = re.compile(condition.value.strip(), re.IGNORECASE).search
    return any(search(value) for value in said) == (test == "contains")


class FilterReader:
    """Collects the lines of one LABEL after the other. Each method raises BadField."""

    def __init__(self) -> None:
        self.filters: list[Filter] = []
        self._group, self._label, self._number = "", "", 0
        self._checks: list[list[tuple[str, Line]]] = []
        self._boxes: list[Box] = []

    def group(self, name: str) -> None:
        """A ``%filter NAME`` line."""
        self.close()
        self._group = name

    def close(self) -> None:
        """The end of a label, if one is open."""
        if self._label:
            checks = tuple(tuple(check) for check in self._checks)
            self.filters.append(Filter(self._group, self._label, checks, tuple(self._boxes), self._number))
        self._label, self._checks, self._boxes = "", [], []

    def line(self, text: str, number: int) -> None:
        """One line of a filter section, without comment."""
        word = text.split(maxsplit=1)[0]
        if word == "LABEL":
            self.close()
            self._label, self._number = text[len(word) :].strip() or f"line {number}", number
            return
        if not self._label:
            raise BadField("a filter line stands before any LABEL", word, ("LABEL",), instead="LABEL a name")
        if word.lower() in _BOXES:
            self._boxes.append(_box(word.lower(), text[len(word) :].strip()))
            return
        operator = "and" if text.startswith("+") else "or" if text.startswith("||") else ""
        line = _conditions(text.removeprefix("||").removeprefix("+").strip())
        if operator and self._checks:
            self._checks[-1].append((operator, line))
        else:
            self._checks.append([("", line)])


def _conditions(text: str) -> Line:
    """``contains A x || contains B y``: a ``+`` or ``||`` that no test follows belongs to the value."""
    parts = re.split(rf"\s*(\+|\|\|)\s*(?=(?:{'|'.join(TESTS)})\s)", text, flags=re.IGNORECASE)
    line = [("", _condition(parts[0]))]
    for sign, one in zip(parts[1::2], parts[2::2], strict=True):
        line.append(("and" if sign == "+" else "or", _condition(one)))
    return tuple(line)


def _condition(text: str) -> Condition:
    words = text.split(maxsplit=2) or [""]
    test = words[0].lower()
    if test not in TESTS:
        raise BadField(f"{words[0]!r} is no test of a filter", test, TESTS)
    if len(words) < 2:
        raise BadField(f"{test} needs an attribute")
    tag = int(words[1], 16) if re.fullmatch(r"0x[0-9A-Fa-f]{8}", words[1]) else parse_tag(words[1])
    if tag is None:
        raise BadField(f"{words[1]!r} is no attribute of the data dictionary", words[1], keywords())
    value = words[2].strip() if len(words) > 2 else ""
    if test in _WITH_VALUE and not value:
        raise BadField(f"{test} needs an attribute and a value", instead=f"{test} {words[1]} VALUE")
    if test not in _WITH_VALUE and value:
        raise BadField(f"{test} takes an attribute and nothing else", instead=f"{test} {words[1]}")
    if "contains" in test and (trouble := regex_trouble(value)):
        raise BadField(trouble, instead=f"{test} {words[1]} {re.escape(value)}")
    return Condition(test, tag, value)


def _box(kind: str, text: str) -> Box:
    keep = "keep" in kind
    if text.lower() == "all":
        return Box(keep)
    if text.lower().startswith("from:"):
        source = parse_tag(text[5:].strip())
        if source is None:
            raise BadField("from: is followed by a sequence", text[5:], keywords())
        return Box(keep, source=source)
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) != 4 or not all(re.fullmatch(r"\d{1,5}", n) for n in numbers):
        raise BadField("a box is four numbers, all, or from:SEQUENCE", instead=f"{kind} 0,0,512,110")
    left, top, right, bottom = map(int, numbers)
    if kind.startswith("ctp"):  # CTP counts width and height
        right, bottom = left + right, top + bottom
    if right <= left or bottom <= top:
        raise BadField("the box is empty: right and bottom lie beyond left and top", instead=f"ctp{kind} {text}")
    return Box(keep, (left, top, right, bottom))


def groups(filters: Sequence[Filter]) -> Mapping[str, tuple[Filter, ...]]:
    """Filters by group, in file order."""
    found: dict[str, tuple[Filter, ...]] = {}
    for one in filters:
        found[one.group] = (*found.get(one.group, ()), one)
    return found
