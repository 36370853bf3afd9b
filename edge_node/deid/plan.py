"""A recipe, compiled: one decision per tag and VR, found once and kept; carried out at every depth.

An exact field beats a pattern, a pattern beats ALL and except:, a later one of a kind beats an earlier one, and code
(`harden`) beats them all. KEEP of a sequence keeps the sequence, not what is in it: its items are de-identified like
everything else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_node.deid import e1_1, functions, harden, private, wire
from edge_node.deid.fields import Field, parse_field
from edge_node.deid.functions import FUNCTIONS, PREDICATES, Function, Predicate
from edge_node.deid.header import Header, Run
from edge_node.deid.method import METHOD_CODES
from edge_node.deid.recipe import DAYS, TEXT_VRS, Finding, Recipe, Rule, Source
from edge_node.deid.remembered import LONGEST
from edge_node.deid.scene import Scene, charset_of
from edge_node.deid.wire import Element, Node
from edge_node.domain.errors import Stop

Decision = str | Function  # "remove", "blank", "descend", or a function that gives the value
_DATES = ("DA", "DT", "TM")
_CONTENT = 0x0040A730


@dataclass(frozen=True, slots=True)
class _Guarded:
    """Remove where one of the conditions is true, else do as `otherwise` says."""

    conditions: tuple[Predicate, ...]
    otherwise: Decision


class Plan:
    """Compiled rules. Shared by threads: only its cache changes, and only by adding equal entries.

    `variables` are what ``var:`` stands for beside the built-in names. Raises Stop("deid.recipe-invalid") when one of
    them is not what its rule needs.
    """

    def __init__(self, recipe: Recipe, variables: Mapping[str, str] | None = None) -> None:
        self._variables = {"recipe_name": recipe.path.stem, **(variables or {})}
        self._exact: dict[int, Rule] = {}
        self._private: dict[tuple[int, str, int], Rule] = {}
        self._placed: dict[int, list[Rule]] = {}
        self._wide: list[tuple[Field, Rule]] = []
        self._ground: list[tuple[Field, Rule]] = []
        self._conditions: list[tuple[Field, Rule]] = []
        self._by_value: list[Rule] = []
        self._added: dict[tuple[int, ...], list[tuple[int, Rule]]] = {}
        self._values = recipe.values
        self.claims: tuple[str, ...] = ()
        for wrong in unfit_days(recipe, self._variables):
            raise Stop("deid.recipe-invalid", f"{recipe.path}:{wrong.line}: {wrong.what}", hint=wrong.instead)
        for rule in recipe.rules:
            self._learn(rule, rule.target, recipe)
        self._known: dict[object, Decision | _Guarded] = {}
        used = {"recipe_name", *(rule.value.removeprefix("var:") for rule in recipe.rules)}
        said = sorted((name, value) for name, value in self._variables.items() if name in used)
        compiled = [recipe.text, e1_1.table_text(), *sorted(FUNCTIONS), repr(said)]
        self.sha256 = hashlib.sha256("\0".join(compiled).encode()).hexdigest()
        self.shifts_dates = self._shifts(0x00080020)
        self.kept = self._kept_on_purpose()
        self.kept_private = frozenset(key for key, rule in self._private.items() if rule.action not in _GONE)
        self.structured = self.decide(_CONTENT, "SQ", 0) == "descend"

    def _learn(self, rule: Rule, target: Field, recipe: Recipe) -> None:
        tag = target.tag
        if rule.action == "ADD" and tag == METHOD_CODES:
            self.claims = tuple(code.strip() for code in rule.value.split(","))
        elif rule.action == "ADD":
            self._added.setdefault(tuple(t for t, _ in target.path), []).append((tag, rule))
        elif target.kind == "values":
            self._by_value.append(rule)
        elif target.kind == "fields":
            for name in recipe.lists[target.text]:
                one = parse_field(name)
                if one.kind == "tag" and not one.path and one.tag in self._exact:
                    continue  # a rule of its own counts
                self._learn(rule, one, recipe)
        elif rule.action == "REMOVE" and rule.value:
            self._conditions.append((target, rule))
        elif target.kind == "private":
            self._private[tag >> 16, target.text, tag & 0xFF] = rule
        elif target.kind == "tag" and target.path:
            self._placed.setdefault(tag, []).append(Rule(rule.action, rule.field, rule.value, rule.line, target))
        elif target.kind == "tag":
            self._exact[tag] = rule
        else:
            (self._ground if target.ground else self._wide).append((target, rule))

    def _kept_on_purpose(self) -> frozenset[int]:
        """What KEEP names, and dates and UIDs that KEEP selects by their value representation."""
        kept = {tag for tag, rule in self._exact.items() if rule.action == "KEEP"}
        for field, rule in self._wide:
            if rule.action == "KEEP" and field.text in ("VR:DA", "VR:DT", "VR:UI"):
                vr = field.text[3:]
                kept |= {tag for tag in wire.tags_of(vr) if self.rule_for(tag, vr) is rule}
        return frozenset(kept)

    def _shifts(self, tag: int) -> bool:
        rule = self.rule_for(tag, "DA")
        return rule is not None and (rule.action == "JITTER" or rule.value == "func:shift_date")

    def rule_for(self, tag: int, vr: str, path: tuple[tuple[int, int], ...] = ()) -> Rule | None:
        """The rule that counts for an element, conditions and values aside; None if the recipe does not speak of it."""
        for rule in self._placed.get(tag, ()):
            wanted = rule.target.path
            if len(wanted) == len(path) and all(
                t == at and i in (-1, index) for (t, i), (at, index) in zip(wanted, path, strict=True)
            ):
                return rule
        exact = self._exact.get(tag)
        if exact is not None:
            return exact
        for rules in (self._wide, self._ground):
            for field, rule in reversed(rules):
                if field.matches is not None and field.matches(tag, vr) and _bears(rule, vr):
                    return rule
        return None

    def decide(self, tag: int, vr: str, depth: int, path: tuple[tuple[int, int], ...] = ()) -> Decision | _Guarded:
        """The one decision for an element, by its tag, the VR it was sent with and where it stands."""
        placed = tag in self._placed
        key: object = (tag, vr, path) if placed else (tag, vr, depth > 0)
        decision = self._known.get(key)
        if decision is None:
            decision = "remove" if harden.refused(tag, vr, depth) else self._decide(tag, vr, path)
            if decision != "remove":
                conditions = tuple(
                    self._condition(rule)
                    for field, rule in self._conditions
                    if (field.matches(tag, vr) if field.matches else field.tag == tag)
                )
                decision = _Guarded(conditions, decision) if conditions and vr in TEXT_VRS else decision
            if len(self._known) < 50_000:
                self._known[key] = decision
        return decision

    def _decide(self, tag: int, vr: str, path: tuple[tuple[int, int], ...]) -> Decision:
        rule = self.rule_for(tag, vr, path)
        return harden.default_action(tag, vr) if rule is None else self._carry_out(rule, tag, vr)

    def _carry_out(self, rule: Rule, tag: int, vr: str) -> Decision:
        if rule.action in ("REMOVE", "BLANK"):
            return rule.action.lower()
        if vr == "SQ":
            return "descend" if rule.action == "KEEP" else "remove"
        if rule.action == "KEEP":
            known = wire.dictionary_vr(tag) or vr
            return functions.keep_technical if known in _TEXT else functions.keep_term if known == "CS" else _as_is
        kind, _, name = rule.value.partition(":")
        if rule.action == "JITTER":
            if rule.value == "var:patient_shift":
                return functions.shift_date
            return functions.jitter(int(self._variables[name] if kind == "var" else rule.value))
        return self._value(kind, name, rule.value)

    def _value(self, kind: str, name: str, text: str) -> Function:
        if kind == "func":
            return FUNCTIONS[name]
        if kind == "deid_func":
            return functions.deid_function(name)
        if kind == "var":
            return functions.pseudonym_patient if name == "patient_pseudonym" else _literal(self._variables[name])
        return _literal(text)

    def _condition(self, rule: Rule) -> Predicate:
        kind, _, name = rule.value.partition(":")
        return PREDICATES[name] if kind == "func" else _says_one_of(name)

    def scrub(self, node: Node, scene: Scene, header: Header | None = None) -> Node:
        """De-identify a data set and everything in it. `scene` stands at `node`, `header` is how it was read."""
        if self._values and not scene.depth:
            scene.values = {name: _collect(node, sources, scene) for name, sources in self._values.items()}
        clean: Node = {}
        if header is None or not header.runs:
            self._scrub(node, node, scene, clean)
        else:
            setting = scene.setting(functions.LOOKED_AT)
            for run in header.runs:
                clean.update(self._scrubbed(run, node, scene, setting))
            self._scrub(header.rest, node, scene, clean)
        for tag, rule in self._added.get(tuple(t for t, _ in scene.path), ()) if self._added else ():
            vr = wire.dictionary_vr(tag)[:2]
            kind, _, name = rule.value.partition(":")
            added = self._value(kind, name, rule.value)(Element(tag, vr), scene)
            clean[tag] = Element(tag, vr, added or b"")
        return clean

    def _scrubbed(self, run: Run, node: Node, scene: Scene, setting: tuple[object, ...] | None) -> Node:
        """The clean form of elements of `node` that may have come before."""
        if setting is not None and self._private and run.reserved_elsewhere:
            creators = [private.creator_at(block, node) for block in run.reserved_elsewhere]
            setting = (*setting, *creators) if sum(map(len, creators)) <= LONGEST else None
        clean = None if setting is None else run.cleaned(setting)
        if clean is None:
            clean = {}
            self._scrub(run.node, node, scene, clean)
            if setting is not None:
                run.keep_cleaned(setting, clean)
        return clean

    def _scrub(self, elements: Node, node: Node, scene: Scene, clean: Node) -> None:
        """Put the clean form of some or all elements of `node` into `clean`."""
        known, nested, by_value = self._known, scene.depth > 0, self._by_value
        for tag, element in elements.items():
            if tag >> 16 & 1:
                if self._private:
                    self._scrub_private(tag, element, node, scene, clean)
                continue
            decision = known.get((tag, element.vr, nested))
            if decision is None:
                decision = self.decide(tag, element.vr, scene.depth, scene.path)
            if isinstance(decision, str) and decision == "remove":
                continue
            if by_value and element.value:
                decision = self._by_its_value(tag, element, scene, decision)
            if isinstance(decision, _Guarded):
                if any(true(element, scene) for true in decision.conditions):
                    continue
                decision = decision.otherwise
            if isinstance(decision, str) or element.items is not None or element.fragments is not None:
                made = self._made(decision, element, scene)
                if made is not None:
                    clean[tag] = made
            elif not element.value:
                clean[tag] = element
            else:
                value = decision(element, scene)
                if value is element.value:
                    clean[tag] = element
                elif value is not None:
                    clean[tag] = Element(tag, element.vr, value)

    def _made(self, decision: Decision, element: Element, scene: Scene) -> Element | None:
        if element.items is not None:
            if decision == "blank":
                return Element(element.tag, element.vr, items=[])
            if decision != "descend":
                return None
            items = [self._item(item, scene, element.tag, at) for at, item in enumerate(element.items)]
            return Element(element.tag, element.vr, items=items)
        if element.fragments is not None:
            return None if decision == "remove" else element
        if isinstance(decision, str):
            return None if decision == "remove" else Element(element.tag, element.vr)
        value = decision(element, scene) if element.value else b""
        return None if value is None else Element(element.tag, element.vr, value)

    def _item(self, item: Node, scene: Scene, tag: int, at: int) -> Node:
        outer, charset, path = scene.node, scene.charset, scene.path
        scene.node, scene.charset, scene.depth = item, charset_of(item, charset), scene.depth + 1
        if self._placed or self._added:
            scene.path = (*path, (tag, at))
        try:
            return self.scrub(item, scene)
        finally:
            scene.node, scene.charset, scene.depth, scene.path = outer, charset, scene.depth - 1, path

    def _scrub_private(self, tag: int, element: Element, node: Node, scene: Scene, clean: Node) -> None:
        """Keep a private element only by its creator, and only what a rule and its kind of value allow."""
        creator = private.creator_of(tag, node)
        rule = self._private.get((tag >> 16, creator, tag & 0xFF)) if creator else None
        if rule is None or rule.action == "REMOVE":
            return
        known = private.as_known(element, creator, scene.big)
        if known is None or (rule.action != "KEEP" and not _bears(rule, known.vr)):
            return
        decision = private.keep if rule.action == "KEEP" else self._carry_out(rule, tag, known.vr)
        made = self._made(decision, known, scene)
        if made is not None:
            clean[tag] = made
            block = tag & 0xFFFF0000 | (tag >> 8 & 0xFF)
            clean[block] = Element(block, "LO", creator.encode())

    def _by_its_value(
        self, tag: int, element: Element, scene: Scene, decision: Decision | _Guarded
    ) -> Decision | _Guarded:
        if element.vr not in TEXT_VRS or tag in _ALWAYS:
            return decision
        for rule in reversed(self._by_value):
            if _bears(rule, element.vr) and _says_one_of(rule.target.text)(element, scene):
                return self._carry_out(rule, tag, element.vr)
        return decision


def unfit_days(recipe: Recipe, variables: Mapping[str, str]) -> Iterator[Finding]:
    """Rules that shift dates by a variable that is no number of days."""
    for rule in recipe.rules:
        name = rule.value.removeprefix("var:") if rule.action == "JITTER" else ""
        if name in variables and not re.fullmatch(DAYS, variables[name]):
            what = f"the variable {name!r} is no number of days other than 0, as JITTER needs"
            yield Finding(rule.line, what, "a number such as -31")


_GONE = ("REMOVE", "BLANK")
_TEXT = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
_ALWAYS = frozenset({0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E})


def _bears(rule: Rule, vr: str) -> bool:
    """A pattern with JITTER means dates and times, one with REPLACE what holds text: they pass over everything else."""
    if rule.action == "JITTER":
        return vr in _DATES
    return rule.action != "REPLACE" or vr in TEXT_VRS


def _as_is(element: Element, scene: Scene) -> bytes | None:
    del scene
    return element.value


def _literal(text: str) -> Function:
    value = text.encode()
    return lambda _element, _scene: value


def _says_one_of(name: str) -> Predicate:
    def true(element: Element, scene: Scene) -> bool:
        text = scene.text(element).lower()
        return any(value in text for value in scene.values.get(name, ()))

    return true


def _collect(node: Node, sources: tuple[Source, ...], scene: Scene) -> frozenset[str]:
    """Lower-case values of a %values list, from the data set and everything nested in it."""
    found: set[str] = set()
    for tag, element in node.items():
        if element.items is not None:
            outer = scene.charset
            for item in element.items:
                scene.charset = charset_of(item, outer)
                found |= _collect(item, sources, scene)
            scene.charset = outer
            continue
        for source in sources:
            target = source.target
            if element.vr not in TEXT_VRS or not (
                target.matches(tag, element.vr) if target.matches else target.tag == tag
            ):
                continue
            for value in scene.text(element).lower().split("\\"):
                parts = [part.strip() for part in (value.split(source.split) if source.split else [value])]
                found |= {part for part in parts if part and len(part) >= source.shortest}
    return frozenset(found)
