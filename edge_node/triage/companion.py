"""The process that measures what one model flags, beside the model's own, and never in its way: it starts in the
background, and what is wrong with it is told, not raised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from edge_node.domain.errors import EdgeNodeError, Stop
from edge_node.triage.engine import BadInput, BadOutput
from edge_node.triage.process import ModelProcess, WorkerDied
from edge_node.triage.radiomics import check_installed, make_measurer
from edge_node.triage.runner import Arrays, DeviceLost, OutOfTime

MOST_LOST: Final = 2  # in a row; a single one may be the region's fault
_ANEW: Final = "restart the compute role to try again"

log = structlog.get_logger()


class Unmeasured(Exception):
    """There are no figures; the text is the note of the finding."""


class Companion:
    """`why` says why it measures nothing and what to do, "" if nothing is against it. Thread-safe."""

    def __init__(self, name: str, asked: Sequence[str], prepare: Callable[[], None] | None) -> None:
        """`asked` are the features of the card; `prepare` runs first in the process."""
        self.why = ""
        self.process = ModelProcess(f"{name}-radiomics", make_measurer, (asked, prepare))
        self._lost = 0
        self._lock = threading.Lock()
        self._starting: threading.Thread | None = None
        try:
            check_installed()
        except Stop as error:
            self._out(f"{error.code}: {error.message}; {error.hint}")

    def start(self) -> None:
        """Begin to start it, if it shall run; returns at once."""
        with self._lock:
            if not self.why and not self._begins():
                self._starting = threading.Thread(target=self._start, name="radiomics", daemon=True)
                self._starting.start()

    def ready(self, limit_s: float) -> str:
        """Wait so long for a start that is under way; why it does not measure, "" if it does."""
        if self._starting is not None:
            self._starting.join(limit_s)
        return self.why or ("the process that measures is still starting" if self._begins() else "")

    def measure(self, inputs: Arrays, limit_s: float, urgency: float) -> NDArray[np.float64]:
        """Values of the features in their order. Raises `Unmeasured`."""
        if why := self.ready(0.0):
            raise Unmeasured(f"radiomics.unavailable: {why}")
        if limit_s <= 0:
            raise Unmeasured("radiomics.time-limit: no time was left to measure it")
        try:
            values = np.asarray(self.process.run(inputs, limit_s, urgency)["values"], np.float64)
        except OutOfTime:
            if not self.process.pid:  # else it was busy with another study
                self._again()
            raise Unmeasured(f"radiomics.time-limit: not measured within {limit_s:.3g} s") from None
        except (EdgeNodeError, WorkerDied, DeviceLost, BadInput, BadOutput) as error:
            if isinstance(error, WorkerDied):
                self._again()
            raise Unmeasured(f"radiomics.failed: not measured ({type(error).__name__})") from None
        self._lost = 0
        return values

    def close(self) -> None:
        """End it for good; may be called again."""
        self.process.close()

    def _begins(self) -> bool:
        return self._starting is not None and self._starting.is_alive()

    def _start(self) -> None:
        try:
            self.process.start()
        except Stop as error:
            self._out(f"{error.code}: {error.message}; {error.hint}")
        except (WorkerDied, OutOfTime) as error:
            self._out(f"the process that measures did not start: {error}; {_ANEW}")

    def _again(self) -> None:
        self._lost += 1
        if self._lost >= MOST_LOST:
            self._out(f"it was too slow or died {MOST_LOST} times in a row; {_ANEW}")
        else:
            self.start()

    def _out(self, why: str) -> None:
        self.why = why
        if not self.process.closed:
            log.warning("radiomics.unavailable", process=self.process.name, reason=why)
