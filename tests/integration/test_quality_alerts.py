"""Quality alerts to the technologist: real associations to a strict UPS SCP, a real ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import UnifiedProcedureStepPull, UnifiedProcedureStepPush
from sqlalchemy import update

from edge_node.config.lists import QualityAlerts
from edge_node.config.schema import PeerEntry
from edge_node.demo.pacs import ToyPacs
from edge_node.domain.errors import Retry
from edge_node.domain.finding import TriageOutcome, TriageResult, Verdict
from edge_node.domain.study import Role, StudyState
from edge_node.pipeline import Done
from edge_node.service.node import Node, open_node
from edge_node.service.quality_steps import TARGET, quality_work
from edge_node.service.roles import targets_of
from edge_node.store import studies, tables
from edge_node.store.tasks import Task
from edge_node.worklist.priority import decide
from tests.integration.peers_orthanc import free_port
from tests.results_back import finding
from tests.unit.service.site import Site, image, site

__all__ = ["site"]
GAP = "geometry.gap: slices seem to be missing at 2 places"
WHOLE = "quiet for 10 s"
SHORT = "3 of 40 announced missing after 120 s, incomplete"


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[ToyPacs]:
    with ToyPacs(store=tmp_path / "pacs") as running:
        yield running


class QualityNode:
    """A node whose technologists have a worklist; `judged` works a revision as the write-back process does."""

    def __init__(self, site: Site, port: int, mode: str = "information", **options: Any) -> None:
        self.site = site
        entry = PeerEntry(ae_title="DEMOPACS", host="127.0.0.1", port=port)
        worklist = site.config.worklist.model_copy(update={"mode": mode, "timeout_s": 3.0, "writers": []})
        self.config = site.config.model_copy(
            update={
                "quality_alerts": QualityAlerts(peer="quality", **options),
                "peers": {"quality": entry, "pacs": entry},
                "worklist": worklist,
            }
        )
        self.node: Node = open_node(self.config, Role.DICOM)
        self.work = quality_work(self.node)
        self.key = ""

    def receive(self, *numbers: int, **changes: Any) -> None:
        for receipt in self.site.take(*(image(number, **changes) for number in numbers)):
            self.key = receipt.study_key

    def judged(self, revision: int, *quality: str, reason: str = WHOLE, result: TriageResult | None = None) -> Done:
        result = result or TriageResult(
            TriageOutcome.FINDING, "", (finding(Verdict.NOT_FLAGGED, quality=tuple(quality)),)
        )
        with self.node.database.write() as connection:
            now = time.time()
            values = {"state": StudyState.TRIAGED, "triaged_at": now, "revision": revision, "settle_reason": reason}
            connection.execute(update(tables.study).where(tables.study.c.study_key == self.key).values(**values))
            self.node.clean.put_finding(connection, self.key, revision, result)
            priority = decide(arrival=now, order="", patient_class="", finding=result.top)
            studies.put_reading(connection, self.key, revision, priority)
        return self.again(revision)

    def again(self, revision: int) -> Done:
        done = self.work(Task(1, self.key, revision, "worklist", TARGET, 1, 0, time.time()))
        if done.commit is not None:
            with self.node.database.write() as connection:
                done.commit(connection)
        return done


@pytest.fixture
def node(site: Site, pacs: ToyPacs) -> Iterator[QualityNode]:
    one = QualityNode(site, pacs.port)
    one.receive(1)
    yield one
    one.node.database.close()


def standing(pacs: ToyPacs) -> list[str]:
    """The reasons of the workitems that nobody finished."""
    return sorted(
        one.CommentsOnTheScheduledProcedureStep for one in pacs.workitems if one.ProcedureStepState == "SCHEDULED"
    )


def test_missing_images_make_one_workitem_that_says_how_many_and_nothing_of_findings(
    node: QualityNode, pacs: ToyPacs
) -> None:
    done = node.judged(1, reason=SHORT, result=TriageResult(TriageOutcome.FINDING, "", (finding(),)))
    assert done.code == "alert.told"
    [item] = pacs.workitems
    assert item.CommentsOnTheScheduledProcedureStep == "images missing: 3 of 40"
    code = item.ScheduledWorkitemCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("110002", "DCM", "Quality Control")
    assert (item.ScheduledProcedureStepPriority, item.ProcedureStepState) == ("HIGH", "SCHEDULED")
    assert (item.PatientID, str(item.PatientName)) == ("PAT-420042", "Beeblebrox^Zaphod")
    words = item.to_json().lower()
    assert not [word for word in ("hemorrhage", "0.93", "category", "1386000", "triage", "advisory") if word in words]


def test_an_alert_comes_once_a_study_and_fault_however_often_it_is_sent(node: QualityNode, pacs: ToyPacs) -> None:
    node.judged(1, GAP, reason=SHORT)
    node.again(1)
    assert node.judged(2, GAP, reason=SHORT).code == "alert.nothing-new"
    assert standing(pacs) == ["gap between slices: 2", "images missing: 3 of 40"]
    assert len(pacs.workitems) == 2


def test_late_instances_that_mend_a_fault_withdraw_its_alert_and_only_that(node: QualityNode, pacs: ToyPacs) -> None:
    node.judged(1, GAP, reason=SHORT)
    done = node.judged(2, GAP)
    assert done.detail["mended"] == ["missing"]
    assert standing(pacs) == ["gap between slices: 2"]
    assert len([one for one in pacs.workitems if one.ProcedureStepState == "CANCELED"]) == 1


def test_a_fault_that_comes_back_is_a_new_workitem(node: QualityNode, pacs: ToyPacs) -> None:
    node.judged(1, reason=SHORT)
    node.judged(2)
    node.judged(3, reason=SHORT)
    assert standing(pacs) == ["images missing: 3 of 40"]
    assert len({one.SOPInstanceUID for one in pacs.workitems}) == 2


def test_a_revision_that_nobody_looked_at_mends_nothing_in_the_images(node: QualityNode, pacs: ToyPacs) -> None:
    node.judged(1, GAP)
    node.judged(2, result=TriageResult(TriageOutcome.SKIPPED, "triage.time-limit: not judged within 120 s"))
    assert standing(pacs) == ["gap between slices: 2"]


def test_a_check_that_the_technologist_has_begun_is_left_alone(node: QualityNode, pacs: ToyPacs) -> None:
    node.judged(1, reason=SHORT)
    station = AE("STATION")
    station.add_requested_context(UnifiedProcedureStepPull)
    line = station.associate("127.0.0.1", pacs.port, ae_title="DEMOPACS")
    claim = Dataset()
    claim.ProcedureStepState, claim.TransactionUID = "IN PROGRESS", "2.25.77"
    uid = pacs.workitems[0].SOPInstanceUID
    line.send_n_action(claim, 1, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
    line.release()
    assert node.judged(2).detail["begun_by_a_human"] == 1
    assert pacs.workitems[0].ProcedureStepState == "IN PROGRESS"


def test_only_faults_that_the_site_wants_are_told(site: Site, pacs: ToyPacs) -> None:
    node = QualityNode(site, pacs.port, faults=["body-part"])
    node.receive(1, BodyPartExamined="")
    node.judged(1, GAP, reason=SHORT)
    assert standing(pacs) == ["body part not stated"]
    node.node.database.close()


def test_shadow_tells_nobody_and_without_a_peer_there_is_no_work(site: Site, pacs: ToyPacs) -> None:
    node = QualityNode(site, pacs.port, mode="shadow")
    node.receive(1)
    assert node.judged(1, reason=SHORT).code == "worklist.shadow"
    assert pacs.workitems == []
    assert targets_of(node.config).worklist == (TARGET,)
    assert TARGET not in targets_of(site.config).worklist
    node.node.database.close()


def test_a_worklist_that_is_away_is_tried_again_and_nothing_is_taken_as_told(site: Site, pacs: ToyPacs) -> None:
    away = QualityNode(site, free_port())
    away.receive(1)
    with pytest.raises(Retry) as raised:
        away.judged(1, reason=SHORT)
    assert raised.value.code == "worklist.quality-unavailable"
    away.node.database.close()
    back = QualityNode(site, pacs.port)
    back.key = away.key
    assert back.again(1).code == "alert.told"
    back.node.database.close()
