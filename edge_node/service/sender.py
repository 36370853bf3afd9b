"""A small C-STORE SCU: the demo's modalities, and `edge-node send`.

Objects go out byte for byte as they lie on disk, broken ones too: what is on the wire is what the file says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from edge_node.config.tls import tls_arguments
from edge_node.domain.errors import Retry
from edge_node.domain.status import Status, status_name
from edge_node.domain.worklist import Peer
from edge_node.service.dimse import AE, MAX_PDU, evt, no_delay, split_dataset

MAX_CONTEXTS = 128  # an association has so many presentation contexts (PS3.8 9.3.2.2: odd numbers up to 255)
NOT_DICOM = "NOT_A_DICOM_FILE"
NO_CONTEXT = "NO_PRESENTATION_CONTEXT"
NO_ANSWER = "NO_ANSWER"
_PASSING = frozenset({NO_ANSWER, Status.OUT_OF_RESOURCES.name})
_SENT = frozenset({"SUCCESS", "COERCION", "ELEMENTS_DISCARDED", "DATA_SET_MISMATCH_WARNING", "WARNING"})


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: `status` is a name, `tries` counts C-STORE requests, `seconds` the last one's."""

    path: Path = field(repr=False)
    status: str
    tries: int
    seconds: float

    @property
    def accepted(self) -> bool:
        """The peer has taken responsibility for the object."""
        return self.status in _SENT


@dataclass(frozen=True, slots=True)
class SendReport:
    """All results in sending order; `first_sent` and `last_answered` in seconds since the epoch."""

    results: tuple[FileResult, ...]
    first_sent: float
    last_answered: float

    @property
    def accepted(self) -> int:
        """Number of objects the peer accepted."""
        return sum(result.accepted for result in self.results)

    @property
    def by_status(self) -> dict[str, int]:
        """Status name → number of files."""
        counts: dict[str, int] = {}
        for result in self.results:
            counts[result.status] = counts.get(result.status, 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class _Item:
    number: int
    path: Path
    sop_class: str
    transfer_syntax: str


def send_study(
    files: Sequence[Path],
    peer: Peer,
    *,
    calling_ae: str = "EDGESEND",
    progress: Callable[[int, int, str], None] | None = None,
    retries: int = 5,
    pause_s: float = 1.0,
    timeout_s: float = 30.0,
) -> SendReport:
    """Send `files` in order over one association (more only for over 128 kinds of object or after a break).

    `progress(done, total, status)` is called after each file. OUT_OF_RESOURCES and a lost connection are tried again
    up to `retries` times, `pause_s` seconds apart and doubling. Raises Retry ``send.peer-unreachable`` or
    ``send.association-rejected`` when there never was an association.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    results: dict[int, FileResult] = {}
    items = list(_read(files, results))
    done = 0

    def record(item_number: int, result: FileResult) -> None:
        nonlocal done
        done += 1
        results[item_number] = result
        if progress is not None:
            progress(done, len(files), result.status)

    for number in sorted(results):
        record(number, results[number])
    started = time.time()
    for group in _groups(items):
        _send_group(group, peer, calling_ae, record, retries, pause_s, timeout_s)
    return SendReport(tuple(results[number] for number in range(len(files))), started, time.time())


def _read(files: Sequence[Path], results: dict[int, FileResult]) -> Iterator[_Item]:
    """What each file is; those that say nothing go to `results` as NOT_A_DICOM_FILE."""
    for number, path in enumerate(files):
        try:
            meta, _ = split_dataset(path)
            yield _Item(number, path, str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        except Exception:  # pydicom raises anything on what is not DICOM
            results[number] = FileResult(path, NOT_DICOM, 0, 0.0)


def _groups(items: list[_Item]) -> Iterator[list[_Item]]:
    """Runs of items that fit one association."""
    kinds = iter(dict.fromkeys((item.sop_class, item.transfer_syntax) for item in items))
    while chosen := set(islice(kinds, MAX_CONTEXTS)):
        yield [item for item in items if (item.sop_class, item.transfer_syntax) in chosen]


def _associate(group: list[_Item], peer: Peer, calling_ae: str, timeout_s: float) -> Any:
    ae = AE(calling_ae)
    ae.maximum_pdu_size = MAX_PDU
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    for sop_class, syntax in dict.fromkeys((item.sop_class, item.transfer_syntax) for item in group):
        ae.add_requested_context(sop_class, syntax)
    association = ae.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        max_pdu=MAX_PDU,
        tls_args=tls_arguments(peer),
        evt_handlers=[(evt.EVT_CONN_OPEN, no_delay)],
    )
    if association.is_established:
        return association
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    hint = "check AE titles and port, then: edge-node echo PEER"
    if association.is_rejected:
        raise Retry("send.association-rejected", f"{where} refused the association from {calling_ae}", hint=hint)
    raise Retry("send.peer-unreachable", f"{where} does not answer", hint=hint)


def _send_group(
    group: list[_Item],
    peer: Peer,
    calling_ae: str,
    record: Callable[[int, FileResult], None],
    retries: int,
    pause_s: float,
    timeout_s: float,
) -> None:
    association = _associate(group, peer, calling_ae, timeout_s)
    try:
        for item in group:
            pause = pause_s
            for attempt in range(1, retries + 2):
                if not association.is_established:
                    with suppress(Retry):  # the peer may be restarting: this attempt has no answer
                        association = _associate(group, peer, calling_ae, timeout_s)
                status, seconds = _store(association, item)
                if status not in _PASSING or attempt > retries:
                    break
                time.sleep(pause)
                pause *= 2
            record(item.number, FileResult(item.path, status, attempt, seconds))
    finally:
        if association.is_established:
            association.release()


def _store(association: Any, item: _Item) -> tuple[str, float]:
    """One C-STORE of the file's raw bytes: (status name, seconds)."""
    started = time.perf_counter()
    try:
        answer = association.send_c_store(item.path)
    except ValueError:
        return NO_CONTEXT, 0.0
    except RuntimeError:
        return NO_ANSWER, 0.0
    seconds = time.perf_counter() - started
    return (status_name(answer.Status) if "Status" in answer else NO_ANSWER), seconds
