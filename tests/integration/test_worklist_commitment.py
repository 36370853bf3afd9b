"""The archive proves that it keeps the evidence before identity is destroyed, however it says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel as Model
from sqlalchemy import select

from edge_node.domain.study import StudyState, TaskState
from edge_node.service import commitment_steps, roles
from edge_node.service.commitment_steps import note_commitment
from edge_node.store.tables import commitment, envelope, task
from edge_node.store.tasks import requeue
from tests.integration.peers_commitment import WELL_KNOWN, Archive
from tests.integration.results_node import ResultsNode, results_node
from tests.results_back import finding, result
from tests.unit.service.site import image

Make = Callable[..., ResultsNode]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A node whose evidence an archive has just taken; options of [worklist]."""
    monkeypatch.setattr(roles, "harden", lambda: None)
    monkeypatch.setattr(roles.logs, "configure", lambda *_args, **_named: None)
    monkeypatch.setattr(commitment_steps, "FIRST_LINGER_S", 0.4)

    def make(archive: Archive, **options: Any) -> ResultsNode:
        node = results_node(tmp_path, archive.peer, **options)
        [uid, *_] = node.take(image(1), image(2))
        node.judged(result(finding(key_sop_uid=uid)))
        assert node.run("evidence")["code"] == "evidence.stored"
        return node

    return make


def requests(node: ResultsNode) -> list[tuple[str, str]]:
    with node.node.database.read() as connection:
        rows = connection.execute(select(commitment).order_by(commitment.c.asked_at)).all()
    return [(row.transaction_uid, row.state) for row in rows]


def envelopes(node: ResultsNode) -> int:
    with node.node.database.read() as connection:
        return len(connection.execute(select(envelope)).all())


def test_an_answer_on_the_association_of_the_request_commits(written: Make) -> None:
    with Archive() as archive:
        node = written(archive)
        assert node.state == StudyState.TRIAGED
        row = node.until("commitment", (TaskState.DONE,))
        assert row["code"] == "commitment.committed"
        assert archive.confirmed == [0]
        assert node.state == StudyState.DELIVERED


def test_an_answer_on_a_new_association_commits_and_wakes_the_work(written: Make) -> None:
    with Archive() as archive:
        node = written(archive)
        with node.receiver() as port:
            archive.report_to = ("EDGENODE", port)
            row = node.until("commitment", (TaskState.DONE,))
        assert (row["code"], archive.confirmed, len(archive.asked)) == ("commitment.committed", [0], 1)


def test_an_archive_that_names_no_role_is_understood_as_well(written: Make) -> None:
    with Archive(role=False) as archive:
        node = written(archive)
        with node.receiver() as port:
            entity = AE("ARCHIVE")
            entity.add_requested_context(Model)
            association = entity.associate("127.0.0.1", port, ae_title="EDGENODE")
            assert association.is_established
            assert [one.abstract_syntax for one in association.accepted_contexts] == [Model]
            association.release()


def test_an_answer_after_a_restart_commits(written: Make, tmp_path: Path) -> None:
    with Archive(silent=1) as archive:
        node = written(archive)
        assert node.run("commitment")["code"] == "worklist.commitment-awaited"
        again = results_node(tmp_path, archive.peer)
        again.study_key = node.study_key
        asked = Dataset()
        asked.TransactionUID = archive.asked[0]
        asked.ReferencedSOPSequence = [reference(one) for one in archive.kept.values()]
        with again.receiver() as port:
            archive.report_to = ("EDGENODE", port)
            archive.report(asked)
        assert again.run("commitment")["code"] == "commitment.committed"
        assert len(archive.asked) == 1


