"""Where an object lands, when memory is short."""

from __future__ import annotations

import errno
import mmap
from contextlib import suppress
from pathlib import Path

import pytest

from edge_node.receive import landing
from edge_node.receive.landing import FIRST_WINDOW, USUAL, Arrival, Budget, Landing

SYNTAX, CT, INSTANCE = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.3"


def land(place: Landing, size: int) -> bytes:
    """What a worker reads of an object of so many bytes."""
    left, sent = size, bytes(at % 251 for at in range(251)) * (size // 251 + 1)
    while left:
        with place.room(left) as room:
            count = len(room)
            room[:] = sent[size - left : size - left + count]
        place.took(count)
        left -= count
    words = {"calling_ae": "CT1", "called_ae": "EDGENODE", "peer": "", "received_at": 0.0}
    in_memory, memory, file, spilled = place.handles()
    arrival = Arrival(SYNTAX, CT, INSTANCE, **words, in_memory=in_memory, memory=memory, file=file, spilled=spilled)  # type: ignore[arg-type]
    with arrival.opened() as opened:
        read = bytes(opened.dataset)
    place.clear()
    assert read == sent[:size]
    return read


def windows() -> int:
    """Handles of landing places in this process."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing
            found += "memfd:arrival" in str(link.readlink())
    return found


@pytest.mark.parametrize("short", [FIRST_WINDOW, FIRST_WINDOW * 2, FIRST_WINDOW * 4])
def test_memory_that_is_not_to_be_had_now_costs_one_object_at_most_and_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    budget = Budget(USUAL)
    place, size, map_it = Landing(tmp_path, budget), 3 * FIRST_WINDOW, mmap.mmap

    def out_of_memory(handle: int, length: int, *words: int) -> mmap.mmap:
        if length == short:
            raise OSError(errno.ENOMEM, "x")
        return map_it(handle, length, *words)

    with monkeypatch.context() as now:
        now.setattr(landing.mmap, "mmap", out_of_memory)
        if short == FIRST_WINDOW:
            with pytest.raises(OSError, match="x"), place.room(1):
                pass
        else:
            land(place, size)
        place.shrink()
    land(place, size)
    place.close()
    assert budget.take(USUAL)
    assert windows() == 0


def test_memory_that_cannot_be_given_back_now_is_given_back_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(USUAL)
    place = Landing(tmp_path, budget)
    land(place, 3 * FIRST_WINDOW)

    def out_of_memory(*_: object) -> mmap.mmap:
        raise OSError(errno.ENOMEM, "x")

    with monkeypatch.context() as now:
        now.setattr(landing.mmap, "mmap", out_of_memory)
        place.shrink()
    land(place, 3 * FIRST_WINDOW)
    place.shrink()
    assert budget.take(USUAL)
    place.close()
