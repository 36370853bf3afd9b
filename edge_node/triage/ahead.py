"""Slices of studies that are still coming in, decoded before anybody asks for them: a study waits for its quiet time
anyhow, and a compressed slice of 512 x 512 takes tens of milliseconds.

In processes of their own, with what the processors have left: a codec that falls over an image takes nothing along, and
neither receiving nor judging waits for it. What is not ready when the study is judged is decoded then, as ever.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from pydicom import dcmread

from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import CleanObject, CleanStudy
from edge_node.triage.decode import NATIVE, stored_values
from edge_node.triage.engine import BadInput
from edge_node.triage.headers import CT_IMAGES
from edge_node.triage.process import ModelProcess, WorkerDied
from edge_node.triage.runner import Arrays, DeviceLost, OutOfTime

NICE: Final = 10
LIMIT_S: Final = 20.0  # for one object
MOST_OBJECT: Final = 64 << 20  # larger ones are multi-frames: their frames are decoded in parallel when they are judged
PROCESSES: Final = 4
log = structlog.get_logger()

Pixels = NDArray[np.generic]
Ready = Callable[[CleanObject], Pixels | None]


class Decoder:
    """What runs in a decoding process: the stored values of single-frame objects."""

    variant = provider = ""
    placement: Mapping[str, int] = {}
    worst = 0.0

    def run(self, inputs: Arrays, _time_limit_s: float) -> Arrays:
        """``stored`` of ``part10``, (rows, columns). Raises BadInput."""
        try:
            return {"stored": stored_values(dcmread(BytesIO(inputs["part10"].tobytes())))}
        except Exception:  # not shown: texts of pydicom and codecs may print values
            raise BadInput("cannot be decoded") from None

    def agree(self, _known: object, _limit_s: float) -> None:
        """The CPU alone decodes."""

    def prove(self) -> float:
        return 0.0


def make_decoder(prepare: Callable[[], None]) -> Decoder:
    """`prepare` runs first in the process."""
    with contextlib.suppress(OSError):  # a stricter sandbox than that of our units may forbid it
        os.nice(NICE)
    prepare()
    return Decoder()


class Ahead:
    """Decoded slices by study, `most_bytes` at most. Thread-safe; one thread calls `prepare`."""

    def __init__(self, most_bytes: int, prepare: Callable[[], None], processes: int = 0) -> None:
        """`prepare` runs first in each of the `processes` (0: one a core, at most 4), which start when they are
        needed."""
        self._most = most_bytes
        count = processes or min(PROCESSES, os.cpu_count() or 1)
        self._count = count
        self._idle: queue.SimpleQueue[ModelProcess] = queue.SimpleQueue()
        self._processes = [ModelProcess(f"decode {n + 1}", make_decoder, (prepare,)) for n in range(count)]
        for process in self._processes:
            self._idle.put(process)
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, Pixels]] = {}
        self._tried: dict[str, set[str]] = {}
        self._bytes = 0

    def prepare(self, study: CleanStudy) -> int:
        """Decode what is new of a study that still comes in; how many slices were. Ends early when the study is judged
        or forgotten, or there is no more room."""
        with self._lock:
            tried = self._tried.setdefault(study.study_key, set())
            new = [item for item in study.objects if _worth_it(item) and item.digest not in tried]
        if not new:
            return 0
        with ThreadPoolExecutor(self._count, "decode ahead") as pool:
            return sum(pool.map(lambda item: self._decode(study.study_key, item), new))

    @contextlib.contextmanager
    def lent(self, study_key: str) -> Iterator[Ready]:
        """What is ready of a study that is judged now, each slice once; the rest is given up, and nothing more made."""
        with self._lock:
            held = self._held.pop(study_key, {})
            self._tried.pop(study_key, None)

        def ready(item: CleanObject) -> Pixels | None:
            with self._lock:
                found = held.pop(item.digest, None)
                self._bytes -= found.nbytes if found is not None else 0
            return found

        try:
            yield ready
        finally:
            with self._lock:
                self._bytes -= sum(one.nbytes for one in held.values())

    def forget_all_but(self, study_keys: set[str]) -> None:
        """Give up what is held of other studies: nobody will judge them."""
        with self._lock:
            for gone in [key for key in self._tried if key not in study_keys]:
                del self._tried[gone]
                self._bytes -= sum(one.nbytes for one in self._held.pop(gone, {}).values())

    def close(self) -> None:
        """End the processes, and what they are doing."""
        self.forget_all_but(set())
        for process in self._processes:
            process.close()

    def _decode(self, study_key: str, item: CleanObject) -> bool:
        process = self._idle.get()
        try:
            process.start()
            with self._lock:
                tried = self._tried.get(study_key)
                if tried is None or self._bytes >= self._most:
                    return False
                tried.add(item.digest)  # once, whatever comes of it: it may be what its process dies of
            part10 = np.frombuffer(item.read(), np.uint8)
            stored = process.run({"part10": part10}, LIMIT_S)["stored"]
        except (BadInput, OutOfTime, WorkerDied, DeviceLost, EdgeNodeError, OSError, KeyError):
            return False
        finally:
            self._idle.put(process)
        with self._lock:
            if study_key not in self._tried:  # judged meanwhile
                return False
            self._held.setdefault(study_key, {})[item.digest] = stored
            self._bytes += stored.nbytes
        return True


def _worth_it(item: CleanObject) -> bool:
    return item.sop_class in CT_IMAGES and item.transfer_syntax not in NATIVE and item.size <= MOST_OBJECT
