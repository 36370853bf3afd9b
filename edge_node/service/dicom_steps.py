"""The dicom role's work on results: back into the hospital under the real identity, through the configured writers."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import Connection

from edge_node import __version__, pipeline
from edge_node.config.schema import Config
from edge_node.config.secrets import RoleKeys
from edge_node.config.tls import peer_of
from edge_node.deid import key_id_of
from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import WITHDRAWN, TriageOutcome, TriageResult
from edge_node.domain.modes import may_write
from edge_node.domain.reading_list import Routes
from edge_node.domain.worklist import Peer
from edge_node.pipeline import Done
from edge_node.service.node import Node
from edge_node.store import commitments, readers, studies
from edge_node.store.readers import Reader, Reading
from edge_node.store.tasks import Task, enqueue, superseded, waits_for_first_try
from edge_node.worklist.header import CLASSES, REPORTS, ReportReference, series_uid
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.modes import Modes
from edge_node.worklist.performers import performer_of
from edge_node.worklist.ups import UpsOutcome
from edge_node.worklist.writer import Site, Standing, WriteBack, WriteReport
from edge_node.worklist.writers import WRITERS

EVIDENCE = "evidence"
EVIDENCE_FIRST_S = 5.0  # so long the others wait for the report they refer to, as long as nothing went wrong with it
LOOK_S = 0.05
ORDER = "order"
TAKEN = frozenset({str(UpsOutcome.BEING_READ), "late"})  # a worklist says that somebody has the study
ORDER_ONLY = frozenset({"ups", "ups_rs", "hl7_order"})  # these tell where a study stands, not what was found
# The others ask the worklist whether somebody has the study; an order cannot be asked.
BEFORE_READING = frozenset({"hl7_order"})


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
        further=tuple(options.further_objects),
        evidence=EVIDENCE in options.writers,
        hl7=config.hl7,
        hl7_order=config.hl7_order,
        fhir=config.fhir,
        ups_rs=config.ups_rs,
    )


def modes_of(config: Config) -> Modes:
    """Who may write what at this site."""
    options = config.worklist
    return Modes.of(options.mode, options.writer_modes, options.model_modes)


def routes_of(config: Config) -> Routes:
    """Who should read what, from the configuration."""
    options = config.routing
    return Routes(tuple(options.routes.items()), options.names, options.scheme, options.organization)


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
    modes, kind = modes_of(node.config), WRITERS[writer_name]
    mode = modes.of_writer(writer_name)
    writer = kind(site_of(node.config)) if may_write(mode, reorders=kind.reorders) else None
    key_of = result_keys(node.keys)

    def work(task: Task) -> Done:
        if writer is None:
            return Done(f"worklist.{mode}", {"writer": writer_name})
        _after_order(node, task)
        if writer_name != EVIDENCE:
            _after_evidence(node, task)
        with node.database.read() as connection:
            if superseded(connection, task.study_key, task.revision):
                return Done("superseded", {"writer": writer_name})  # what is newer tells it, or has told it already
            reading = readers.of(connection, task.study_key)
        order = order_of(node, modes, key_of, task, writer_name, reading)
        if _judged_nothing(order.result) and (last := _untold(node, modes, task, writer_name, order.replaces)):
            order = order_of(node, modes, key_of, replace(task, revision=last), writer_name, reading)
        takes_back = order.replaces is not None and order.result.outcome is not TriageOutcome.FINDING
        if reading is not None and not takes_back and _withheld(node.config, reading, writer_name):
            return Done("worklist.late", {"writer": writer_name, "reading": str(reading.state)})
        if order.replaces is not None and _judged_nothing(order.result):
            prove = writer_name == EVIDENCE and node.config.worklist.commitment != "off"
            return Done(
                "worklist.stands",
                {"writer": writer_name, "revision": order.replaces},
                (lambda connection: _to_be_proven(connection, task)) if prove else None,
            )
        return _done(node, task, order.revision, writer.write(order))

    return work


def order_of(
    node: Node,
    modes: Modes,
    key_of: Callable[[str], bytes],
    task: Task,
    writer_name: str,
    reading: Reader | None,
) -> WriteBack:
    """What a writer is given for a revision of a study: everything out of ledger and vault, so that a resend after a
    crash is the same to the last byte. Raises Quarantine ``worklist.no-result`` and ``vault.destroyed``."""
    result = node.clean.finding(task.study_key, task.revision)
    with node.database.read() as connection:
        row = studies.get(connection, task.study_key)._mapping
        priority = studies.get_reading(connection, task.study_key)
        own = studies.written(connection, task.study_key, writer_name)
        evidence = studies.written(connection, task.study_key, EVIDENCE)
        made_at = studies.found_at(connection, task.study_key, task.revision)
    if result is None or priority is None:
        raise Quarantine("worklist.no-result", "there is no triage result to write back", study=task.study_key)
    told = max((revision for revision, _, _ in own if revision < task.revision), default=None)
    earlier = node.clean.finding(task.study_key, told, with_image=False) if told else None
    reorders = WRITERS[writer_name].reorders
    identity = WriteBackIdentity.from_envelopes(*node.vault.open(task.study_key))
    key = key_of(str(row["site_key_id"]))
    made = datetime.fromtimestamp(made_at, UTC)

    def header(sop_uid: str) -> Dataset | None:
        objects = node.clean.study(task.study_key, [sop_uid]).objects
        return dcmread(BytesIO(objects[0].read()), stop_before_pixels=True) if objects else None

    permitted = modes.permitted(result, reorders=reorders)
    report = next((one for one in evidence if one[0] == task.revision and one[1] in REPORTS), None)
    return WriteBack(
        identity=identity,
        result=permitted,
        priority=priority,
        key=key,
        revision=task.revision,
        made_at=made,
        ready_at=made,
        node=node.config.node.name,
        version=__version__,
        replaces=told,
        earlier=modes.permitted(earlier, reorders=reorders) if earlier is not None else None,
        report=_reference(key, identity.study_uid, report[1], report[2]) if report else None,
        standing=tuple(Standing(*one) for one in evidence if one[0] < task.revision),
        late=reading is not None and reading.at < made.timestamp(),
        header=header,
        performer=performer_of(routes_of(node.config), str(row["modalities"]), str(row["body_part"]), permitted),
        ordered=str(row["order_priority"]),
    )


def _reference(key: bytes, study_uid: str, kind: str, uid: str) -> ReportReference:
    return ReportReference(CLASSES[kind], uid, series_uid(key, kind, study_uid))


def _after_order(node: Node, task: Task) -> None:
    """Give the order a moment to be known: a place told too low would have to be told again."""
    _first_tried(node, task, ORDER, "", 1.0 + (node.config.order.wait_s if node.config.order.peer else 0.0))


def _after_evidence(node: Node, task: Task) -> None:
    """Give the evidence a moment to be there before others refer to it; what has failed once is not waited for."""
    _first_tried(node, task, task.step, EVIDENCE, EVIDENCE_FIRST_S)


def _first_tried(node: Node, task: Task, step: str, target: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with node.database.read() as connection:
            if not waits_for_first_try(connection, task.study_key, task.revision, step, target):
                return
        time.sleep(LOOK_S)


def _withheld(config: Config, reading: Reader, writer_name: str) -> bool:
    """Nothing is left to put in order once a report exists; anything else is for the site to say."""
    if writer_name in BEFORE_READING:
        return True
    return config.worklist.late == "withhold" or (writer_name in ORDER_ONLY and reading.state is Reading.REPORTED)


def _judged_nothing(result: TriageResult) -> bool:
    """A later revision that could not be judged withdraws nothing: what was said of the earlier one stands."""
    return result.outcome is TriageOutcome.SKIPPED and not result.reason.startswith(WITHDRAWN)


def _untold(node: Node, modes: Modes, task: Task, writer_name: str, told: int | None) -> int | None:
    """The last revision before this one that has something to tell and was superseded before this writer told it."""
    for revision in range(task.revision - 1, told or 0, -1):
        result = node.clean.finding(task.study_key, revision, with_image=False)
        if result and not _judged_nothing(modes.permitted(result, reorders=WRITERS[writer_name].reorders)):
            return revision
    return None


def _to_be_proven(connection: Connection, task: Task) -> None:
    """A row of its own: until the archive has proven that it keeps the evidence, the study is not delivered."""
    enqueue(connection, task.study_key, task.revision, task.step, target=commitments.TARGET, urgency=task.urgency)


def _done(node: Node, task: Task, revision: int, report: WriteReport) -> Done:
    now, commits = time.time(), report.writer == EVIDENCE and node.config.worklist.commitment != "off"

    def commit(connection: Connection) -> None:
        for kind, uid in report.objects:
            studies.record_result(
                connection, task.study_key, revision, kind=kind, target=report.writer, uid=uid, at=now
            )
        if WRITERS[report.writer].reorders and report.objects:
            studies.reading_written(connection, task.study_key, now)
        if report.outcome in TAKEN:
            readers.note(connection, task.study_key, Reading.CLAIMED, report.writer, now)
        if commits and report.objects:
            _to_be_proven(connection, task)

    detail: dict[str, object] = {
        "destination": report.destination,
        "objects": [f"{kind} {uid}" for kind, uid in report.objects],
    }
    if revision != task.revision:
        detail["revision"] = revision
    if report.left_out:
        detail["left_out"] = list(report.left_out)
    return Done(f"{report.writer}.{report.outcome}", detail, commit)
