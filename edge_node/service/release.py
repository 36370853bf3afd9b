"""Release from quarantine: open the sealed object in memory and send it through the same door again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from edge_node.config.schema import Config
from edge_node.domain.body import Memory
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.domain.study import IdentifiedInstance, KeyClass, Role
from edge_node.receive.local import LocalSender, Offer, nameless_memory
from edge_node.service.intake_worker import make_intake
from edge_node.service.node import Node, ledger_path, open_node, spool_path
from edge_node.service.vault_key import in_memory
from edge_node.store.database import Database
from edge_node.store.held import Which, rows
from edge_node.store.receipt import Receipt, Received
from edge_node.store.retention import close_all, close_quarantine
from edge_node.store.seal import unseal
from edge_node.store.spool import Place, SpoolReader

_Give = Callable[[memoryview, dict[str, Any]], Receipt | EdgeNodeError]


@dataclass(frozen=True, slots=True)
class Released:
    """What became of one held object: its receipt, or why it is held still."""

    item: str
    outcome: Receipt | EdgeNodeError


def is_quarantined(item: str) -> bool:
    """Whether this names a quarantined object (Q and ten hexadecimal digits), not a study."""
    return re.fullmatch(r"Q[0-9A-F]{10}", item) is not None


def held_now(config: Config, which: Which) -> list[str]:
    """Names of the objects that are meant, the oldest first.

    Raises Quarantine("quarantine.unknown") when nothing is held that is meant, or one that is named is not.
    """
    with Database(ledger_path(config), read_only=True).read() as connection:
        found = [str(row.item) for row in reversed(rows(connection, which))]
    missing = sorted(set(which.items) - set(found))
    if missing or not found:
        what = f"as {missing[0]}" if missing else "that is meant"
        raise Quarantine("quarantine.unknown", f"nothing is held {what}", hint="edge-node quarantine list")
    return found


def release(config: Config, items: list[str]) -> Iterator[Released]:
    """De-identify held objects again, one after the other; what passes joins its study, and the quarantined copy is
    destroyed. What does not pass stays held. After a Retry nothing more is tried: the node can take nothing now.
    """
    node = open_node(config, Role.DICOM)
    give = _door(config)
    try:
        for item in items:
            with node.database.read() as connection:
                row = next(iter(rows(connection, Which((item,)))), None)
            if row is None:  # its time was over, or somebody else released it
                gone = Quarantine("quarantine.unknown", f"nothing is held as {item}", hint="edge-node quarantine list")
                yield Released(item, gone)
                continue
            try:
                outcome = _one(config, node, row, give)
            except EdgeNodeError as error:
                outcome = error
            yield Released(item, outcome)
            if isinstance(outcome, Retry):
                return
    finally:
        node.database.shred_journal()


def release_item(config: Config, item: str) -> Receipt:
    """One object. Raises Quarantine("quarantine.unknown") when nothing is held under that name, and Quarantine with the
    reason when it still cannot be de-identified."""
    [done] = release(config, held_now(config, Which((item,))))
    if isinstance(done.outcome, EdgeNodeError):
        raise done.outcome
    return done.outcome


def _one(config: Config, node: Node, row: Row[Any], give: _Give) -> Receipt | EdgeNodeError:
    key = node.keyring.open(row.key_id, row.item, KeyClass.QUARANTINE)
    sealed = SpoolReader(spool_path(config)).read(Place(row.segment, row.offset, row.length))
    body = unseal(key.secret, sealed, f"quarantine {row.item}")
    del sealed  # a large object is not to be in memory twice
    size = int.from_bytes(body[:4], "big")
    receipt = give(memoryview(body)[4 + size :], json.loads(body[4 : 4 + size]))
    if isinstance(receipt, EdgeNodeError):
        return receipt
    here_already = receipt.received is Received.DUPLICATE and not receipt.code
    if receipt.received is not Received.STORED and not here_already:
        return Quarantine(
            receipt.code or row.code,
            f"{row.item} is still held: {row.message}",
            hint="change the recipe or update edge-node, then release again; or `edge-node quarantine discard`",
        )
    with node.database.write() as connection:
        close_quarantine(connection, row.item, "RELEASED", f"{config.node.name}/admin")
    return receipt


def _door(config: Config) -> _Give:
    """Where objects go in again: where only the running dicom role can seal identity, it takes them."""
    if in_memory(config):
        sender = LocalSender(config.node.data_dir)
        return lambda dataset, head: _by_the_receiver(sender, dataset, head)
    accept = make_intake(config)

    def give(dataset: memoryview, head: dict[str, Any]) -> Receipt | EdgeNodeError:
        [outcome] = accept([IdentifiedInstance(Memory(dataset), **head)])
        return outcome

    return give


def _by_the_receiver(sender: LocalSender, dataset: memoryview, head: dict[str, Any]) -> Receipt:
    """Raises as `LocalSender.give`."""
    words = ("transfer_syntax", "sop_class", "sop_instance", "calling_ae", "called_ae", "peer")
    with nameless_memory() as memory:
        while dataset:
            dataset = dataset[os.write(memory, dataset) :]
        return sender.give(Offer(**{word: head[word] for word in words}, memory=memory))


def discard(config: Config, items: list[str]) -> int:
    """Destroy held objects for good; returns how many were still there."""
    return close_all(open_node(config, Role.DICOM).database, items, "DISCARDED", f"{config.node.name}/admin")
