"""The site's recipe: read and checked line by line here, parsed by `deid`, and the two must agree.

`deid` drops lower-case or misspelt lines in silence, cuts values at ``#``, and ends the interpreter on others; so every
line is judged before its parser sees the file. This is the only importer of the `deid` package.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydicom.datadict import keyword_for_tag as keyword_of
from pydicom.datadict import tag_for_keyword

from edge_node.deid.functions import FUNCTIONS
from edge_node.deid.wire import dictionary_vr
from edge_node.domain.errors import Stop

ACTIONS = ("KEEP", "REMOVE", "BLANK", "REPLACE", "JITTER", "ADD")
_NEEDS_VALUE = ("REPLACE", "JITTER", "ADD")
EXPANDERS = ("startswith", "endswith", "contains", "exceptfields", "select")
_TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
METHOD_CODES = 0x00120064  # ADD DeidentificationMethodCodeSequence 113100,113105,…
_SILENT = -100  # deid prints every line it parses unless told otherwise
# CID 7050 (PS3.16): what a recipe may claim to have done.
CODE_MEANINGS = {
    "113100": "Basic Application Confidentiality Profile",
    "113105": "Clean Descriptors Option",
    "113106": "Retain Longitudinal Temporal Information Full Dates Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113112": "Retain Institution Identity Option",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: `field` as written, `value` without comment, `line` counted from 1."""

    action: str
    field: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe: header rules in file order, named field lists, and the text it was made of."""

    path: Path
    text: str
    rules: tuple[Rule, ...]
    lists: dict[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Of the recipe text (hex)."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(path: Path) -> Recipe:
    """Read a recipe in deid's language. Raises Stop("deid.recipe-invalid") naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Stop(
            "deid.recipe-invalid", f"{path}: the recipe cannot be read as UTF-8 text", hint="set [deid] recipe"
        ) from None
    recipe = _Lint(path, text).recipe()
    _agree_with_deid(recipe)
    return recipe


def parse_tag(field: str) -> int | None:
    """Tag of a keyword, ``(gggg,eeee)`` or ``ggggeeee``; None if it is none of these."""
    match = _TAG.fullmatch(field)
    if match:
        return int(match[1] + match[2], 16)
    tag = tag_for_keyword(field)
    return None if tag is None else int(tag)


