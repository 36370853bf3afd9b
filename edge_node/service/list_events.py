"""Telling subscribers of the node's own reading list what became of an entry: N-EVENT-REPORT (PS3.4 CC.2.4).

A report carries states, never identity. What a subscriber did not hear after a few tries it finds by asking.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import structlog
from pydicom.dataset import Dataset

from edge_node.config.schema import Config
from edge_node.config.tls import peer_of, tls_arguments
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.reading_list import Entry
from edge_node.domain.status import Status
from edge_node.domain.worklist import Peer
from edge_node.service.dimse import (
    AE,
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPush,
    build_role,
    evt,
    no_delay,
)
from edge_node.service.list_actions import Listed
from edge_node.service.node import Node
from edge_node.store import own_list
from edge_node.store.own_list import WHOLE_LIST, Subscription

log = structlog.get_logger()

LOOK_S = 1.0
TRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
STATE_REPORT = 1  # Event Type ID, PS3.4 Table CC.2.4-1


@dataclass(slots=True)
class _Receiver:
    """What one receiver has still to hear, by entry: its last change; and when it may be tried again."""

    waiting: dict[str, Entry] = field(default_factory=dict)
    failures: int = 0
    not_before: float = 0.0


class Teller:
    """Looks for news, and tells it. A subscriber hears first how its entries stand (PS3.4 CC.2.3.3)."""

    def __init__(self, config: Config, node: Node, entries: Listed) -> None:
        self._node = node
        self._entries = entries
        self._calling_ae = config.reading_list.ae_title
        self._timeout_s = config.reading_list.timeout_s
        self._peers: dict[str, Peer] = {one.ae_title.strip(): peer_of(one) for one in config.peers.values()}
        self._news = threading.Event()
        self._told: dict[tuple[str, str], tuple[float, float]] = {}  # receiver, entry: subscribed and changed when
        self._begun = time.time()
        self._seen: tuple[object, ...] = ()  # as of the last look; a list of thousands is not read every second
        self._receivers: dict[str, _Receiver] = {}

    def wake(self) -> None:
        """There is something to tell."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Look and tell until told to stop."""
        while not stop.is_set():
            self._news.wait(LOOK_S)
            self._news.clear()
            try:
                self.look()
                self.tell(stop)
            except Retry as error:  # the ledger is busy
                log.warning("list.waiting", code=error.code)

    def look(self) -> None:
        """Compare the list with what each subscriber has heard of it."""
        with self._node.database.read() as connection:
            subscriptions = own_list.subscriptions(connection)
            state = (*own_list.news(connection), *subscriptions)
        if state == self._seen:
            return
        self._seen = state
        if not subscriptions:
            self._told.clear()
            self._receivers.clear()
            return
        entries = self._entries(finished=True)
        told: dict[tuple[str, str], tuple[float, float]] = {}
        for one in subscriptions:
            for entry in entries:
                if not _concerns(one, entry):
                    continue
                place, now = (one.receiver, entry.uid), (one.since, entry.changed_at)
                before = self._told.get(place)
                # Whoever subscribed before this process began was told then what there was then.
                old = before is None and one.since < self._begun and entry.changed_at < self._begun
                fresh = before is None and entry.state.final and entry.changed_at < one.since
                if before != now and not old and not fresh:
                    self._receivers.setdefault(one.receiver, _Receiver()).waiting[entry.uid] = entry
                told[place] = max(now, told.get(place, now))
        self._told = told

    def tell(self, stop: threading.Event) -> None:
        """One association for each receiver that something waits for."""
        for name, receiver in self._receivers.items():
            if stop.is_set() or not receiver.waiting or time.monotonic() < receiver.not_before:
                continue
            code = ""
            try:
                if self._report(name, receiver):
                    receiver.failures = 0
                    continue
            except EdgeNodeError as error:  # such as a certificate that is gone: the others are told none the less
                code = error.code
            receiver.failures += 1
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**receiver.failures)
            receiver.not_before = time.monotonic() + pause
            told = {"destination": name, "count": len(receiver.waiting), "attempts": receiver.failures}
            log.warning("list.not-told", **told, **({"code": code} if code else {}))
            if receiver.failures >= TRIES:
                receiver.waiting.clear()
                receiver.failures = 0

    def _report(self, name: str, receiver: _Receiver) -> bool:
        peer = self._peers.get(name)
        if peer is None:  # no longer configured
            receiver.waiting.clear()
            return True
        entity = AE(ae_title=self._calling_ae)
        entity.add_requested_context(UnifiedProcedureStepEvent)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = self._timeout_s
        entity.network_timeout = self._timeout_s
        association = entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            ext_neg=[build_role(UnifiedProcedureStepEvent, scp_role=True)],
            tls_args=tls_arguments(peer),
            evt_handlers=[(evt.EVT_CONN_OPEN, no_delay)],
        )
        if not association.is_established:
            return False
        try:
            for uid, entry in list(receiver.waiting.items()):
                status, _ = association.send_n_event_report(
                    _report_of(entry), STATE_REPORT, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepEvent
                )
                if "Status" not in status or status.Status in (Status.PROCESSING_FAILURE, Status.RESOURCE_LIMITATION):
                    return False
                del receiver.waiting[uid]
        except (RuntimeError, ValueError):  # the association is gone, or the peer took no context for it
            return False
        finally:
            if association.is_established:
                association.release()
        return True


def _concerns(subscription: Subscription, entry: Entry) -> bool:
    if subscription.entry != WHOLE_LIST:
        return subscription.entry == entry.uid
    return subscription.until is None or entry.ready_at <= subscription.until


def _report_of(entry: Entry) -> Dataset:
    """UPS State Report (PS3.4 Table CC.2.4-1)."""
    made = Dataset()
    made.ProcedureStepState = str(entry.state)
    made.InputReadinessState = "READY"
    return made
