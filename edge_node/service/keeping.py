"""Keeps the processes inside a role alive: what is CPU-bound must not share the receiver's interpreter lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from edge_node.config.schema import Config
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode
from edge_node.service import logs, quietly
from edge_node.service.life import Life
from edge_node.service.process import pause_s, starting

log = structlog.get_logger()

PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
STEADY_S = 30.0  # a process that lived so long is well
TOLD_AFTER = 3  # quick deaths in a row; those of a process that cannot start are told at once
DRAIN_S = 20.0
NOT_AGAIN_SOON = (ExitCode.CONFIG, ExitCode.NOT_PERMITTED)

Body = Callable[[Config], None]


class Keeper:
    """Starts processes again when they end, and tells the heartbeat of those that do not stay (`failing`).

    Only a process that the role is nothing without may stop it (`vital`): a wrong option of the pull or of the reading
    list must never cost the clinic its receiver.
    """

    def __init__(self, config: Config, life: Life) -> None:
        self._config = config
        self._life = life
        self._lock = threading.Lock()
        self._failing: dict[str, dict[str, object]] = {}

    def keep(
        self, name: str, step: str, body: Body, *, vital: bool = False, ahead: quietly.Ahead | None = None
    ) -> None:
        """Run `body` in a process of its own until the role stops. `step` is the first word of its codes; `ahead` is
        a process that shall be the first."""
        self._life.thread(name, lambda stop: self._keep(name, step, body, stop, vital, ahead))

    def _keep(
        self, name: str, step: str, body: Body, stop: threading.Event, vital: bool, ahead: quietly.Ahead | None
    ) -> None:
        deaths = 0
        while True:
            work = (logs.guarded, body, self._config)
            child = ahead.give(*work) if ahead else quietly.process(name, *work)
            try:
                if ahead is None:
                    with starting(forgetful=True):
                        child.start()
                ahead = None
            except OSError as error:  # no memory or no handles for a process, which will pass: no role shall end for it
                log.error("process.not-started", process=name, reason=error.strerror)  # noqa: TRY400  that says it all
            begun = time.monotonic()
            while child.is_alive() and not stop.wait(0.2):
                if deaths and time.monotonic() - begun > STEADY_S:
                    deaths = 0
                    self._tell(name, None)
            if stop.is_set():
                if child.pid is not None:
                    child.terminate()
                    child.join(DRAIN_S)
                return
            final = child.exitcode in NOT_AGAIN_SOON
            if final and vital:
                raise Stop(f"{step}.cannot-start", f"the {name} process stops for its configuration, see the log above")
            pause = LONGEST_PAUSE_S if final else pause_s(deaths, PAUSE_S, LONGEST_PAUSE_S)
            deaths += 1
            told: dict[str, object] = {"process": name, "code": f"{step}.cannot-start", "exit_code": child.exitcode}
            if final or deaths >= TOLD_AFTER:
                self._tell(name, told)
            else:
                del told["code"]
            log.error("process.replaced", **told, seconds=pause)
            if stop.wait(pause):
                return

    def _tell(self, name: str, why: dict[str, object] | None) -> None:
        with self._lock:
            if why is None:
                self._failing.pop(name, None)
            else:
                self._failing[name] = why
            self._life.tell(failing=list(self._failing.values()))
