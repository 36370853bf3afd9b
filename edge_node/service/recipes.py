"""The recipes of a node: from the configuration to what de-identifies, and what an administrator is told of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edge_node import __version__
from edge_node.config.load import ConfigInvalid
from edge_node.config.rules import condition_of
from edge_node.config.schema import Config
from edge_node.deid.choice import Choice, Recipes
from edge_node.deid.lint import lint
from edge_node.deid.recipe import Finding, Recipe
from edge_node.domain.errors import Stop
from edge_node.domain.selection import Condition
from edge_node.domain.study import RecipeId
from edge_node.service.node import recipe_file, recipe_path


def choices(config: Config) -> tuple[Choice, ...]:
    """The rules in order, and last what holds for everything else."""
    site, common = recipe_path(config), config.deid.variables
    ruled = [
        Choice(
            condition_of(rule),
            recipe_file(rule.recipe) if rule.recipe is not None else site,
            rule.trial,
            {**common, **rule.variables},
        )
        for rule in config.deid.rules
    ]
    return (*ruled, Choice(Condition(), site, "", common))


def build(config: Config, site_key: bytes) -> Recipes:
    """Everything the configuration names, ready to de-identify. Raises Stop for a recipe or key that cannot be used."""
    return Recipes(choices(config), site_key, version=__version__)


def recipes_in_force(config: Config) -> list[tuple[RecipeId, Recipe]]:
    """What the ledger calls each recipe, and what it says. Raises Stop for a recipe that cannot be used."""
    # No key of the site goes into the hash, and only the dicom role has one.
    built = Recipes(choices(config), bytes(32), version=__version__)
    return [(engine.recipe_id, engine.recipe) for engine in built.engines]


@dataclass(frozen=True, slots=True)
class Active:
    """One recipe in force: for whom, under which trial's pseudonyms, and what is wrong or doubtful about it.

    `sha256` is what ledger, audit and (0012,0063) name; "" for a recipe that cannot be used.
    """

    objects: str
    choice: Choice
    sha256: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps it from being used."""
        return tuple(finding for finding in self.findings if finding.error)

    @property
    def doubts(self) -> tuple[Finding, ...]:
        """What stands in a line of it and is doubtful."""
        return tuple(finding for finding in self.findings if finding.line and not finding.error)

    def told(self) -> dict[str, Any]:
        """For `config check`: names and counts."""
        return {
            "objects": self.objects,
            "recipe": str(self.choice.recipe),
            "trial": self.choice.trial,
            "sha256": self.sha256,
            "doubts": [self._line(finding) for finding in self.doubts],
        }

    def problems(self) -> list[str]:
        """Every error with file, line and what to write instead."""
        return [self._line(finding) for finding in self.errors]

    def _line(self, finding: Finding) -> str:
        where = f"{self.choice.recipe}:{finding.line}" if finding.line else str(self.choice.recipe)
        return f"{where}: {finding.what}" + (f"; instead: {finding.instead}" if finding.instead else "")


def active(config: Config) -> tuple[Active, ...]:
    """Every recipe in force, linted, in the order of the rules."""
    found = []
    for number, choice in enumerate(choices(config), 1):
        try:
            findings = tuple(lint(choice.recipe, choice.variables))
        except Stop as error:  # there is no text to read
            findings = (Finding(0, error.message.removeprefix(f"{choice.recipe}: "), error.hint),)
        usable = not any(finding.error for finding in findings)
        alone = replace(choice, condition=Condition())
        sha256 = Recipes([alone], bytes(32), version=__version__).ids[0].sha256 if usable else ""
        name = _objects(choice.condition)
        found.append(Active(f"#{number} {name}" if name else "all others", choice, sha256, findings))
    return tuple(found)


def usable(config: Config) -> tuple[Active, ...]:
    """`active`, when all of it can be used. Raises ConfigInvalid with every error of every recipe."""
    found = active(config)
    problems = tuple(dict.fromkeys(text for one in found for text in one.problems()))
    if problems:
        raise ConfigInvalid(problems)
    return found


def _objects(condition: Condition) -> str:
    """`from CT1, CT2 · to TRIAL · CT`: in words, which objects a condition fits."""
    parts = (("from ", condition.calling), ("to ", condition.called), ("", condition.modalities))
    return " · ".join(word + ", ".join(sorted(values)) for word, values in parts if values)
