"""Reads and writes of the study's row and what hangs on it: settling, findings, reading order, deliveries."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Row, func, insert, select, update

from edge_node.domain.announcement import NOTHING_ANNOUNCED, Announced
from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import KeyImage, Mask, TriageResult, result_from_json, result_to_json
from edge_node.domain.order import Order
from edge_node.domain.study import CleanObject, CleanStudy, DeliveryState, KeyClass, StudyState
from edge_node.domain.worklist import Priority
from edge_node.store import announcements
from edge_node.store.database import Database
from edge_node.store.keyring import Keyring
from edge_node.store.seal import seal, unseal
from edge_node.store.spool import Place, SpoolReader
from edge_node.store.tables import delivery, envelope, finding, instance, reading, result_object, study

_MASK_SIZE = struct.Struct(">II")  # rows and columns before the bits


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A study that still receives: what came (modality and number of instances by series), what is announced."""

    study_key: str
    revision: int
    modalities: tuple[str, ...]
    opened_at: float
    last_received_at: float
    order_priority: str = ""
    series: tuple[tuple[str, int], ...] = ()
    announced: Announced = NOTHING_ANNOUNCED


def unsettled(connection: Connection, *, only: str | None = None, with_series: Iterable[str] = ()) -> list[Unsettled]:
    """All studies in RECEIVING (or the one with the key `only`); `series` is looked up for modalities `with_series`."""
    receiving = study.c.state == StudyState.RECEIVING
    condition = receiving if only is None else receiving & (study.c.study_key == only)
    wanted, found = set(with_series), []
    told_of = announcements.told_of(connection, condition)
    for row in connection.execute(select(study).where(condition)).all():
        modalities = tuple(row.modalities.split(","))
        found.append(
            Unsettled(
                row.study_key,
                row.revision,
                modalities,
                row.opened_at,
                row.last_received_at,
                str(row.order_priority),
                _series(connection, row.study_key) if wanted.intersection(modalities) else (),
                announcements.announced(connection, row.study_key, row.revision)
                if row.study_key in told_of
                else NOTHING_ANNOUNCED,
            )
        )
    return found


def untriaged(connection: Connection) -> set[str]:
    """Keys of the studies that come in, or wait to be judged."""
    waiting = study.c.state.in_((StudyState.RECEIVING, StudyState.SETTLED))
    return set(connection.execute(select(study.c.study_key).where(waiting)).scalars())


def encoded(connection: Connection, study_key: str, sop_classes: Iterable[str], native: Iterable[str]) -> set[str]:
    """SOP Instance UIDs of the kept objects of these classes that are not in a `native` transfer syntax."""
    mine = (instance.c.study_key == study_key) & instance.c.kept & instance.c.sop_class.in_(sop_classes)
    query = select(instance.c.sop_uid).where(mine, instance.c.transfer_syntax.not_in(native))
    return set(connection.execute(query).scalars())


def _series(connection: Connection, study_key: str) -> tuple[tuple[str, int], ...]:
    count = func.count().label("instances")
    rows = connection.execute(
        select(instance.c.modality, count)
        .where(instance.c.study_key == study_key)
        .group_by(instance.c.series_uid, instance.c.modality)
    )
    return tuple((str(modality), int(instances)) for modality, instances in rows)


def settle(
    connection: Connection, candidate: Unsettled, *, reason: str, complete: bool, at: float
) -> dict[str, object] | None:
    """Mark the study SETTLED unless an instance arrived meanwhile (then None).

    Returns what the audit records: instance count and a digest over every instance's UID and content hash.
    """
    changed = connection.execute(
        update(study)
        .where(
            study.c.study_key == candidate.study_key,
            study.c.state == StudyState.RECEIVING,
            study.c.last_received_at == candidate.last_received_at,
        )
        .values(state=StudyState.SETTLED, settled_at=at, settle_reason=reason, complete=complete)
    )
    if not changed.rowcount:
        return None
    digest, count = hashlib.sha256(), 0
    for row in connection.execute(
        select(instance.c.sop_uid, instance.c.digest)
        .where(instance.c.study_key == candidate.study_key)
        .order_by(instance.c.sop_uid)
    ):
        digest.update(f"{row.sop_uid} {row.digest}\n".encode())
        count += 1
    return {
        "revision": candidate.revision,
        "reason": reason,
        "complete": complete,
        "instances": count,
        "contents": digest.hexdigest(),
    }


