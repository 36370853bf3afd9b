"""Commit of received instances: durable, once, sealed, and never in the clear."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import Deidentified, IdentifiedInstance, KeyClass, StudyState, TaskState
from edge_node.store import audit, retention
from edge_node.store.digest import digest_of
from edge_node.store.keyring import Keyring, destroy
from edge_node.store.receipt import Clean, Conflict, Receipt, Received
from edge_node.store.tables import instance, quarantine, study, task
from edge_node.store.tasks import enqueue
from tests.unit.store.conftest import KEYS, Store

Make = Callable[..., Deidentified]


def test_a_recorded_instance_reads_back_byte_for_byte(store: Store, clean_instance: Make) -> None:
    clean = clean_instance()
    receipt = store.intake.record(clean, calling_ae="CT1", received_at=1000.0)
    assert receipt.received is Received.STORED
    [one] = store.clean.study(receipt.study_key).objects
    assert one.read() == clean.instance.part10
    assert store.vault.open(receipt.study_key)[0] == clean.identity.study


def test_nothing_identifiable_lies_on_the_disk_in_the_clear(
    store: Store, clean_instance: Make, received: IdentifiedInstance
) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    store.intake.quarantine(received, "digest", Quarantine("deid.not-dicom", "cannot be parsed"), None)
    files = [p for p in store.folder.rglob("*") if p.is_file()]
    assert any(p.suffix == ".seg" and p.stat().st_size for p in files)
    for path in files:
        content = path.read_bytes()  # two letters alone may well stand in sealed bytes by chance
        assert b"ZZSECRET" not in content, path.name
        assert b"ZZORIGINAL" not in content, path.name


def test_the_same_instance_again_is_a_duplicate_and_changes_nothing(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    again = store.intake.record(clean_instance(), calling_ae="CT1", received_at=2000.0)
    assert again.received is Received.DUPLICATE
    with store.database.read() as connection:
        row = connection.execute(select(study)).one()
    assert (row.instances, row.last_received_at) == (1, 1000.0)


def test_the_same_uid_with_other_content_is_a_conflict(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    with pytest.raises(Conflict):
        store.intake.record(clean_instance(digest="other"), calling_ae="CT1", received_at=1001.0)


def test_a_late_instance_reopens_the_study_as_the_next_revision(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(1), calling_ae="CT1", received_at=1000.0)
    with store.database.write() as connection:
        connection.execute(update(study).values(state=StudyState.DELIVERED))
    store.intake.record(clean_instance(2), calling_ae="CT1", received_at=2000.0)
    with store.database.read() as connection:
        row = connection.execute(select(study)).one()
    assert (row.state, row.revision, row.instances, row.opened_at) == (StudyState.RECEIVING, 2, 2, 2000.0)


def test_a_role_without_the_vault_key_cannot_open_an_envelope(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    compute = Keyring(store.database, {"clean": KEYS["clean"]})
    with pytest.raises(Stop, match=r"store\.key-not-mine"):
        compute.obtain("STUDYKEY0001", KeyClass.ENVELOPE)


def test_a_shredded_study_never_opens_again_while_its_ledger_rows_stay(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    with store.database.write() as connection:
        connection.execute(update(study).values(state=StudyState.DELIVERED))
        retention.destroy_identity(connection, "STUDYKEY0001", 1)
        retention.destroy_clean(connection, "STUDYKEY0001", 1)
    fresh = Keyring(store.database, KEYS)
    with store.database.read() as connection:
        row = connection.execute(select(instance)).one()
    with pytest.raises(Quarantine, match=r"store\.key-destroyed"):
        fresh.open(row.key_id, "STUDYKEY0001", KeyClass.CLEAN)
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open("STUDYKEY0001")
    assert row.digest == digest_of(clean_instance().instance.part10)


def test_retention_destroys_nothing_of_a_study_that_was_reopened(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=1000.0)
    with store.database.write() as connection:
        retention.destroy_identity(connection, "STUDYKEY0001", 1)  # still RECEIVING
        retention.destroy_clean(connection, "STUDYKEY0001", 1)
    assert store.vault.open("STUDYKEY0001")[0]
    assert store.clean.study("STUDYKEY0001").objects[0].read()


def written_back(store: Store) -> None:
    """Identity was destroyed when its time after the write-back was over."""
    with store.database.write() as connection:
        connection.execute(update(study).values(state=StudyState.CLOSED))
        enqueue(connection, "STUDYKEY0001", 1, "purge", target="envelope")
    claimed = store.tasks.claim("purge", "envelope", 60)
    assert claimed is not None
    with store.database.write() as connection:
        retention.destroy_identity(connection, "STUDYKEY0001", 1)
        store.tasks.done(connection, claimed, "purge.envelope", {})


def test_identity_that_was_destroyed_comes_back_with_what_is_sent_again_and_goes_again(
    store: Store, clean_instance: Make
) -> None:
    for number in (1, 2):
        store.intake.record(clean_instance(number), calling_ae="CT1", received_at=1000.0)
    written_back(store)
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open("STUDYKEY0001")
    batch = [Clean(clean_instance(number), "PACS", 9000.0) for number in (1, 2)]
    before = time.time()
    assert {answer.received for answer in store.intake.record_all(batch) if isinstance(answer, Receipt)} == {
        Received.DUPLICATE
    }
    own, instances = store.vault.open("STUDYKEY0001")
    assert own == batch[0].what.identity.study
    assert instances == {one.uid: one.what.identity.instance for one in batch}
    with store.database.read() as connection:
        due = connection.execute(select(task).where(task.c.step == "purge")).one()
        assert (due.state, due.finished_at) == (TaskState.READY, None)
        assert before + 7200 <= due.not_before <= time.time() + 7200
        [told] = [one for one in audit.entries(connection) if one.action == "study.identified-again"]
        assert told.detail == {"instances": 2}
        row = connection.execute(select(study)).one()
        assert (row.state, row.revision, row.instances) == (StudyState.CLOSED, 1, 2)
    assert store.tasks.claim("purge", "envelope", 60) is None
    store.intake.record_all(batch)  # and no third time
    with store.database.write() as connection:
        assert len([one for one in audit.entries(connection) if one.action == "study.identified-again"]) == 1
        retention.destroy_identity(connection, "STUDYKEY0001", 1)
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open("STUDYKEY0001")
    late = store.intake.record(clean_instance(3), calling_ae="CT1", received_at=9001.0)  # keys of before are forgotten
    assert late.received is Received.STORED
    assert store.vault.open("STUDYKEY0001")[0]


def test_an_image_that_lost_its_identity_gets_it_back_though_the_study_has_a_new_one(
    store: Store, clean_instance: Make
) -> None:
    store.intake.record(clean_instance(1), calling_ae="CT1", received_at=1000.0)
    written_back(store)
    store.intake.record(clean_instance(2), calling_ae="CT1", received_at=2000.0)  # the next revision
    assert set(store.vault.open("STUDYKEY0001")[1]) == {clean_instance(2).instance.sop_uid}
    store.intake.record(clean_instance(1), calling_ae="PACS", received_at=3000.0)
    assert len(store.vault.open("STUDYKEY0001")[1]) == 2
    with store.database.read() as connection:  # revision 2 is not written back yet: its own purge is still to come
        assert connection.execute(select(task.c.state).where(task.c.step == "purge")).scalar() == TaskState.DONE


def test_old_and_new_images_and_copies_of_both_in_one_batch_are_all_kept_with_identity(
    store: Store, clean_instance: Make
) -> None:
    store.intake.record(clean_instance(1), calling_ae="CT1", received_at=1000.0)
    written_back(store)
    batch = [Clean(clean_instance(number), "PACS", 9000.0) for number in (2, 1, 2, 1)]
    answers = [answer.received for answer in store.intake.record_all(batch) if isinstance(answer, Receipt)]
    assert answers == [Received.STORED, *[Received.DUPLICATE] * 3]
    assert set(store.vault.open("STUDYKEY0001")[1]) == {one.uid for one in batch}


def test_what_is_kept_otherwise_brings_no_identity_back(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(1), calling_ae="CT1", received_at=1000.0)
    written_back(store)
    with pytest.raises(Conflict):
        store.intake.record(clean_instance(1, digest="other"), calling_ae="PACS", received_at=2000.0)
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open("STUDYKEY0001")


def test_an_instance_that_arrives_after_shredding_gets_a_new_key(store: Store, clean_instance: Make) -> None:
    store.intake.record(clean_instance(1), calling_ae="CT1", received_at=1000.0)
    with store.database.write() as connection:
        connection.execute(update(study).values(state=StudyState.DELIVERED))
        retention.destroy_identity(connection, "STUDYKEY0001", 1)
        retention.destroy_clean(connection, "STUDYKEY0001", 1)
    late = clean_instance(2)
    store.intake.record(late, calling_ae="CT1", received_at=2000.0)
    [one] = store.clean.study("STUDYKEY0001").objects
    assert one.read() == late.instance.part10


def test_what_cannot_be_deidentified_is_held_sealed_and_once(store: Store, received: IdentifiedInstance) -> None:
    error = Quarantine("deid.not-dicom", "cannot be parsed")
    first = store.intake.quarantine(received, "digest", error, None)
    again = store.intake.quarantine(received, "digest", error, None)
    assert (first.received, again.received) == (Received.QUARANTINED, Received.DUPLICATE)
    with store.database.read() as connection:
        [row] = connection.execute(select(quarantine)).all()
    assert (row.state, row.code) == ("HELD", "deid.not-dicom")


def test_a_batch_is_one_commit_with_an_answer_for_each(store: Store, clean_instance: Make) -> None:
    one, two, other = clean_instance(1), clean_instance(2), clean_instance(1, digest="other")
    store.intake.record(clean_instance(3), calling_ae="CT1", received_at=1000.0)
    batch = [Clean(what, "CT1", 2000.0 + n) for n, what in enumerate([one, two, one, other, clean_instance(3)])]
    answers = store.intake.record_all(batch)
    received = [answer.received if isinstance(answer, Receipt) else type(answer) for answer in answers]
    assert received == [Received.STORED, Received.STORED, Received.DUPLICATE, Conflict, Received.DUPLICATE]
    with store.database.read() as connection:
        row = connection.execute(select(study)).one()
    assert (row.instances, row.first_received_at, row.last_received_at) == (3, 1000.0, 2001.0)
    assert sorted(o.read() for o in store.clean.study(row.study_key).objects) == sorted(
        clean_instance(n).instance.part10 for n in (1, 2, 3)
    )


def test_a_batch_whose_keys_were_destroyed_meanwhile_is_sealed_anew(store: Store, clean_instance: Make) -> None:
    receipt = store.intake.record(clean_instance(1), calling_ae="CT1", received_at=1000.0)
    with store.database.write() as connection:
        destroy(connection, receipt.study_key, KeyClass.CLEAN)
        connection.execute(update(instance).values(kept=False))
    [answer] = store.intake.record_all([Clean(clean_instance(2), "CT1", 2000.0)])
    assert isinstance(answer, Receipt)
    [kept] = [o for o in store.clean.study(receipt.study_key).objects if o.sop_uid != "gone"]
    assert kept.read() == clean_instance(2).instance.part10
