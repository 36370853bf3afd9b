"""The dicom role's work on the order behind a study: identity is opened, and only priority and class come of it."""

from __future__ import annotations

import time

import structlog
from sqlalchemy import Connection

from edge_node import pipeline
from edge_node.config.tls import peer_of
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.order import Order
from edge_node.pipeline import Done
from edge_node.service.node import Node
from edge_node.service.reading import place
from edge_node.store import studies
from edge_node.store.tasks import Task
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.order_query import ask, said_by

log = structlog.get_logger()

SILENT_S = 30.0  # a worklist that did not answer is left alone for so long: every study would wait for it


def order_work(node: Node) -> pipeline.Work:
    """Find out how urgent a study was ordered, and bring it forward in the reading order if it is more urgent."""
    options = node.config.order
    entry = node.config.peers.get(options.peer)
    peer = peer_of(entry) if entry else None
    words = {"emergency": options.emergency, "inpatient": options.inpatient}
    silent_until = 0.0

    def work(task: Task) -> Done:
        nonlocal silent_until
        try:
            identity = WriteBackIdentity.from_envelopes(*node.vault.open(task.study_key))
        except Retry:
            raise
        except EdgeNodeError as error:
            return Done("order.unknown", {"reason": error.code})
        known, code = said_by(identity.order, **words), "order.by-images"
        if peer is not None and time.monotonic() >= silent_until:
            try:
                asked = ask(
                    identity,
                    peer,
                    calling_ae=node.config.worklist.calling_ae_title,
                    timeout_s=options.wait_s,
                    **words,
                )
                known, code = known.with_(asked), "order.by-worklist" if asked != Order() else "order.not-there"
            except EdgeNodeError as error:
                log.warning("order.not-asked", study=task.study_key, code=error.code)
                silent_until, code = time.monotonic() + SILENT_S, "order.no-answer"
        elif peer is not None:
            code = "order.no-answer"
        result = node.clean.finding(task.study_key, task.revision, with_image=False)

        def commit(connection: Connection) -> None:
            studies.put_order(connection, task.study_key, known)
            if not studies.is_placed(connection, task.study_key, task.revision):
                return  # triage comes to it
            if result is None:
                raise Retry("order.judged-meanwhile", "triage ended while the order was asked for", counts=False)
            studies.put_reading(
                connection, task.study_key, task.revision, place(connection, node.config, task.study_key, result)
            )

        return Done(code, {"priority": known.priority, "patient_class": known.patient_class}, commit)

    return work
