"""What is doubtful about a recipe that can be carried out: rules that never match, and what no rule speaks of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from edge_node.deid import harden, wire
from edge_node.deid.e1_1 import table
from edge_node.deid.fields import Field, keywords, parse_tag
from edge_node.deid.plan import Plan, unfit_days
from edge_node.deid.profiles import line_for
from edge_node.deid.recipe import Finding, Recipe, Rule, read

_NAMES_SOMEONE = (0x00100010, 0x00100020, 0x00100030, 0x00101000, 0x00101001, 0x00101040, 0x00102154, 0x00080050)

_TRIAL = (
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
)
_SUBJECTS = (0x00120040, 0x00120042)  # one of the two


def lint(path: Path, variables: Collection[str] = ()) -> list[Finding]:
    """Every error of a recipe and, if it has none, every doubt, in order of lines; what concerns the whole file last.

    `variables` are what ``var:`` stands for, or its names alone. Raises Stop if there is no text to read.
    """
    recipe, findings = read(path, variables)
    given = variables if isinstance(variables, Mapping) else dict.fromkeys(variables, "1")
    findings = [*findings, *unfit_days(recipe, given)]
    if not any(finding.error for finding in findings):
        plan = Plan(recipe, given)
        findings = [*findings, *_idle(recipe, plan), *_kept_names(recipe), *_half_trial(recipe), *_unnamed(plan)]
    return sorted(findings, key=lambda finding: (not finding.line, finding.line))


def _vr(tag: int) -> str:
    return wire.dictionary_vr(tag)[:2]


def _idle(recipe: Recipe, plan: Plan) -> list[Finding]:
    """Rules that code overrules, that fit nothing in the data dictionary, or that others overrule everywhere."""
    tags = [tag for tag in map(parse_tag, keywords()) if tag is not None]
    winners: dict[int, Rule | None] = {}
    for tag in tags:
        winners[tag] = plan.rule_for(tag, _vr(tag))
    winning = {id(rule) for rule in winners.values()}
    found = []
    for rule in recipe.rules:
        target = rule.target
        if target.kind == "tag" and not target.path and rule.action not in ("REMOVE", "ADD"):
            if harden.refused(target.tag, _vr(target.tag), 0):
                found.append(_doubt(rule, "code removes this attribute whatever a rule says", f"REMOVE {rule.field}"))
        elif target.kind == "pattern":
            fits = [tag for tag in tags if _fits(target, tag)]
            if not fits:
                found.append(_doubt(rule, "no attribute of the data dictionary fits this expression", "a keyword"))
            elif id(rule) not in winning and not (rule.action == "REMOVE" and rule.value):
                lines = sorted({over.line for tag in fits if (over := winners[tag]) is not None})
                where = ", ".join(map(str, lines[:5])) + ("…" if len(lines) > 5 else "")
                found.append(_doubt(rule, f"the rules in line {where} decide all that fits this one", "a later line"))
        elif target.kind == "all" and id(rule) not in winning and not rule.value:
            found.append(_doubt(rule, "other rules decide every attribute", "one ground rule"))
    used = {rule.target.text for rule in recipe.rules if rule.target.kind in ("fields", "values")}
    used |= {rule.value.removeprefix("values:") for rule in recipe.rules}
    for name in [*recipe.lists, *recipe.values]:
        if name not in used:
            found.append(Finding(0, f"the list {name!r} is used by no rule", f"REMOVE fields:{name}", error=False))
    return found


def _fits(target: Field, tag: int) -> bool:
    return target.matches is not None and target.matches(tag, _vr(tag))


def _doubt(rule: Rule, what: str, instead: str) -> Finding:
    return Finding(rule.line, f"{rule.action} {rule.field}: {what}", instead, error=False)


def _kept_names(recipe: Recipe) -> list[Finding]:
    return [
        _doubt(rule, "this keeps what names the patient", f"REPLACE {rule.field} func:pseudonym_id")
        for rule in recipe.rules
        if rule.action == "KEEP" and rule.target.kind == "tag" and rule.target.tag in _NAMES_SOMEONE
    ]


def _half_trial(recipe: Recipe) -> list[Finding]:
    """A Clinical Trial Subject Module that is begun must be whole, or the object breaks its IOD (PS3.3 C.7.1.3)."""
    added = [rule for rule in recipe.rules if rule.action == "ADD" and not rule.target.path]
    tags = {rule.target.tag for rule in added}
    missing = [name for name in _TRIAL if parse_tag(name) not in tags]
    if not tags.isdisjoint(_SUBJECTS):
        missing = [name for name in missing if parse_tag(name) not in _SUBJECTS]
    begun = next((rule for rule in added if rule.target.tag >> 4 in (0x0012001, 0x0012002, 0x0012003, 0x0012004)), None)
    if begun is None or not missing:
        return []
    what = f"the Clinical Trial Subject Module (PS3.3 C.7.1.3) needs {', '.join(missing)} too"
    return [_doubt(begun, what, f"ADD {missing[0]} var:NAME")]


def _unnamed(plan: Plan) -> list[Finding]:
    """Attributes of Table E.1-1 without a rule. The Basic Profile is carried out for them, and nobody can read it."""
    found = []
    for tag, row in sorted(table().items()):
        if 8 <= tag >> 16 < 0xFFF0 and plan.rule_for(tag, _vr(tag)) is None:
            what = f"no rule speaks of {row.name or wire.tag_name(tag)}; the Basic Profile is carried out ({row.basic})"
            found.append(Finding(0, what, line_for(tag), error=False))
    return found
