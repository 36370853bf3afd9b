"""What the intake does with an object that comes again, and with a study that comes by two ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import select

from edge_node.deid import peek_study_key
from edge_node.deid.choice import Choice, Recipes
from edge_node.domain.selection import Condition, plain
from edge_node.domain.study import IdentifiedInstance, StudyState
from edge_node.receive.intake import Intake
from edge_node.store import audit, studies
from edge_node.store.receipt import Receipt, Received
from edge_node.store.tables import instance, quarantine, study
from tests.unit.deid.objects import KEY, RECIPE, ct, received
from tests.unit.store.conftest import Store

STRICT = RECIPE.with_name("strict.deid")
CHOICES = (
    Choice(Condition(called=plain(["LUNG"])), RECIPE, "LUNG-1"),
    Choice(Condition(calling=plain(["PACS"])), STRICT),
    Choice(Condition(modalities=plain(["US"])), STRICT),
    Choice(Condition(), RECIPE),
)


def sent(number: int = 1, *, calling: str = "CT1", called: str = "EDGENODE", **changes: object) -> IdentifiedInstance:
    ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number}", **changes)
    return replace(received(ds), calling_ae=calling, called_ae=called)


@dataclass
class Door:
    store: Store
    recipes: Recipes

    def take(self, one: IdentifiedInstance) -> tuple[Received, str]:
        intake = Intake(self.store.intake, self.recipes.deidentify, lambda i: peek_study_key(i, KEY), digest_key=KEY)
        [receipt] = intake.accept_all([one])
        assert isinstance(receipt, Receipt)
        return receipt.received, receipt.code

    def rows(self, table: Any) -> list[Any]:
        with self.store.database.read() as connection:
            return list(connection.execute(select(table)).all())

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        with self.store.database.read() as connection:
            return [(entry.action, entry.detail) for entry in audit.entries(connection)]


@pytest.fixture
def door(store: Store) -> Door:
    return Door(store, Recipes(CHOICES, KEY, version="1"))


def test_ledger_and_audit_name_the_recipe_and_the_trial_of_a_study(door: Door) -> None:
    lung = door.recipes.ids[0]
    assert door.take(sent(called="LUNG")) == (Received.STORED, "")
    [row] = door.rows(study)
    assert (row.recipe, row.recipe_sha256, row.trial) == ("basic", lung.sha256, "LUNG-1")
    assert [one.recipe_sha256 for one in door.rows(instance)] == [lung.sha256]
    [(action, detail)] = door.told()
    assert action == "study.opened"
    expected = {"from": "CT1", "modality": "CT", "recipe": lung.sha256, "name": "basic", "trial": "LUNG-1"}
    assert detail == expected | {"site_key": row.site_key_id}


def test_an_object_that_comes_again_the_same_way_is_a_duplicate(door: Door) -> None:
    door.take(sent(called="LUNG"))
    assert door.take(sent(called="LUNG", calling="MR7")) == (Received.DUPLICATE, "")
    assert len(door.rows(instance)) == 1


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("first", "then"), [("EDGENODE", "LUNG"), ("LUNG", "EDGENODE")])
def test_no_object_of_a_study_is_kept_for_a_second_trial(door: Door, first: str, then: str, number: int) -> None:
    door.take(sent(called=first))
    before = (door.rows(study), door.rows(instance))
    assert door.take(sent(number, called=then)) == (Received.QUARANTINED, "receive.other-trial")
    assert door.take(sent(number, called=then)) == (Received.DUPLICATE, "receive.other-trial")
    assert (door.rows(study), door.rows(instance)) == before
    [held] = door.rows(quarantine)
    assert (held.state, held.study_key) == ("HELD", before[0][0].study_key)
    assert door.take(sent(2, called=first)) == (Received.STORED, "")


def test_the_trial_holds_for_a_study_that_is_closed(door: Door) -> None:
    door.take(sent())
    with door.store.database.write() as connection:
        connection.execute(study.update().values(state=StudyState.CLOSED))
    assert door.take(sent(2, called="LUNG"))[1] == "receive.other-trial"
    [row] = door.rows(study)
    assert (row.state, row.revision, row.trial) == (StudyState.CLOSED, 1, "")


def test_a_worker_that_lost_the_race_for_a_study_keeps_nothing_of_another_trial(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked before either had committed: the second look, in the transaction, decides."""
    late = door.recipes.deidentify(sent(2, called="LUNG"))
    door.take(sent())
    looks, answers = iter([[None]]), door.store.intake.answers
    monkeypatch.setattr(door.store.intake, "answers", lambda *words: next(looks, None) or answers(*words))
    from edge_node.store.receipt import OtherPseudonyms

    with pytest.raises(OtherPseudonyms):
        door.store.intake.record(late, calling_ae="CT1", received_at=1.0)
    assert (len(door.rows(study)), len(door.rows(instance))) == (1, 1)


def test_an_object_that_comes_by_a_way_of_another_recipe_replaces_nothing(door: Door) -> None:
    door.take(sent())
    [before] = door.rows(instance)
    assert door.take(sent(calling="PACS")) == (Received.QUARANTINED, "receive.other-recipe")
    assert door.rows(instance) == [before]
    assert door.take(sent()) == (Received.DUPLICATE, "")


def test_other_content_by_the_same_recipe_is_still_told_from_another_recipe(door: Door) -> None:
    door.take(sent())
    assert door.take(sent(KVP="120")) == (Received.QUARANTINED, "receive.conflicting-duplicate")


def test_a_second_recipe_of_a_study_is_told_once(door: Door) -> None:
    for number in (1, 2):
        assert door.take(sent(number)) == (Received.STORED, "")
    for number in (3, 4):
        assert door.take(sent(number, Modality="US")) == (Received.STORED, "")
    [row] = door.rows(study)
    assert (row.instances, row.recipe, row.modalities) == (4, "basic", "CT,US")
    basic, strict = door.recipes.ids[3].sha256, door.recipes.ids[2].sha256
    assert [one.recipe_sha256 for one in door.rows(instance)] == [basic, basic, strict, strict]
    assert [action for action, _ in door.told()] == ["study.opened", "study.recipe"]
    assert door.told()[1][1] == {"from": "CT1", "modality": "US", "recipe": strict, "name": "strict"}
    clean = door.store.clean.study(row.study_key)
    assert {one.recipe_sha256 for one in clean.objects} == {basic, strict}
    with door.store.database.read() as connection:
        assert studies.get(connection, row.study_key).study_uid == clean.study_uid


def test_a_recipe_that_keeps_uids_makes_no_second_study(door: Door, tmp_path: Any) -> None:
    path = tmp_path / "keep.deid"
    path.write_text("FORMAT dicom\n\n%header\nKEEP StudyInstanceUID\nKEEP SOPInstanceUID\n")
    door.take(sent())
    other = Door(door.store, Recipes([Choice(Condition(), path)], KEY, version="1"))
    assert other.take(sent(2)) == (Received.QUARANTINED, "receive.other-trial")


def test_an_object_that_comes_again_after_an_upgrade_is_a_duplicate_and_one_with_other_pixels_is_not(
    door: Door,
) -> None:
    door.take(sent())
    upgraded = Door(door.store, Recipes(CHOICES, KEY, version="2"))
    assert upgraded.take(sent()) == (Received.DUPLICATE, "")
    changed = sent(PixelData=bytes(range(1, 33)))
    assert upgraded.take(changed) == (Received.QUARANTINED, "receive.conflicting-duplicate")
    assert upgraded.take(sent(KVP="140")) == (Received.QUARANTINED, "receive.conflicting-duplicate")