def get(connection: Connection, study_key: str) -> Row[tuple[object, ...]]:
    """The study's row. Raises Quarantine("study.unknown")."""
    row = connection.execute(select(study).where(study.c.study_key == study_key)).one_or_none()
    if row is None:
        raise Quarantine("study.unknown", f"the ledger knows no study {study_key}", hint="edge-node study list")
    return row


def is_current(connection: Connection, study_key: str, revision: int) -> bool:
    """Whether this is the study's newest revision, and no instance is awaited."""
    row = connection.execute(
        select(study.c.revision, study.c.state).where(study.c.study_key == study_key)
    ).one_or_none()
    return row is not None and row.revision == revision and row.state != StudyState.RECEIVING


def advance(connection: Connection, study_key: str, revision: int, state: StudyState, at: float) -> bool:
    """Move the study on, unless a newer revision was opened meanwhile (then False); only what was delivered closes."""
    stamp = {
        StudyState.TRIAGED: "triaged_at",
        StudyState.DELIVERED: "delivered_at",
        StudyState.CLOSED: "closed_at",
    }.get(state)
    changed = connection.execute(
        update(study)
        .where(
            study.c.study_key == study_key,
            study.c.revision == revision,
            study.c.state == StudyState.DELIVERED
            if state is StudyState.CLOSED
            else study.c.state != StudyState.RECEIVING,
        )
        .values(state=state, **({stamp: at} if stamp else {}))
    )
    return bool(changed.rowcount)


class CleanObjects:
    """Opens clean objects and key images with the clean key (dicom, compute and forward roles)."""

    def __init__(self, database: Database, keyring: Keyring, spool: SpoolReader) -> None:
        self._database = database
        self._keyring = keyring
        self._spool = spool

    def study(self, study_key: str, sop_uids: Iterable[str] | None = None) -> CleanStudy:
        """The study with its kept objects in order of receipt; `sop_uids` narrows it."""
        with self._database.read() as connection:
            row = get(connection, study_key)
            rows = connection.execute(
                select(instance)
                .where(instance.c.study_key == study_key, instance.c.kept)
                .order_by(instance.c.received_at, instance.c.sop_uid)
            ).all()
        wanted = None if sop_uids is None else set(sop_uids)
        objects = tuple(self._object(r) for r in rows if wanted is None or r.sop_uid in wanted)
        s = row._mapping
        return CleanStudy(
            study_key, str(s["study_uid"]), int(s["revision"]), tuple(s["modalities"].split(",")), objects
        )

    def _object(self, row: Row[tuple[object, ...]]) -> CleanObject:
        r = row._mapping
        place = Place(r["segment"], r["offset"], r["length"])
        key_id, study_key, sop_uid = r["key_id"], r["study_key"], r["sop_uid"]

        def read() -> bytes:
            key = self._keyring.open(key_id, study_key, KeyClass.CLEAN)
            return unseal(key.secret, self._spool.read(place), f"clean {study_key} {sop_uid}")

        return CleanObject(
            sop_uid,
            r["series_uid"],
            r["sop_class"],
            r["transfer_syntax"],
            r["modality"],
            r["size"],
            r["digest"],
            r["pixel_risk"],
            read,
            r["pixel_work"],
            r["recipe_sha256"],
        )

    def put_finding(self, connection: Connection, study_key: str, revision: int, result: TriageResult) -> None:
        """Store the result of a triage; the key image is sealed. Replaces an earlier result of the same revision."""
        image, sealed, mask, key_id = result.key_image, None, None, ""
        if image is not None:
            key = self._keyring.obtain_in(connection, study_key, KeyClass.CLEAN)
            key_id, sealed = key.key_id, seal(key.secret, image.rgb, f"key image {study_key} {revision}")
            if image.mask is not None:
                size = _MASK_SIZE.pack(image.mask.rows, image.mask.columns)
                mask = seal(key.secret, size + image.mask.bits, f"mask {study_key} {revision}")
        connection.execute(finding.delete().where(finding.c.study_key == study_key, finding.c.revision == revision))
        connection.execute(
            insert(finding).values(
                study_key=study_key,
                revision=revision,
                result=result_to_json(result),
                key_id=key_id,
                rows=image.rows if image else None,
                columns=image.columns if image else None,
                sealed_key_image=sealed,
                sealed_mask=mask,
                at=time.time(),
            )
        )

    def finding(self, study_key: str, revision: int, *, with_image: bool = True) -> TriageResult | None:
        """The stored result, or None; the key image is left out when its key is destroyed or not wanted."""
        with self._database.read() as connection:
            row = connection.execute(
                select(finding).where(finding.c.study_key == study_key, finding.c.revision == revision)
            ).one_or_none()
        if row is None:
            return None
        image = None
        if with_image and row.sealed_key_image is not None:
            key = self._keyring.open(row.key_id, study_key, KeyClass.CLEAN)
            rgb = unseal(key.secret, row.sealed_key_image, f"key image {study_key} {revision}")
            mask = None
            if row.sealed_mask is not None:
                whole = unseal(key.secret, row.sealed_mask, f"mask {study_key} {revision}")
                rows, columns = _MASK_SIZE.unpack_from(whole)
                mask = Mask(rows, columns, whole[_MASK_SIZE.size :])
            image = KeyImage(row.rows, row.columns, rgb, mask)
        return result_from_json(row.result, image)


