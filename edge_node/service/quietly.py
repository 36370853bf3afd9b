"""Processes beside the receiver: they load their modules without taking the processor from it.

Imports cost a second or two of a processor. A node that has just begun to answer has the queue of its PACS at the door,
while its other processes are still loading. Imports only the standard library itself, because it is what such a process
loads first.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

NICE = 5  # a quarter of a processor that others want: the write-back and triage must come up under any load
_SPAWN = multiprocessing.get_context("spawn")


def load(*modules: str) -> None:
    """Import modules in a thread that comes behind others; the caller waits and keeps its own rank.

    Niceness belongs to a thread on Linux, and cannot be taken back without privilege: so not in this one. Raises what
    the import raised.
    """
    for module in modules:
        _apart(partial(import_module, module))


def process(name: str, work: Callable[..., object], *arguments: object) -> BaseProcess:
    """A process, not started yet, that loads the module of `work` quietly and does it."""
    packed = pickle.dumps((work, *arguments))
    return _SPAWN.Process(target=_run, args=(packed,), name=name, daemon=True)


class Ahead:
    """A process that loads `modules` at once, before it is known what it shall do, and waits for that.

    Not quietly: for the time before there is a receiver to be disturbed. Raises OSError where there is no process or
    handle to be had.
    """

    def __init__(self, name: str, *modules: str) -> None:
        theirs, self._ours = _SPAWN.Pipe(duplex=False)
        self.process: BaseProcess = _SPAWN.Process(target=_wait, args=(theirs, modules), name=name, daemon=True)
        with theirs:
            self.process.start()

    def give(self, work: Callable[..., object], *arguments: object) -> BaseProcess:
        """Let it do `work`; a process that has ended meanwhile is for its keeper to notice."""
        with suppress(OSError), self._ours:
            self._ours.send_bytes(pickle.dumps((work, *arguments)))
        return self.process


def _run(packed: bytes) -> None:
    work, *arguments = _apart(partial(pickle.loads, packed))  # from our parent, through its private pipe
    work(*arguments)


def _wait(told: Connection, modules: tuple[str, ...]) -> None:
    for module in modules:
        import_module(module)
    try:
        packed = told.recv_bytes()
    except EOFError:  # our parent is gone, or stopped before it came to us
        return
    told.close()
    _run(packed)


def _apart(load_it: Callable[[], Any]) -> Any:
    loaded: list[Any] = []
    failed: list[BaseException] = []

    def quiet() -> None:
        with suppress(OSError):  # a stricter sandbox than that of our units may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            loaded.append(load_it())
        except BaseException as error:  # raised where it was asked for
            failed.append(error)

    thread = threading.Thread(target=quiet, name="loading", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return loaded[0]
