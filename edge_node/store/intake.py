"""Commit of received instances: clean object, identity envelope, study row and audit entry in one transaction."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from edge_node.domain.body import Body, Slice
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import Deidentified, IdentifiedInstance, KeyClass, StudyState
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.digest import Digest
from edge_node.store.escrow import Escrow
from edge_node.store.identified_again import lacking, seal_again
from edge_node.store.keyring import DataKey, Keyring, keys_that_exist
from edge_node.store.prepared import Prepared
from edge_node.store.receipt import Answer, Clean, Conflict, OtherPseudonyms, OtherRecipe, Receipt, Received
from edge_node.store.renewal import Renewal
from edge_node.store.reopening import reopen, reopen_priors
from edge_node.store.seal import seal, seal_body, sealed_length
from edge_node.store.spool import Place, Sealed, SpoolWriter
from edge_node.store.tables import envelope, instance, quarantine, study


@dataclass(frozen=True, slots=True)
class _Kept:
    """A sealed and synced object with the keys of its study and its place in the spool."""

    clean: Clean
    clean_key: DataKey
    vault_key: DataKey
    place: Place
    digest: str


MOST_KEYS = 512
_KNOWN = Prepared(
    select(instance.c.source_digest, instance.c.recipe_sha256).where(instance.c.sop_uid == bindparam("sop_uid"))
)
_TRIAL = Prepared(select(study.c.trial, study.c.study_uid).where(study.c.study_key == bindparam("study_key")))
_STUDY = Prepared(select(study).where(study.c.study_key == bindparam("study_key")))
_ENVELOPE = Prepared(
    select(envelope.c.study_key).where(
        envelope.c.study_key == bindparam("study_key"), envelope.c.sop_uid == bindparam("sop_uid")
    )
)
_INSERT_INSTANCE = Prepared(insert(instance))
_INSERT_ENVELOPE = Prepared(insert(envelope))
_EXTEND = Prepared(
    update(study).where(study.c.study_key == bindparam("key")),
    *("modalities", "body_part", "order_priority", "instances", "bytes", "last_received_at"),
)


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
        envelope_s: float,
        escrow: Escrow | None = None,
        renewal: Renewal | None = None,
    ) -> None:
        """`quarantine_s` is how long what cannot be de-identified is held, `envelope_s` how long identity that came
        again after it was destroyed, in seconds."""
        self._database = database
        self._keyring = keyring
        self._spool = spool
        self._actor = actor
        self._quarantine_s = quarantine_s
        self._envelope_s = envelope_s
        self._escrow = escrow
        self._renewal = renewal
        self._keys: dict[str, tuple[DataKey, DataKey]] = {}

    def has_study(self, study_key: str) -> bool:
        """Whether the ledger knows the study, in whatever state."""
        with self._database.read() as connection:
            return _STUDY.first(connection, study_key=study_key) is not None

    def record(self, clean: Deidentified, *, calling_ae: str, received_at: float) -> Receipt:
        """`record_all` for one object. Raises the Conflict that it answers."""
        [answer] = self.record_all([Clean(clean, calling_ae, received_at)])
        if isinstance(answer, Conflict):
            raise answer
        return answer

    def record_all(self, batch: Sequence[Clean]) -> list[Answer]:
        """Seal, sync and commit clean objects with their identity envelopes and, where there is escrow, their records.

        One sync and one commit for all; when this returns, they survive kill -9 and power cut. An answer for each, in
        order: a Receipt; or a Conflict when the same SOP Instance UID is kept with other content, OtherRecipe when as
        another recipe made it, OtherPseudonyms when its study is kept for another trial. Raises Retry when disk or
        ledger cannot take them now.
        """
        for _ in range(3):  # a data key may be destroyed by retention between opening and committing: begin again
            with self._database.read() as connection:
                answers = self.answers(connection, batch)
            new = {one.uid for one, answer in zip(batch, answers, strict=True) if answer is None}
            told = zip(batch, answers, strict=True)
            known = [one for one, answer in told if isinstance(answer, Receipt) and one.uid not in new]
            if self._renewal is not None:
                answers = self._renewal.renew(batch, answers)
            self._complete_escrow(known)
            self._complete_identity(known)
            reopen_priors(self._database, self._actor, known)
            fresh = [number for number, answer in enumerate(answers) if answer is None]
            sealed = self._seal([batch[number] for number in fresh]) if fresh else []
            if sealed:
                with self._database.write() as connection:
                    if self._lost_keys(connection, sealed):
                        continue
                    # another worker may have been quicker
                    again = self.answers(connection, [one.clean for one in sealed])
                    self._insert(connection, [one for one, answer in zip(sealed, again, strict=True) if answer is None])
                for number, answer in zip(fresh, again, strict=True):
                    answers[number] = answer
            stored = (Receipt(Received.STORED, one.study_key) for one in batch)
            return [answer or receipt for answer, receipt in zip(answers, stored, strict=True)]
        raise EdgeNodeError("store.key-churn", "data keys of a study were destroyed three times while it was received")

    def _complete_escrow(self, duplicates: Iterable[Clean]) -> None:
        """A study from before escrow was on gets its record with the next instance that is acknowledged, even if it is
        one that was here before."""
        if self._escrow is None:
            return
        for one in duplicates:
            with self._database.read() as connection:
                missing = self._escrow.missing(connection, one.what)
            if missing:
                with self._database.write() as connection:
                    self._escrow.write(connection, one.what)

    def _complete_identity(self, duplicates: Sequence[Clean]) -> None:
        """What was destroyed of the identity of a study comes back with the instances that are sent again."""
        if not duplicates:
            return
        with self._database.read() as connection:
            gone = bool(lacking(connection, duplicates))
        if gone:
            with self._database.write() as connection:
                seal_again(connection, self._keyring, duplicates, keep_s=self._envelope_s, actor=self._actor)

    def answers(self, connection: Connection, batch: Sequence[Clean]) -> list[Answer | None]:
        """A Receipt for a duplicate, a Conflict, or None for what is new.

        The first one stays in force whatever comes later under its name, and a study has one trial's pseudonyms: a
        copy under those of another could be joined to it by its pixels.
        """
        kept = {one.uid: _KNOWN.first(connection, sop_uid=one.uid) for one in batch}
        trials = {key: _TRIAL.first(connection, study_key=key) for key in {one.study_key for one in batch}}
        answers: list[Answer | None] = []
        for one in batch:
            what = one.what.instance
            trial, mine = (what.recipe.trial, what.study_uid), (one.what.source_digest, what.recipe.sha256)
            if (trials[one.study_key] or trial) != trial:
                answers.append(OtherPseudonyms())
                continue
            trials[one.study_key] = trial
            known = kept[one.uid]
            answers.append(None if known is None else _answer(one, *known))
            kept[one.uid] = known or mine
        return answers

    def _seal(self, batch: Sequence[Clean]) -> list[_Kept]:
        """Seal and sync the objects under their studies' keys; no row names them yet."""
        pairs = [self._keys_of(one.study_key) for one in batch]
        objects, digests = [], []
        for one, (key, _) in zip(batch, pairs, strict=True):
            body, digest = one.what.instance.body, Digest()
            chunks = seal_body(key.secret, body, f"clean {one.study_key} {one.uid}", digest.update)
            objects.append(Sealed(sealed_length(body.size), chunks))
            digests.append(digest)
        places = self._spool.append_all(objects)
        texts = [digest.text for digest in digests]
        return [_Kept(*parts) for parts in zip(batch, *zip(*pairs, strict=True), places, texts, strict=True)]

    def _keys_of(self, study_key: str) -> tuple[DataKey, DataKey]:
        keys = self._keys.get(study_key)
        if keys is None:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            keys = self._keys[study_key] = (
                self._keyring.obtain(study_key, KeyClass.CLEAN),
                self._keyring.obtain(study_key, KeyClass.ENVELOPE),
            )
        return keys

    def _lost_keys(self, connection: Connection, sealed: Sequence[_Kept]) -> bool:
        """Whether a key was destroyed since it was opened; those are forgotten."""
        wanted = {key.key_id for one in sealed for key in (one.clean_key, one.vault_key)}
        lost = wanted - keys_that_exist(connection, wanted)
        if lost:
            self._keys.clear()
            for key_id in lost:
                self._keyring.forget(key_id)
        return bool(lost)

    def _insert(self, connection: Connection, batch: Sequence[_Kept]) -> None:
        instances, envelopes = [], []
        studies: dict[str, list[_Kept]] = {}
        for one in batch:
            studies.setdefault(one.clean.study_key, []).append(one)
        for study_key, members in studies.items():
            if self._escrow is not None:
                for one in members:
                    self._escrow.write(connection, one.clean.what)
            revision = self._touch_study(connection, [one.clean for one in members])
            first = members[0] if self._renewal is None else self._renewal.speaks_for(connection, members)
            if first is not None and _ENVELOPE.first(connection, study_key=study_key, sop_uid="") is None:
                sealed = seal(
                    first.vault_key.secret, first.clean.what.identity.study.encode(), f"envelope {study_key} "
                )
                envelopes.append(
                    {"study_key": study_key, "sop_uid": "", "key_id": first.vault_key.key_id, "sealed": sealed}
                )
            for one in members:
                instances.append(_instance_row(one, revision))
                text, context = one.clean.what.identity.instance.encode(), f"envelope {study_key} {one.clean.uid}"
                envelopes.append(
                    {
                        "study_key": study_key,
                        "sop_uid": one.clean.uid,
                        "key_id": one.vault_key.key_id,
                        "sealed": seal(one.vault_key.secret, text, context),
                    }
                )
        if instances:
            _INSERT_INSTANCE.run_all(connection, instances)
            _INSERT_ENVELOPE.run_all(connection, envelopes)

    def _touch_study(self, connection: Connection, batch: Sequence[Clean]) -> int:
        """Open the study, or extend it; a late instance reopens it as the next revision. Returns the revision."""
        first, size = batch[0].what.instance, sum(one.what.instance.body.size for one in batch)
        modalities = {one.what.instance.modality for one in batch}
        came = [one.received_at for one in batch]
        row = _STUDY.first(connection, study_key=first.study_key)
        if row is None:
            connection.execute(
                insert(study).values(
                    study_key=first.study_key,
                    study_uid=first.study_uid,
                    patient_key=first.patient_key,
                    state=StudyState.RECEIVING,
                    revision=1,
                    complete=False,
                    modalities=_joined(modalities),
                    body_part=next(filter(None, (one.what.instance.body_part for one in batch)), ""),
                    order_priority=next(filter(None, (one.what.instance.order_priority for one in batch)), ""),
                    calling_ae=batch[0].calling_ae,
                    recipe=first.recipe.name,
                    recipe_sha256=first.recipe.sha256,
                    trial=first.recipe.trial,
                    instances=len(batch),
                    bytes=size,
                    first_received_at=min(came),
                    opened_at=min(came),
                    last_received_at=max(came),
                    site_key_id=batch[0].what.derivation.key_id,
                )
            )
            audit.append(
                connection,
                self._actor,
                "study.opened",
                first.study_key,
                {**_told(batch[0]), "site_key": batch[0].what.derivation.key_id},
            )
            self._tell_recipes(connection, batch, first.recipe.sha256)
            return 1
        changes: dict[str, object] = {
            "modalities": _joined({*row.modalities.split(","), *modalities}),
            "body_part": row.body_part or next(filter(None, (one.what.instance.body_part for one in batch)), ""),
            "order_priority": row.order_priority
            or next(filter(None, (one.what.instance.order_priority for one in batch)), ""),
            "instances": row.instances + len(batch),
            "bytes": row.bytes + size,
            "last_received_at": max(came),
        }
        _EXTEND.run(connection, {"key": first.study_key, **changes})
        revision = int(row.revision)
        if row.state != StudyState.RECEIVING:
            revision = reopen(connection, self._actor, row, min(came))
        self._tell_recipes(connection, batch, row.recipe_sha256)
        return revision

    def _tell_recipes(self, connection: Connection, batch: Sequence[Clean], opened_by: str) -> None:
        """One audit entry for each recipe that joins the study."""
        first_by = {one.what.instance.recipe.sha256: one for one in reversed(batch)}
        for sha256, one in first_by.items():
            if sha256 != opened_by and not _used(connection, one.study_key, sha256):
                audit.append(connection, self._actor, "study.recipe", one.study_key, _told(one))

    def quarantine(
        self,
        received: IdentifiedInstance,
        source_digest: str,
        error: EdgeNodeError,
        study_key: str | None,
        instance_key: str = "",
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
        source = received.source
        body = Body([len(head).to_bytes(4, "big") + head, Slice(source, 0, source.size)])
        sealed = Sealed(sealed_length(body.size), seal_body(key.secret, body, f"quarantine {item}"))
        [place] = self._spool.append_all([sealed])
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
                    size=source.size,
                    key_id=key.key_id,
                    segment=place.segment,
                    offset=place.offset,
                    length=place.length,
                    received_at=received.received_at,
                    expires_at=now + self._quarantine_s,
                    instance_key=instance_key,
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


def _answer(one: Clean, digest: str, recipe_sha256: str) -> Answer:
    """To an object that is kept, with that source digest and by that recipe."""
    if recipe_sha256 != one.what.instance.recipe.sha256:
        return OtherRecipe()
    return Receipt(Received.DUPLICATE, one.study_key) if digest == one.what.source_digest else Conflict()


def _used(connection: Connection, study_key: str, recipe_sha256: str) -> bool:
    rows = select(instance.c.sop_uid).where(
        instance.c.study_key == study_key, instance.c.recipe_sha256 == recipe_sha256
    )
    return connection.execute(rows.limit(1)).first() is not None


def _told(one: Clean) -> dict[str, str]:
    """What the audit says of where an instance came from and which recipe it went by."""
    recipe = one.what.instance.recipe
    told = {"from": one.calling_ae, "modality": one.what.instance.modality, "recipe": recipe.sha256}
    return told | {"name": recipe.name} | ({"trial": recipe.trial} if recipe.trial else {})


def _joined(modalities: set[str]) -> str:
    return ",".join(sorted(modalities - {""}))


def _instance_row(one: _Kept, revision: int) -> dict[str, object]:
    what, place = one.clean.what.instance, one.place
    return {
        "sop_uid": what.sop_uid,
        "study_key": what.study_key,
        "series_uid": what.series_uid,
        "sop_class": what.sop_class,
        "transfer_syntax": what.transfer_syntax,
        "modality": what.modality,
        "pixel_risk": what.pixel_risk,
        "pixel_work": "",
        "revision": revision,
        "source_digest": one.clean.what.source_digest,
        "digest": one.digest,
        "size": what.body.size,
        "key_id": one.clean_key.key_id,
        "segment": place.segment,
        "offset": place.offset,
        "length": place.length,
        "kept": True,
        "recipe_sha256": what.recipe.sha256,
        "received_at": one.clean.received_at,
        "instance_key": one.clean.what.instance_key,
    }
