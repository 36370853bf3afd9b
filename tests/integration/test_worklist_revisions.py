"""Revisions, withdrawals, modes and late results, from the ledger to what the archive has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from edge_node.demo.pacs import ToyPacs
from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import Code, Mask, ModelIdentity, TriageOutcome, TriageResult, Verdict
from edge_node.domain.study import StudyState, TaskState
from edge_node.domain.worklist import Peer
from edge_node.service import commitment_steps, roles
from edge_node.service.dicom_steps import EVIDENCE_FIRST_S
from edge_node.store import readers, studies
from edge_node.store.readers import Reading
from edge_node.store.retention import destroy_clean, destroy_identity
from edge_node.store.tables import study, task
from edge_node.store.tasks import supersede
from edge_node.store.withdrawal import withdraw
from edge_node.worklist.header import CLASSES
from tests.integration.peers_commitment import Archive
from tests.integration.peers_orthanc import free_port
from tests.integration.results_node import ResultsNode, results_node
from tests.results_back import finding, result
from tests.unit.service.site import image

Make = Callable[..., ResultsNode]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A node that has judged a study of two images; options of [worklist]."""
    monkeypatch.setattr(roles, "harden", lambda: None)
    monkeypatch.setattr(roles.logs, "configure", lambda *_args, **_named: None)
    monkeypatch.setattr(commitment_steps, "FIRST_LINGER_S", 0.4)

    def make(archive: Archive, found: TriageResult | None = None, **options: Any) -> ResultsNode:
        node = results_node(tmp_path, archive.peer, **options)
        [uid, *_] = node.take(image(1), image(2))
        node.judged(found or result(finding(key_sop_uid=uid)))
        return node

    return make


def shown(node: ResultsNode) -> str:
    """The first image, as triage knows it."""
    return node.node.clean.study(node.study_key).objects[0].sop_uid


def kinds(archive: Archive) -> list[str]:
    """What the archive has, in the order it came."""
    by_class = {sop_class: kind for kind, sop_class in reversed(CLASSES.items())}
    return [by_class[str(archive.kept[uid].SOPClassUID)] for uid in archive.stored]


def take_back(node: ResultsNode, *, unsafe: bool = False) -> int:
    with node.node.database.write() as connection:
        return withdraw(connection, node.study_key, ("evidence",), "test/admin", unsafe=unsafe)


def test_a_result_taken_back_is_rejected_in_the_archive_and_proven_once(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive)
        node.run("evidence")
        node.until("commitment", (TaskState.DONE,))
        assert take_back(node, unsafe=True) == 2
        assert node.run("evidence")["code"] == "evidence.withdrawn"
        assert node.state == StudyState.TRIAGED
        node.until("commitment", (TaskState.DONE,))
        assert node.state == StudyState.DELIVERED
        assert kinds(archive) == ["sr", "sc", "kos"]
        note = archive.kept[archive.stored[-1]]
        assert note.ConceptNameCodeSequence[0].CodeValue == "113037"
        named = {
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in note.ContentSequence
            if "ReferencedSOPSequence" in item
        }
        assert named == set(archive.stored[:2])
        with pytest.raises(Quarantine, match="nothing-to-withdraw"):
            take_back(node)