class Vault:
    """Opens identity envelopes (dicom role only: it alone holds the vault key)."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    def open(self, study_key: str) -> tuple[str, Mapping[str, str]]:
        """(study JSON, {pseudonymous SOP Instance UID: instance JSON}). Raises Quarantine("vault.destroyed")."""
        with self._database.read() as connection:
            rows = connection.execute(select(envelope).where(envelope.c.study_key == study_key)).all()
        own, instances = "", {}
        for row in rows:
            key = self._keyring.open(row.key_id, study_key, KeyClass.ENVELOPE)
            text = unseal(key.secret, row.sealed, f"envelope {study_key} {row.sop_uid}").decode()
            if row.sop_uid:
                instances[row.sop_uid] = text
            else:
                own = text
        if not own:
            raise Quarantine(
                "vault.destroyed",
                "the identity of this study was destroyed by retention; nothing can be written back any more",
                study=study_key,
                hint="send the study again from the PACS, then edge-node study retry STUDY",
            )
        return own, instances


def put_order(connection: Connection, study_key: str, known: Order) -> None:
    """What became known of the order behind a study; it is only ever more urgent than what was known."""
    row = get(connection, study_key)._mapping
    both = Order(str(row["order_priority"]), str(row["patient_class"])).with_(known)
    connection.execute(
        update(study)
        .where(study.c.study_key == study_key)
        .values(order_priority=both.priority, patient_class=both.patient_class)
    )


def is_placed(connection: Connection, study_key: str, revision: int) -> bool:
    """Whether this revision has its place in the reading order."""
    row = connection.execute(select(reading.c.revision).where(reading.c.study_key == study_key)).one_or_none()
    return row is not None and int(row.revision) >= revision


def found_at(connection: Connection, study_key: str, revision: int) -> float:
    """When the stored result of a revision was made, whatever came after it; 0 when there is none."""
    at = select(finding.c.at).where(finding.c.study_key == study_key, finding.c.revision == revision)
    return float(connection.execute(at).scalar() or 0.0)


def put_reading(connection: Connection, study_key: str, revision: int, priority: Priority) -> None:
    """Store the study's place in the reading order; the order of an earlier revision may rise but never fall.

    A place that is kept says so, and what would give it now; a result that comes after that of a newer revision says
    nothing unless it gives a better place.
    """
    old = connection.execute(select(reading).where(reading.c.study_key == study_key)).one_or_none()
    values = {
        "study_key": study_key,
        "revision": revision if old is None else max(revision, old.revision),
        "tier": priority.tier,
        "due": priority.due,
        "target_minutes": priority.target_minutes,
        "level": priority.level,
        "raised_by_ai": priority.raised_by_ai,
        "reason": priority.reason,
        "decided_at": time.time(),
    }
    if old is None:
        connection.execute(insert(reading).values(**values))
    elif (priority.tier, priority.due) <= (old.tier, old.due):
        connection.execute(update(reading).where(reading.c.study_key == study_key).values(**values, written_at=None))
    elif revision >= old.revision:
        kept = {"revision": revision, "reason": f"place kept from an earlier result; now: {priority.reason}"}
        connection.execute(
            update(reading).where(reading.c.study_key == study_key).values(**kept, decided_at=values["decided_at"])
        )


def get_reading(connection: Connection, study_key: str) -> Priority | None:
    """The study's place in the reading order."""
    row = connection.execute(select(reading).where(reading.c.study_key == study_key)).one_or_none()
    if row is None:
        return None
    return Priority(row.tier, row.due, row.target_minutes, row.level, row.raised_by_ai, row.reason)


