"""A recipe, compiled: one decision per tag and VR, found once and kept; carried out at every depth.

An exact field beats an expander, a later expander beats an earlier one, and code (`harden`) beats both. KEEP of a
sequence keeps the sequence, not what is in it: its items are de-identified like everything else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from pydicom.datadict import keyword_for_tag

from edge_node.deid import e1_1, functions, harden, wire
from edge_node.deid.functions import FUNCTIONS, Function
from edge_node.deid.recipe import METHOD_CODES, Recipe, Rule, parse_tag
from edge_node.deid.scene import Scene, charset_of
from edge_node.deid.wire import Element, Node

Decision = str | Function  # "remove", "blank", "descend", or a function that gives the value
_Match = Callable[[int, str], bool]


class Plan:
    """Compiled rules. Shared by threads: only its cache changes, and only by adding equal entries."""

    def __init__(self, recipe: Recipe) -> None:
        self._exact: dict[int, Rule] = {}
        self._wide: list[tuple[_Match, Rule]] = []
        self.added: list[Element] = []
        self.claims: tuple[str, ...] = ()
        for rule in recipe.rules:
            self._learn(rule, recipe)
        self._known: dict[tuple[int, str, bool], Decision] = {}
        compiled = [recipe.text, e1_1.table_text(), *sorted(FUNCTIONS)]
        self.sha256 = hashlib.sha256("\0".join(compiled).encode()).hexdigest()
        self.shifts_dates = self._shifts(0x00080020)
        self.kept = frozenset(tag for tag, rule in self._exact.items() if rule.action == "KEEP")

    def _learn(self, rule: Rule, recipe: Recipe) -> None:
        tag = parse_tag(rule.field)
        if rule.action == "ADD" and tag == METHOD_CODES:
            self.claims = tuple(code.strip() for code in rule.value.split(","))
        elif rule.action == "ADD" and tag is not None:
            self.added.append(Element(tag, wire.dictionary_vr(tag)[:2], rule.value.encode()))
        elif tag is not None:
            self._exact[tag] = rule
        elif rule.field.startswith("fields:"):
            for field in recipe.lists[rule.field.removeprefix("fields:")]:
                named = parse_tag(field)
                if named is not None:
                    self._exact.setdefault(named, rule)
                else:
                    self._wide.append((_matcher(field), rule))
        else:
            self._wide.append((_matcher(rule.field), rule))

    def _shifts(self, tag: int) -> bool:
        rule = self._rule(tag, "DA")
        return rule is not None and (rule.action == "JITTER" or rule.value == "func:shift_date")

    def _rule(self, tag: int, vr: str) -> Rule | None:
        rule = self._exact.get(tag)
        if rule is not None:
            return rule
        return next((rule for matches, rule in reversed(self._wide) if matches(tag, vr)), None)

    def decide(self, tag: int, vr: str, depth: int) -> Decision:
        """The one decision for an element, by its tag, the VR it was sent with and whether it is nested."""
        key = (tag, vr, depth > 0)
        decision = self._known.get(key)
        if decision is None:
            decision = "remove" if harden.refused(tag, vr, depth) else self._decide(tag, vr)
            if len(self._known) < 50_000:
                self._known[key] = decision
        return decision

    def _decide(self, tag: int, vr: str) -> Decision:
        rule = self._rule(tag, vr)
        if rule is None:
            return harden.default_action(tag, vr)
        if rule.action in ("REMOVE", "BLANK"):
            return rule.action.lower()
        if vr == "SQ":
            return "descend" if rule.action == "KEEP" else "remove"
        if rule.action == "KEEP":
            known = wire.dictionary_vr(tag)
            return functions.keep_technical if known in _TEXT else functions.keep_term if known == "CS" else _as_is
        if rule.action == "JITTER":
            return functions.shift_date if rule.value == "var:patient_shift" else _jitter(int(rule.value))
        if rule.value.startswith("func:"):
            return FUNCTIONS[rule.value.removeprefix("func:")]
        return _literal(rule.value.encode())

    def scrub(self, node: Node, scene: Scene) -> Node:
        """De-identify a data set and everything in it. `scene` stands at `node`."""
        clean: Node = {}
        for tag, element in node.items():
            decision = self.decide(tag, element.vr, scene.depth)
            if decision == "remove":
                continue
            if element.items is not None:
                if decision == "blank":
                    clean[tag] = Element(tag, element.vr, items=[])
                elif decision == "descend":
                    clean[tag] = Element(tag, element.vr, items=[self._item(item, scene) for item in element.items])
            elif element.fragments is not None:
                clean[tag] = element
            elif isinstance(decision, str):
                clean[tag] = Element(tag, element.vr)
            else:
                value = decision(element, scene) if element.value else b""
                if value is not None:
                    clean[tag] = Element(tag, element.vr, value)
        return clean

    def _item(self, item: Node, scene: Scene) -> Node:
        outer, charset = scene.node, scene.charset
        scene.node, scene.charset, scene.depth = item, charset_of(item, charset), scene.depth + 1
        try:
            return self.scrub(item, scene)
        finally:
            scene.node, scene.charset, scene.depth = outer, charset, scene.depth - 1


_TEXT = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})


def _as_is(element: Element, scene: Scene) -> bytes | None:
    del scene
    return element.value


def _literal(value: bytes) -> Function:
    return lambda _element, _scene: value


def _jitter(days: int) -> Function:
    def shifted(element: Element, scene: Scene) -> bytes | None:
        patient, scene.shift_days = scene.shift_days, days
        try:
            return functions.shift_date(element, scene)
        finally:
            scene.shift_days = patient

    return shifted


def _matcher(field: str) -> _Match:
    """The tags an expander of deid's language means (its `contains:` and kin match keyword and tag, any case)."""
    if field in ("ALL", "allfields"):
        return lambda _tag, _vr: True
    kind, _, rest = field.partition(":")
    if kind == "select":
        what, _, wanted = rest.upper().partition(":")
        return (lambda _tag, vr: vr == wanted) if what == "VR" else (lambda tag, _vr: tag >> 16 == int(wanted, 16))
    if kind == "exceptfields":
        spared = {parse_tag(name) for name in rest.split("|")}
        return lambda tag, _vr: tag not in spared
    pattern = {"startswith": f"^(?:{rest})", "endswith": f"(?:{rest})$"}.get(kind, rest)
    search = re.compile(pattern, re.IGNORECASE).search
    return lambda tag, _vr: any(search(form) for form in (keyword_for_tag(tag), wire.tag_name(tag), f"{tag:08X}"))
