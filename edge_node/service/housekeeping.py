"""The clockwork: periodic jobs of a role on APScheduler. State lives in the ledger, never in the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from edge_node.domain.errors import Retry, Stop

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """One periodic job: every `seconds`, never twice at once, missed rounds count as one."""

    name: str
    seconds: float
    run: Callable[[], object]


class Clockwork:
    """Runs jobs in the background; a job that raises Stop ends the role through `on_stop`."""

    def __init__(self, jobs: list[Job], on_stop: Callable[[Stop], None]) -> None:
        self._on_stop = on_stop
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(max(1, len(jobs)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        for job in jobs:
            self._scheduler.add_job(self._guarded, "interval", seconds=job.seconds, args=[job], id=job.name)

    def _guarded(self, job: Job) -> None:
        try:
            job.run()
        except Retry as error:
            log.warning("job.retry", job=job.name, code=error.code)
        except Stop as error:
            self._on_stop(error)
        except Exception:
            log.exception("job.unexpected", job=job.name)

    def start(self) -> None:
        self._scheduler.start()

    def close(self) -> None:
        self._scheduler.shutdown(wait=True)
