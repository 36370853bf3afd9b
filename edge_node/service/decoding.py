"""Decodes ahead: looks what has come of the studies that are still coming in, and has it decoded."""

from __future__ import annotations

import threading

import structlog

from edge_node.service.node import Node
from edge_node.store import priors, studies
from edge_node.triage.ahead import Ahead

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
        with self._node.database.read() as connection:
            coming = [one for one in studies.unsettled(connection) if "CT" in one.modalities]
            coming = [one for one in coming if not priors.is_prior(connection, one.study_key)]  # nobody judges those
            self._ahead.forget_all_but(studies.untriaged(connection))
        known, self._seen, count = self._seen, {}, 0
        for one in coming:
            self._seen[one.study_key] = one.last_received_at
            if known.get(one.study_key) != one.last_received_at:
                count += self._ahead.prepare(self._node.clean.study(one.study_key))
        return count
