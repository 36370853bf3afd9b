"""How a role begins. `run_role` is the body of one systemd unit.

What answers the PACS loads first, and its processes beside it and not after it; the other roles load behind it.
"""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from multiprocessing import forkserver

from edge_node.config.schema import Config
from edge_node.domain.study import Role
from edge_node.service import logs, quietly
from edge_node.service.process import die_with_parent, harden, starting

_ROLES = "edge_node.service.roles"
_WORKERS = "edge_node.service.intake_worker"
_STEPS = [f"edge_node.service.{step}_steps" for step in ("dicom", "order", "commitment", "quality")]


def run_role(role: Role, config: Config) -> int:
    """Run one role until told to stop; returns the exit code. Raises Stop when it cannot start."""
    harden()
    die_with_parent()
    logs.configure(config.node.log_format, config.node.log_level, role=str(role), node=config.node.name)
    if role is Role.DICOM:
        _ready_forks()
        writing = _load_write_back(config)
        from edge_node.service import roles

        return roles.dicom(config, writing)
    quietly.load(_ROLES)
    from edge_node.service import roles

    return {Role.COMPUTE: roles.compute, Role.FORWARD: roles.forward, Role.STATUS: roles.status}[role](config)


def _ready_forks() -> None:
    """Start the process that de-identifying workers are forked from: it loads what they need and sees no instance.

    Each worker would take a second of the processor for that from the instances that wait: at the start, after a
    worker's death, and whenever `forget` replaces one.
    """
    multiprocessing.set_forkserver_preload([_WORKERS])
    with suppress(OSError), starting(forgetful=False):  # workers are quick and short-lived, and take after it
        forkserver.ensure_running()


def _load_write_back(config: Config) -> quietly.Ahead | None:
    """None where there is no process to be had now: its keeper tries again."""
    # What takes seconds to load: the first result would wait for it, and that may be the urgent one.
    evidence = [] if config.worklist.mode == "shadow" else ["edge_node.worklist.structured_report"]
    try:
        with starting(forgetful=True):
            return quietly.Ahead("write-back", _ROLES, *_STEPS, *evidence)
    except OSError:
        return None