def test_a_withdrawal_that_was_interrupted_sends_the_same_note_again(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        node.run("evidence")
        take_back(node)
        for _ in range(2):
            node.run("evidence")
            with node.node.database.write() as connection:
                connection.execute(update(task).where(task.c.revision == 2).values(state=TaskState.READY))
        assert archive.stored[-1] == archive.stored[-2]
        assert len(archive.kept) == 3


def test_nothing_is_withdrawn_that_nobody_was_told_or_whose_identity_is_gone(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        with pytest.raises(Quarantine, match="nothing-to-withdraw"):
            take_back(node)
        node.run("evidence")
        with node.node.database.write() as connection:
            destroy_identity(connection, node.study_key, 1)
        with pytest.raises(Quarantine, match=r"vault\.destroyed"):
            take_back(node)


def test_a_new_result_names_the_old_one_and_one_that_could_not_be_judged_withdraws_nothing(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        node.run("evidence")
        node.judged(TriageResult(TriageOutcome.SKIPPED, "triage.time-limit: too slow"), revision=2)
        assert node.run("evidence")["code"] == "worklist.stands"
        node.judged(result(finding(key_sop_uid=shown(node))), revision=3)
        node.run("evidence")
        assert kinds(archive) == ["sr", "sc", "sr", "sc"]
        first, third = archive.kept[archive.stored[0]], archive.kept[archive.stored[2]]
        series = third.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
        node.judged(TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-series: none fits"), revision=4)
        assert node.run("evidence")["code"] == "evidence.withdrawn"


TOO_SLOW = TriageResult(TriageOutcome.SKIPPED, "triage.time-limit: too slow")


def settled_again(node: ResultsNode, revision: int) -> None:
    with node.node.database.write() as connection:
        supersede(connection, node.study_key, revision)


def test_a_finding_nobody_was_told_of_is_told_when_the_next_revision_cannot_be_judged(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive)
        settled_again(node, 2)
        node.judged(TOO_SLOW, revision=2)
        settled_again(node, 3)
        node.judged(TOO_SLOW, revision=3)
        assert node.run("evidence")["code"] == "evidence.stored"
        assert kinds(archive) == ["sr", "sc"]
        with node.node.database.read() as connection:
            assert {row[0] for row in studies.written(connection, node.study_key, "evidence")} == {1}
        node.until("commitment", (TaskState.DONE,))
        assert node.state == StudyState.DELIVERED


def test_the_newest_finding_is_told_and_names_the_one_before(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        node.run("evidence")
        node.judged(result(finding(Verdict.NOT_FLAGGED, key_sop_uid=shown(node), box=None)), revision=2)
        settled_again(node, 3)
        node.judged(TOO_SLOW, revision=3)
        assert node.run("evidence")["code"] == "evidence.stored"
        assert kinds(archive) == ["sr", "sc", "sr", "sc"]
        assert "PredecessorDocumentsSequence" in archive.kept[archive.stored[2]]


def test_a_withdrawal_that_was_not_told_yet_is_told_though_the_next_revision_cannot_be_judged(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        node.run("evidence")
        take_back(node)
        settled_again(node, 3)
        node.judged(TOO_SLOW, revision=3)
        assert node.run("evidence")["code"] == "evidence.withdrawn"


def test_what_stands_is_proven_before_the_study_is_delivered(judged: Make) -> None:
    with Archive(silent=1) as archive:
        node = judged(archive)
        node.run("evidence")
        node.run("commitment")
        settled_again(node, 2)
        node.judged(TOO_SLOW, revision=2)
        assert node.run("evidence")["code"] == "worklist.stands"
        assert node.state == StudyState.TRIAGED
        assert node.until("commitment", (TaskState.DONE,))["code"] == "commitment.committed"
        assert archive.asked
        assert node.state == StudyState.DELIVERED


def test_what_stands_and_was_proven_is_not_asked_for_again(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive)
        node.run("evidence")
        node.until("commitment", (TaskState.DONE,))
        asked = list(archive.asked)
        node.judged(TOO_SLOW, revision=2)
        node.run("evidence")
        assert node.run("commitment")["code"] == "commitment.committed"
        assert archive.asked == asked


def test_what_stands_and_is_not_committed_is_sent_again_byte_by_byte(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive)
        node.run("evidence")
        before = {uid: one.to_json() for uid, one in archive.kept.items()}
        settled_again(node, 2)
        node.judged(TOO_SLOW, revision=2)
        node.run("evidence")
        archive.fail = 1
        node.until("commitment", (TaskState.DONE,))
        assert len(archive.stored) == 4
        assert {uid: one.to_json() for uid, one in archive.kept.items()} == before


def test_a_result_is_dated_by_when_it_was_found_whatever_came_after(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        node.run("evidence")
        before = {uid: one.to_json() for uid, one in archive.kept.items()}
        with node.node.database.write() as connection:
            connection.execute(study.update().values(triaged_at=time.time() + 3600))
            connection.execute(update(task).values(state=TaskState.READY))
        node.run("evidence")
        assert len(archive.stored) == 4
        assert {uid: one.to_json() for uid, one in archive.kept.items()} == before


def test_an_older_result_is_not_written_after_a_newer_revision_has_settled(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        claimed = node.node.tasks.claim("worklist", "evidence", 60.0)
        assert claimed is not None
        settled_again(node, 2)
        node.judged(TOO_SLOW, revision=2)
        node.bench("evidence").one(claimed)
        assert node.row("evidence", 1)["code"] == "superseded"
        assert archive.stored == []
        node.run("evidence")
        assert kinds(archive) == ["sr", "sc"]


def two_models(uid: str) -> TriageResult:
    other = ModelIdentity("chest", "1.0.0", "cd" * 32, "fp32", "test model, not for clinical use")
    return result(
        finding(key_sop_uid=uid),
        finding(model=other, key_sop_uid=uid, category=3, code=Code("36118008", "SCT", "Pneumothorax")),
    )


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mode": "shadow"}, "worklist.shadow"),
        ({"writer_modes": {"evidence": "shadow"}}, "worklist.shadow"),
        ({"mode": "information"}, "evidence.stored"),
        ({"model_modes": {"ref-ct-head-hyperdensity": "shadow"}}, "evidence.nothing-to-store"),
        ({"model_modes": {"ref-ct-head-hyperdensity": "information"}}, "evidence.stored"),
    ],
)
def test_the_most_cautious_mode_counts(judged: Make, options: dict[str, Any], code: str) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off", **options)
        assert node.run("evidence")["code"] == code
        assert bool(archive.kept) == (code == "evidence.stored")


def test_a_model_in_shadow_is_not_in_the_report_and_neither_is_its_picture(judged: Make) -> None:
    with Archive() as archive:
        modes = {"ref-ct-head-hyperdensity": "shadow"}
        node = judged(archive, TriageResult(TriageOutcome.NOT_APPLICABLE), commitment="off", model_modes=modes)
        node.judged(two_models(shown(node)), revision=2)
        node.run("evidence")
        assert kinds(archive) == ["sr"]
        said = archive.kept[archive.stored[0]].to_json()
        assert "Pneumothorax" in said
        assert "hemorrhage" not in said


@pytest.mark.parametrize(
    ("late", "began", "code"),
    [("mark", -60, "evidence.stored"), ("mark", 60, "evidence.stored"), ("withhold", 60, "worklist.late")],
)
def test_a_late_result_says_so_or_is_withheld(judged: Make, late: str, began: float, code: str) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off", late=late)
        with node.node.database.write() as connection:
            readers.note(connection, node.study_key, Reading.CLAIMED, "ups", time.time() + began)
        assert node.run("evidence")["code"] == code
        marked = ["LATE:" in one.to_json() for one in archive.kept.values() if one.Modality == "SR"]
        assert marked == ([] if code == "worklist.late" else [began < 0])


def test_a_report_outranks_a_claim_and_the_time_of_the_claim_stays(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive)
        with node.node.database.write() as connection:
            assert readers.of(connection, node.study_key) is None
            assert readers.note(connection, node.study_key, Reading.CLAIMED, "ups", 1.0)
            assert not readers.note(connection, node.study_key, Reading.CLAIMED, "fhir", 2.0)
            assert readers.note(connection, node.study_key, Reading.REPORTED, "hl7", 3.0)
            assert not readers.note(connection, node.study_key, Reading.CLAIMED, "ups", 4.0)
            known = readers.of(connection, node.study_key)
        assert known == readers.Reader(Reading.REPORTED, "hl7", 1.0)


def test_revisions_of_the_ledger_and_of_the_study_agree_after_a_withdrawal(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        node.run("evidence")
        take_back(node)
        with node.node.database.read() as connection:
            assert connection.execute(study.select()).one().revision == 2
        assert node.row("evidence", 2)["state"] == TaskState.READY


def test_the_mark_is_kept_sealed_with_the_key_image_and_goes_with_it(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off")
        plain = result(finding(key_sop_uid=shown(node)))
        assert plain.key_image is not None
        mask = Mask(3, 5, b"\x15\x40")
        marked = replace(plain, key_image=replace(plain.key_image, mask=mask))
        with node.node.database.write() as connection:
            node.node.clean.put_finding(connection, node.study_key, 2, marked)
        assert node.node.clean.finding(node.study_key, 2) == marked
        with node.node.database.write() as connection:
            connection.execute(update(study).values(state=StudyState.DELIVERED))
            destroy_clean(connection, node.study_key, 1)
        kept = node.node.clean.finding(node.study_key, 2)
        assert kept is not None
        assert kept.key_image is None


def test_a_withdrawal_is_never_withheld(judged: Make) -> None:
    with Archive() as archive:
        node = judged(archive, commitment="off", late="withhold")
        node.run("evidence")
        with node.node.database.write() as connection:
            readers.note(connection, node.study_key, Reading.REPORTED, "hl7", time.time())
        take_back(node)
        assert node.run("evidence")["code"] == "evidence.withdrawn"


def test_a_site_that_goes_back_to_shadow_is_not_sent_anything_again(judged: Make, tmp_path: Path) -> None:
    with Archive(fail=1) as archive:
        node = judged(archive)
        node.run("evidence")
        node.run("commitment")
        quiet = results_node(tmp_path, archive.peer, mode="shadow")
        quiet.study_key = node.study_key
        stored = list(archive.stored)
        assert quiet.run("commitment")["code"] == "worklist.shadow"
        assert archive.stored == stored


def test_the_others_wait_for_the_report_and_name_the_one_that_was_taken(judged: Make, tmp_path: Path) -> None:
    """An archive without the newest kind of report: the workitem names the kind it has."""
    classes = {CLASSES[kind] for kind in ("sr-enhanced", "sc")}
    with Archive(classes=classes) as archive, ToyPacs(store=tmp_path / "toy") as toy:
        worklist = Peer(toy.ae_title, "127.0.0.1", toy.port)
        node = judged(archive, commitment="off", writers=["evidence", "ups"], worklist_at=worklist)
        writing = threading.Timer(0.5, node.run, ("evidence",))
        writing.start()
        assert node.run("ups")["code"] == "ups.created"
        writing.join()
        [item] = toy.workitems
        named = {
            str(reference.ReferencedSOPClassUID)
            for one in item.InputInformationSequence
            for reference in one.ReferencedSOPSequence
        }
        assert CLASSES["sr-enhanced"] in named
        assert CLASSES["sr"] not in named


def test_nobody_waits_for_a_report_that_does_not_come(judged: Make, tmp_path: Path) -> None:
    with Archive() as archive, ToyPacs(store=tmp_path / "toy") as toy:
        worklist = Peer(toy.ae_title, "127.0.0.1", toy.port)
        nowhere = Peer("NOWHERE", "127.0.0.1", free_port())
        node = judged(archive, worklist_at=worklist, writers=["evidence", "ups"])
        lost = results_node(tmp_path, nowhere, worklist_at=worklist, writers=["evidence", "ups"], timeout_s=1)
        lost.study_key = node.study_key
        assert lost.run("evidence")["code"] == "worklist.pacs-unavailable"
        began = time.monotonic()
        assert lost.run("ups")["code"] == "ups.created"
        assert time.monotonic() - began < EVIDENCE_FIRST_S / 2
