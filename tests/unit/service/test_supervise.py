"""The supervisor outlives its roles, however often one of them dies."""

from __future__ import annotations

import subprocess

import pytest

from edge_node.domain.study import Role
from edge_node.service import supervise
from edge_node.service.supervise import Supervisor


@pytest.mark.parametrize("deaths", [0, 1, 8, 1025, 10**6])
def test_a_role_that_dies_for_days_is_tried_again_and_ends_no_other(deaths: int) -> None:
    assert supervise.RESTART_FIRST_S <= supervise._pause(deaths) <= supervise.RESTART_CAP_S


def test_a_role_that_there_is_no_memory_for_is_tried_again_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "RESTART_FIRST_S", 0.0)
    process = subprocess.Popen(["true"])
    process.wait()
    child = supervise._Child(Role.FORWARD, process, started=0.0)
    supervisor, start, short = Supervisor([Role.FORWARD], []), subprocess.Popen, iter(range(2))

    def out_of_memory(*_: object, **__: object) -> subprocess.Popen[bytes]:
        if next(short, None) is not None:
            raise BlockingIOError
        return start(["true"])

    monkeypatch.setattr(supervise.subprocess, "Popen", out_of_memory)
    for tried in range(3):
        assert (child.process is process, child.quick_deaths) == (True, tried)
        supervisor._restart(child, 1)
    assert child.process is not process
    child.process.wait()
