"""What every process of the node does first: no core dumps, private files, die with its parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT = 32 << 20  # bytes
SUPERVISOR_VARIABLE = "EDGE_NODE_SUPERVISOR"
# The C library overwrites memory as it is given back, and Python leaves all of it to the C library: for processes that
# see identity and live long. Also in systemd/edge-node-dicom.service.
FORGETFUL = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_PERTURB_": "85",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
}
_ENVIRONMENT = threading.Lock()


def harden() -> None:
    """No core dumps (identity must not reach the disk), files unreadable for others, memory for our own eyes only.

    All roles run as one user: without the last, the compute role could read the dicom role's memory in /proc.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o027)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0)


def keep_memory() -> None:
    """Let the C library (glibc) keep what it has for the next image, instead of giving it back to the system and having
    each page of it cleared and mapped anew: an eighth of the time of a CT."""
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, KEPT // 2)


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


def pause_s(deaths: int, first_s: float, longest_s: float) -> float:
    """Seconds until a process is started again that died so often in a row before: doubled each time, however often."""
    return min(longest_s, first_s * 2.0 ** min(deaths, 30))


@contextmanager
def starting(*, forgetful: bool) -> Iterator[None]:
    """Start child processes here, with memory as `FORGETFUL` has it if this process has it, or quick as usual."""
    with _ENVIRONMENT:
        taken = {} if forgetful else {name: os.environ.pop(name) for name in FORGETFUL if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(taken)
