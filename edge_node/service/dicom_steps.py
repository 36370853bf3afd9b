"""The dicom role's work on results: back into the hospital under the real identity, through the configured writers."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection

from edge_node import __version__, pipeline
from edge_node.config.schema import Config
from edge_node.config.secrets import RoleKeys
from edge_node.config.tls import peer_of
from edge_node.deid import key_id_of
from edge_node.domain.errors import Quarantine
from edge_node.domain.worklist import Peer
from edge_node.pipeline import Done
from edge_node.service.node import Node
from edge_node.store import studies
from edge_node.store.tasks import Task
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.writer import Site, WriteBack, WriteReport
from edge_node.worklist.writers import WRITERS, writers_for


def site_of(config: Config) -> Site:
    """Peers and names of the write-back, from the configuration."""

    def peer(name: str) -> Peer | None:
        entry = config.peers.get(name)
        return peer_of(entry) if entry else None

    options = config.worklist
    return Site(
        pacs=peer(options.pacs),
        ups=peer(options.ups),
        calling_ae=options.calling_ae_title,
        timeout_s=options.timeout_s,
        key_image=options.key_image,
        evidence="evidence" in options.writers,
        hl7=config.hl7,
        fhir=config.fhir,
        ups_rs=config.ups_rs,
    )


def result_key(pseudonym_key: bytes) -> bytes:
    """The key that makes the UIDs of result objects: derived, so that no other use of the site key meets it."""
    return hmac.digest(pseudonym_key, b"edge-node result uid", "sha256")


def result_keys(keys: RoleKeys) -> Callable[[str], bytes]:
    """The key of a study's results by the id of the site key that began it, so that a rotation doubles no report."""
    now, before = keys.key("pseudonym"), keys.old("pseudonym")
    of = {key_id_of(key): result_key(key) for key in (now, before) if key}
    return lambda key_id: of.get(key_id, of[key_id_of(now)])


def worklist_work(node: Node, writer_name: str) -> pipeline.Work:
    """Write one study's result through one writer; a mode that does not allow the writer writes nothing and says so."""
    site, key_of = site_of(node.config), result_keys(node.keys)
    allowed = writer_name in writers_for(node.config.worklist.mode)
    kind = WRITERS[writer_name]
    writer = kind(site) if allowed else None

    def work(task: Task) -> Done:
        if writer is None:
            return Done(f"worklist.{node.config.worklist.mode}", {"writer": writer_name})
        result = node.clean.finding(task.study_key, task.revision)
        with node.database.read() as connection:
            row = studies.get(connection, task.study_key)._mapping
            priority = studies.get_reading(connection, task.study_key)
            told = studies.delivered_revisions(connection, task.study_key, kind.leaves)
            told = [revision for revision in told if revision < task.revision]
        if result is None or priority is None:
            raise Quarantine("worklist.no-result", "there is no triage result to write back", study=task.study_key)
        earlier = node.clean.finding(task.study_key, told[-1], with_image=False) if told else None
        identity = WriteBackIdentity.from_envelopes(*node.vault.open(task.study_key))
        # Times come from the ledger, so that a resend after a crash is the same object to the last byte.
        made = datetime.fromtimestamp(float(row["triaged_at"]), UTC)
        report = writer.write(
            WriteBack(
                identity=identity,
                result=result.told(),
                priority=priority,
                key=key_of(str(row["site_key_id"])),
                revision=task.revision,
                made_at=made,
                ready_at=made,
                node=node.config.node.name,
                version=__version__,
                replaces=told[-1] if told else None,
                earlier=earlier.told() if earlier else None,
            )
        )
        return _done(task, report)

    return work


def _done(task: Task, report: WriteReport) -> Done:
    now = time.time()

    def commit(connection: Connection) -> None:
        for kind, uid in report.objects:
            studies.record_result(
                connection, task.study_key, task.revision, kind=kind, target=report.writer, uid=uid, at=now
            )
        if WRITERS[report.writer].reorders and report.objects:
            studies.reading_written(connection, task.study_key, now)

    detail: dict[str, object] = {
        "destination": report.destination,
        "objects": [f"{kind} {uid}" for kind, uid in report.objects],
    }
    return Done(f"{report.writer}.{report.outcome}", detail, commit)
