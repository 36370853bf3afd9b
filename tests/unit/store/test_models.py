"""The registry of models: one step at a time, atomic, recorded, and back in one command."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.domain.errors import Quarantine
from edge_node.domain.model import SPEAKING, Stage
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.models import Models

WHO = {"who": "Dr. R. Adams", "why": "committee"}
A, B = "a" * 64, "b" * 64


def new_registry(folder):
    database = Database(folder / "ledger.sqlite3")
    database.migrate()
    models = Models(database, "site/admin")
    for package, version in ((A, "1.0.0"), (B, "2.0.0")):
        models.add(package, "pe", version, trust="signed by 0123", size=1, **WHO)
    return models


@pytest.fixture
def models(tmp_path):
    return new_registry(tmp_path)


def stages(models):
    return {one.version: str(one.stage) for one in models.all("pe")}


def climb(models, version, to=Stage.LIVE):
    for stage in (Stage.SHADOW, Stage.INFORMATION, Stage.LIVE):
        models.promote("pe", version, stage, **WHO)
        if stage == to:
            return


def code_of(action):
    with pytest.raises(Quarantine) as caught:
        action()
    return caught.value.code


def test_a_package_that_was_added_does_not_run(models):
    assert stages(models) == {"1.0.0": "added", "2.0.0": "added"}


@pytest.mark.parametrize("to", SPEAKING)
def test_no_stage_can_be_skipped(models, to):
    assert code_of(lambda: models.promote("pe", "1.0.0", to, **WHO)) == "model.step"
    assert stages(models)["1.0.0"] == "added"


def test_a_version_never_changes_its_bytes(models):
    assert not models.add(A, "pe", "1.0.0", trust="", size=1, **WHO)
    assert code_of(lambda: models.add("c" * 64, "pe", "1.0.0", trust="", size=1, **WHO)) == "model.version-taken"


def test_the_next_version_replaces_the_last_one_only_when_it_gets_there(models):
    climb(models, "1.0.0")
    climb(models, "2.0.0", Stage.INFORMATION)
    assert stages(models) == {"1.0.0": "live", "2.0.0": "information"}
    models.promote("pe", "2.0.0", Stage.LIVE, **WHO)
    assert stages(models) == {"1.0.0": "retired", "2.0.0": "live"}


def test_a_rollback_brings_back_what_decided_before_and_another_one_goes_further_back(models):
    climb(models, "1.0.0")
    climb(models, "2.0.0")
    change, _ = models.before_last("pe")
    models.rollback("pe", change.id, **WHO)
    assert stages(models) == {"1.0.0": "live", "2.0.0": "information"}
    change, _ = models.before_last("pe")
    models.rollback("pe", change.id, **WHO)
    assert stages(models) == {"1.0.0": "live", "2.0.0": "shadow"}


def test_what_failed_stays_out_when_a_promotion_is_taken_back(models):
    climb(models, "1.0.0")
    climb(models, "2.0.0")
    assert models.quarantine(B, "model.crashed", "twice")
    assert stages(models) == {"1.0.0": "retired", "2.0.0": "quarantined"}
    change, _ = models.before_last("pe")
    models.rollback("pe", change.id, **WHO)
    assert stages(models) == {"1.0.0": "live", "2.0.0": "quarantined"}
    assert models.find("pe", "2.0.0").code == "model.crashed"
    assert code_of(lambda: models.promote("pe", "2.0.0", Stage.LIVE, **WHO)) == "model.step"


def test_what_does_not_run_cannot_fail(models):
    assert not models.quarantine(A, "model.crashed", "twice")
    assert stages(models)["1.0.0"] == "added"


def test_a_rollback_of_what_somebody_else_changed_meanwhile_is_refused(models):
    climb(models, "1.0.0")
    change, _ = models.before_last("pe")
    models.retire("pe", "1.0.0", **WHO)
    assert code_of(lambda: models.rollback("pe", change.id, **WHO)) == "model.changed"
    assert stages(models)["1.0.0"] == "retired"


def test_there_is_not_always_something_to_take_back(models):
    assert code_of(lambda: models.before_last("pe")) == "model.nothing-to-roll-back"
    assert code_of(lambda: models.before_last("xy")) == "model.unknown"
    assert code_of(lambda: models.find("pe", "9.9.9")) == "model.unknown"


def test_every_change_stands_in_the_audit_with_who_and_why(models):
    climb(models, "1.0.0", Stage.SHADOW)
    with models.database.read() as connection:
        entry = [e for e in audit.entries(connection) if e.action == "model.promote"][-1]
    assert entry.detail["who"] == "Dr. R. Adams"
    assert entry.detail["why"] == "committee"
    assert entry.detail["changed"] == {"1.0.0": {"package": A, "from": "added", "to": "shadow"}}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["promote", "retire", "rollback", "quarantine"]),
        st.sampled_from(["1.0.0", "2.0.0"]),
        st.sampled_from([Stage.SHADOW, Stage.INFORMATION, Stage.LIVE]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(ACTIONS)
def test_whatever_is_done_one_version_at_most_is_live_and_the_audit_tells_the_same_story(tmp_path_factory, actions):
    models = new_registry(tmp_path_factory.mktemp("registry"))
    told = {"1.0.0": "added", "2.0.0": "added"}
    for what, version, to in actions:
        generation = models.generation()
        try:
            if what == "promote":
                models.promote("pe", version, to, **WHO)
            elif what == "retire":
                models.retire("pe", version, **WHO)
            elif what == "quarantine":
                models.quarantine({"1.0.0": A, "2.0.0": B}[version], "model.crashed", "twice")
            else:
                models.rollback("pe", models.before_last("pe")[0].id, **WHO)
        except Quarantine:
            assert models.generation() == generation
        now = stages(models)
        for stage in SPEAKING:
            assert list(now.values()).count(stage) <= 1
    with models.database.read() as connection:
        for entry in audit.entries(connection):
            for version, change in entry.detail["changed"].items():
                told[version] = change["to"]
        assert audit.verify(connection).intact
    assert told == stages(models)
    models.database.close()
