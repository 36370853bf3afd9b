"""Data keys: one per study and class (and per quarantined item), wrapped by the node key of the class.

Deleting the wrapped key is the deletion that counts: whatever ciphertext is left anywhere never opens again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.study import KeyClass
from edge_node.store.database import Database
from edge_node.store.prepared import Prepared
from edge_node.store.seal import new_key, seal, unseal
from edge_node.store.tables import data_key, setting

# The name of the node key (a file or systemd credential) that wraps the data keys of a class.
NODE_KEY = {KeyClass.CLEAN: "clean", KeyClass.ENVELOPE: "vault", KeyClass.QUARANTINE: "quarantine"}
LIFE = "identity.life"  # setting: the run of the dicom role whose memory holds the vault key
_EXISTING = Prepared(select(data_key.c.key_id).where(data_key.c.key_id == bindparam("key_id")))


@dataclass(frozen=True, slots=True)
class DataKey:
    """An opened data key; `key_id` is what rows sealed under it carry."""

    key_id: str
    secret: bytes = field(repr=False)


class Keyring:
    """Opens and makes data keys with the node keys of this role: a class without its node key stays shut.

    `old_keys` are node keys on their way out (a rotation that was cut short): they open, but wrap nothing any more.
    `guard` is held as long as the keys are in use. `life` names the run of the dicom role that holds the vault key in
    memory, where there is no such node key: what is left of an earlier run makes no data keys that nobody could open.
    """

    def __init__(
        self,
        database: Database,
        node_keys: Mapping[str, bytes],
        *,
        old_keys: Mapping[str, bytes] | None = None,
        guard: object = None,
        life: str = "",
    ) -> None:
        self._database = database
        self._node_keys = dict(node_keys)
        self._old_keys = dict(old_keys or {})
        self._guard = guard
        self._life = life
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
            if self._life and key_class is KeyClass.ENVELOPE:
                self._check_life(connection)
            fresh, key_id = new_key(), secrets.token_hex(8)
            wrapped = seal(self._node_key(key_class), fresh, f"key {key_id} {owner} {key_class}")
            connection.execute(
                insert(data_key).values(
                    **{"key_id": key_id, "owner": owner, "class": str(key_class), "wrapped": wrapped}
                )
            )
            row = (key_id, wrapped)
        return self._unwrap(*row, owner, key_class)

    def _check_life(self, connection: Connection) -> None:
        if connection.execute(select(setting.c.value).where(setting.c.name == LIFE)).scalar() != self._life:
            raise Retry("identity.restarted", "the dicom role was started again, and this process is of its last run")

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
            keys = [self._node_key(key_class), self._old_keys.get(NODE_KEY[key_class])]
            secret, _ = _unwrapped(wrapped, f"key {key_id} {owner} {key_class}", keys)
            if len(self._open) > 4096:
                self._open.clear()
            cached = self._open[key_id] = DataKey(key_id, secret)
        return cached

    def forget(self, key_id: str) -> None:
        """Drop an opened key from memory."""
        self._open.pop(key_id, None)


def _unwrapped(wrapped: bytes, context: str, keys: Sequence[bytes | None]) -> tuple[bytes, int]:
    """The data key and the number of the node key that opened it. Raises Quarantine("store.seal-broken")."""
    *first, last = [(number, key) for number, key in enumerate(keys) if key is not None]
    for number, key in first:
        with suppress(Quarantine):
            return unseal(key, wrapped, context), number
    return unseal(last[1], wrapped, context), last[0]


def wrapped_keys(connection: Connection) -> dict[str, int]:
    """{name of a node key: how many data keys it wraps}."""
    counts = connection.execute(select(data_key.c["class"], func.count()).group_by(data_key.c["class"]))
    return {NODE_KEY[KeyClass(key_class)]: int(count) for key_class, count in counts}


def rewrap(connection: Connection, name: str, new: bytes, old: bytes) -> int:
    """Wrap every data key under the node key `name` anew, in the caller's transaction; returns how many were changed.

    Data keys stay what they are, so nothing sealed with them is touched. May be repeated: what `new` wraps already
    stays. Raises Stop("keys.unopened") when a data key opens with neither; the transaction must not commit then.
    """
    changed = 0
    classes = [str(key_class) for key_class, key_name in NODE_KEY.items() if key_name == name]
    for row in connection.execute(select(data_key).where(data_key.c["class"].in_(classes))).all():
        context = f"key {row.key_id} {row.owner} {row._mapping['class']}"
        try:
            secret, by = _unwrapped(row.wrapped, context, [new, old])
        except Quarantine:
            raise Stop(
                "keys.unopened",
                f"the data key of {row.owner} opens with neither the new nor the old {name} key; nothing was changed",
                study=row.owner,
                hint="restore the right key file from your backup, then rotate again",
            ) from None
        if by:
            sealed = seal(new, secret, context)
            connection.execute(update(data_key).where(data_key.c.key_id == row.key_id).values(wrapped=sealed))
            changed += 1
    return changed


def keys_that_exist(connection: Connection, key_ids: Iterable[str]) -> set[str]:
    """Those keys that were not destroyed since they were opened; asked inside the transaction that relies on them."""
    return {key_id for key_id in key_ids if _EXISTING.first(connection, key_id=key_id) is not None}


def destroy(connection: Connection, owner: str, key_class: KeyClass) -> int:
    """Crypto-shred: delete the wrapped key; returns how many keys were destroyed (0 or 1).

    The caller runs `Database.shred_journal` after the transaction.
    """
    result = connection.execute(
        delete(data_key).where(data_key.c.owner == owner, data_key.c["class"] == str(key_class))
    )
    return int(result.rowcount)
