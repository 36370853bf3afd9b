"""What was given up is counted by reason, and due again when somebody says so."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from edge_node.domain.errors import Quarantine
from edge_node.store import audit, dead, tables
from edge_node.store.tasks import enqueue
from tests.unit.store.conftest import Store
from tests.unit.store.rows import study_row

Given = tuple[str, str, str, str]
GIVEN_UP: tuple[Given, ...] = (
    ("A", "worklist", "ups", "worklist.rejected"),
    ("B", "worklist", "ups", "worklist.rejected"),
    ("C", "worklist", "evidence", "worklist.rejected"),
    ("D", "forward", "trainer", "forward.refused"),
    ("E", "purge", "clean", "internal.OSError"),
)


@pytest.fixture
def given_up(store: Store) -> Store:
    for study, step, target, code in GIVEN_UP:
        with store.database.write() as connection:
            connection.execute(insert(tables.study).values(study_row(study)))
            enqueue(connection, study, 1, step, target=target)
        claimed = store.tasks.claim(step, target, 60.0)
        assert claimed is not None
        store.tasks.bury(claimed, Quarantine(code, f"no: {code}"))
    with store.database.write() as connection:
        enqueue(connection, "F", 1, "worklist", target="ups")
    return store


def left(store: Store) -> set[str]:
    with store.database.read() as connection:
        return set(connection.execute(select(tables.task.c.study_key).where(tables.task.c.state == "DEAD")).scalars())


def test_what_was_given_up_is_counted_by_step_target_and_reason(given_up: Store) -> None:
    with given_up.database.read() as connection:
        told = [(one.step, one.target, one.code, one.rows) for one in dead.reasons(connection)]
    assert told == [
        ("worklist", "ups", "worklist.rejected", 2),
        ("forward", "trainer", "forward.refused", 1),
        ("purge", "clean", "internal.OSError", 1),
        ("worklist", "evidence", "worklist.rejected", 1),
    ]


@pytest.mark.parametrize(
    ("which", "stay"),
    [
        ({"steps": ["worklist"]}, {"D", "E"}),
        ({"target": "ups"}, {"C", "D", "E"}),
        ({"code": "forward.refused"}, {"A", "B", "C", "E"}),
        ({}, {"E"}),
        ({"steps": ["worklist"], "code": "forward.refused"}, {"A", "B", "C", "D", "E"}),
    ],
)
def test_only_what_is_meant_is_due_again_and_never_a_destruction(
    given_up: Store, which: dict[str, Any], stay: set[str]
) -> None:
    rows, studies = dead.retry(given_up.database, "site/admin", **which)
    assert left(given_up) == stay
    assert rows == studies == 5 - len(stay)
    with given_up.database.read() as connection:
        told = {one.study_key for one in audit.entries(connection) if one.action == "study.retried"}
    assert told == {"A", "B", "C", "D", "E"} - stay


def test_what_is_due_again_begins_as_if_it_were_new(given_up: Store) -> None:
    dead.retry(given_up.database, "site/admin", steps=["forward"])
    claimed = given_up.tasks.claim("forward", "trainer", 60.0)
    assert claimed is not None
    assert (claimed.study_key, claimed.attempts, claimed.failures) == ("D", 1, 0)


def test_more_than_fit_into_one_transaction_all_go(given_up: Store) -> None:
    with given_up.database.write() as connection:
        for number in range(120):
            connection.execute(insert(tables.study).values(study_row(f"S{number}")))
            enqueue(connection, f"S{number}", 1, "pixels")
        of_pixels = tables.task.c.step == "pixels"
        connection.execute(update(tables.task).where(of_pixels).values(state="DEAD", code="pixels.crashed"))
    assert dead.retry(given_up.database, "site/admin", steps=["pixels"]) == (120, 120)


def test_what_was_given_up_of_a_revision_that_images_came_after_stays_given_up(given_up: Store) -> None:
    with given_up.database.write() as connection:
        connection.execute(update(tables.study).where(tables.study.c.study_key == "A").values(revision=2))
    assert dead.retry(given_up.database, "site/admin", target="ups") == (1, 1)
    assert left(given_up) == {"A", "C", "D", "E"}
