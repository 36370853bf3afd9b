"""Escrow: one record a study that tells whose it is, sealed to a key that is not on the node.

The node writes records and cannot read them: the private key lies with the privacy officer. A record is the JSON object
that `record_of` makes, padded with spaces to a multiple of 256 bytes so that its length tells nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select

from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import Deidentified
from edge_node.store.seal import key_name, public_of, seal_to, unseal_with
from edge_node.store.tables import escrow, instance, study

_PADDING = 256  # bytes
_NAMES = ("Alphabetic", "Ideographic", "Phonetic")
Record = dict[str, str | int | None]


class Escrow:
    """Writes records to one X25519 public key (32 bytes)."""

    def __init__(self, public: bytes) -> None:
        self._public = public
        self.key = key_name(public)

    def missing(self, connection: Connection, clean: Deidentified) -> bool:
        """Whether the study of this instance has no record under its pseudonymous Study Instance UID yet."""
        one = clean.instance
        own = select(escrow.c.study_key).where(escrow.c.study_key == one.study_key, escrow.c.study_uid == one.study_uid)
        return connection.execute(own).first() is None

    def write(self, connection: Connection, clean: Deidentified) -> None:
        """Seal and insert the record if it is missing, in the transaction that makes the instance durable."""
        if not self.missing(connection, clean):
            return
        one, made = clean.instance, clean.derivation
        record = record_of(
            clean.identity.study, study_uid=one.study_uid, label=made.label, key_id=made.key_id, shift=made.shift_days
        )
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        plain = text.ljust(-(-len(text) // _PADDING) * _PADDING)
        connection.execute(
            insert(escrow).values(
                study_key=one.study_key,
                study_uid=one.study_uid,
                patient=made.patient,
                label=made.label,
                site_key_id=made.key_id,
                escrow_key=self.key,
                sealed=seal_to(self._public, plain, _context(one.study_key, one.study_uid)),
                made_at=time.time(),
            )
        )


def record_of(envelope: str, *, study_uid: str, label: str, key_id: str, shift: int | None) -> Record:
    """The record of a study from its identity envelope (DICOM JSON): what was known under which pseudonym.

    `date_shift_days` was added to the true dates: subtract it to get them back; None if it is not known.
    """
    data: Mapping[str, Any] = json.loads(envelope)

    def text(tag: str) -> str:
        values = data.get(tag, {}).get("Value") or [""]
        first = values[0]
        if isinstance(first, dict):
            return "=".join(str(first.get(group, "")) for group in _NAMES).rstrip("=")
        return "" if first is None else str(first)

    return {
        "patient_id": text("00100020"),
        "issuer_of_patient_id": text("00100021"),
        "patient_name": text("00100010"),
        "birth_date": text("00100030"),
        "accession_number": text("00080050"),
        "study_instance_uid": text("0020000D"),
        "pseudonymous_study_instance_uid": study_uid,
        "label": label,
        "site_key_id": key_id,
        "date_shift_days": shift,
    }


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of a study that is asked for: nothing of it identifies anyone.

    `sealed` is the escrow record if there is one, `escrow_key` the name of the key that opens it.
    """

    study_key: str
    study_uid: str
    label: str
    site_key_id: str
    escrow_key: str = ""
    sealed: bytes | None = field(default=None, repr=False)


def find(connection: Connection, what: str) -> list[Known]:
    """The studies that a pseudonymous Study, Series or SOP Instance UID, Patient ID, or a study key leads to."""
    by_object = select(instance.c.study_key).where(or_(instance.c.sop_uid == what, instance.c.series_uid == what))
    keys = set(connection.execute(by_object.distinct()).scalars())
    rows = connection.execute(
        select(escrow)
        .where(
            or_(
                escrow.c.study_key == what,
                escrow.c.study_uid == what,
                escrow.c.patient == what,
                escrow.c.study_key.in_(keys),
            )
        )
        .order_by(escrow.c.made_at, escrow.c.study_uid)
    ).all()
    found = [_known(row) for row in rows]
    seen = {one.study_key for one in found}
    named = select(study).where(or_(study.c.study_key == what, study.c.study_uid == what, study.c.study_key.in_(keys)))
    for row in connection.execute(named.order_by(study.c.first_received_at)):
        if row.study_key not in seen:
            found.append(Known(row.study_key, row.study_uid, row.trial, row.site_key_id))
    return found


def _known(row: Row[Any]) -> Known:
    return Known(row.study_key, row.study_uid, row.label, row.site_key_id, row.escrow_key, row.sealed)


def open_record(known: Known, private: bytes) -> Record:
    """Open a record with the private key (32 bytes).

    Raises Quarantine("escrow.nothing-kept") when there is none, Stop("escrow.wrong-key") when it is sealed to another
    key, Quarantine("store.seal-broken") when it was altered.
    """
    if known.sealed is None:
        raise Quarantine(
            "escrow.nothing-kept",
            "there is no escrow record of this study: deid.escrow was not set then, or the record's time is over",
            study=known.study_key,
            hint="--vault while its identity envelope lives, else --candidates",
        )
    mine = key_name(public_of(private))
    if mine != known.escrow_key:
        raise Stop(
            "escrow.wrong-key",
            f"the record is sealed to the escrow key {known.escrow_key}, the one given is {mine}",
            study=known.study_key,
            hint="give the private key of that name; `edge-node key list` tells which records need which",
            exit_code=77,
        )
    record: Record = json.loads(unseal_with(private, known.sealed, _context(known.study_key, known.study_uid)))
    return record


def older(connection: Connection, before: float) -> bool:
    """Whether there is a record made before that time (seconds since the epoch)."""
    return connection.execute(select(escrow.c.study_key).where(escrow.c.made_at < before)).first() is not None


def expire(connection: Connection, before: float) -> int:
    """Delete the records made before that time (seconds since the epoch); returns how many."""
    return int(connection.execute(delete(escrow).where(escrow.c.made_at < before)).rowcount)


def _context(study_key: str, study_uid: str) -> str:
    return f"escrow 1 {study_key} {study_uid}"


def labels(connection: Connection) -> set[str]:
    """Every key label that the ledger has met."""
    return {*connection.execute(select(escrow.c.label).union(select(study.c.trial))).scalars()}
