"""What a model ran on when it was last opened for service, and how far that agrees with the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from edge_node.domain.errors import EdgeNodeError
from edge_node.store import watch
from edge_node.store.models import Models
from edge_node.store.watch import Stream
from edge_node.triage.agreement import told
from edge_node.triage.process import Started

log = structlog.get_logger()

_KIND = "activation"


def activated(models: Models, package: str, started: Started) -> None:
    """Remember where a package runs, with an audit entry, unless nothing is new: on a node that has only ever had its
    CPU there is nothing to remember. A ledger that is busy keeps no model from its work."""
    figures = figures_of(started)
    try:
        last = last_activation(models, package)
        if _telling(figures) == _telling(last) or (last is None and started.parity is None):
            return
        with models.database.write() as connection:
            watch.write_record(connection, models.actor, Stream(package, "", ""), _KIND, models.actor, figures, figures)
    except EdgeNodeError as error:
        log.warning("model.activation-unwritten", code=error.code)


def last_activation(models: Models, package: str) -> dict[str, Any] | None:
    """`figures_of` the last start that told something new; None when it has never run beside the CPU."""
    with models.database.read() as connection:
        found = watch.newest(connection, Stream(package, "", ""), _KIND)
    return found.figures if found is not None else None


def figures_of(started: Started) -> dict[str, Any]:
    """Provider, variant, and the agreement with the CPU (None where the CPU itself runs the model)."""
    return {"provider": started.provider, "variant": started.variant, "parity": started.parity}


def in_words(figures: Mapping[str, Any] | None) -> str:
    """Figures as one line for people, "" without any."""
    if figures is None:
        return ""
    where = f"{figures['variant']} on {figures['provider']}"
    return f"{where}, {told(figures['parity'])}" if figures["parity"] else where


def _telling(figures: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """What is worth a new entry: where it runs, beside what, and decisions that turned. The last digits of what a GPU
    computes, and the time that takes, are never twice the same."""
    if figures is None:
        return None
    parity = figures["parity"] or {}
    turned = [parity[side]["flips"] for side in ("device", "variants") if side in parity]
    return figures["provider"], figures["variant"], parity.get("reference"), turned
