"""Objects whose pixels were cleaned take the place of those that were received, in spool and ledger, at once.

The new bytes are sealed and synced first; the transaction that commits the step's outcome then names their place. Until
it commits the old bytes are the object; after it nothing names them, and their segment goes with its last kept object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from edge_node.domain.errors import Retry
from edge_node.domain.study import Judged, KeyClass
from edge_node.store.digest import digest_of
from edge_node.store.keyring import Keyring, keys_that_exist
from edge_node.store.seal import seal
from edge_node.store.spool import Place, SpoolWriter
from edge_node.store.tables import instance, study


@dataclass(frozen=True, slots=True)
class Staged:
    """A judgement whose new bytes lie synced in the spool, ready to be committed."""

    sop_uid: str
    old_digest: str
    changes: dict[str, object]
    key_id: str


class CleanedObjects:
    """Writes cleaned objects with the clean key (compute role); one per process."""

    def __init__(self, keyring: Keyring, spool: SpoolWriter) -> None:
        self._keyring = keyring
        self._spool = spool

    def stage(self, study_key: str, judged: Judged) -> Staged:
        """Seal and sync the new bytes. Raises Retry("spool.…") when there is no room."""
        changes: dict[str, object] = {"pixel_risk": judged.pixel_risk, "pixel_work": judged.pixel_work}
        key_id = ""
        if judged.part10 is not None:
            key = self._keyring.obtain(study_key, KeyClass.CLEAN)
            sop_uid, key_id = judged.was.sop_uid, key.key_id
            place: Place = self._spool.append(seal(key.secret, judged.part10, f"clean {study_key} {sop_uid}"))
            changes |= {
                "transfer_syntax": judged.transfer_syntax,
                "digest": digest_of(judged.part10),
                "size": len(judged.part10),
                "key_id": key_id,
                "segment": place.segment,
                "offset": place.offset,
                "length": place.length,
            }
        return Staged(judged.was.sop_uid, judged.was.digest, changes, key_id)

    def commit(self, connection: Connection, study_key: str, staged: Iterable[Staged]) -> None:
        """Put what was staged in place of what was there, in the caller's transaction.

        An object that changed meanwhile is left alone. Raises Retry("store.key-destroyed") when retention destroyed
        the study's key in between.
        """
        for one in staged:
            if one.key_id and not keys_that_exist(connection, [one.key_id]):
                self._keyring.forget(one.key_id)
                raise Retry("store.key-destroyed", "the key of the study was destroyed while its pixels were cleaned")
            connection.execute(
                update(instance)
                .where(instance.c.sop_uid == one.sop_uid, instance.c.digest == one.old_digest, instance.c.kept)
                .values(**one.changes)
            )
        size = select(func.coalesce(func.sum(instance.c.size), 0)).where(instance.c.study_key == study_key)
        connection.execute(update(study).where(study.c.study_key == study_key).values(bytes=size.scalar_subquery()))
