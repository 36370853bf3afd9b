"""Processes beside the receiver load quietly and then work at their own rank."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_node.service import quietly


def note(path: Path, told: str = "") -> None:
    path.write_text(f"{os.getpid()} {os.getpriority(os.PRIO_PROCESS, 0)} {'imaplib' in sys.modules} {told}")


def test_a_quiet_process_does_its_work_at_the_rank_of_its_parent(tmp_path: Path) -> None:
    child = quietly.process("beside", note, tmp_path / "said", "well")
    child.start()
    child.join(30)
    pid, rank, _, told = (tmp_path / "said").read_text().split()
    assert (int(pid), int(rank), told) == (child.pid, os.getpriority(os.PRIO_PROCESS, 0), "well")


def test_modules_are_loaded_in_a_thread_of_less_rank_and_the_caller_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ranks_of_loading.py").write_text(
        "import os, threading\nrank = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    quietly.load("ranks_of_loading")
    assert sys.modules["ranks_of_loading"].rank == quietly.NICE
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_an_import_raises_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(ModuleNotFoundError):
        quietly.load("edge_node.nothing_of_the_kind")


def test_a_process_ahead_of_its_work_has_loaded_before_it_is_told_what_to_do(tmp_path: Path) -> None:
    ahead = quietly.Ahead("ahead", "imaplib")
    ahead.process.join(0.5)
    assert ahead.process.is_alive()
    child = ahead.give(note, tmp_path / "said")
    child.join(30)
    pid, _, loaded = (tmp_path / "said").read_text().split()
    assert (int(pid), loaded, child.exitcode) == (child.pid, "True", 0)


def test_a_process_ahead_of_its_work_ends_with_a_parent_that_was_killed_before_it_came_to_it() -> None:
    parent = (
        "from edge_node.service.quietly import Ahead\nimport os, time\n"
        "if __name__ == '__main__':\n    print(Ahead('ahead', 'imaplib').process.pid, flush=True)\n    time.sleep(1)\n"
        "    os._exit(1)"
    )
    # It holds the same line open as its parent did: this would wait for it in vain.
    run = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (int(run.stdout) > 0, run.returncode) == (True, 1)


def test_work_for_a_process_that_died_ahead_of_it_is_no_error_of_its_keeper(tmp_path: Path) -> None:
    ahead = quietly.Ahead("ahead", "imaplib")
    ahead.process.kill()
    ahead.process.join(30)
    assert not ahead.give(note, tmp_path / "said").is_alive()
    assert not (tmp_path / "said").exists()
