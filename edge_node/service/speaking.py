"""What a version must have shown before it speaks beyond shadow: parity with the variant that it stands in for."""

from __future__ import annotations

from typing import Final

from edge_node.domain.errors import Quarantine
from edge_node.domain.model import SPEAKING, Stage
from edge_node.store import watch
from edge_node.store.models import Models, Registered
from edge_node.store.watch import Record, Stream
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
    allowed = card.file.tolerance or ToleranceTable()
    with models.database.read() as connection:
        made: list[Record | None] = [
            watch.newest(connection, Stream(one.package, variant, finding.code.value), "parity")
            for finding in card.file.findings
        ]
    for record in made:
        if record is None:
            continue
        if breaches := record.figures["breaches"]:
            raise _refused(one, variant, "; ".join(breaches))
        if record.figures["short"] and card.file.tolerance is not None:
            raise _refused(one, variant, f"too few cases: {record.figures['short']}")
    if all(record is not None for record in made):
        return
    if card.file.tolerance is not None:
        raise _refused(one, variant, f"it was not compared with {_FULL} on this node")
    if said := parity.declared(card.file.held_out.get("parity"), allowed):
        raise _refused(one, variant, "; ".join(said))


def _refused(one: Registered, variant: str, why: str) -> Quarantine:
    return Quarantine(
        "model.parity",
        f"{one.name} {one.version}, variant {variant}, may not speak beyond shadow: {why}",
        hint=f"edge-node model validate {one.name} STUDIES --truth CSV --version {one.version} --against {_FULL}",
    )
