"""STOW-RS parts as instances: streamed into memory without a name, handed to the receiver, answered by what it says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from edge_node.config.schema import Config
from edge_node.config.secrets import read_secret_file
from edge_node.config.tls import server_context
from edge_node.deid.part10 import HEAD_BYTES, file_head
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.domain.status import Status
from edge_node.receive.admission import Admission
from edge_node.receive.local import LocalSender, Offer, nameless_memory
from edge_node.receive.stow import Limits, StowServer, basic_login
from edge_node.receive.stow_answer import Answered
from edge_node.service.node import spool_path
from edge_node.store.spool import free_bytes

log = structlog.get_logger()

CALLING_AE = "STOW"


TOO_LARGE = "stow.too-large"


class _Unfit(Exception):
    """The object is not taken further; `word` says why."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Memory:
    """Bytes that all objects on their way in may take together.

    When it is used up, the object that began last gives way and the others wait: so one always comes through, however
    many large ones come at once.
    """

    def __init__(self, size: int, patience_s: float) -> None:
        self.size = self.left = size
        self._patience_s = patience_s
        self._accounts: list[Account] = []
        self._changed = threading.Condition()

    @contextmanager
    def account(self, largest: int) -> Iterator[Account]:
        """What one object takes; given back at the end."""
        account = Account(self, min(largest, self.size))
        with self._changed:
            self._accounts.append(account)
        try:
            yield account
        finally:
            with self._changed:
                self._accounts.remove(account)
                self.left += account.taken
                self._changed.notify_all()

    def take(self, account: Account, size: int) -> None:
        """Raises _Unfit."""
        deadline = time.monotonic() + self._patience_s
        with self._changed:
            while size > self.left:
                holders = [one for one in self._accounts if one.taken]
                if not holders or holders[-1] is account or time.monotonic() > deadline:
                    raise _Unfit("stow.memory-full")
                self._changed.wait(1.0)
            self.left -= size
            account.taken += size


class Account:
    """What one object has taken."""

    def __init__(self, memory: Memory, largest: int) -> None:
        self._memory = memory
        self._largest = largest
        self.taken = 0

    def take(self, size: int) -> None:
        """Raises _Unfit."""
        if self.taken + size > self._largest:
            raise _Unfit(TOO_LARGE)
        self._memory.take(self, size)


class Door:
    """The `take` of a StowServer, or of whoever else has DICOM files in parts; `calling_ae` is whence they come."""

    def __init__(self, config: Config, calling_ae: str = CALLING_AE) -> None:
        self._calling_ae = calling_ae
        self._data_dir = config.node.data_dir
        self._called = config.receive.ae_title
        self._largest = config.receive.max_object_mb * 1_000_000
        self._memory = Memory(config.stow.memory_mb << 20, config.stow.timeout_s)
        self._local = threading.local()
        self.counts: dict[str, int] = {}

    def take(self, chunks: Iterator[bytes], peer: str, study: str) -> Answered:
        """Make one part durable. `study`: the Study Instance UID it must have, "" for any."""
        return self.taken(chunks, peer, study)[0]

    def taken(self, chunks: Iterator[bytes], peer: str, study: str) -> tuple[Answered, str]:
        """As `take`, with the word that it is counted by: what became of the part, or a code."""
        answered, word = self._take(chunks, peer, study)
        self.counts[word] = self.counts.get(word, 0) + 1
        if answered.status is not Status.SUCCESS and (self.counts[word] <= 10 or self.counts[word] % 100 == 0):
            log.warning("stow.part-refused", code=word, count=self.counts[word])
        return answered, word

    def _take(self, chunks: Iterator[bytes], peer: str, study: str) -> tuple[Answered, str]:
        sop_class = sop_instance = ""
        try:
            with self._memory.account(self._largest) as account, nameless_memory() as memory:
                begin = bytearray()
                for chunk in chunks:
                    account.take(len(chunk))
                    begin += chunk
                    if len(begin) >= HEAD_BYTES:
                        break
                head = file_head(bytes(begin[:HEAD_BYTES]), with_study=bool(study))
                sop_class, sop_instance = head.sop_class, head.sop_instance
                if study and head.study != study:
                    return Answered(Status.DATA_SET_MISMATCH, sop_class, sop_instance), "stow.other-study"
                _write(memory, memoryview(begin)[head.start :])
                for chunk in chunks:
                    account.take(len(chunk))
                    _write(memory, memoryview(chunk))
                offer = Offer(
                    head.transfer_syntax, sop_class, sop_instance, self._calling_ae, self._called, peer, memory
                )
                receipt = self._line().give(offer)
        except _Unfit as unfit:
            return Answered(Status.OUT_OF_RESOURCES, sop_class, sop_instance), unfit.word
        except Quarantine as error:
            return Answered(Status.CANNOT_UNDERSTAND), error.code
        except Retry as error:
            return Answered(Status.OUT_OF_RESOURCES, sop_class, sop_instance), error.code
        except EdgeNodeError as error:
            return Answered(Status.PROCESSING_FAILURE, sop_class, sop_instance), error.code
        return Answered(Status.SUCCESS, sop_class, sop_instance), str(receipt.received).lower()

    def _line(self) -> LocalSender:
        """The line of this thread, which is the connection's: it closes when the thread is gone."""
        if not hasattr(self._local, "line"):
            self._local.line = LocalSender(self._data_dir)
        line: LocalSender = self._local.line
        return line


def _write(memory: int, view: memoryview) -> None:
    while view:
        view = view[os.write(memory, view) :]


def stow_server(config: Config, door: Door) -> StowServer:
    """The server as configured. Raises Stop for secrets or certificates that cannot be used, OSError for the port."""
    stow, login = config.stow, ""
    if stow.token_file is not None:
        login = f"Bearer {read_secret_file(stow.token_file)}"
    elif stow.user and stow.password_file is not None:
        login = basic_login(stow.user, read_secret_file(stow.password_file))
    reserve, spool = config.storage.reserve_mb * 1_000_000, spool_path(config)
    return StowServer(
        stow.host,
        stow.port,
        door.take,
        Limits(stow.connections, stow.max_request_mb * 1_000_000, stow.timeout_s, login),
        allowed=Admission(config.receive).admits_address,
        has_room=lambda: free_bytes(spool) > reserve,
        context=server_context("[stow]", stow.cert, stow.key, stow.client_ca) if stow.cert else None,
    )
