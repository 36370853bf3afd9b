"""The watch over models: results become windows, windows become alarms, and nothing of a patient is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from edge_node.config.schema import Config, Node, Triage
from edge_node.domain.finding import Code, Finding, ModelIdentity, TriageOutcome, TriageResult, Verdict
from edge_node.domain.study import Role
from edge_node.service import watching
from edge_node.service.drift_section import drift_section
from edge_node.service.node import open_node
from edge_node.service.setup import initialise
from edge_node.service.snapshot import snapshot
from edge_node.store import audit, watch
from edge_node.store.watch_tables import observation

MODEL = ModelIdentity("pe-ct", "1.0.0", "0" * 64, "int8", "trial", "shadow", "package", "signed")


@pytest.fixture
def node(tmp_path):
    config = Config(node=Node(data_dir=tmp_path / "data"), triage=Triage(drift_window=40, drift_false_alarms=0.02))
    initialise(config)
    node = open_node(config, Role.COMPUTE)
    yield node
    node.database.close()


def result(p, *, hu=30.0, scanner="Toy One", threshold=0.5, verdict=None):
    verdict = verdict or (Verdict.FLAGGED if p >= threshold else Verdict.NOT_FLAGGED)
    seen = (("scanner", scanner), ("protocol", "p-1"), ("soft HU", hu))
    code = Code("C1", "99", "thing")
    finding = Finding(verdict, MODEL, "CPU", code, p, threshold, 1, "s", "i", 1, None, 0.1, seen=seen)
    return TriageResult(TriageOutcome.FINDING, findings=(finding,))


class Clinic:
    """Sends results one by one; the node looks after each tenth."""

    def __init__(self, node):
        self.node, self.rng, self.number, self.alarms = node, np.random.default_rng(6), 0, 0

    def day(self, count, *, shift=0.0, boost=0.0, **options):
        for _ in range(count):
            self.number += 1
            p = float(np.clip(self.rng.beta(1, 6) + boost, 0, 1))
            told = result(p, hu=float(self.rng.normal(30 + shift, 3)), **options)
            with self.node.database.write() as connection:
                watch.observe(connection, f"study{self.number}", told)
            if self.number % 10 == 0:
                self.alarms += watching.look(self.node)

    def state(self):
        [row] = watching.watched(self.node.config)
        return row


@pytest.fixture
def clinic(node):
    return Clinic(node)


def test_the_first_results_are_the_reference_and_quiet_windows_stay_quiet(clinic):
    clinic.day(100)
    assert clinic.state()["state"] == "no reference yet"
    clinic.day(100 + 80)
    row = clinic.state()
    assert (row["state"], clinic.alarms, row["waiting"]) == ("quiet", 0, 0)
    assert {test["what"] for test in row["tests"]} == {
        "flag rate",
        "score",
        "soft HU",
        "scanner",
        "protocol",
        "judged",
    }
    assert "2000 results" in row["rule"]


def test_a_scanner_whose_numbers_shift_is_an_alarm_until_a_window_is_quiet_again(clinic):
    clinic.day(200)
    clinic.day(40, shift=6)
    row = clinic.state()
    assert (row["state"], row["changed"]) == ("alarm", ["soft HU"])
    with clinic.node.database.read() as connection:
        [entry] = [e for e in audit.entries(connection, "") if e.action == "model.drift"]
    assert entry.detail["changed"] == ["soft HU"]
    clinic.day(40)
    assert clinic.state()["state"] == "quiet"


def test_a_flood_of_flags_alarms_before_the_window_is_full_and_once_only(clinic):
    clinic.day(200)
    clinic.day(20, boost=0.6)
    row = clinic.state()
    assert (row["state"], row["changed"], row["waiting"]) == ("alarm", ["flag rate"], 20)
    clinic.day(10, boost=0.6)
    assert clinic.alarms == 1
    clinic.day(10, boost=0.6)
    assert {"flag rate", "score"} <= set(clinic.state()["changed"])


def test_studies_that_can_no_longer_be_judged_are_a_change(clinic):
    clinic.day(200)
    clinic.day(25)
    clinic.day(15, verdict=Verdict.CANNOT_JUDGE)
    assert "judged" in clinic.state()["changed"]


def test_a_new_threshold_is_a_decision_and_no_drift(clinic):
    clinic.day(200)
    clinic.day(40, threshold=0.2)
    assert clinic.state()["state"] == "quiet"


def test_a_study_that_is_judged_again_counts_once(clinic):
    clinic.day(5)
    with clinic.node.database.write() as connection:
        watch.observe(connection, "study3", result(0.9))
    assert clinic.state()["results"] == 5


def test_a_validation_becomes_the_reference_at_once(clinic):
    rng = np.random.default_rng(8)
    scores = np.clip(rng.beta(1, 6, 100), 0, 1).tolist()
    seen = [{"scanner": "Toy One", "soft HU": float(rng.normal(30, 3))} for _ in scores]
    figures = {"reference": {"scores": scores, "flagged": [p >= 0.5 for p in scores], "weights": [], "seen": seen}}
    with clinic.node.database.write() as connection:
        watch.write_record(
            connection, "test", watch.Stream("package", "int8", "C1"), "validation", "Dr. R. Adams", figures, {}
        )
    clinic.day(40, scanner="Toy Two")
    row = clinic.state()
    assert row["reference"] == "validation of 100"
    assert row["changed"] == ["scanner"]


def test_status_page_and_doctor_tell_and_nothing_of_a_patient_is_kept(clinic):
    clinic.day(200)
    clinic.day(40, shift=6)
    shot = snapshot(clinic.node.config)
    page = drift_section(shot.drift)
    assert "changed: soft HU" in page
    assert page.count("<svg") == 3
    assert "http" not in page
    [check] = watching.checks(clinic.node.config)
    assert (check.result, check.hint) == ("warn", "edge-node model drift package")
    with clinic.node.database.read() as connection:
        row = connection.execute(select(observation).limit(1)).one()
    assert set(json.loads(row.seen)) == {"scanner", "protocol", "soft HU"}


def test_doctor_says_which_finding_of_a_model_it_speaks_of(node):
    told = result(0.2)
    [first] = told.findings
    both = replace(told, findings=(first, replace(first, code=Code("C2", "99", "other"))))
    with node.database.write() as connection:
        watch.observe(connection, "study1", both)
    said = [check.detail.partition(":")[0].rpartition(", ")[2] for check in watching.checks(node.config)]
    assert said == ["C1", "C2"]
