"""The second reading of a recipe, by `deid`'s own parser: it must find the rules that ours found.

The only importer of the `deid` package, and of its parser alone: the rest of it brings matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_node.deid.recipe import Recipe

_SILENT = -100  # deid prints every line it parses unless told otherwise


def disagreements(recipe: Recipe) -> Iterator[tuple[int, str]]:
    """Let deid parse the file and compare, rule for rule: (line, what differs), line 0 for the file as a whole."""
    from deid.config import DeidRecipe
    from deid.logger import bot

    before, bot.level = bot.level, _SILENT
    try:
        parsed = DeidRecipe(str(recipe.path))
        theirs = parsed.get_actions() or []
        lists = {name: [f["field"] for f in fields] for name, fields in (parsed.get_fields_lists() or {}).items()}
        values = {name: len(sources) for name, sources in (parsed.get_values_lists() or {}).items()}
        filters = {name: len(labels) for name, labels in (parsed.get_filters() or {}).items()}
    except (SystemExit, Exception):  # deid exits on bad lines, and fails in other ways on worse ones
        yield (0, "deid's parser refuses the recipe")
        return
    finally:
        bot.level = before
    ours = [(r.action, r.field, r.value) for r in recipe.rules]
    found = [(a["action"], a["field"], (a.get("value") or "").strip()) for a in theirs]
    for rule, mine, other in zip(recipe.rules, ours, found, strict=False):
        if mine != other:
            yield (rule.line, "deid's parser reads this line differently")
    counted: dict[str, int] = {}
    for one in recipe.filters:
        counted[one.group] = counted.get(one.group, 0) + 1
    same = (
        len(ours) == len(found)
        and lists == {name: list(names) for name, names in recipe.lists.items()}
        and values == {name: len(sources) for name, sources in recipe.values.items()}
        and {name: n for name, n in filters.items() if n} == counted
    )
    if not same:
        yield (0, "deid's parser reads other rules than are written")
