"""A human's word lets masked images leave; nothing else of the study, and not without a trace."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from edge_node.config.schema import Config
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import TaskState
from edge_node.pipeline import enqueue
from edge_node.service import review
from edge_node.store.tables import audit, task
from tests.unit.service.test_pixel_steps import SC, Ink, Line, line, picture, tools

__all__ = ["line"]


@pytest.fixture
def opened(line: Line, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(review, "open_node", lambda _config, _role: line.node)
    return line


def test_masked_images_are_shown_and_released_on_a_humans_word(opened: Line, tmp_path: Path) -> None:
    key = opened.take(picture(1, SC), picture(2))
    opened.clean(tools(Ink()))
    with opened.store.database.write() as connection:
        enqueue(connection, key, 1, "forward")
        connection.execute(task.update().where(task.c.step == "forward").values(state=TaskState.DONE))
    [shown] = review.write_pictures(Config(), key, tmp_path / "look")
    assert stat.S_IMODE(shown.stat().st_mode) == 0o600
    assert (np.asarray(Image.open(shown))[1, 2:4] == 0).all()
    assert review.release_masked(Config(), key) == 1
    works = sorted((one.pixel_risk, one.pixel_work) for one in opened.store.clean.study(key).objects)
    assert works == [("", "masked"), ("", "released:masked")]
    with opened.store.database.read() as connection:
        assert connection.execute(select(task.c.state).where(task.c.step == "forward")).scalar() == TaskState.READY
        actions = connection.execute(select(audit.c.action)).scalars().all()
    assert {"pixels.shown", "pixels.released"} <= set(actions)


def test_what_was_not_cleaned_cannot_be_released(opened: Line, tmp_path: Path) -> None:
    key = opened.take(picture(1, SC))
    opened.clean(tools())
    for attempt in (
        lambda: review.release_masked(Config(), key),
        lambda: review.write_pictures(Config(), key, tmp_path),
    ):
        with pytest.raises(Quarantine, match=r"pixels\.nothing-to-review.*held:no-detector"):
            attempt()
    [one] = opened.store.clean.study(key).objects
    assert one.pixel_risk == "secondary-capture"
