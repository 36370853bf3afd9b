"""Identity is destroyed when its time is over, and not before what is to be written back was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.study import Deidentified, StudyState, TaskState
from edge_node.service.compute_steps import purge_work
from edge_node.store.tables import study, task
from edge_node.store.tasks import enqueue
from tests.unit.store.conftest import Store

KEY = "STUDYKEY0001"


def test_identity_that_came_again_waits_for_the_write_back_it_came_for(
    store: Store, clean_instance: Callable[..., Deidentified]
) -> None:
    store.intake.record(clean_instance(), calling_ae="CT1", received_at=time.time())
    node: Any = store
    with store.database.write() as connection:
        connection.execute(update(study).values(state=StudyState.TRIAGED))
        enqueue(connection, KEY, 1, "worklist", target="ups")
        connection.execute(update(task).values(state=TaskState.DEAD))
        enqueue(connection, KEY, 1, "purge", target="envelope")
    claimed = store.tasks.claim("purge", None, 60)
    assert claimed is not None
    with pytest.raises(Retry) as caught:
        purge_work(node)(claimed)
    assert (caught.value.code, caught.value.counts) == ("purge.awaits-write-back", False)
    with store.database.write() as connection:
        connection.execute(update(task).where(task.c.step == "worklist").values(state=TaskState.DONE))
    done = purge_work(node)(claimed)
    with store.database.write() as connection:
        assert done.commit is not None
        done.commit(connection)
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        store.vault.open(KEY)
