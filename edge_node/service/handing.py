"""One file of a folder handed to the running receiver: what it is, what became of it, and why.

Nothing is trusted about a folder that others write to: links are not followed, nothing but a regular file is opened,
and a file that changes while it is read is left for later.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from enum import StrEnum

from edge_node.config.schema import Config
from edge_node.deid.part10 import HEAD_BYTES, file_head
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.receive.local import LocalSender, Offer, nameless_memory
from edge_node.store.receipt import Received

DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR (PS3.10 8)
_PIECE = 1 << 24
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)  # nothing is wrong with the file


class Outcome(StrEnum):
    """What became of a file."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Handed:
    """`code` and `reason` say why, unless it was stored; `study` is the node's own key. `name` may hold identity."""

    name: str = field(repr=False)
    outcome: Outcome
    code: str = ""
    reason: str = ""
    study: str = ""
    size: int = 0

    @property
    def safe(self) -> bool:
        """The node has it, durably."""
        return self.outcome in (Outcome.STORED, Outcome.DUPLICATE, Outcome.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Sender:
    """As whom files come in: `calling_ae` stands in the ledger as their source."""

    line: LocalSender
    calling_ae: str
    called_ae: str
    largest: int


def sender_of(config: Config, calling_ae: str) -> Sender:
    """A line of its own to the receiver, for files that come in as `calling_ae`."""
    line = LocalSender(config.node.data_dir)
    return Sender(line, calling_ae, config.receive.ae_title, config.receive.max_object_mb * 1_000_000)


_RECEIPTS = {
    Received.STORED: Outcome.STORED,
    Received.DUPLICATE: Outcome.DUPLICATE,
    Received.QUARANTINED: Outcome.QUARANTINED,
}


def hand_in(sender: Sender, name: str, folder: int | None = None) -> Handed:
    """Hand the file `name` (below the open folder `folder`, if one is given) to the receiver.

    Raises Retry when the receiver cannot take anything now: the file is as it was, ask again later.
    """
    handle = -1
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return _skipped(name, "import.not-a-file", "no regular file")
        if status.st_size > sender.largest + HEAD_BYTES:
            return Handed(name, Outcome.FAILED, "receive.too-large", "larger than [receive] max_object_mb")
        return _hand_over(sender, name, handle, status)
    except Quarantine as error:
        if error.code == "deid.not-dicom":
            return _skipped(name, error.code, error.message)
        return Handed(name, Outcome.FAILED, error.code, error.message)
    except Retry:
        raise
    except EdgeNodeError as error:
        return Handed(name, Outcome.FAILED, error.code, error.message)
    except OSError as error:
        if error.errno in _OURS:
            raise Retry(
                "import.no-memory",
                f"the node has nothing to read a file with now: {error.strerror}",
                hint="it is tried again; free memory, or raise LimitNOFILE",
            ) from None
        if handle < 0 and _is_no_file(name, folder):
            return _skipped(name, "import.not-a-file", "a link, or no regular file")
        return Handed(name, Outcome.FAILED, "import.not-readable", f"cannot be read: {error.strerror}")
    finally:
        if handle >= 0:
            os.close(handle)


def _hand_over(sender: Sender, name: str, handle: int, status: os.stat_result) -> Handed:
    head = file_head(os.pread(handle, HEAD_BYTES, 0))
    if head.sop_class == DIRECTORY:
        return _skipped(name, "import.directory", "a DICOMDIR names other files and is none itself")
    with nameless_memory() as memory:
        place = head.start
        while sent := os.sendfile(memory, handle, place, _PIECE):
            place += sent
        now = os.fstat(handle)
        if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns) or place != now.st_size:
            raise Retry("import.file-changes", "a file is still being written", hint="wait until it is whole")
        offer = Offer(
            head.transfer_syntax, head.sop_class, head.sop_instance, sender.calling_ae, sender.called_ae, "", memory
        )
        receipt = sender.line.give(offer)
    return Handed(name, _RECEIPTS[receipt.received], receipt.code, "", receipt.study_key, status.st_size)


def _skipped(name: str, code: str, reason: str) -> Handed:
    return Handed(name, Outcome.SKIPPED, code, reason)


def _is_no_file(name: str, folder: int | None) -> bool:
    try:
        return not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
