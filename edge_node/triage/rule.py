"""Selection rules of model cards: a tiny expression language over whitelisted DICOM attributes. No eval.

    Modality == "CT" and (BodyPartExamined in ["HEAD", "BRAIN"] or StudyDescription ~ "head") and SliceThickness <= 10

Grammar: `or`, `and`, `not`, parentheses; comparisons `== != < <= > >= in ~` between an attribute and a literal
(string, number or list). `~` means "contains, ignoring case". An absent attribute is the empty string or, in an
order comparison, makes it false. A multi-valued attribute satisfies a comparison when any of its values does, and
`!=` when none equals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

ATTRIBUTES: Final = frozenset(
    {
        "Modality",
        "BodyPartExamined",
        "StudyDescription",
        "SeriesDescription",
        "ProtocolName",
        "ImageType",
        "ConvolutionKernel",
        "ContrastBolusAgent",
        "SliceThickness",
        "Rows",
        "Columns",
        "SOPClassUID",
        "Instances",
        "ViewPosition",
    }
)

# What an archive says of a study that is not here yet (PS3.4 C.6.2.1.2): Modalities in Study, Study Description.
ASKED_OF_ARCHIVES: Final = frozenset({"Modality", "StudyDescription"})

Value = str | float
Values = tuple[Value, ...]
Test = Callable[[Mapping[str, Values]], bool]

_MAX_LENGTH: Final = 4000
_MAX_DEPTH: Final = 50
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<string>"[^"\\\n]*")|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<word>[A-Za-z]\w*)"""
    r"""|(?P<mark>==|!=|<=|>=|[<>~()\[\],]))"""
)


class RuleInvalid(ValueError):
    """The rule cannot be read; the message says what and at which character (1-based)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule; `matches` takes attribute values, absent ones left out."""

    text: str
    _test: Test

    def matches(self, attributes: Mapping[str, Values]) -> bool:
        """Whether the attributes (name to tuple of strings or numbers) satisfy the rule."""
        return self._test(attributes)


def parse(text: str, attributes: frozenset[str] = ATTRIBUTES) -> Rule:
    """Compile a rule over these attributes. Raises `RuleInvalid`."""
    if len(text) > _MAX_LENGTH:
        raise RuleInvalid(f"the rule is longer than {_MAX_LENGTH} characters")
    return Rule(text, _Parser(_tokens(text), attributes).whole())


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # string, number, word, mark, end
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    out: list[_Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise RuleInvalid(f"character {at + 1}: {text[at]!r} does not belong in a rule")
        kind = match.lastgroup or ""
        out.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    out.append(_Token("end", "the end", end + 1))
    return out


class _Parser:
    """Recursive descent; every method consumes what it names and returns a test."""

    def __init__(self, tokens: list[_Token], attributes: frozenset[str]) -> None:
        self._attributes = attributes
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Test:
        test = self._any()
        if self._peek().kind != "end":
            raise self._wrong("'and', 'or' or the end")
        return test

    def _any(self) -> Test:
        tests = [self._all()]
        while self._take("or"):
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda a: any(t(a) for t in tests)

    def _all(self) -> Test:
        tests = [self._not()]
        while self._take("and"):
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda a: all(t(a) for t in tests)

    def _not(self) -> Test:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise RuleInvalid(f"character {self._peek().at}: nested too deeply")
        try:
            if self._take("not"):
                inner = self._not()
                return lambda a: not inner(a)
            if self._take("("):
                inner = self._any()
                self._expect(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Test:
        token = self._peek()
        if token.kind != "word" or token.text in ("and", "or", "not", "in"):
            raise self._wrong("an attribute name")
        if token.text not in self._attributes:
            raise RuleInvalid(
                f"character {token.at}: unknown attribute {token.text}; known: {', '.join(sorted(self._attributes))}"
            )
        name = token.text
        self._next += 1
        sign = self._peek()
        if sign.text not in ("==", "!=", "<", "<=", ">", ">=", "~", "in") or sign.kind == "string":
            raise self._wrong("a comparison")
        self._next += 1
        if sign.text == "in":
            members = self._list()
            return lambda a: any(v in members for v in a.get(name) or ("",))
        literal = self._literal()
        if sign.text == "~":
            if not isinstance(literal, str) or not literal:
                raise RuleInvalid(f"character {sign.at}: ~ needs a string that is not empty")
            needle = literal.casefold()
            return lambda a: any(needle in str(v).casefold() for v in a.get(name) or ("",))
        if sign.text == "==":
            return lambda a: any(v == literal for v in a.get(name) or ("",))
        if sign.text == "!=":
            return lambda a: all(v != literal for v in a.get(name) or ("",))
        if not isinstance(literal, float):
            raise RuleInvalid(f"character {sign.at}: {sign.text} needs a number")
        compare = _ORDER[sign.text]
        bound = literal
        return lambda a: any(isinstance(v, float) and compare(v, bound) for v in a.get(name) or ())

    def _list(self) -> tuple[Value, ...]:
        self._expect("[")
        members = [self._literal()]
        while self._take(","):
            members.append(self._literal())
        self._expect("]")
        return tuple(members)

    def _literal(self) -> Value:
        token = self._peek()
        if token.kind not in ("string", "number"):
            raise self._wrong("a string or a number")
        self._next += 1
        return token.text[1:-1] if token.kind == "string" else float(token.text)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, text: str) -> bool:
        token = self._peek()
        found = token.text == text and token.kind in ("word", "mark")
        self._next += found
        return found

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(text)

    def _wrong(self, wanted: str) -> RuleInvalid:
        token = self._peek()
        return RuleInvalid(f"character {token.at}: {wanted} expected, found {token.text}")


_ORDER: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
