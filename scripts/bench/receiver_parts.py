"""The node's receiver with one part of its work left out, as a process of its own; for `receive_parts` alone.

    python -m scripts.bench.receiver_parts PART CONFIG WORKERS     # ends when its standard input does

The product has no switch for any of this. Receiver and pool are the product's own rooms, put together as the dicom role
does it; what a part leaves out is replaced in the worker processes of this program only. Synthetic images only: some
parts write identified bytes, unsealed.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_node.config.load import load
from edge_node.config.schema import Config
from edge_node.deid import Pseudonyms, instance_key_of, study_key_of, wire
from edge_node.deid.bitstream import syntax_of
from edge_node.domain.announcement import IdentifiedSignal
from edge_node.domain.body import Body, Buffer, Slice
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.study import (
    Deidentified,
    DeidentifiedInstance,
    IdentifiedInstance,
    IdentityEnvelope,
    RecipeId,
    Role,
)
from edge_node.receive.intake import Intake
from edge_node.receive.landing import Arrival
from edge_node.receive.scp import StorageSCP
from edge_node.receive.workers import AcceptAll, WorkerPool
from edge_node.service import logs
from edge_node.service.intake_worker import make_intake
from edge_node.service.node import open_node, spool_path
from edge_node.service.process import harden, more_handles, starting
from edge_node.store import intake as store_intake
from edge_node.store.database import Database
from edge_node.store.intake import IntakeStore
from edge_node.store.receipt import Receipt, Received
from edge_node.store.seal import CHUNK
from edge_node.store.spool import Sealed, free_bytes

STORED = Receipt(Received.STORED, "")
RAW_LEDGER = "raw.sqlite3"
_HEADER = 1 << 14  # bytes in which the benchmark's images say which study they are of
_STUDY, _SERIES, _CLASS = 0x0020000D, 0x0020000E, 0x00080016


def without_recipe(config: Config) -> AcceptAll:
    """All but reading, scrubbing, checking and the identity envelope: the object as received stands for the clean one.

    Digest of what was received, sealing, sync, ledger and audit stay.
    """
    harden()
    node = open_node(config, Role.DICOM)
    key = node.keys.key("pseudonym")
    names, recipe = Pseudonyms(key), RecipeId("none", "0" * 64)

    def as_it_is(instance: IdentifiedInstance) -> Deidentified:
        source = instance.source
        head = wire.parse_some(source.read(0, _HEADER), syntax_of(instance.transfer_syntax), _SERIES)
        study, series = (wire.ascii_text(head, tag) for tag in (_STUDY, _SERIES))
        body = Body([bytes(128) + b"DICM", Slice(source, 0, source.size)])
        made = DeidentifiedInstance(
            body=body,
            study_key=study_key_of(key, study),
            study_uid=study,
            series_uid=series,
            sop_uid=instance.sop_instance,
            sop_class=instance.sop_class,
            transfer_syntax=instance.transfer_syntax,
            modality="CT",
            body_part="",
            pixel_risk="",
            patient_key="",
            order_priority="",
            recipe=recipe,
        )
        digest = names.source_digest(instance.transfer_syntax, source.chunks(0, source.size))
        return Deidentified(made, IdentityEnvelope("{}", "{}"), digest)

    store = IntakeStore(
        node.database, node.keyring, node.spool_writer(), actor=node.actor, quarantine_s=86400.0, envelope_s=86400.0
    )
    intake = Intake(
        store,
        as_it_is,
        lambda _instance: None,
        digest_key=key,
        name_instance=lambda instance: instance_key_of(key, instance.sop_instance),
    )
    return _objects(intake.accept_all)


def without_sealing(config: Config) -> AcceptAll:
    """Clean objects and envelopes are written as they are."""

    def plain(_key: bytes, body: Body, _context: str, passing: Callable[[Buffer], None]) -> Iterator[Buffer]:
        for block in body.blocks(CHUNK):
            passing(block)
            yield block

    replaced: dict[str, Callable[..., Any]] = {
        "seal_body": plain,
        "sealed_length": lambda length: length,
        "seal": lambda _key, text, _context: bytes(text),
    }
    for name, what in replaced.items():
        assert hasattr(store_intake, name)  # else nothing would be replaced
        setattr(store_intake, name, what)
    return make_intake(config)


def without_sync(config: Config) -> AcceptAll:
    """Nothing is synced: neither segments nor folders nor the ledger."""
    connect = Database._on_connect

    def careless(self: Database, raw: Any, _record: object) -> None:
        connect(self, raw, _record)
        raw.execute("PRAGMA synchronous=OFF")

    Database._on_connect = careless  # type: ignore[method-assign]
    os.fsync = os.fdatasync = lambda _handle: None  # type: ignore[assignment]
    return make_intake(config)


def receiving_alone(config: Config) -> AcceptAll:
    """The bytes as received in append-only segments, one sync and one commit of a small ledger for a batch."""
    harden()
    spool = open_node(config, Role.DICOM).spool_writer()
    ledger = sqlite3.connect(raw_ledger(config), timeout=30.0, isolation_level=None)
    ledger.execute("PRAGMA journal_mode=WAL")
    ledger.execute("PRAGMA synchronous=FULL")
    ledger.execute(
        "CREATE TABLE IF NOT EXISTS instance"
        " (sop_uid TEXT PRIMARY KEY, segment TEXT, offset INTEGER, length INTEGER, received_at REAL)"
    )

    def accept(batch: Sequence[IdentifiedInstance]) -> list[Receipt | EdgeNodeError]:
        chunks = [one.source.chunks(0, one.source.size) for one in batch]
        objects = [Sealed(one.source.size, pieces) for one, pieces in zip(batch, chunks, strict=True)]  # type: ignore[arg-type]
        places = spool.append_all(objects)
        rows = [
            (one.sop_instance, at.segment, at.offset, at.length, one.received_at)
            for one, at in zip(batch, places, strict=True)
        ]
        ledger.execute("BEGIN IMMEDIATE")
        ledger.executemany("INSERT INTO instance VALUES (?, ?, ?, ?, ?)", rows)
        ledger.execute("COMMIT")
        return [STORED] * len(batch)

    return _objects(accept)


def handing_over(_config: Config) -> AcceptAll:
    """A worker is told of each object and keeps nothing."""
    harden()
    return _objects(lambda batch: [STORED] * len(batch))


# What `nothing` leaves out is the worker too: the receiver itself says Success and forgets.
PARTS: dict[str, Callable[[Config], AcceptAll] | None] = {
    "full": make_intake,
    "no-recipe": without_recipe,
    "no-sealing": without_sealing,
    "no-sync": without_sync,
    "receiving": receiving_alone,
    "handing-over": handing_over,
    "nothing": None,
}
SEALING = ("full", "no-recipe", "no-sync")
KEEPING = (*SEALING, "no-sealing", "receiving")


def raw_ledger(config: Config) -> Path:
    """The ledger of `receiving`."""
    return config.node.data_dir / RAW_LEDGER


def _objects(accept: Callable[[Sequence[IdentifiedInstance]], list[Receipt | EdgeNodeError]]) -> AcceptAll:
    """Nobody announces anything here."""

    def both(batch: Sequence[IdentifiedInstance | IdentifiedSignal]) -> list[Receipt | EdgeNodeError]:
        return accept([one for one in batch if isinstance(one, IdentifiedInstance)])

    return both


def serve(part: str, config: Config, workers: int) -> None:
    """As the dicom role does it, until standard input ends."""
    harden()
    logs.configure(config.node.log_format, config.node.log_level, role="dicom", node=config.node.name)
    more_handles()
    make = PARTS[part]
    pool: WorkerPool | None = None
    accept: Callable[[Arrival], Receipt] = _success
    if make is not None:
        quick = partial(starting, forgetful=False)
        pool = WorkerPool(workers, make, (config,), wait_s=config.receive.network_timeout_s / 2, spawning=quick)
        pool.start()
        accept = pool.accept
    folder, reserve = spool_path(config), config.storage.reserve_mb * 1_000_000
    scp = StorageSCP(
        config.receive,
        accept,
        folder,
        free_bytes=lambda: free_bytes(folder),
        reserve=reserve,
        low=reserve * 3 // 2,
    )
    scp.start()
    sys.stdin.buffer.read()
    scp.stop(1.0)
    if pool is not None:
        pool.close()


def _success(_arrival: Arrival) -> Receipt:
    return STORED


if __name__ == "__main__":
    serve(sys.argv[1], load(Path(sys.argv[2])).config, int(sys.argv[3]))
