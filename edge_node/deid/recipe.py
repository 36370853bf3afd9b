"""The site's recipe: read line by line into plain data, every line that would not be obeyed named; and read by `deid`'s
own parser too, which must find the same rules.

`deid` drops lower-case or misspelt lines in silence, cuts values at ``#``, and ends the interpreter on others; so every
line is judged before its parser sees the file.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as part
from pathlib import Path

from edge_node.deid.fields import BadField, Field, parse_field, parse_tag
from edge_node.deid.filters import Filter, FilterReader
from edge_node.deid.functions import FUNCTIONS, PREDICATES
from edge_node.deid.method import CLAIMS, METHOD_CODES
from edge_node.deid.second_reading import disagreements
from edge_node.deid.wire import dictionary_vr
from edge_node.domain.errors import Stop

__all__ = ["Finding", "Recipe", "Rule", "Source", "load", "parse_tag", "read"]

ACTIONS = ("KEEP", "REMOVE", "BLANK", "REPLACE", "JITTER", "ADD")
SECTIONS = ("%header", "%fields", "%values", "%filter", "%labels")
_NEEDS_VALUE = ("REPLACE", "JITTER", "ADD")
TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
# What deid brings along, and what it means here: keyed and stable, never a fresh random value.
DEID_FUNCTIONS = ("jitter", "basic_uuid", "simple_uuid", "suffix_uuid", "dicom_uuid", "pydicom_uuid")
DAYS = r"[+-]?[1-9]\d{0,4}"  # what JITTER takes
BUILT_IN = ("patient_shift", "patient_pseudonym", "recipe_name")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of %header: `field` as written, `value` without comment ("" if none), `line` counted from 1."""

    action: str
    field: str
    value: str
    line: int
    target: Field = part(compare=False)


