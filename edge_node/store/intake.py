"""Commit of received instances: clean object, identity envelope, study row and audit entry in one transaction."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, insert, select, update

from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import Deidentified, IdentifiedInstance, KeyClass, RecipeId, StudyState
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.escrow import Escrow
from edge_node.store.keyring import Keyring, key_exists
from edge_node.store.seal import seal
from edge_node.store.spool import SpoolWriter
from edge_node.store.tables import envelope, instance, quarantine, study


class Received(StrEnum):
    """What became of a received instance; every one of them may be acknowledged with Success."""

    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    QUARANTINED = "QUARANTINED"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The durable fact behind a Success: what was done, under which study key, with which stable code."""

    received: Received
    study_key: str
    code: str = ""


class Conflict(Exception):
    """The same SOP Instance UID is already kept with other content."""


class OtherRecipe(Conflict):
    """The same SOP Instance UID is already kept as another recipe made it; with the same content or not."""


class OtherPseudonyms(Conflict):
    """The study is already kept under the pseudonyms of another trial: this instance would be a second study."""


class IntakeStore:
    """Writes what the receiver accepted; one per worker process."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        spool: SpoolWriter,
        *,
        actor: str,
        quarantine_s: float,
        escrow: Escrow | None = None,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._spool = spool
        self._actor = actor
        self._quarantine_s = quarantine_s
        self._escrow = escrow

    def known(self, clean: Deidentified) -> bool:
        """Whether this very instance is already kept. Raises Conflict when it, or its study, is kept otherwise."""
        with self._database.read() as connection:
            _check_trial(connection, clean)
            return _known(connection, clean)

    def has_study(self, study_key: str) -> bool:
        """Whether the ledger knows the study, in whatever state."""
        with self._database.read() as connection:
            return connection.execute(select(study.c.state).where(study.c.study_key == study_key)).first() is not None

    def record(self, clean: Deidentified, *, calling_ae: str, received_at: float) -> Receipt:
        """Seal, sync and commit one clean object with its identity envelope and, where there is escrow, its record.

        When this returns, the instance survives kill -9 and power cut. Raises Conflict when the same SOP Instance
        UID is kept with other content, OtherRecipe when as another recipe made it, OtherPseudonyms when its study is
        kept for another trial, Retry when disk or ledger cannot take it now.
        """
        one = clean.instance
        for _ in range(3):  # a data key may be destroyed by retention between opening and committing: begin again
            if self.known(clean):
                self._complete_escrow(clean)
                return Receipt(Received.DUPLICATE, one.study_key)
            clean_key = self._keyring.obtain(one.study_key, KeyClass.CLEAN)
            vault_key = self._keyring.obtain(one.study_key, KeyClass.ENVELOPE)
            place = self._spool.append(seal(clean_key.secret, one.part10, f"clean {one.study_key} {one.sop_uid}"))
            sealed_study = seal(vault_key.secret, clean.identity.study.encode(), f"envelope {one.study_key} ")
            sealed_instance = seal(
                vault_key.secret, clean.identity.instance.encode(), f"envelope {one.study_key} {one.sop_uid}"
            )
            with self._database.write() as connection:
                if not (key_exists(connection, clean_key.key_id) and key_exists(connection, vault_key.key_id)):
                    self._keyring.forget(clean_key.key_id)
                    self._keyring.forget(vault_key.key_id)
                    continue
                if _known(connection, clean):
                    return Receipt(Received.DUPLICATE, one.study_key)
                if self._escrow is not None:
                    self._escrow.write(connection, clean)
                revision = self._touch_study(connection, clean, calling_ae, received_at)
                connection.execute(
                    insert(instance).values(
                        sop_uid=one.sop_uid,
                        study_key=one.study_key,
                        series_uid=one.series_uid,
                        sop_class=one.sop_class,
                        transfer_syntax=one.transfer_syntax,
                        modality=one.modality,
                        pixel_risk=one.pixel_risk,
                        revision=revision,
                        source_digest=clean.source_digest,
                        sha256=one.sha256,
                        size=len(one.part10),
                        key_id=clean_key.key_id,
                        segment=place.segment,
                        offset=place.offset,
                        length=place.length,
                        kept=True,
                        recipe_sha256=one.recipe.sha256,
                        received_at=received_at,
                    )
                )
                own = select(envelope.c.study_key).where(
                    envelope.c.study_key == one.study_key, envelope.c.sop_uid == ""
                )
                if connection.execute(own).first() is None:
                    connection.execute(
                        insert(envelope).values(
                            study_key=one.study_key, sop_uid="", key_id=vault_key.key_id, sealed=sealed_study
                        )
                    )
                connection.execute(
                    insert(envelope).values(
                        study_key=one.study_key, sop_uid=one.sop_uid, key_id=vault_key.key_id, sealed=sealed_instance
                    )
                )
            return Receipt(Received.STORED, one.study_key)
        raise EdgeNodeError("store.key-churn", "data keys of a study were destroyed three times while it was received")

    def _complete_escrow(self, clean: Deidentified) -> None:
        """A study from before escrow was on gets its record with the next instance that is acknowledged, even if it is
        one that was here before."""
        if self._escrow is None:
            return
        with self._database.read() as connection:
            missing = self._escrow.missing(connection, clean)
        if missing:
            with self._database.write() as connection:
                self._escrow.write(connection, clean)

    def _touch_study(self, connection: Connection, clean: Deidentified, calling_ae: str, received_at: float) -> int:
        """Open the study, or extend it; a late instance reopens it as the next revision. Returns the revision."""
        one = clean.instance
        row = connection.execute(select(study).where(study.c.study_key == one.study_key)).one_or_none()
        if row is None:
            connection.execute(
                insert(study).values(
                    study_key=one.study_key,
                    study_uid=one.study_uid,
                    patient_key=one.patient_key,
                    state=StudyState.RECEIVING,
                    revision=1,
                    complete=False,
                    modalities=one.modality,
                    body_part=one.body_part,
                    order_priority=one.order_priority,
                    calling_ae=calling_ae,
                    recipe=one.recipe.name,
                    recipe_sha256=one.recipe.sha256,
                    trial=one.recipe.trial,
                    instances=1,
                    bytes=len(one.part10),
                    first_received_at=received_at,
                    opened_at=received_at,
                    last_received_at=received_at,
                    site_key_id=clean.derivation.key_id,
                )
            )
            audit.append(
                connection,
                self._actor,
                "study.opened",
                one.study_key,
                {
                    "from": calling_ae,
                    "modality": one.modality,
                    "site_key": clean.derivation.key_id,
                    **_told(one.recipe),
                },
            )
            return 1
        if (row.trial, row.study_uid) != (one.recipe.trial, one.study_uid):
            raise OtherPseudonyms  # another worker was quicker
        reopened = row.state != StudyState.RECEIVING
        revision = int(row.revision) + (1 if reopened else 0)
        changes: dict[str, object] = {
            "revision": revision,
            "modalities": ",".join(sorted({*row.modalities.split(","), one.modality} - {""})),
            "body_part": row.body_part or one.body_part,
            "order_priority": row.order_priority or one.order_priority,
            "instances": row.instances + 1,
            "bytes": row.bytes + len(one.part10),
            "last_received_at": received_at,
        }
        if reopened:
            changes |= {"state": StudyState.RECEIVING, "complete": False, "opened_at": received_at}
            audit.append(
                connection, self._actor, "study.reopened", one.study_key, {"revision": revision, "was": row.state}
            )
        connection.execute(update(study).where(study.c.study_key == one.study_key).values(**changes))
        if one.recipe.sha256 != row.recipe_sha256 and not _used(connection, one.study_key, one.recipe.sha256):
            detail = {"from": calling_ae, "modality": one.modality, **_told(one.recipe)}
            audit.append(connection, self._actor, "study.recipe", one.study_key, detail)
        return revision

    def quarantine(
        self, received: IdentifiedInstance, source_digest: str, error: EdgeNodeError, study_key: str | None
    ) -> Receipt:
        """Seal the object as received, under a key of its own: never dropped, never in the clear."""
        with self._database.read() as connection:
            held = connection.execute(
                select(quarantine.c.item).where(
                    quarantine.c.source_digest == source_digest, quarantine.c.state == "HELD"
                )
            ).first()
        if held is not None:
            return Receipt(Received.DUPLICATE, study_key or "", error.code)
        item = "Q" + secrets.token_hex(5).upper()
        key = self._keyring.obtain(item, KeyClass.QUARANTINE)
        head = json.dumps(
            {
                "transfer_syntax": received.transfer_syntax,
                "sop_class": received.sop_class,
                "sop_instance": received.sop_instance,
                "calling_ae": received.calling_ae,
                "called_ae": received.called_ae,
                "peer": received.peer,
                "received_at": received.received_at,
            }
        ).encode()
        body = len(head).to_bytes(4, "big") + head + received.dataset
        place = self._spool.append(seal(key.secret, body, f"quarantine {item}"))
        now = time.time()
        with self._database.write() as connection:
            connection.execute(
                insert(quarantine).values(
                    item=item,
                    study_key=study_key,
                    state="HELD",
                    code=error.code,
                    message=error.message,
                    calling_ae=received.calling_ae,
                    source_digest=source_digest,
                    size=len(received.dataset),
                    key_id=key.key_id,
                    segment=place.segment,
                    offset=place.offset,
                    length=place.length,
                    received_at=received.received_at,
                    expires_at=now + self._quarantine_s,
                )
            )
            audit.append(
                connection,
                self._actor,
                "instance.quarantined",
                study_key or "",
                {"item": item, "code": error.code, "from": received.calling_ae},
            )
        return Receipt(Received.QUARANTINED, study_key or "", error.code)


def _known(connection: Connection, clean: Deidentified) -> bool:
    """Whether the instance is kept as it is. The first one stays in force whatever comes later under its name."""
    one = clean.instance
    row = connection.execute(
        select(instance.c.source_digest, instance.c.recipe_sha256).where(instance.c.sop_uid == one.sop_uid)
    ).one_or_none()
    if row is None:
        return False
    if row.source_digest != clean.source_digest:
        raise Conflict if row.recipe_sha256 == one.recipe.sha256 else OtherRecipe
    return True


def _check_trial(connection: Connection, clean: Deidentified) -> None:
    """A study has one trial's pseudonyms: a copy under those of another could be joined to it by its pixels."""
    one = clean.instance
    query = select(study.c.trial, study.c.study_uid).where(study.c.study_key == one.study_key)
    kept = connection.execute(query).one_or_none()
    if kept is not None and (kept.trial, kept.study_uid) != (one.recipe.trial, one.study_uid):
        raise OtherPseudonyms


def _used(connection: Connection, study_key: str, recipe_sha256: str) -> bool:
    rows = select(instance.c.sop_uid).where(
        instance.c.study_key == study_key, instance.c.recipe_sha256 == recipe_sha256
    )
    return connection.execute(rows.limit(1)).first() is not None


def _told(recipe: RecipeId) -> dict[str, str]:
    """The recipe as the audit names it."""
    return {"recipe": recipe.sha256, "name": recipe.name} | ({"trial": recipe.trial} if recipe.trial else {})
