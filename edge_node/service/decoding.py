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
        """One look at all studies that come in; how many slices were decoded. What ails one is not the others'."""
        with self._node.database.read() as connection:
            coming = {one.study_key: one.last_received_at for one in studies.unsettled(connection)}
            self._ahead.forget_all_but(studies.untriaged(connection))
        self._seen = {key: at for key, at in self._seen.items() if coming.get(key) == at}
        count = 0
        for key, at in coming.items():
            if key in self._seen:
                continue
            self._seen[key] = at
            try:
                count += self._prepare(key)
            except Exception:
                log.exception("ahead.failed", study=key)
        return count

    def _prepare(self, study_key: str) -> int:
        with self._node.database.read() as connection:
            if priors.is_prior(connection, study_key):  # nobody judges a prior
                return 0
            sop_uids = studies.encoded(connection, study_key, CT_IMAGES, NATIVE)
        return self._ahead.prepare(self._node.clean.study(study_key, sop_uids)) if sop_uids else 0
