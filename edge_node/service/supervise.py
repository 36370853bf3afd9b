"""`edge-node run` without a role: all roles as child processes, restarted when they die, drained on SIGTERM.

For a demo or a small site; systemd runs the roles as units of their own. A role that stops for its configuration
(exit code 78) would stop again: the supervisor gives up then and exits with the same code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from edge_node.domain.status import ExitCode
from edge_node.domain.study import Role
from edge_node.service.process import FORGETFUL, SUPERVISOR_VARIABLE, harden, pause_s

log = structlog.get_logger()

RESTART_FIRST_S = 0.5
RESTART_CAP_S = 30.0
STEADY_S = 30.0
DRAIN_S = 30.0
FINAL = {ExitCode.CONFIG, ExitCode.NOT_PERMITTED}


@dataclass(slots=True)
class _Child:
    role: Role
    process: subprocess.Popen[bytes]
    started: float
    quick_deaths: int = 0
    due: float = 0.0


class Supervisor:
    """Keeps one process per role alive; `arguments` are the global flags to hand on (``--config …``)."""

    def __init__(self, roles: Sequence[Role], arguments: Sequence[str]) -> None:
        self._roles = roles
        self._arguments = list(arguments)
        self._stop = threading.Event()

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a role stops for good; returns the exit code."""
        harden()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        children = [self._start(role) for role in self._roles]
        code: int = ExitCode.FINE
        while not self._stop.wait(0.2):
            for child in children:
                if (ended := child.process.poll()) is None:
                    continue
                if ended in FINAL:
                    code = ended
                    self._stop.set()
                    break
                self._restart(child, ended)
        self._drain(children)
        return code

    def _start(self, role: Role) -> _Child:
        command = [sys.executable, "-m", "edge_node", *self._arguments, "run", "--role", str(role)]
        environment = {**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())}
        environment.pop("NOTIFY_SOCKET", None)
        if role is Role.DICOM:
            environment |= FORGETFUL
        return _Child(role, subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL), time.monotonic())

    def _restart(self, child: _Child, ended: int) -> None:
        now = time.monotonic()
        if not child.due:
            child.quick_deaths = 0 if now - child.started > STEADY_S else child.quick_deaths + 1
            pause = _pause(child.quick_deaths)
            child.due = now + pause
            log.error("role.died", role=str(child.role), exit_code=ended, seconds=round(pause, 1))
        if now >= child.due:
            try:
                fresh = self._start(child.role)
            except OSError as error:  # no memory or no handles for a process: it will pass
                log.error("role.not-started", role=str(child.role), reason=error.strerror)  # noqa: TRY400  that says it all
                child.quick_deaths += 1
                child.due = now + _pause(child.quick_deaths)
                return
            child.process, child.started, child.due = fresh.process, fresh.started, 0.0

    def _drain(self, children: list[_Child]) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + DRAIN_S
        for child in children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("role.killed", role=str(child.role))  # noqa: TRY400  there is no exception to tell of
                child.process.kill()


def _pause(deaths: int) -> float:
    """Seconds until a role is started again that died so often in a row."""
    return pause_s(max(0, deaths - 1), RESTART_FIRST_S, RESTART_CAP_S)
