"""The life of one role: ready, heartbeat, watchdog, drain on SIGTERM, the exit code of whatever stopped it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from sqlalchemy import delete, insert

from edge_node.domain.errors import EdgeNodeError, Retry, Stop
from edge_node.domain.status import ExitCode
from edge_node.service import notify
from edge_node.service.housekeeping import Clockwork, Job
from edge_node.service.node import Node
from edge_node.store.tables import heartbeat

log = structlog.get_logger()

HEARTBEAT_S = 5.0


class Life:
    """Runs a role's threads and jobs until SIGTERM, SIGINT or a Stop; then drains."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.stop = threading.Event()
        self._reason: EdgeNodeError | None = None
        self._threads: list[threading.Thread] = []
        self._started = time.time()
        self._detail: dict[str, Any] = {}

    def listen_to_signals(self) -> None:
        """SIGTERM and SIGINT begin the drain. Called first, so that a signal during a slow start is not lost."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def tell(self, **detail: Any) -> None:
        """Facts for the heartbeat row (port, models, provider …), no PHI."""
        self._detail |= detail

    def fail(self, error: EdgeNodeError) -> None:
        """End the role with the error's exit code."""
        self._reason = self._reason or error
        self.stop.set()

    def thread(self, name: str, body: Callable[[threading.Event], None]) -> None:
        """Run `body(stop)` in a thread; an error that leaves it ends the role."""

        def guarded() -> None:
            try:
                body(self.stop)
            except EdgeNodeError as error:
                self.fail(error)
            except Exception as error:
                log.exception("thread.failed", process=name)
                self.fail(EdgeNodeError(f"internal.{type(error).__name__}", f"the thread {name} failed, see the log"))

        worker = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(worker)
        worker.start()

    def live(self, jobs: Iterable[Job], *, drain: Callable[[], None] = lambda: None) -> int:
        """Announce readiness, run until told to stop, drain; returns the exit code."""
        clockwork = Clockwork([*jobs, Job("heartbeat", HEARTBEAT_S, lambda: self._beat("ready"))], self.fail)
        self._beat("ready")
        clockwork.start()
        notify.ready("serving")
        log.info("role.ready", role=str(self._node.role))
        interval = notify.watchdog_interval_s() or 3600.0
        while not self.stop.wait(interval):
            if all(worker.is_alive() for worker in self._threads):
                notify.watchdog()
        notify.stopping()
        log.info("role.draining", role=str(self._node.role))
        drain()
        clockwork.close()
        for worker in self._threads:
            worker.join(10.0)
        self._node.tasks.release_leases()
        self._beat("stopped")
        self._node.database.close()
        return self._exit_code()

    def wait(self) -> int:
        """For a process inside a role: run the threads until told to stop, without heartbeat; returns the exit code."""
        self.stop.wait()
        for worker in self._threads:
            worker.join(10.0)
        self._node.tasks.release_leases()
        self._node.database.close()
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._reason is None:
            return ExitCode.FINE
        log.critical("role.stopped", code=self._reason.code, message=self._reason.message, hint=self._reason.hint)
        if isinstance(self._reason, Stop):
            return self._reason.exit_code
        return ExitCode.TRY_AGAIN if isinstance(self._reason, Retry) else ExitCode.SOFTWARE

    def _beat(self, state: str) -> None:
        role = str(self._node.role)
        with self._node.database.write() as connection:
            connection.execute(delete(heartbeat).where(heartbeat.c.role == role))
            connection.execute(
                insert(heartbeat).values(
                    role=role,
                    pid=os.getpid(),
                    started_at=self._started,
                    at=time.time(),
                    state=state,
                    detail=json.dumps(self._detail, sort_keys=True),
                )
            )
