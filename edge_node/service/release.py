"""Release from quarantine: open the sealed object in memory and send it through the same door again."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from sqlalchemy import select

from edge_node.config.schema import Config
from edge_node.domain.body import Memory
from edge_node.domain.errors import EdgeNodeError, Quarantine
from edge_node.domain.study import IdentifiedInstance, KeyClass, Role
from edge_node.receive.local import LocalSender, Offer, nameless_memory
from edge_node.service.node import open_node, spool_path
from edge_node.service.roles import make_intake
from edge_node.service.vault_key import in_memory
from edge_node.store.receipt import Receipt, Received
from edge_node.store.retention import close_quarantine
from edge_node.store.seal import unseal
from edge_node.store.spool import Place, SpoolReader
from edge_node.store.tables import quarantine


def is_quarantined(item: str) -> bool:
    """Whether this names a quarantined object (Q and ten hexadecimal digits), not a study."""
    return re.fullmatch(r"Q[0-9A-F]{10}", item) is not None


def release_item(config: Config, item: str) -> Receipt:
    """De-identify the held object again; when it passes, it joins its study and the quarantined copy is destroyed.

    Raises Quarantine("quarantine.unknown") when nothing is held under that name, and Quarantine with the reason
    when it still cannot be de-identified (it stays held then).
    """
    node = open_node(config, Role.DICOM)
    with node.database.read() as connection:
        row = connection.execute(
            select(quarantine).where(quarantine.c.item == item, quarantine.c.state == "HELD")
        ).one_or_none()
    if row is None:
        raise Quarantine("quarantine.unknown", f"nothing is held as {item}", hint="edge-node status")
    key = node.keyring.open(row.key_id, item, KeyClass.QUARANTINE)
    sealed = SpoolReader(spool_path(config)).read(Place(row.segment, row.offset, row.length))
    body = unseal(key.secret, sealed, f"quarantine {item}")
    size = int.from_bytes(body[:4], "big")
    head = json.loads(body[4 : 4 + size])
    dataset = memoryview(body)[4 + size :]
    if in_memory(config):
        receipt: Receipt | EdgeNodeError = _by_the_receiver(config, dataset, head)
    else:
        [receipt] = make_intake(config)([IdentifiedInstance(Memory(dataset), **head)])
    if isinstance(receipt, EdgeNodeError):
        raise receipt
    if receipt.received is not Received.STORED:
        raise Quarantine(
            receipt.code or row.code,
            f"{item} is still held: {row.message}",
            hint="change the recipe or update edge-node, then release again; or `edge-node study discard`",
        )
    with node.database.write() as connection:
        close_quarantine(connection, item, "RELEASED", f"{config.node.name}/admin")
    node.database.shred_journal()
    return receipt


def _by_the_receiver(config: Config, dataset: memoryview, head: dict[str, Any]) -> Receipt:
    """Where only the running dicom role can seal identity, it takes the object in. Raises as `LocalSender.give`."""
    words = ("transfer_syntax", "sop_class", "sop_instance", "calling_ae", "called_ae", "peer")
    with nameless_memory() as memory:
        while dataset:
            dataset = dataset[os.write(memory, dataset) :]
        return LocalSender(config.node.data_dir).give(Offer(**{word: head[word] for word in words}, memory=memory))
