"""`edge-node import`: the files of a folder through the running receiver, as if they had been sent; they stay."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path

from edge_node.config.schema import Config
from edge_node.domain.errors import Retry, Stop
from edge_node.receive.local import LocalSender
from edge_node.service.handing import Handed, Outcome, Sender, hand_in, sender_of

CALLING_AE = "IMPORT"
PATIENCE_S = 120.0  # a receiver that is full or restarts is waited for so long, for each file
LONGEST_PAUSE_S = 10.0
_AHEAD = 4  # files in hand for each sender


def files_below(folder: Path) -> list[Path]:
    """Everything below `folder` that is no folder, sorted; links to folders are not followed.

    A file may be named itself. Raises Stop("import.no-input").
    """
    if folder.is_file():
        return [folder]
    found = sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
    if not found:
        raise Stop(
            "import.no-input", f"{folder}: there is no file", hint="name the folder that holds them", exit_code=2
        )
    return found


def import_files(
    config: Config, files: list[Path], *, senders: int = 4, patience_s: float = PATIENCE_S
) -> Iterator[Handed]:
    """Hand in `files`, `senders` at once; one outcome a file, in the order in which they are done.

    A file that the receiver cannot take now is tried again for `patience_s`. Raises Stop("import.node-down") when no
    receiver runs at the start, Retry when one file waited too long; what was done is done, and asking for it again
    answers `duplicate`.
    """
    local, lines = threading.local(), list[LocalSender]()

    def one(path: Path) -> Handed:
        if not hasattr(local, "sender"):
            local.sender = sender_of(config, CALLING_AE)
            lines.append(local.sender.line)
        return _patiently(local.sender, path, patience_s)

    _knock(config)
    rest = iter(files)
    with ThreadPoolExecutor(senders, thread_name_prefix="import") as pool:
        try:
            running: set[Future[Handed]] = {pool.submit(one, path) for path in islice(rest, senders * _AHEAD)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(one, path) for path in islice(rest, len(done))}
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(cancel_futures=True)
            for line in lines:
                line.close()


def _knock(config: Config) -> None:
    line = LocalSender(config.node.data_dir)
    try:
        line.tell("import", {})
    except Retry as error:
        raise Stop("import.node-down", error.message, hint=error.hint, exit_code=69) from None
    finally:
        line.close()


def _patiently(sender: Sender, path: Path, patience_s: float) -> Handed:
    deadline, pause = time.monotonic() + patience_s, 0.2
    while True:
        try:
            return hand_in(sender, str(path))
        except Retry as error:
            if error.code == "import.file-changes":
                return Handed(str(path), Outcome.FAILED, error.code, error.message)
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
