"""Decodes ahead: looks what has come of the studies that are still coming in, and has it decoded."""

from __future__ import annotations

import threading

import structlog

from edge_node.service.node import Node
from edge_node.store import priors, studies
from edge_node.triage.ahead import Ahead
from edge_node.triage.decode import NATIVE
from edge_node.triage.headers import CT_IMAGES

LOOK_S = 0.5
log = structlog.get_logger()


class Decoding:
    """What it does is only a head start: whatever goes wrong is logged, and the study decoded when it is judged."""

    def __init__(self, node: Node, ahead: Ahead) -> None:
        self._node = node
        self._ahead = ahead
        self._seen: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(LOOK_S):
            try:
                self.look()
            except Exception:
                log.exception("ahead.failed")

    def look(self) -> int:
        """One look at all studies that come in; how many slices were decoded."""
        known, self._seen, count = self._seen, {}, 0
        worth: dict[str, set[str]] = {}
        with self._node.database.read() as connection:
            for one in studies.unsettled(connection):
                key = one.study_key
                self._seen[key] = one.last_received_at
                if known.get(key) == one.last_received_at or priors.is_prior(connection, key):  # nobody judges a prior
                    continue
                worth[key] = studies.encoded(connection, key, CT_IMAGES, NATIVE)
            self._ahead.forget_all_but(studies.untriaged(connection))
        for key, sop_uids in worth.items():
            if sop_uids:
                count += self._ahead.prepare(self._node.clean.study(key, sop_uids))
        return count
