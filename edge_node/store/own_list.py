"""The node's own reading list in the ledger: its entries, what readers did with them, and who wants to be told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import TriageResult, result_from_json
from edge_node.domain.reading_list import Entry, ReadState
from edge_node.domain.study import KeyClass
from edge_node.domain.worklist import Priority
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.keyring import Keyring
from edge_node.store.seal import unseal
from edge_node.store.tables import envelope, finding, list_state, list_subscriber, reading, study

WHOLE_LIST = ""
UidOf = Callable[[str, str, int], str]
"""UID of an entry by site key id, study key and how often the study came onto the list."""


def entries(
    connection: Connection,
    uid_of: UidOf,
    flagged_in: Callable[[TriageResult], tuple[str, ...]],
    *,
    since: float,
    finished: bool = False,
) -> list[Entry]:
    """The list in reading order: results from after `since` whose identity is not destroyed.

    `flagged_in` gives the codes of a result that may count.
    Entries that a reader has finished are left out unless they are wanted.
    """
    identity = select(envelope.c.key_id).where(envelope.c.study_key == reading.c.study_key, envelope.c.sop_uid == "")
    query = (
        select(reading, study, list_state.c.state.label("read_state"), list_state.c.lock, list_state.c.changed_at)
        .add_columns(list_state.c.number)
        .add_columns(finding.c.result)
        .join(study, study.c.study_key == reading.c.study_key)
        .outerjoin(list_state, list_state.c.study_key == reading.c.study_key)
        .outerjoin(finding, (finding.c.study_key == reading.c.study_key) & (finding.c.revision == reading.c.revision))
        .where(study.c.triaged_at >= since, identity.exists())
        .order_by(reading.c.tier, reading.c.due, study.c.first_received_at, reading.c.study_key)
    )
    made = (_entry(row, uid_of, flagged_in) for row in connection.execute(query))
    return [one for one in made if finished or not one.state.final]


def stands(state: str | None, number: int | None, changed_at: float | None, decided_at: float) -> tuple[ReadState, int]:
    """State and number of an entry: a study whose place was decided anew after a reader had finished it is read again.

    Nobody has seen the images that came since, and a finished UPS cannot be opened again (PS3.4 CC.1.1).
    """
    if state is None or number is None or changed_at is None:
        return ReadState.SCHEDULED, 1
    if ReadState(state).final and decided_at > changed_at:
        return ReadState.SCHEDULED, number + 1
    return ReadState(state), number


def _entry(row: Row[tuple[object, ...]], uid_of: UidOf, flagged_in: Callable[[TriageResult], tuple[str, ...]]) -> Entry:
    r = row._mapping
    state, number = stands(r["read_state"], r["number"], r["changed_at"], float(r["decided_at"]))
    return Entry(
        study_key=str(r[reading.c.study_key]),
        uid=uid_of(str(r["site_key_id"]), str(r[reading.c.study_key]), number),
        priority=Priority(r["tier"], r["due"], r["target_minutes"], r["level"], r["raised_by_ai"], r["reason"]),
        modalities=tuple(str(r["modalities"]).split(",")),
        body_part=str(r["body_part"]),
        flagged=flagged_in(result_from_json(str(r["result"]))) if r["result"] else (),
        arrived_at=float(r["first_received_at"]),
        ready_at=float(r["triaged_at"]),
        changed_at=max(float(r["decided_at"]), float(r["changed_at"] or 0.0)),
        state=state,
        lock="" if state is ReadState.SCHEDULED else str(r["lock"]),
        number=number,
    )


def change_state(connection: Connection, entry: Entry, state: ReadState, lock: str, *, actor: str) -> bool:
    """A reader takes an entry or is done with it; False when it is not any more what the reader saw."""
    study_key = entry.study_key
    values = {"number": entry.number, "state": str(state), "lock": lock, "changed_at": time.time()}
    decided = connection.execute(select(reading.c.decided_at).where(reading.c.study_key == study_key)).scalar()
    row = connection.execute(select(list_state).where(list_state.c.study_key == study_key)).one_or_none()
    if decided is None:
        return False
    now = stands(row.state, row.number, row.changed_at, decided) if row else stands(None, None, None, decided)
    if now != (entry.state, entry.number):
        return False
    if row is None:
        connection.execute(insert(list_state).values(study_key=study_key, **values))
    else:
        connection.execute(update(list_state).where(list_state.c.study_key == study_key).values(**values))
    audit.append(connection, actor, "list.state", study_key, {"state": str(state)})
    return True


def news(connection: Connection) -> tuple[float, float]:
    """When a place was last decided and a state last changed: as long as both stay, there is nothing to tell."""
    decided = connection.execute(select(func.max(reading.c.decided_at))).scalar()
    return float(decided or 0.0), float(connection.execute(select(func.max(list_state.c.changed_at))).scalar() or 0.0)


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who (AE title) wants to hear of which entry (UID; "" all) since when; after `until` of no new ones."""

    receiver: str
    entry: str
    since: float
    until: float | None = None


def subscribe(connection: Connection, receiver: str, entry: str) -> None:
    """Remember a subscriber; again is the same, and ends a suspension."""
    unsubscribe(connection, receiver, entry, all_of_it=False)
    connection.execute(insert(list_subscriber).values(receiver=receiver, entry=entry, since=time.time()))


def unsubscribe(connection: Connection, receiver: str, entry: str, *, all_of_it: bool) -> None:
    """Forget a subscriber of an entry, or (`all_of_it`) of the list and every entry of it."""
    one = list_subscriber.c.receiver == receiver
    connection.execute(delete(list_subscriber).where(one if all_of_it else one & (list_subscriber.c.entry == entry)))


def suspend(connection: Connection, receiver: str) -> None:
    """The subscriber of the whole list wants to hear of no further entries."""
    own = (list_subscriber.c.receiver == receiver) & (list_subscriber.c.entry == WHOLE_LIST)
    connection.execute(update(list_subscriber).where(own & list_subscriber.c.until.is_(None)).values(until=time.time()))


def subscriptions(connection: Connection) -> list[Subscription]:
    """All subscriptions."""
    rows = connection.execute(select(list_subscriber)).all()
    return [Subscription(row.receiver, row.entry, float(row.since), row.until) for row in rows]


class ListedIdentity:
    """Opens of a study's identity only what an answer shows (dicom role only: it alone holds the vault key)."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    def study(self, study_key: str) -> str:
        """The envelope of the study alone. Raises Quarantine ``vault.destroyed``."""
        with self._database.read() as connection:
            row = connection.execute(
                select(envelope).where(envelope.c.study_key == study_key, envelope.c.sop_uid == "")
            ).one_or_none()
        if row is None:
            raise Quarantine(
                "vault.destroyed", "the identity of this study was destroyed by retention", study=study_key
            )
        key = self._keyring.open(row.key_id, study_key, KeyClass.ENVELOPE)
        try:
            return unseal(key.secret, row.sealed, f"envelope {study_key} ").decode()
        finally:
            self._keyring.forget(row.key_id)  # a process that lives for months must not outlive a destroyed key
