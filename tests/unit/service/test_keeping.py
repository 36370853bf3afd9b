"""Processes inside a role: they come back, they are told of, and none that fails costs the clinic its receiver."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_node.config.load import load
from edge_node.config.schema import Config
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode
from edge_node.domain.study import Role
from edge_node.service import keeping, quietly
from edge_node.service.keeping import Keeper
from edge_node.service.life import Life
from edge_node.service.node import open_node
from edge_node.service.process import pause_s
from edge_node.service.setup import initialise
from edge_node.service.snapshot import snapshot


def count(config: Config) -> None:
    with (config.node.data_dir / "begun").open("a") as file:
        file.write(f"{os.getpid()}\n")


def misconfigured(config: Config) -> None:
    count(config)
    raise Stop("x.wrong", "an option is wrong", hint="mend it", exit_code=ExitCode.CONFIG)


def mended(config: Config) -> None:
    count(config)
    if not (config.node.data_dir / "right").exists():
        raise SystemExit(ExitCode.NOT_PERMITTED)
    signal.pause()


def dying(config: Config) -> None:
    count(config)
    os._exit(ExitCode.UNAVAILABLE)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(keeping, "PAUSE_S", 0.05)
    monkeypatch.setattr(keeping, "LONGEST_PAUSE_S", 0.2)
    path = tmp_path / "e.toml"
    path.write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\n[storage]\nreserve_mb = 16\n')
    initialise(load(path).config)
    return load(path).config


@pytest.fixture
def life(config: Config) -> Iterator[Life]:
    one = Life(open_node(config, Role.DICOM))
    running = threading.Thread(target=one.live, args=([],))
    one.running = running  # type: ignore[attr-defined]
    yield one
    one.stop.set()
    if running.ident:
        running.join(30)


def until(what: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def begun(config: Config) -> int:
    path = config.node.data_dir / "begun"
    return len(path.read_text().split()) if path.exists() else 0


def test_a_process_that_stops_for_its_configuration_is_told_and_tried_again_and_stops_nobody(
    config: Config, life: Life
) -> None:
    Keeper(config, life).keep("pull", "pull", misconfigured)
    until(lambda: begun(config) >= 2)
    assert not life.stop.is_set()
    assert life._detail["failing"] == [{"process": "pull", "code": "pull.cannot-start", "exit_code": ExitCode.CONFIG}]


def test_what_does_not_stay_makes_the_nodes_state_bad_until_it_stays(
    config: Config, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    Keeper(config, life).keep("reading list", "reading-list", mended)
    until(lambda: life._detail.get("failing"))
    life.running.start()  # type: ignore[attr-defined]
    until(lambda: snapshot(config).roles)
    shot = snapshot(config)
    told = {"role": "dicom", "process": "reading list", "code": "reading-list.cannot-start"}
    assert shot.failing == [{**told, "exit_code": ExitCode.NOT_PERMITTED}]
    assert not shot.healthy
    assert "failing" not in shot.roles[0]
    (config.node.data_dir / "right").touch()
    monkeypatch.setattr(keeping, "STEADY_S", 0.5)
    until(lambda: not life._detail["failing"])


def test_a_process_that_dies_once_is_started_again_and_one_that_keeps_dying_is_told(config: Config, life: Life) -> None:
    Keeper(config, life).keep("doors", "receive", dying)
    until(lambda: begun(config) >= 1)
    assert not life._detail.get("failing")
    until(lambda: life._detail.get("failing"))
    assert begun(config) >= keeping.TOLD_AFTER
    assert life._detail["failing"] == [
        {"process": "doors", "code": "receive.cannot-start", "exit_code": ExitCode.UNAVAILABLE}
    ]
    assert not life.stop.is_set()


def test_a_process_that_has_loaded_ahead_is_the_first_and_has_successors(config: Config, life: Life) -> None:
    ahead = quietly.Ahead("write-back")
    Keeper(config, life).keep("write-back", "worklist", dying, ahead=ahead)
    until(lambda: begun(config) >= 2)
    pids = [int(pid) for pid in (config.node.data_dir / "begun").read_text().split()]
    assert pids[0] == ahead.process.pid
    assert len(set(pids)) == len(pids)


@pytest.mark.parametrize("deaths", [0, 5, 1024, 10**6])
def test_a_process_that_dies_for_days_is_tried_again_every_minute(deaths: int) -> None:
    assert 2.0 <= pause_s(deaths, 2.0, 60.0) <= 60.0


def test_a_process_that_there_is_no_memory_for_is_tried_again_and_stops_nobody(
    config: Config, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, short = keeping.starting, iter(range(keeping.TOLD_AFTER))

    @contextmanager
    def starting(*, forgetful: bool) -> Iterator[None]:
        if next(short, None) is not None:
            raise BlockingIOError
        with begin(forgetful=forgetful):
            yield

    monkeypatch.setattr(keeping, "starting", starting)
    (config.node.data_dir / "right").touch()
    Keeper(config, life).keep("pull", "pull", mended, vital=True)
    until(lambda: life._detail.get("failing"))
    assert life._detail["failing"] == [{"process": "pull", "code": "pull.cannot-start", "exit_code": None}]
    until(lambda: begun(config))
    assert not life.stop.is_set()


def test_a_process_that_the_role_is_nothing_without_stops_it(config: Config, life: Life) -> None:
    Keeper(config, life).keep("pixels", "pixels", misconfigured, vital=True)
    until(life.stop.is_set)
    assert life._exit_code() == ExitCode.CONFIG


def test_processes_end_with_their_role(config: Config, life: Life) -> None:
    (config.node.data_dir / "right").touch()
    Keeper(config, life).keep("pull", "pull", mended)
    until(lambda: begun(config))
    life.stop.set()
    [pid] = (int(word) for word in (config.node.data_dir / "begun").read_text().split())
    until(lambda: not Path(f"/proc/{pid}").exists())