class _Lint:
    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.rules: list[Rule] = []
        self.lists: dict[str, tuple[str, ...]] = {}
        self.exact: dict[int, int] = {}
        self.number = 0

    def fail(self, what: str, guess: str = "", among: tuple[str, ...] = ()) -> NoReturn:
        near = difflib.get_close_matches(guess, among, 1) or difflib.get_close_matches(guess.upper(), among, 1)
        hint = f"did you mean {near[0]}?" if near else "edge-node deid lint"
        raise Stop("deid.recipe-invalid", f"{self.path}:{self.number}: {what}", hint=hint)

    def recipe(self) -> Recipe:
        section, name, format_seen = "", "", False
        for number, raw in enumerate(self.text.splitlines(), 1):
            self.number, line = number, raw.strip()
            if not line or line.startswith("#"):
                continue
            if not format_seen:
                if line != "FORMAT dicom":
                    self.fail("a recipe begins with the line FORMAT dicom", line, ("FORMAT dicom",))
                format_seen = True
            elif line.startswith("%"):
                section, name = self.section(line)
            elif section == "fields":
                self.list_line(line, name)
            elif section == "header":
                self.header_line(line)
            else:
                self.fail("a rule stands before any %header section", line, ("%header",))
        if not self.rules:
            self.fail("the recipe has no rule in a %header section")
        return Recipe(self.path, self.text, tuple(self.rules), self.lists)

    def section(self, line: str) -> tuple[str, str]:
        words = line.split("#", 1)[0].split()
        if words[0] == "%header" and len(words) == 1:
            return "header", ""
        if words[0] == "%fields" and len(words) == 2:
            if words[1] in self.lists:
                self.fail("this list of fields is defined twice")
            self.lists[words[1]] = ()
            return "fields", words[1]
        if words[0] in ("%filter", "%labels", "%values"):
            self.fail(f"{words[0]} sections are not carried out; remove the section rather than trust it")
        return self.fail("this is no section (%header, or %fields NAME)", words[0], ("%header", "%fields"))

    def list_line(self, line: str, name: str) -> None:
        words = self.words(line)
        if words[0] != "FIELD" or len(words) != 2:
            self.fail("a %fields section holds lines FIELD NAME", words[0], ("FIELD",))
        self.check_field(words[1], allow_list=False)
        self.lists[name] += (words[1],)

    def words(self, line: str) -> list[str]:
        if line.count('"') % 2 or line.count("'") % 2:
            self.fail("a quotation mark is not closed, deid would drop it in silence")
        bare = re.search(r"\s#", line)
        line = line[: bare.start()] if bare else line
        if "#" in line:
            self.fail("deid cuts the value at #; put a space before a comment, and no # into a value")
        return line.split()

    def header_line(self, line: str) -> None:
        words = self.words(line)
        action = words[0]
        if action not in ACTIONS:
            self.fail(f"{action!r} is no action; deid would drop this line in silence", action, ACTIONS)
        if len(words) < 2:
            self.fail(f"{action} needs a field")
        field, value = words[1], " ".join(words[2:])
        if value and action not in _NEEDS_VALUE:
            self.fail(f"{action} takes a field and nothing else; the rest would be ignored")
        if not value and action in _NEEDS_VALUE:
            self.fail(f"{action} needs a value")
        self.check_field(field, allow_list=True)
        self.check_value(action, field, value)
        tag = parse_tag(field)
        if tag is not None:
            if tag in self.exact:
                self.fail(f"this attribute already has a rule in line {self.exact[tag]}")
            self.exact[tag] = self.number
        self.rules.append(Rule(action, field, value, self.number))

    def check_field(self, field: str, allow_list: bool) -> None:
        if field in ("ALL", "allfields"):
            return
        kind, colon, rest = field.partition(":")
        if kind == "fields" and colon:
            if not allow_list or rest not in self.lists:
                self.fail("this list of fields is not defined above", rest, tuple(self.lists))
            return
        if colon:
            self.check_expander(kind, rest)
            return
        if "__" in field:
            self.fail("rules hold at every depth; name the attribute without the sequence around it")
        tag = parse_tag(field)
        if tag is None:
            self.fail(f"{field!r} is no attribute of the data dictionary", field, _keywords())
        if tag >> 16 & 1:
            self.fail("private attributes are always removed; no rule may keep or change them")

    def check_expander(self, kind: str, rest: str) -> None:
        if kind not in EXPANDERS:
            self.fail(f"{kind!r} is no expander", kind, EXPANDERS)
        if kind == "select" and not re.fullmatch(r"(?i:VR:[A-Z]{2}|GROUP:[0-9A-F]{4})", rest):
            self.fail("select: is followed by VR:XX or GROUP:gggg")
        try:
            re.compile(rest)
        except re.error:
            self.fail("the expression is no regular expression")
        if not rest:
            self.fail("the expander has no expression")

    def check_value(self, action: str, field: str, value: str) -> None:
        kind, colon, name = value.partition(":")
        if action == "JITTER":
            if value != "var:patient_shift" and not re.fullmatch(r"[+-]?[1-9]\d{0,4}", value):
                self.fail("JITTER takes var:patient_shift or a number of days other than 0")
        elif colon and kind in ("func", "deid_func"):
            if kind != "func" or name not in FUNCTIONS:
                self.fail(f"{value!r} is no function", "func:" + name, tuple("func:" + f for f in FUNCTIONS))
            if action == "ADD":
                self.fail("ADD takes a literal value: there is nothing a function could work on")
        elif colon and kind == "var":
            self.fail("the only variable is patient_shift, for JITTER")
        elif not value.isascii() or not value.isprintable():
            self.fail("a literal value is printable ASCII, whatever the object's character set is")
        tag = parse_tag(field)
        if action == "ADD" and tag is None:
            self.fail("ADD names one attribute")
        if tag is not None and tag != METHOD_CODES:
            vr = dictionary_vr(tag)
            if action == "JITTER" and vr not in ("DA", "DT", "TM", "OB", ""):
                self.fail("JITTER is for dates and times")
            if action in ("ADD", "REPLACE") and not value.startswith("func:") and vr not in _TEXT_VRS:
                self.fail("a literal value needs an attribute that holds text")
        if action == "ADD" and parse_tag(field) == METHOD_CODES:
            for code in value.split(","):
                if code.strip() not in CODE_MEANINGS:
                    self.fail("not a code of CID 7050 that a recipe may claim", code.strip(), tuple(CODE_MEANINGS))


def _keywords() -> tuple[str, ...]:
    from pydicom._dicom_dict import DicomDictionary

    return tuple(keyword_of(tag) for tag in DicomDictionary if keyword_of(tag))


def _agree_with_deid(recipe: Recipe) -> None:
    """Let deid parse the file and compare, rule for rule: what is carried out is what its language says."""
    from deid.config import DeidRecipe  # only its parser: the rest of the package brings matplotlib
    from deid.logger import bot

    bot.level = _SILENT
    try:
        parsed = DeidRecipe(str(recipe.path))
        theirs = parsed.get_actions() or []
        lists = {name: [f["field"] for f in fields] for name, fields in (parsed.get_fields_lists() or {}).items()}
    except (SystemExit, Exception):  # deid exits on bad lines, and fails in other ways on worse ones
        raise Stop(
            "deid.recipe-invalid", f"{recipe.path}: deid's parser refuses the recipe", hint="edge-node deid lint"
        ) from None
    ours = [(r.action, r.field, r.value) for r in recipe.rules]
    read = [(a["action"], a["field"], a.get("value", "").strip()) for a in theirs]
    for rule, mine, other in zip(recipe.rules, ours, read, strict=False):
        if mine != other:
            raise Stop("deid.recipe-invalid", f"{recipe.path}:{rule.line}: deid's parser reads this line differently")
    if len(ours) != len(read) or lists != {name: list(fields) for name, fields in recipe.lists.items()}:
        raise Stop("deid.recipe-invalid", f"{recipe.path}: deid's parser reads other rules than are written")
