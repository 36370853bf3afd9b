"""Escrow: what the node seals to somebody else's key, it cannot open, and nobody can pass off as another study's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hpke, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import Deidentified, Derivation, IdentityEnvelope
from edge_node.store import retention, tables
from edge_node.store.database import MIGRATIONS, Database
from edge_node.store.escrow import Escrow, find, labels, open_record, record_of
from edge_node.store.intake import IntakeStore
from edge_node.store.receipt import Received
from edge_node.store.seal import (
    NeedsPassphrase,
    key_name,
    new_key_pair,
    private_key,
    public_key,
    public_of,
    seal_to,
    unseal_with,
)
from tests.unit.store.conftest import Store

Make = Callable[..., Deidentified]
PRIVATE, PUBLIC = X25519PrivateKey.generate().private_bytes_raw(), b""
PUBLIC = public_of(PRIVATE)
STUDY = json.dumps(
    {
        "00080050": {"vr": "SH", "Value": ["ZZACC"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "ZZSECRET^ANNA", "Ideographic": "安娜"}]},
        "00100020": {"vr": "LO", "Value": ["ZZ4711"]},
        "00100030": {"vr": "DA", "Value": [None]},
        "0020000D": {"vr": "UI", "Value": ["1.2.3.4711"]},
    }
)


@pytest.fixture
def escrowed(store: Store) -> IntakeStore:
    return IntakeStore(
        store.database,
        store.keyring,
        store.spool,
        actor="test/dicom",
        quarantine_s=60.0,
        envelope_s=60.0,
        escrow=Escrow(PUBLIC),
    )


@pytest.fixture
def make(clean_instance: Make) -> Make:
    def made(number: int = 1, *, label: str = "", study_uid: str = "2.25.1", **named: str) -> Deidentified:
        one = clean_instance(number, **named)
        return replace(
            one,
            instance=replace(one.instance, study_uid=study_uid),
            identity=IdentityEnvelope(STUDY, one.identity.instance),
            derivation=Derivation("0a1b2c3d", label, "PSEUDOPATIENT", -77),
        )

    return made


@given(st.binary(max_size=600), st.text(max_size=30))
def test_what_is_sealed_to_a_key_opens_with_its_other_half_only(plain: bytes, context: str) -> None:
    sealed = seal_to(PUBLIC, plain, context)
    assert unseal_with(PRIVATE, sealed, context) == plain
    for key, where in ((os.urandom(32), context), (PRIVATE, context + "x")):
        with pytest.raises(Quarantine, match=r"store\.seal-broken"):
            unseal_with(key, sealed, where)


@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_hpke_program_opens_what_the_node_sealed_and_the_other_way_round(plain: bytes, context: str) -> None:
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    key = X25519PrivateKey.from_private_bytes(PRIVATE)
    assert suite.decrypt(seal_to(PUBLIC, plain, context), key, info=context.encode()) == plain
    theirs = suite.encrypt(plain, key.public_key(), info=context.encode())
    assert unseal_with(PRIVATE, theirs, context) == plain


@given(st.data())
def test_one_flipped_bit_anywhere_keeps_a_record_shut(data: st.DataObject) -> None:
    sealed = bytearray(seal_to(PUBLIC, b"plain", "x"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Quarantine, match=r"store\.seal-broken"):
        unseal_with(PRIVATE, bytes(sealed), "x")


@pytest.mark.parametrize("length", [0, 1, 31, 32, 47])
def test_a_record_cut_short_stays_shut(length: int) -> None:
    with pytest.raises(Quarantine, match=r"store\.seal-broken"):
        unseal_with(PRIVATE, seal_to(PUBLIC, b"", "x")[:length], "x")


def test_key_pairs_are_pem_files_that_openssl_knows() -> None:
    private, public = new_key_pair()
    assert public_of(private_key(private)) == public_key(public)
    locked, _ = new_key_pair("correct horse")
    assert len(private_key(locked, "correct horse")) == 32
    with pytest.raises(NeedsPassphrase):
        private_key(locked)
    for wrong in (lambda: private_key(locked, "wrong"), lambda: private_key(public), lambda: private_key(b"")):
        with pytest.raises(Stop, match=r"escrow\.no-private-key"):
            wrong()
    other = serialization.load_pem_public_key(public).__class__.__name__
    assert other == "X25519PublicKey"
    for unfit in (private, b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(Stop, match=r"escrow\.no-public-key"):
            public_key(unfit)


def test_the_first_instance_of_a_study_brings_its_record_and_no_later_one(
    store: Store, escrowed: IntakeStore, make: Make
) -> None:
    for number in (1, 2):
        escrowed.record(make(number), calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        [row] = connection.execute(select(tables.escrow)).all()
        [known] = find(connection, "STUDYKEY0001")
    assert (row.study_uid, row.patient, row.site_key_id) == ("2.25.1", "PSEUDOPATIENT", "0a1b2c3d")
    assert row.escrow_key == key_name(PUBLIC)
    assert len(row.sealed) % 256 == 32 + 16
    assert open_record(known, PRIVATE) == {
        "patient_id": "ZZ4711",
        "issuer_of_patient_id": "",
        "patient_name": "ZZSECRET^ANNA=安娜",
        "birth_date": "",
        "accession_number": "ZZACC",
        "study_instance_uid": "1.2.3.4711",
        "pseudonymous_study_instance_uid": "2.25.1",
        "label": "",
        "site_key_id": "0a1b2c3d",
        "date_shift_days": -77,
    }


def test_the_label_of_each_study_is_known(store: Store, escrowed: IntakeStore, make: Make) -> None:
    escrowed.record(make(1), calling_ae="CT1", received_at=1.0)
    other = make(2, label="trial-A", study_uid="2.25.22", study="STUDYKEY0002")
    escrowed.record(other, calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        assert [k.label for k in find(connection, "STUDYKEY0001")] == [""]
        assert [k.label for k in find(connection, "2.25.22")] == ["trial-A"]
        assert labels(connection) == {"", "trial-A"}


def test_an_instance_without_its_record_is_never_kept(
    store: Store, escrowed: IntakeStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("edge_node.store.escrow.seal_to", broken)
    with pytest.raises(MemoryError):
        escrowed.record(make(1), calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        assert connection.execute(select(tables.instance)).first() is None
        assert connection.execute(select(tables.study)).first() is None


def test_a_study_from_before_escrow_gets_its_record_with_whatever_comes_next(
    store: Store, escrowed: IntakeStore, make: Make
) -> None:
    store.intake.record(make(1), calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        [known] = find(connection, "STUDYKEY0001")
    with pytest.raises(Quarantine, match=r"escrow\.nothing-kept"):
        open_record(known, PRIVATE)
    assert escrowed.record(make(1), calling_ae="CT1", received_at=2.0).received is Received.DUPLICATE
    with store.database.read() as connection:
        [known] = find(connection, "STUDYKEY0001")
    assert open_record(known, PRIVATE)["patient_id"] == "ZZ4711"


def test_a_record_moved_to_another_study_does_not_open(store: Store, escrowed: IntakeStore, make: Make) -> None:
    escrowed.record(make(1), calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        [known] = find(connection, "PSEUDOPATIENT")
    with pytest.raises(Quarantine, match=r"store\.seal-broken"):
        open_record(replace(known, study_key="STUDYKEY0002"), PRIVATE)


def test_a_wrong_key_is_named_and_so_is_the_right_one(store: Store, escrowed: IntakeStore, make: Make) -> None:
    escrowed.record(make(1), calling_ae="CT1", received_at=1.0)
    with store.database.read() as connection:
        [known] = find(connection, make(1).instance.sop_uid)
    other = os.urandom(32)
    with pytest.raises(Stop, match=rf"{key_name(PUBLIC)}.*{key_name(public_of(other))}") as caught:
        open_record(known, other)
    assert (caught.value.code, caught.value.exit_code) == ("escrow.wrong-key", 77)
    assert "ZZ" not in repr(known)


def test_a_record_outlives_the_envelope_and_ends_when_its_time_is_over(
    store: Store, escrowed: IntakeStore, make: Make
) -> None:
    escrowed.record(make(1), calling_ae="CT1", received_at=1.0)
    with store.database.write() as connection:
        connection.execute(tables.study.update().values(state="CLOSED"))
        retention.destroy_identity(connection, "STUDYKEY0001", 1)
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open("STUDYKEY0001")
    with store.database.read() as connection:
        [known] = find(connection, "2.25.2")  # the series
    assert open_record(known, PRIVATE)["patient_id"] == "ZZ4711"
    assert retention.expire_escrow(store.database, "test/compute", 0) == 0
    assert retention.expire_escrow(store.database, "test/compute", 1.0) == 0
    with store.database.write() as connection:
        connection.execute(tables.escrow.update().values(made_at=1.0))
    assert retention.expire_escrow(store.database, "test/compute", 1.0) == 1
    with store.database.read() as connection:
        [known] = find(connection, "2.25.2")
        assert "escrow.expired" in connection.execute(select(tables.audit.c.action)).scalars().all()
    assert known.sealed is None


def test_nothing_of_a_record_lies_on_the_disk_in_the_clear(store: Store, escrowed: IntakeStore, make: Make) -> None:
    escrowed.record(make(1), calling_ae="CT1", received_at=1.0)
    for path in (p for p in store.folder.rglob("*") if p.is_file()):
        assert not [n for n in (b"ZZSECRET", b"ZZ4711", b"ZZACC", b"1.2.3.4711") if n in path.read_bytes()], path.name


def test_a_version_3_ledger_learns_of_escrow(store: Store, make: Make) -> None:
    store.intake.record(make(1), calling_ae="CT1", received_at=1.0)
    with store.database.write() as connection:
        connection.execute(text("DROP TABLE escrow"))
        connection.execute(text("ALTER TABLE study DROP COLUMN site_key_id"))
        connection.execute(tables.schema_version.delete().where(tables.schema_version.c.version > 3))
    store.database.close()
    database = Database(store.database.path)
    assert database.migrate() == len(MIGRATIONS)
    with database.read() as connection:
        row = connection.execute(select(tables.study)).one()
        assert connection.execute(select(tables.escrow)).first() is None
    assert (row.site_key_id, row.trial) == ("", "")


def test_a_record_of_an_envelope_without_anything_is_empty_and_not_an_error() -> None:
    record = record_of("{}", study_uid="2.25.1", label="", key_id="", shift=None)
    assert {record[name] for name in ("patient_id", "patient_name", "study_instance_uid")} == {""}
