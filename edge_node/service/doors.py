"""The process of the other doors: the watched folder and STOW-RS. It knows identity and talks to the receiver alone.

A process of its own, because its work would hold the receiver's interpreter lock.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from edge_node.config.schema import Config
from edge_node.domain.errors import EdgeNodeError, Stop
from edge_node.domain.status import ExitCode
from edge_node.receive.local import LocalSender
from edge_node.receive.stow import StowServer
from edge_node.service import logs
from edge_node.service.handing import sender_of
from edge_node.service.inbox import Inbox
from edge_node.service.life import HEARTBEAT_S
from edge_node.service.process import die_with_parent, harden
from edge_node.service.stow_door import Door, stow_server


def wanted(config: Config) -> bool:
    """Whether any of these doors is open."""
    return config.inbox.folder is not None or bool(config.stow.port)


def serve(config: Config) -> None:
    """Serve until SIGTERM; the receiver is told every few seconds what came in, for `edge-node status`."""
    harden()
    die_with_parent()
    logs.configure(config.node.log_format, config.node.log_level, role="dicom", node=config.node.name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    line = LocalSender(config.node.data_dir)
    facts: dict[str, Callable[[], dict[str, Any]]] = {}
    threads: list[threading.Thread] = []
    if config.inbox.folder is not None:
        inbox = Inbox(config.inbox.folder, sender_of(config, "INBOX"), config.inbox.still_s)
        facts["inbox"] = lambda: asdict(inbox.counts)
        threads.append(threading.Thread(target=inbox.watch, args=(stop,), name="inbox", daemon=True))
    if config.stow.port:
        door = Door(config)
        server = _listening(config, door)
        facts["stow"] = lambda: {**door.counts, **server.counts}
        threads.append(threading.Thread(target=server.serve, args=(stop,), name="stow", daemon=True))
    for thread in threads:
        thread.start()
    while all(thread.is_alive() for thread in threads) and not stop.wait(HEARTBEAT_S):
        _tell(line, facts)
    if not stop.is_set():
        raise SystemExit(ExitCode.SOFTWARE)
    for thread in threads:
        thread.join(10.0)


def _listening(config: Config, door: Door) -> StowServer:
    try:
        return stow_server(config, door)
    except OSError as error:
        raise Stop(
            "stow.cannot-listen",
            f"[stow] cannot listen on {config.stow.host}:{config.stow.port}: {os.strerror(error.errno or 0)}",
            hint="set stow.port to a free port, or to 0 to do without STOW-RS",
            exit_code=69,
        ) from None


def _tell(line: LocalSender, facts: dict[str, Callable[[], dict[str, Any]]]) -> None:
    for about, look in facts.items():
        with suppress(EdgeNodeError):  # it is starting or stopping
            line.tell(about, look())
