"""What a role tells systemd (sd_notify(3)): ready, status, still alive, stopping. Nothing happens elsewhere."""

from __future__ import annotations

import os
import socket

_TIMEOUT_S = 1.0  # a full queue of the service manager must not hold up the role


def ready(status_text: str = "") -> None:
    """The role serves now; `status_text` is shown by ``systemctl status``."""
    _tell("READY=1", *_status(status_text))


def status(status_text: str) -> None:
    """Show `status_text` in ``systemctl status``; no PHI, one line."""
    _tell(*_status(status_text))


def watchdog() -> None:
    """Still alive; to be called every `watchdog_interval_s`."""
    _tell("WATCHDOG=1")


def stopping(status_text: str = "draining") -> None:
    """The role drains and will end by itself."""
    _tell("STOPPING=1", *_status(status_text))


def watchdog_interval_s() -> float | None:
    """Seconds between two calls of `watchdog`, half of what systemd allows; None when it does not watch this process.

    A child process inherits the environment but not the duty: WATCHDOG_PID names the one that is watched.
    """
    allowed, watched = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or (watched and watched != str(os.getpid())):
        return None
    return int(allowed) / 2e6


def _status(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())  # a line break would begin another assignment
    return (f"STATUS={line}",) if line else ()


def _tell(*assignments: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not assignments or address[:1] not in ("/", "@"):
        return
    if address.startswith("@"):  # the abstract name space
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.settimeout(_TIMEOUT_S)
            line.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return  # a service manager that cannot be told must not stop the role; its watchdog or time-out will act
