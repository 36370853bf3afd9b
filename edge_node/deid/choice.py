"""Several recipes at once: each object goes through the one that the site's rules choose for it, on entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_node.deid import bitstream, wire
from edge_node.deid.door import MODALITY, PEEKED, Deidentifier
from edge_node.domain.selection import Condition, first_fit
from edge_node.domain.study import Deidentified, IdentifiedInstance, RecipeId


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe, the trial whose pseudonyms go with it ("": the site's own), and the objects that get them."""

    condition: Condition
    recipe: Path
    trial: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


class Recipes:
    """Every recipe of a site, built once a process; calls may run in parallel.

    `choices` are in order, the first that fits counts; the last one must fit everything. Raises Stop as `Deidentifier`
    does, and ValueError without a last one that fits everything.
    """

    def __init__(self, choices: Sequence[Choice], site_key: bytes, *, version: str) -> None:
        if not choices or choices[-1].condition != Condition():
            raise ValueError("the last choice must fit everything")
        built: dict[object, Deidentifier] = {}
        self._conditions = [choice.condition for choice in choices]
        self._engines: list[Deidentifier] = []
        for one in choices:
            what = (one.recipe, one.trial, tuple(sorted(one.variables.items())))
            if what not in built:
                built[what] = Deidentifier(
                    one.recipe, site_key, version=version, variables=one.variables, label=one.trial
                )
            self._engines.append(built[what])

    @property
    def engines(self) -> tuple[Deidentifier, ...]:
        """That of each choice, in order."""
        return tuple(self._engines)

    @property
    def ids(self) -> tuple[RecipeId, ...]:
        """What ledger and audit call the recipe of each choice, in order."""
        return tuple(engine.recipe_id for engine in self._engines)

    def engine_for(self, instance: IdentifiedInstance) -> Deidentifier:
        """The recipe of this object, by its association and its own modality and nothing else: an object that is sent
        again the same way gets the same one. One whose modality cannot be read has none."""
        calling, called = instance.calling_ae, instance.called_ae
        asked = any(one.modalities and one.fits_association(calling, called) for one in self._conditions)
        modality = modality_of(instance) if asked else ""
        return self._engines[first_fit(self._conditions, calling, called, modality)]

    def deidentify(self, instance: IdentifiedInstance) -> Deidentified:
        """De-identify by the recipe chosen for this object; see `Deidentifier.deidentify`."""
        return self.engine_for(instance).deidentify(instance)


def modality_of(instance: IdentifiedInstance) -> str:
    """(0008,0060) in capitals, of an object that may be broken; "" if it cannot be read. Never raises."""
    try:
        syntax = bitstream.syntax_of(instance.transfer_syntax)
        data = instance.source.read(0, PEEKED)
        data = wire.inflate_some(data) if syntax.deflated else data
        # Elements are in ascending order (PS3.5 7.1): whatever comes later, the pixels above all, is not looked at.
        return wire.ascii_text(wire.parse_some(data, syntax, MODALITY), MODALITY).upper()
    except Exception:  # whatever is wrong with it, the recipe that is for everything will say
        return ""
