"""What a version must have shown before it speaks beyond shadow: parity with the variant that it stands in for."""

from __future__ import annotations

from typing import Final

from edge_node.domain.errors import Quarantine
from edge_node.domain.model import SPEAKING, Stage
from edge_node.store import watch
from edge_node.store.models import Models, Registered
from edge_node.store.watch import Stream
from edge_node.triage import parity
from edge_node.triage.card import Card
from edge_node.triage.card_tables import ToleranceTable

_FULL: Final = "fp32"


def check_parity(models: Models, one: Registered, card: Card, variant: str, to: Stage) -> None:
    """Refuse a stage in which the hospital is told, when the variant that runs here differs from fp32 by more than the
    card allows: by the newest `model validate --against` of this node, else by what the card itself says.

    A card with a table [tolerance] wants that comparison made here, on enough cases. Raises Quarantine
    ``model.parity``.
    """
    if to not in SPEAKING or variant == _FULL or _FULL not in card.file.variants:
        return
    proven = True
    for finding in card.file.findings:
        with models.database.read() as connection:
            made = watch.records(connection, Stream(one.package, variant, finding.code.value), "parity")
        compared = [record for record in made if record.figures["against"] == _FULL]
        # Too few cases neither prove anything nor wash away what was found on others.
        telling = next((one_ for one_ in compared if one_.figures["breaches"] or not one_.figures["short"]), None)
        if telling is not None and telling.figures["breaches"]:
            raise _refused(one, variant, "; ".join(telling.figures["breaches"]))
        if telling is None and card.file.tolerance is not None:
            few = f"too few cases: {compared[0].figures['short']}" if compared else ""
            raise _refused(one, variant, few or f"it was not compared with {_FULL} on this node")
        proven &= telling is not None
    if proven:
        return
    allowed = card.file.tolerance or ToleranceTable()
    if said := parity.declared(card.file.held_out.get("parity"), allowed):
        raise _refused(one, variant, "; ".join(said))


def _refused(one: Registered, variant: str, why: str) -> Quarantine:
    return Quarantine(
        "model.parity",
        f"{one.name} {one.version}, variant {variant}, may not speak beyond shadow: {why}",
        hint=f"edge-node model validate {one.name} STUDIES --truth CSV --version {one.version} --against {_FULL}",
    )
