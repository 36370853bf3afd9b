"""The processes beside the receiver (other doors, pull, reading list): how they begin, tell the receiver, and end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.status import ExitCode
from edge_node.receive.local import LocalSender
from edge_node.service import logs, quietly
from edge_node.service.life import HEARTBEAT_S
from edge_node.service.process import die_with_parent, harden

JOIN_S = 10.0
OOM_SCORE = "500"


def begin(config: Config) -> threading.Event:
    """Harden the process and set up its log; the event is set by SIGTERM or SIGINT.

    The receiver goes first: where memory runs out this process ends and not the receiver, and it gets what is left of
    the processors.
    """
    with suppress(OSError):  # before `harden`: after it this file is root's
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    with suppress(OSError):  # a stricter sandbox than that of our units may forbid it
        os.nice(quietly.NICE)
    harden()
    die_with_parent()
    logs.configure(config.node.log_format, config.node.log_level, role="dicom", node=config.node.name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def live(
    config: Config,
    stop: threading.Event,
    threads: Sequence[threading.Thread],
    facts: Mapping[str, Callable[[], dict[str, Any]]],
) -> None:
    """Start the threads and tell the receiver `facts` every few seconds, for `edge-node status`, until `stop`.

    A thread that ended by itself ends the process, so that it is replaced (SystemExit).
    """
    line = LocalSender(config.node.data_dir)
    for thread in threads:
        thread.start()
    while all(thread.is_alive() for thread in threads) and not stop.wait(HEARTBEAT_S):
        for about, look in facts.items():
            with suppress(EdgeNodeError):  # the receiver is starting or stopping
                line.tell(about, look())
    if not stop.is_set():
        raise SystemExit(ExitCode.SOFTWARE)
    for thread in threads:
        thread.join(JOIN_S)
