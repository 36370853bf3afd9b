"""Data keys: one per study and class (and per quarantined item), wrapped by the node key of the class.

Deleting the wrapped key is the deletion that counts: whatever ciphertext is left anywhere never opens again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, insert, select

from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import KeyClass
from edge_node.store.database import Database
from edge_node.store.seal import new_key, seal, unseal
from edge_node.store.tables import data_key

# The name of the node key (a file or systemd credential) that wraps the data keys of a class.
NODE_KEY = {KeyClass.CLEAN: "clean", KeyClass.ENVELOPE: "vault", KeyClass.QUARANTINE: "quarantine"}
_EXISTING = select(data_key.c.key_id).where(data_key.c.key_id.in_(bindparam("key_ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class DataKey:
    """An opened data key; `key_id` is what rows sealed under it carry."""

    key_id: str
    secret: bytes = field(repr=False)


class Keyring:
    """Opens and makes data keys with the node keys of this role: a class without its node key stays shut."""

    def __init__(self, database: Database, node_keys: Mapping[str, bytes]) -> None:
        self._database = database
        self._node_keys = dict(node_keys)
        self._open: dict[str, DataKey] = {}  # by key id

    def __repr__(self) -> str:
        return f"<Keyring {sorted(self._node_keys)}>"

    def _node_key(self, key_class: KeyClass) -> bytes:
        try:
            return self._node_keys[NODE_KEY[key_class]]
        except KeyError:
            raise Stop(
                "store.key-not-mine",
                f"this role holds no {NODE_KEY[key_class]} key and may not open {key_class} objects",
                exit_code=77,
            ) from None

    def obtain(self, owner: str, key_class: KeyClass) -> DataKey:
        """The data key of `owner`, made in a transaction of its own when there is none yet."""
        with self._database.read() as connection:
            row = self._row(connection, owner, key_class)
        if row is None:
            with self._database.write() as connection:
                return self.obtain_in(connection, owner, key_class)
        return self._unwrap(*row, owner, key_class)

    def obtain_in(self, connection: Connection, owner: str, key_class: KeyClass) -> DataKey:
        """As `obtain`, inside the caller's write transaction."""
        row = self._row(connection, owner, key_class)
        if row is None:
            fresh, key_id = new_key(), secrets.token_hex(8)
            wrapped = seal(self._node_key(key_class), fresh, f"key {key_id} {owner} {key_class}")
            connection.execute(
                insert(data_key).values(
                    **{"key_id": key_id, "owner": owner, "class": str(key_class), "wrapped": wrapped}
                )
            )
            row = (key_id, wrapped)
        return self._unwrap(*row, owner, key_class)

    def open(self, key_id: str, owner: str, key_class: KeyClass) -> DataKey:
        """The data key with that id. Raises Quarantine("store.key-destroyed") when it was destroyed."""
        if key_id in self._open:
            return self._open[key_id]
        with self._database.read() as connection:
            wrapped = connection.execute(select(data_key.c.wrapped).where(data_key.c.key_id == key_id)).scalar()
        if wrapped is None:
            raise Quarantine("store.key-destroyed", f"the {key_class} key was destroyed by retention", study=owner)
        return self._unwrap(key_id, wrapped, owner, key_class)

    def _row(self, connection: Connection, owner: str, key_class: KeyClass) -> tuple[str, bytes] | None:
        row = connection.execute(
            select(data_key.c.key_id, data_key.c.wrapped).where(
                data_key.c.owner == owner, data_key.c["class"] == str(key_class)
            )
        ).one_or_none()
        return (row.key_id, row.wrapped) if row else None

    def _unwrap(self, key_id: str, wrapped: bytes, owner: str, key_class: KeyClass) -> DataKey:
        cached = self._open.get(key_id)
        if cached is None:
            secret = unseal(self._node_key(key_class), wrapped, f"key {key_id} {owner} {key_class}")
            if len(self._open) > 4096:
                self._open.clear()
            cached = self._open[key_id] = DataKey(key_id, secret)
        return cached

    def forget(self, key_id: str) -> None:
        """Drop an opened key from memory."""
        self._open.pop(key_id, None)


def keys_that_exist(connection: Connection, key_ids: Iterable[str]) -> set[str]:
    """Those keys that were not destroyed since they were opened; asked inside the transaction that relies on them."""
    return set(connection.execute(_EXISTING, {"key_ids": list(key_ids)}).scalars())


def destroy(connection: Connection, owner: str, key_class: KeyClass) -> int:
    """Crypto-shred: delete the wrapped key; returns how many keys were destroyed (0 or 1).

    The caller runs `Database.shred_journal` after the transaction.
    """
    result = connection.execute(
        delete(data_key).where(data_key.c.owner == owner, data_key.c["class"] == str(key_class))
    )
    return int(result.rowcount)
