"""The process of the other doors: the watched folder and STOW-RS. It knows identity and talks to the receiver alone.

A process of its own, because its work would hold the receiver's interpreter lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edge_node.config.schema import Config
from edge_node.domain.errors import Stop
from edge_node.receive.stow import StowServer
from edge_node.service import beside
from edge_node.service.handing import sender_of
from edge_node.service.inbox import Inbox
from edge_node.service.stow_door import Door, stow_server


def wanted(config: Config) -> bool:
    """Whether any of these doors is open."""
    return config.inbox.folder is not None or bool(config.stow.port)


def serve(config: Config) -> None:
    """Serve until SIGTERM; the receiver is told every few seconds what came in, for `edge-node status`."""
    stop = beside.begin(config)
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
    beside.live(config, stop, threads, facts)


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
