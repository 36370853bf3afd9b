"""Envelopes sealed anew from instances that come again, where identity was lost with the memory that held its key.

Never the wrong patient: an instance counts only when its keyed hash is that of one that is here, and when its bytes are
the same as then, or its patient is (keyed hash of Patient ID and issuer). Else nothing of it is sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, update

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.study import KeyClass
from edge_node.store.database import Database
from edge_node.store.keyring import Keyring
from edge_node.store.receipt import Answer, Clean, Receipt, Received
from edge_node.store.seal import seal
from edge_node.store.tables import envelope, instance, lost_identity, study

_LOST = select(lost_identity.c.study_key).where(lost_identity.c.study_key.in_(bindparam("keys", expanding=True)))


class _HasClean(Protocol):
    @property
    def clean(self) -> Clean: ...


_Member = TypeVar("_Member", bound=_HasClean)


class Renewal:
    """What intake asks when instances come again; one per worker process."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    def renew(self, batch: Sequence[Clean], answers: Sequence[Answer | None]) -> list[Answer | None]:
        """The answers, where an instance that was kept before is a duplicate if its envelope could be sealed anew:
        the archive may hold it in another encoding, and it was asked for its identity alone."""
        again = [number for number, answer in enumerate(answers) if answer is not None]
        renewed = list(answers)
        if not again:
            return renewed
        with self._database.read() as connection:
            keys = list({batch[number].study_key for number in again})
            lost = set(connection.execute(_LOST, {"keys": keys}).scalars())
        if not lost:
            return renewed
        with self._database.write() as connection:
            for number in again:
                one = batch[number]
                if one.study_key in lost and self._sealed(connection, one, same=isinstance(answers[number], Receipt)):
                    renewed[number] = Receipt(Received.DUPLICATE, one.study_key)
        return renewed

    def _sealed(self, connection: Connection, one: Clean, *, same: bool) -> bool:
        what = one.what
        # By the name that no recipe and no trial's label changes: what comes from the archive may go by another rule.
        own = instance.c.instance_key == what.instance_key if what.instance_key else instance.c.sop_uid == one.uid
        row = connection.execute(
            select(instance.c.sop_uid, study.c.patient_key)
            .join(study, study.c.study_key == instance.c.study_key)
            .where(instance.c.study_key == one.study_key, own)
        ).first()
        if row is None:
            return False
        patient = same_patient(row.patient_key, one)
        if not (same or patient):
            tell(connection, one.study_key, other_patient())
            return False
        key = self._keyring.obtain_in(connection, one.study_key, KeyClass.ENVELOPE)
        texts = {row.sop_uid: what.identity.instance}
        if patient or row.patient_key == what.instance.patient_key:
            texts[""] = what.identity.study
        for sop_uid, text in texts.items():
            there = select(envelope.c.key_id).where(
                envelope.c.study_key == one.study_key, envelope.c.sop_uid == sop_uid
            )
            if connection.execute(there).first() is None:
                sealed = seal(key.secret, text.encode(), f"envelope {one.study_key} {sop_uid}")
                values = {"study_key": one.study_key, "sop_uid": sop_uid, "key_id": key.key_id, "sealed": sealed}
                connection.execute(insert(envelope).values(**values))
        return True

    def speaks_for(self, connection: Connection, members: Sequence[_Member]) -> _Member | None:
        """Which of these new instances of one study may give the study its envelope; None where its patient must be
        had from an instance that was here before."""
        study_key = members[0].clean.study_key
        if connection.execute(_LOST, {"keys": [study_key]}).first() is None:
            return members[0]
        patient = connection.execute(select(study.c.patient_key).where(study.c.study_key == study_key)).scalar_one()
        return next((one for one in members if same_patient(patient, one.clean)), None)


def same_patient(patient_key: str, one: Clean) -> bool:
    """Whether an instance is of the patient of that name; nobody is the patient without an ID."""
    return bool(patient_key) and patient_key == one.what.instance.patient_key


def tell(connection: Connection, study_key: str, why: EdgeNodeError) -> None:
    """What a study that waits for its identity says of itself from now on."""
    mine = lost_identity.c.study_key == study_key
    connection.execute(update(lost_identity).where(mine).values(code=why.code, message=why.message))


def other_patient() -> Retry:
    """The archive gives the study to somebody else."""
    return Retry(
        "identity.other-patient",
        "what came under this study is another patient's than what was received first; nothing is written. If the"
        " patient was corrected in the PACS, report the result by hand, then edge-node study retry or discard it",
    )