def reading_written(connection: Connection, study_key: str, at: float) -> None:
    """The workitem with the current priority stands at the peer."""
    connection.execute(update(reading).where(reading.c.study_key == study_key).values(written_at=at))


def record_result(
    connection: Connection, study_key: str, revision: int, *, kind: str, target: str, uid: str, at: float
) -> None:
    """Remember a result object that a peer took (its UID is derived by keyed hash, so not PHI); idempotent."""
    key = {"study_key": study_key, "revision": revision, "kind": kind, "target": target}
    there = select(result_object.c.uid).filter_by(**key)
    if connection.execute(there).first() is None:
        connection.execute(insert(result_object).values(**key, uid=uid, at=at))


def written(connection: Connection, study_key: str, target: str) -> list[tuple[int, str, str]]:
    """(revision, kind, UID) of every result object that a writer left, by revision."""
    query = (
        select(result_object.c.revision, result_object.c.kind, result_object.c.uid)
        .where(result_object.c.study_key == study_key, result_object.c.target == target)
        .order_by(result_object.c.revision, result_object.c.kind)
    )
    return [(int(r.revision), str(r.kind), str(r.uid)) for r in connection.execute(query)]


def deliveries(connection: Connection, study_key: str, destination: str) -> dict[str, tuple[str, str]]:
    """{SOP Instance UID: (state, code)} of what was tried towards a destination."""
    rows = connection.execute(
        select(delivery).where(delivery.c.study_key == study_key, delivery.c.destination == destination)
    )
    return {r.sop_uid: (r.state, r.code) for r in rows}


def put_delivery(
    connection: Connection, study_key: str, sop_uid: str, destination: str, state: DeliveryState, code: str
) -> None:
    """Record where one instance's delivery stands; DELIVERED is final."""
    row = connection.execute(
        select(delivery.c.state).where(delivery.c.sop_uid == sop_uid, delivery.c.destination == destination)
    ).one_or_none()
    values = {"state": str(state), "code": code, "at": time.time()}
    if row is None:
        connection.execute(
            insert(delivery).values(sop_uid=sop_uid, destination=destination, study_key=study_key, **values)
        )
    elif row.state != DeliveryState.DELIVERED:
        connection.execute(
            update(delivery)
            .where(delivery.c.sop_uid == sop_uid, delivery.c.destination == destination)
            .values(**values)
        )


def counts_by_state(connection: Connection) -> dict[str, int]:
    """{study state: number of studies}."""
    rows = connection.execute(select(study.c.state, func.count()).group_by(study.c.state))
    return {str(state): int(count) for state, count in rows}


def totals(connection: Connection) -> tuple[int, int]:
    """Instances of all studies, and their bytes."""
    total = func.coalesce(func.sum(study.c.instances), 0), func.coalesce(func.sum(study.c.bytes), 0)
    instances, size = connection.execute(select(*total)).one()
    return int(instances), int(size)
