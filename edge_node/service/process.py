"""What every process of the node does first: no core dumps, private files, die with its parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
SUPERVISOR_VARIABLE = "EDGE_NODE_SUPERVISOR"


def harden() -> None:
    """No core dumps (identity must not reach the disk), files unreadable for others, memory for our own eyes only.

    All roles run as one user: without the last, the compute role could read the dicom role's memory in /proc.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o027)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0)


def more_handles() -> None:
    """As many open handles as the system allows: a receiver of a thousand senders needs them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def die_with_parent() -> None:
    """End when the supervising process is gone, even if it was killed before this call (it passes its id along).

    The kernel ties the signal to the parent's *thread*: only for children started by a thread that lasts.
    """
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(supervisor):
            os.kill(os.getpid(), signal.SIGTERM)
    os.environ[SUPERVISOR_VARIABLE] = str(os.getpid())  # for the children of this process