def reference(one: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    return item


def test_the_request_is_in_the_ledger_before_it_is_made(written: Make) -> None:
    """A crash in between asks again under another transaction; the answer to either counts."""
    with Archive(silent=1) as archive:
        node = written(archive, commitment_wait_s=0.2)
        node.run("commitment")
        first = requests(node)
        assert first == [(archive.asked[0], "ASKED")]
        time.sleep(0.3)
        row = node.until("commitment", (TaskState.DONE,))
        assert row["code"] == "commitment.committed"
        assert len(set(archive.asked)) == 2


def test_a_silent_archive_is_asked_twice_and_then_read_back(written: Make) -> None:
    with Archive(silent=99) as archive:
        node = written(archive, commitment_wait_s=0.1, timeout_s=3)
        row = node.until("commitment", (TaskState.DONE,), 40)
        assert (row["code"], len(archive.asked)) == ("commitment.read-back", 2)
        assert node.state == StudyState.DELIVERED


def test_a_silent_archive_calls_a_human_where_commitment_is_required(written: Make) -> None:
    with Archive(silent=99) as archive:
        node = written(archive, commitment="required", commitment_wait_s=0.1, timeout_s=4)
        row = node.until("commitment", (TaskState.DEAD,), 40)
        assert row["code"] == "worklist.not-committed"
        assert node.state == StudyState.TRIAGED
        assert envelopes(node) == 3


def test_what_is_not_committed_is_sent_again_and_then_committed(written: Make) -> None:
    with Archive(fail=1) as archive:
        node = written(archive)
        row = node.until("commitment", (TaskState.DONE,))
        assert row["code"] == "commitment.committed"
        assert [state for _, state in requests(node)] == ["FAILED", "COMMITTED"]
        assert sorted(archive.stored) == sorted([*archive.kept, *archive.kept])


def test_an_object_the_archive_lost_is_sent_again(written: Make) -> None:
    with Archive(lose=1) as archive:
        node = written(archive)
        assert len(archive.kept) == 1
        assert node.until("commitment", (TaskState.DONE,))["code"] == "commitment.committed"
        assert len(archive.kept) == 2


def test_what_is_never_committed_waits_for_a_human_who_may_try_anew(written: Make) -> None:
    with Archive(fail=3) as archive:
        node = written(archive)
        row = node.until("commitment", (TaskState.DEAD,))
        assert row["code"] == "worklist.not-committed"
        assert "RESOURCE_LIMITATION" in row["message"]
        assert len(archive.asked) == 3
        with node.node.database.write() as connection:
            assert requeue(connection, node.study_key, steps=("worklist",), states=(TaskState.DEAD,)) == 1
        assert node.until("commitment", (TaskState.DONE,))["code"] == "commitment.committed"


def test_a_request_that_is_refused_for_now_is_made_again(written: Make) -> None:
    with Archive(refuse_actions=1) as archive:
        node = written(archive)
        assert node.run("commitment")["code"] == "worklist.pacs-unavailable"
        assert node.until("commitment", (TaskState.DONE,))["code"] == "commitment.committed"


@pytest.mark.parametrize(
    ("archive", "code"),
    [
        (Archive(commits=False), "commitment.read-back"),
        (Archive(commits=False, queries=False), "commitment.unproven"),
        (Archive(commits=False, lose=1), "commitment.read-back"),
    ],
)
def test_an_archive_that_does_not_commit_is_read_back_where_it_can_be(
    written: Make, archive: Archive, code: str
) -> None:
    with archive:
        node = written(archive)
        assert node.until("commitment", (TaskState.DONE,))["code"] == code
        assert code in node.audited()


def test_an_archive_that_does_not_commit_calls_a_human_where_it_must(written: Make) -> None:
    with Archive(commits=False) as archive:
        row = written(archive, commitment="required").run("commitment")
        assert (row["state"], row["code"]) == (TaskState.DEAD, "worklist.commitment-refused")


def test_what_an_archive_never_lists_waits_for_a_human(written: Make) -> None:
    with Archive(commits=False, lose=99) as archive:
        row = written(archive).until("commitment", (TaskState.DEAD,))
        assert row["code"] == "worklist.not-committed"


def test_without_commitment_the_answer_to_the_store_is_believed(written: Make) -> None:
    with Archive() as archive:
        node = written(archive, commitment="off")
        assert node.row("commitment") == {}
        assert node.state == StudyState.DELIVERED


def test_identity_outlives_every_writer_and_the_proof(written: Make) -> None:
    with Archive(silent=1) as archive:
        node = written(archive)
        node.run("commitment")
        with node.node.database.read() as connection:
            purges = connection.execute(select(task).where(task.c.step == "purge")).all()
        assert purges == []
        asked = Dataset()
        asked.TransactionUID = archive.asked[0]
        asked.ReferencedSOPSequence = [reference(one) for one in archive.kept.values()]
        with node.receiver() as port:
            archive.report_to = ("EDGENODE", port)
            archive.report(asked)
        node.run("commitment")
        with node.node.database.read() as connection:
            purges = connection.execute(select(task.c.target).where(task.c.step == "purge")).scalars().all()
        assert set(purges) == {"envelope", "clean"}


def test_a_report_of_somebody_elses_transaction_is_refused_and_changes_nothing(written: Make) -> None:
    with Archive(silent=1) as archive:
        node = written(archive)
        node.run("commitment")
        asked = Dataset()
        asked.TransactionUID = "1.2.3.4"
        asked.ReferencedSOPSequence = [reference(one) for one in archive.kept.values()]
        with node.receiver() as port:
            archive.report_to = ("EDGENODE", port)
            archive.report(asked)
        assert archive.confirmed == [0x0115]
        assert requests(node) == [(archive.asked[0], "ASKED")]


def test_a_report_that_names_other_objects_commits_nothing(written: Make) -> None:
    with Archive(silent=1) as archive:
        node = written(archive)
        node.run("commitment")
        asked = Dataset()
        asked.TransactionUID = archive.asked[0]
        other = Dataset()
        other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = "1.2.3", "1.2.3.4"
        archive.kept["1.2.3.4"] = other
        asked.ReferencedSOPSequence = [other]
        with node.receiver() as port:
            archive.report_to = ("EDGENODE", port)
            archive.report(asked)
        assert requests(node) == [(archive.asked[0], "FAILED")]


def test_a_report_that_makes_no_sense_ends_in_a_status_and_not_in_a_crash(written: Make) -> None:
    with Archive() as archive:
        node = written(archive)
        with node.receiver() as port:
            entity = AE("ARCHIVE")
            entity.add_requested_context(Model)
            roles_asked = [build_role(Model, scu_role=False, scp_role=True)]
            association = entity.associate("127.0.0.1", port, ae_title="EDGENODE", ext_neg=roles_asked)
            nameless = Dataset()
            nameless.ReferencedSOPSequence = []
            for broken in (nameless, no_items()):
                began = time.monotonic()
                status, _ = association.send_n_event_report(broken, 1, Model, WELL_KNOWN)
                assert status.Status == 0x0115
                assert time.monotonic() - began < 0.5
            association.release()


def no_items() -> Dataset:
    said = Dataset()
    said.TransactionUID = "1.2.3"
    said.ReferencedSOPSequence = [Dataset()]
    return said


def test_a_node_that_did_not_ask_for_it_takes_no_request_to_commit(written: Make) -> None:
    """A modality may delete what somebody commits to: the node is never the provider of this service."""
    with Archive() as archive:
        node = written(archive)
        with node.receiver() as port:
            entity = AE("MODALITY")
            entity.add_requested_context(Model)
            association = entity.associate("127.0.0.1", port, ae_title="EDGENODE")
            status, _ = association.send_n_action(no_items(), 1, Model, WELL_KNOWN)
            assert status.Status != 0
            association.release()


def test_two_answers_at_once_leave_one_outcome(written: Make) -> None:
    with Archive(silent=1) as archive:
        node = written(archive)
        node.run("commitment")
        asked = Dataset()
        asked.TransactionUID = archive.asked[0]
        asked.ReferencedSOPSequence = [reference(one) for one in archive.kept.values()]
        with node.receiver() as port:
            archive.report_to = ("EDGENODE", port)
            both = [threading.Thread(target=archive.report, args=(asked,)) for _ in range(2)]
            for one in both:
                one.start()
            for one in both:
                one.join()
        assert archive.confirmed == [0, 0]
        assert note_commitment(node.node)
        assert requests(node) == [(archive.asked[0], "COMMITTED")]
