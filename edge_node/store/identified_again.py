"""The identity of what is received again after retention destroyed it: sealed anew, and destroyed anew.

A result can only go back under the identity it came with: whoever sends a study again gives that back, for as long as
the identity of a study is kept after its write-back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from edge_node.domain.study import KeyClass, TaskState
from edge_node.store import audit
from edge_node.store.keyring import Keyring
from edge_node.store.receipt import Clean
from edge_node.store.seal import seal
from edge_node.store.tables import envelope, study, task

_STUDY = ""  # stands for the study's own envelope


def lacking(connection: Connection, batch: Iterable[Clean]) -> dict[tuple[str, str], str]:
    """What to seal by study key and SOP Instance UID ("" the study's own): envelopes of these that are gone."""
    wanted = {}
    for one in batch:
        wanted[one.study_key, _STUDY] = one.what.identity.study
        wanted[one.study_key, one.uid] = one.what.identity.instance
    keys, uids = {key for key, _ in wanted}, {uid for _, uid in wanted}
    there = select(envelope.c.study_key, envelope.c.sop_uid).where(
        envelope.c.study_key.in_(keys), envelope.c.sop_uid.in_(uids)
    )
    kept = {(row.study_key, row.sop_uid) for row in connection.execute(there)} if wanted else set()
    return {place: text for place, text in wanted.items() if place not in kept}


def seal_again(connection: Connection, keyring: Keyring, batch: Iterable[Clean], *, keep_s: float, actor: str) -> None:
    """Seal what is `lacking`, and see to it that it is destroyed `keep_s` seconds from now if nothing else does."""
    texts, count = lacking(connection, batch), dict[str, int]()
    for (study_key, uid), text in texts.items():
        key = keyring.obtain_in(connection, study_key, KeyClass.ENVELOPE)
        sealed = seal(key.secret, text.encode(), f"envelope {study_key} {uid}")
        row = {"study_key": study_key, "sop_uid": uid, "key_id": key.key_id, "sealed": sealed}
        connection.execute(insert(envelope).values(**row))
        count[study_key] = count.get(study_key, 0) + bool(uid)
    for study_key, instances in count.items():
        current = select(study.c.revision).where(study.c.study_key == study_key).scalar_subquery()
        # Where it was not destroyed for this revision yet, the row is still to come, or due already.
        connection.execute(
            update(task)
            .where(
                task.c.study_key == study_key,
                task.c.revision == current,
                task.c.step == "purge",
                task.c.target == "envelope",
                task.c.state == TaskState.DONE,
            )
            .values(state=TaskState.READY, not_before=time.time() + keep_s, attempts=0, failures=0, finished_at=None)
        )
        audit.append(connection, actor, "study.identified-again", study_key, {"instances": instances})