@dataclass(frozen=True, slots=True)
class Source:
    """One line of a %values list: where values come from; `split` "" takes the whole value, else its parts of at least
    `shortest` characters."""

    target: Field
    split: str
    shortest: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`) or doubtful in line `line` (0: the whole file); `instead` is what to write."""

    line: int
    what: str
    instead: str = ""
    error: bool = True


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe as data: header rules in file order, named lists of fields and of value sources, filters (see
    `edge_node.deid.filters`), labels as (name, value), and the text it was made of."""

    path: Path
    text: str
    rules: tuple[Rule, ...]
    lists: dict[str, tuple[str, ...]]
    values: dict[str, tuple[Source, ...]] = part(default_factory=dict)
    filters: tuple[Filter, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def sha256(self) -> str:
        """Of the recipe text (hex)."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(path: Path, variables: Collection[str] = ()) -> Recipe:
    """Read a recipe in deid's language; `variables` are the names that ``var:`` may use beside the built-in ones.

    Raises Stop("deid.recipe-invalid") naming file and line of the first error and what to write instead.
    """
    recipe, findings = read(path, variables)
    wrong = next((finding for finding in findings if finding.error), None)
    if wrong is not None:
        where = f"{path}:{wrong.line}" if wrong.line else f"{path}"
        raise Stop("deid.recipe-invalid", f"{where}: {wrong.what}", hint=wrong.instead or "edge-node deid lint")
    return recipe


def read(path: Path, variables: Collection[str] = ()) -> tuple[Recipe, list[Finding]]:
    """The recipe as far as it can be read, and every error. Raises Stop if there is no text to read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Stop(
            "deid.recipe-invalid", f"{path}: the recipe cannot be read as UTF-8 text", hint="set [deid] recipe"
        ) from None
    reader = _Reader(path, text, variables)
    recipe = reader.recipe()
    if not reader.findings:
        reader.findings += (Finding(line, what) for line, what in disagreements(recipe))
    return recipe, reader.findings


def combine(base: Recipe, site: Recipe) -> Recipe:
    """`site` on top of `base`: where both name one attribute, or both patterns fit, the site's rule counts."""
    named = {_exact(rule) for rule in site.rules} - {None}
    kept = tuple(rule for rule in base.rules if _exact(rule) not in named or rule.action == "ADD")
    added = {rule.field for rule in site.rules if rule.action == "ADD"}
    kept = tuple(rule for rule in kept if rule.action != "ADD" or rule.field not in added)
    return Recipe(
        path=site.path,
        text=base.text + site.text,
        rules=(*kept, *site.rules),
        lists={**base.lists, **site.lists},
        values={**base.values, **site.values},
        filters=(*site.filters, *base.filters),
        labels=(*base.labels, *site.labels),
    )


def _exact(rule: Rule) -> tuple[object, ...] | None:
    target = rule.target
    exact = target.kind in ("tag", "private") and not (rule.action == "REMOVE" and rule.value)
    return (target.kind, target.tag, target.text, target.path, rule.action == "ADD") if exact else None


class _Reader:
    def __init__(self, path: Path, text: str, variables: Collection[str]) -> None:
        self.path, self.text = path, text
        self.variables = tuple(variables)
        self.rules: list[Rule] = []
        self.lists: dict[str, tuple[str, ...]] = {}
        self.values: dict[str, tuple[Source, ...]] = {}
        self.labels: list[tuple[str, str]] = []
        self.filters = FilterReader()
        self.exact: dict[tuple[object, ...], int] = {}
        self.findings: list[Finding] = []
        self.section, self.name = "", ""

    def recipe(self) -> Recipe:
        format_seen, number = False, 0
        for number, raw in enumerate(self.text.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            with self._noted(number):
                if not format_seen:
                    format_seen = True
                    if line.split("#", 1)[0].strip() != "FORMAT dicom":
                        raise BadField(
                            "a recipe begins with the line FORMAT dicom", line, ("FORMAT dicom",), "FORMAT dicom"
                        )
                elif line.startswith("%"):
                    self._section(line)
                else:
                    self._line(line, number)
        self.filters.close()
        if not self.rules and not self.findings:
            self.findings.append(Finding(number, "the recipe has no rule in a %header section", "%header"))
        return Recipe(
            self.path,
            self.text,
            tuple(self.rules),
            self.lists,
            self.values,
            tuple(self.filters.filters),
            tuple(self.labels),
        )

    @contextmanager
    def _noted(self, number: int) -> Iterator[None]:
        try:
            yield
        except BadField as bad:
            near = difflib.get_close_matches(bad.guess, bad.among, 1) or difflib.get_close_matches(
                bad.guess.upper(), bad.among, 1
            )
            self.findings.append(Finding(number, bad.what, f"did you mean {near[0]}?" if near else bad.instead))

    def _section(self, line: str) -> None:
        words = line.split("#", 1)[0].split()
        self.filters.close()
        self.section, self.name = words[0].removeprefix("%"), " ".join(words[1:])
        if words[0] not in SECTIONS:
            self.section = "?"
            raise BadField(f"{words[0]} is no section", words[0], SECTIONS)
        if self.section in ("header", "labels") and self.name:
            raise BadField(f"{words[0]} has no name", instead=words[0])
        if self.section in ("fields", "values", "filter") and len(words) != 2:
            raise BadField(f"{words[0]} needs one name", instead=f"{words[0]} NAME")
        if self.section in ("fields", "values"):
            if self.name in self.lists or self.name in self.values:
                raise BadField("a list of this name is defined twice", instead=f"{words[0]} {self.name}_2")
            if self.section == "fields":
                self.lists[self.name] = ()
            else:
                self.values[self.name] = ()
        if self.section == "filter":
            self.filters.group(self.name)

    def _line(self, line: str, number: int) -> None:
        if self.section == "header":
            self._header_line(line, number)
        elif self.section == "fields":
            self._field_line(line)
        elif self.section == "values":
            self._value_line(line)
        elif self.section == "labels":
            words = _words(line)
            if words[0] not in ACTIONS or len(words) < 2:
                raise BadField("a %labels section holds lines ADD NAME VALUE", words[0], ("ADD",))
            self.labels.append((words[1], " ".join(words[2:])))
        elif self.section == "filter":
            bare = re.split(r"\s#", line)[0].strip()
            self.filters.line(bare, number)
        elif self.section != "?":
            raise BadField("a rule stands before any %header section", line, ("%header",), "%header")

    def _field_line(self, line: str) -> None:
        words = _words(line)
        if words[0] != "FIELD" or len(words) != 2:
            raise BadField("a %fields section holds lines FIELD NAME", words[0], ("FIELD",))
        if parse_field(words[1]).kind in ("fields", "values"):
            raise BadField("a list cannot hold a list", instead="the names themselves")
        self.lists[self.name] += (words[1],)

    def _value_line(self, line: str) -> None:
        words = _words(line)
        if words[0] not in ("FIELD", "SPLIT") or len(words) < 2 or (words[0] == "FIELD" and len(words) > 2):
            raise BadField(
                "a %values section holds lines FIELD NAME, or SPLIT NAME by=CHARACTER;minlength=NUMBER",
                words[0],
                ("FIELD", "SPLIT"),
            )
        target = parse_field(words[1])
        if target.kind not in ("tag", "pattern", "all") or target.path:
            raise BadField("values come from an attribute or an expander", instead="FIELD PatientID")
        split, shortest = ("", 1) if words[0] == "FIELD" else _split(" ".join(words[2:]))
        self.values[self.name] += (Source(target, split, shortest),)

    def _header_line(self, line: str, number: int) -> None:
        words = _words(line)
        action = words[0]
        if action not in ACTIONS:
            raise BadField(f"{action!r} is no action; deid would drop this line in silence", action, ACTIONS)
        if len(words) < 2:
            raise BadField(f"{action} needs a field", instead=f"{action} PatientName")
        name, value = words[1], " ".join(words[2:])
        if value and action in ("KEEP", "BLANK"):
            raise BadField(f"{action} takes a field and nothing else; the rest would be ignored", instead=line[:200])
        if not value and action in _NEEDS_VALUE:
            raise BadField(f"{action} needs a value", instead=f"{action} {name} VALUE")
        target = parse_field(name)
        self._check_target(action, target, name)
        self._check_value(action, target, value)
        rule = Rule(action, name, value, number, target)
        exact = _exact(rule)
        if exact is not None:
            if exact in self.exact:
                raise BadField(f"this attribute already has a rule in line {self.exact[exact]}", instead="one of them")
            self.exact[exact] = number
        self.rules.append(rule)

    def _check_target(self, action: str, target: Field, name: str) -> None:
        if target.kind in ("fields", "values"):
            among = self.lists if target.kind == "fields" else self.values
            if target.text not in among:
                raise BadField(f"this list of {target.kind} is not defined above", target.text, tuple(among))
            if target.kind == "values" and action in ("KEEP", "ADD"):
                raise BadField("what says one of these values may not be kept for it", instead=f"REMOVE {name}")
        if action == "ADD" and target.kind != "tag":
            raise BadField("ADD names one attribute", instead=f"REPLACE {name} VALUE")
        if target.kind == "tag" and target.tag >> 16 & 1 and action not in ("REMOVE", "BLANK"):
            raise BadField(
                "a private element means nothing without its creator: all others are removed",
                instead=f'({target.tag >> 16:04X},"CREATOR",{target.tag & 0xFF:02X})',
            )
        vr = dictionary_vr(target.tag) if target.kind == "tag" else ""
        if vr == "SQ" and action in ("REPLACE", "JITTER"):
            raise BadField("a sequence has no value", instead=f"KEEP {name}, REMOVE {name} or BLANK {name}")

    def _check_value(self, action: str, target: Field, value: str) -> None:
        kind, colon, name = value.partition(":")
        if not value:
            return
        if action == "REMOVE":
            self._check_condition(kind, name)
            return
        if action == "JITTER":
            if kind == "var" and colon:
                self._check_variable(name, ("patient_shift", *self.variables))
            elif not re.fullmatch(DAYS, value):
                raise BadField(
                    "JITTER takes var:patient_shift or a number of days other than 0", instead="var:patient_shift"
                )
        elif colon and kind == "func":
            if name not in FUNCTIONS:
                raise BadField(f"{value!r} is no function", "func:" + name, tuple("func:" + f for f in FUNCTIONS))
            if action == "ADD" and name != "pseudonym_patient":
                raise BadField("ADD has no value that a function could work on", instead="func:pseudonym_patient")
        elif colon and kind == "deid_func":
            self._check_deid_function(action, name)
        elif colon and kind == "var":
            self._check_variable(name, ("patient_pseudonym", "recipe_name", *self.variables))
        elif not value.isascii() or not value.isprintable():
            raise BadField("a literal value is printable ASCII, whatever the object's character set is")
        self._check_kind(action, target, value)

    def _check_condition(self, kind: str, name: str) -> None:
        if kind == "values":
            if name not in self.values:
                raise BadField("this list of values is not defined above", name, tuple(self.values))
        elif kind != "func" or name not in PREDICATES:
            raise BadField(
                "REMOVE takes a field, and if anything func:CONDITION or values:LIST",
                f"func:{name}",
                tuple("func:" + f for f in PREDICATES),
                "nothing behind the field",
            )

    def _check_variable(self, name: str, known: tuple[str, ...]) -> None:
        if name not in known:
            raise BadField(
                f"the variable {name!r} is not defined",
                "var:" + name,
                tuple("var:" + v for v in known),
                f"var:{known[0]}",
            )

    def _check_deid_function(self, action: str, text: str) -> None:
        name, _, options = text.partition(" ")
        if name not in DEID_FUNCTIONS:
            raise BadField(f"{name!r} is no function of deid", name, DEID_FUNCTIONS)
        if action != "REPLACE":
            raise BadField("deid's functions are for REPLACE", instead=f"REPLACE … deid_func:{name}")
        if name == "jitter" and not re.fullmatch(r"((days|years)=[+-]?\d{1,5} ?)+", options):
            raise BadField("jitter takes days=NUMBER, years=NUMBER or both", instead="deid_func:jitter days=-31")

    def _check_kind(self, action: str, target: Field, value: str) -> None:
        """Does the value fit what the attribute holds?"""
        if target.kind != "tag":
            return
        vr = dictionary_vr(target.tag)
        if target.tag == METHOD_CODES:
            for code in value.split(","):
                if action == "ADD" and code.strip() not in CLAIMS:
                    raise BadField("not a code of CID 7050 that a recipe may claim", code.strip(), CLAIMS)
            return
        if action == "JITTER" and vr not in ("DA", "DT", "TM", "OB", ""):
            raise BadField("JITTER is for dates and times", instead="REPLACE or REMOVE")
        if action in ("ADD", "REPLACE") and not value.startswith("func:") and vr not in TEXT_VRS:
            raise BadField("a literal value needs an attribute that holds text", instead="KEEP or REMOVE")


def _words(line: str) -> list[str]:
    """Words of a line; blanks inside quotation marks do not part words. A comment begins with a blank and #."""
    words, word, quote = [], "", ""
    for index, character in enumerate(line):
        if not quote and character.isspace():
            words += [word] if word else []
            word = ""
            continue
        if not quote and character == "#" and (not index or line[index - 1].isspace()):
            break
        if character == "#" and len(words) > 1:
            raise BadField(
                "deid cuts the value at #; put a space before a comment, and no # into a value",
                instead=line.replace("#", " "),
            )
        if character in "\"'":
            quote = "" if quote == character else quote or character
        word += character
    if quote:
        raise BadField("a quotation mark is not closed, deid would drop it in silence", instead=line + quote)
    return [*words, word] if word else words


def _split(text: str) -> tuple[str, int]:
    split, shortest = " ", 1
    for word in (w.strip() for w in text.split(";")):
        name, _, given = word.partition("=")
        bare = given.strip()
        if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
            bare = bare[1:-1]
        if name.strip() in ("by", "splitval") and bare:
            split = bare
        elif name.strip() == "minlength" and bare.isdigit():
            shortest = int(bare)
        elif word:
            raise BadField(
                "SPLIT takes by=CHARACTER and minlength=NUMBER", name, ("by", "minlength"), "by=^;minlength=3"
            )
    return split, shortest
