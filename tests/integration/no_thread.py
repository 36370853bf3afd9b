"""A system that has no thread to give for a moment, as where memory or its limit of tasks is used up."""

from __future__ import annotations

import threading

import pytest


def no_thread_for(monkeypatch: pytest.MonkeyPatch, name: str, times: int = 1) -> list[int]:
    """The next so many threads whose names contain `name` do not start; what is still left to fail."""
    start, left = threading.Thread.start, list(range(times))

    def none_left(thread: threading.Thread) -> None:
        if left and name in thread.name:
            left.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    return left
