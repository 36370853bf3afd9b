"""What must be true between the rules that choose a recipe: each can be chosen, none parts a study in two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_node.config.schema import Config, DeidRule
from edge_node.domain.selection import Condition, fates, plain


@dataclass(frozen=True, slots=True)
class RuleFault:
    """`text` is wrong about the first of `keys` (dotted)."""

    keys: tuple[str, ...]
    text: str


def condition_of(rule: DeidRule) -> Condition:
    """When a rule counts."""
    return Condition(plain(rule.calling_ae_titles), plain(rule.called_ae_titles), plain(rule.modalities))


def called_ae_titles(config: Config) -> frozenset[str]:
    """The AE titles the node answers to: its own, and those that rules name."""
    return plain([config.receive.ae_title, *(title for rule in config.deid.rules for title in rule.called_ae_titles)])


def rule_faults(config: Config) -> Iterator[RuleFault]:
    """Rules without a condition, rules that are never chosen, trials that a study could be parted between."""
    rules = config.deid.rules
    conditions = [condition_of(rule) for rule in rules]
    admitted = plain(config.receive.calling_ae_titles)
    called = called_ae_titles(config) if config.receive.require_called_ae_title else None
    chosen = fates(conditions, calling=admitted or None, called=called)
    reached = frozenset().union(*chosen)
    for number, condition in enumerate(conditions):
        key = f"deid.rules.{number}"
        strangers = sorted(condition.calling - admitted) if admitted else []
        if condition == Condition():
            text = "has neither AE titles nor modalities; what holds for every object stands in [deid]"
            yield RuleFault((key,), text)
        elif strangers:
            text = f"{', '.join(strangers)} may not send; add to [receive] calling_ae_titles"
            yield RuleFault((f"{key}.calling_ae_titles", "receive.calling_ae_titles"), text)
        elif number not in reached:
            yield RuleFault((key,), f"is never chosen: {_shadow(conditions, number)} all that fits it; put it before")
    yield from _parted(rules, chosen)
    yield from _alike(rules)


def _shadow(conditions: list[Condition], number: int) -> str:
    """The earlier rules that some object fits together with this one."""
    before = [other for other in range(number) if _meet(conditions[other], conditions[number])]
    names = ", ".join(f"#{other + 1}" for other in before)
    return f"{names} take" + ("s" if len(before) == 1 else "")


def _meet(one: Condition, other: Condition) -> bool:
    pairs = ((one.calling, other.calling), (one.called, other.called), (one.modalities, other.modalities))
    return all(not a or not b or a & b for a, b in pairs)


def _parted(rules: list[DeidRule], chosen: set[frozenset[int]]) -> Iterator[RuleFault]:
    """One association sends whole studies, of several modalities: all must get the pseudonyms of one trial."""
    trials = [*(rule.trial for rule in rules), ""]
    told: set[int] = set()
    for numbers in sorted(chosen, key=sorted):
        by_modality = [number for number in sorted(numbers) if number < len(rules) and rules[number].modalities]
        for first in by_modality:
            other = next((number for number in sorted(numbers) if trials[number] != trials[first]), None)
            if other is None or first in told:
                continue
            told.add(first)
            where = f"#{other + 1}" if other < len(rules) else "[deid]"
            mine, theirs = (f"trial {trials[n]}" if trials[n] else "no trial" for n in (first, other))
            text = (
                f"would part a study: its modalities go to {mine}, others of the same sender by {where} to {theirs};"
                " a trial is chosen by AE titles alone"
            )
            yield RuleFault((f"deid.rules.{first}.modalities", f"deid.rules.{first}.trial"), text)


def _alike(rules: list[DeidRule]) -> Iterator[RuleFault]:
    """Labels that differ in case only are two trials to the node and one to whoever wrote them."""
    spelt: dict[str, str] = {}
    for number, rule in enumerate(rules):
        known = spelt.setdefault(rule.trial.lower(), rule.trial)
        if known != rule.trial:
            text = f"{rule.trial} and {known} differ in case only; write one trial in one way"
            yield RuleFault((f"deid.rules.{number}.trial",), text)
