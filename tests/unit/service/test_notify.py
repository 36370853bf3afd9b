from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_node.service import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's datagram socket, named in the environment as systemd does."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edge-node-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("\0" + name[1:] if name.startswith("@") else name)
        line.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield line


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_call_is_one_datagram_of_assignments(manager: socket.socket) -> None:
    notify.ready("serving")
    notify.status("loading the models")
    notify.watchdog()
    notify.stopping()
    assert heard(manager) == ["READY=1", "STATUS=serving"]
    assert heard(manager) == ["STATUS=loading the models"]
    assert heard(manager) == ["WATCHDOG=1"]
    assert heard(manager) == ["STOPPING=1", "STATUS=draining"]


def test_ready_needs_no_words(manager: socket.socket) -> None:
    notify.ready()
    assert heard(manager) == ["READY=1"]


def test_a_line_break_in_a_status_cannot_forge_an_assignment(manager: socket.socket) -> None:
    notify.status("busy\nMAINPID=1\r\nREADY=1")
    assert heard(manager) == ["STATUS=busy MAINPID=1 READY=1"]


def test_an_empty_status_says_nothing(manager: socket.socket) -> None:
    notify.status(" \n ")
    notify.watchdog()
    assert heard(manager) == ["WATCHDOG=1"]


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/notify", "@nobody-listens-here"])
def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify.ready("serving") is None


def test_the_watchdog_is_fed_twice_as_often_as_it_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval_s() == 30.0
    monkeypatch.delenv("WATCHDOG_PID")
    assert notify.watchdog_interval_s() == 30.0


@pytest.mark.parametrize("allowed", ["", "0", "-5", "soon"])
def test_no_watchdog_no_interval(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", allowed)
    assert notify.watchdog_interval_s() is None


def test_a_child_that_inherits_the_environment_is_not_the_one_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    code = "from edge_node.service.notify import watchdog_interval_s; print(watchdog_interval_s())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "None"
