"""The dicom role's work on quality alerts: a workitem a study and fault, withdrawn when the fault is mended."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sqlalchemy import Connection

from edge_node import pipeline
from edge_node.config.schema import Config
from edge_node.config.tls import peer_of
from edge_node.domain.errors import Quarantine, Stop
from edge_node.pipeline import Done
from edge_node.service.dicom_steps import result_keys
from edge_node.service.node import Node
from edge_node.store import studies
from edge_node.store.tasks import Task
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.quality import Fault, decided, faults_of
from edge_node.worklist.quality_ups import alert, alert_uid, tell

TARGET = "quality"
RAISED, MENDED = "alert.", "mended."


def alerts(config: Config) -> bool:
    """Whether this site's technologists are told."""
    return bool(config.quality_alerts.peer)


def quality_work(node: Node) -> pipeline.Work:
    """Compare what is wrong with a revision with what was told of the study, and tell the difference."""
    config, key_of = node.config, result_keys(node.keys)
    entry = config.peers.get(config.quality_alerts.peer)
    if entry is None:
        raise Stop(
            "worklist.no-peer",
            "the option quality_alerts.peer names a peer that is not configured",
            hint="add [peers.NAME] with ae_title, host and port, then edge-node config check",
        )
    peer, pacs = peer_of(entry), config.peers.get(config.worklist.pacs)
    retrieve_ae = pacs.ae_title if pacs else peer.ae_title

    def work(task: Task) -> Done:
        if config.worklist.mode == "shadow":
            return Done("worklist.shadow", {"writer": TARGET})
        result = node.clean.finding(task.study_key, task.revision, with_image=False)
        with node.database.read() as connection:
            row = studies.get(connection, task.study_key)._mapping
            priority = studies.get_reading(connection, task.study_key)
            standing, times = told(connection, task.study_key, task.revision)
        if result is None or priority is None:
            raise Quarantine("worklist.no-result", "there is no triage result to look at", study=task.study_key)
        now = faults_of(
            settle_reason=str(row["settle_reason"]),
            body_part=str(row["body_part"]),
            result=result,
            wanted=config.quality_alerts.faults,
        )
        new = [fault for fault in now if fault.kind not in standing]
        gone = {
            kind: uid
            for kind, uid in standing.items()
            if kind in decided(result) and kind not in {fault.kind for fault in now}
        }
        if not new and not gone:
            return Done("alert.nothing-new", {"standing": sorted(standing)})
        key = key_of(str(row["site_key_id"]))
        uids = {one.kind: alert_uid(key, task.study_key, one.kind, times.get(one.kind, 0) + 1) for one in new}
        raised = {}
        if new:
            identity = WriteBackIdentity.from_envelopes(*node.vault.open(task.study_key))
            found_at = datetime.fromtimestamp(float(row["triaged_at"]), UTC)
            raised = {
                uids[one.kind]: alert(identity, uids[one.kind], one, priority, found_at, retrieve_ae) for one in new
            }
        _, left = tell(raised, list(gone.values()), peer, config.worklist.calling_ae_title, config.worklist.timeout_s)
        return _done(task, peer.ae_title, new, uids, gone, left)

    return work


def told(connection: Connection, study_key: str, revision: int) -> tuple[dict[str, str], dict[str, int]]:
    """What stands of the alerts of revisions before this one ({fault: UID}), and how often each came up."""
    standing: dict[str, str] = {}
    times: dict[str, int] = {}
    for at, what, uid in studies.written(connection, study_key, TARGET):
        if at >= revision:
            continue
        if what.startswith(RAISED):
            kind = what.removeprefix(RAISED)
            standing[kind] = uid
            times[kind] = times.get(kind, 0) + 1
        else:
            standing.pop(what.removeprefix(MENDED), None)
    return standing, times


def _done(
    task: Task, destination: str, new: list[Fault], uids: dict[str, str], gone: dict[str, str], left: list[str]
) -> Done:
    def commit(connection: Connection) -> None:
        now = time.time()
        objects = [(RAISED + kind, uid) for kind, uid in uids.items()]
        objects += [(MENDED + kind, uid) for kind, uid in gone.items()]
        for kind, uid in objects:
            studies.record_result(connection, task.study_key, task.revision, kind=kind, target=TARGET, uid=uid, at=now)

    detail: dict[str, object] = {
        "destination": destination,
        "raised": [f"{one.kind}: {one.reason}" for one in new],
        "mended": sorted(gone),
    }
    if left:
        detail["begun_by_a_human"] = len(left)
    return Done("alert.told", detail, commit)
