"""The compute role's part of priors: which studies a model wants them for, as soon as their first images tell.

It knows no patient: it writes down the wish, and the dicom role asks the archive.
"""

from __future__ import annotations

import structlog

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.priors import PriorAsk
from edge_node.service.models_in_force import ModelsInForce
from edge_node.service.node import Node
from edge_node.store import priors, studies
from edge_node.triage.prior_asks import asks

log = structlog.get_logger()

FEW = 64  # objects whose headers are read: what a study is shows in its first ones


class PriorWishes:
    """Looks at studies while they come in, and once more when they settle. Thread-safe: a wish is written once."""

    def __init__(self, node: Node, models: ModelsInForce) -> None:
        self._node = node
        self._models = models
        self._over = "" if node.config.pull.method != "off" and node.config.priors.wait_s > 0 else priors.OFF
        self._seen: dict[str, int] = {}

    def look(self) -> None:
        """At what came since: again when a study has twice as many objects as before."""
        if not self._models.want_priors():
            return
        with self._node.database.read() as connection:
            coming = [one.study_key for one in studies.unsettled(connection)]
            decided = priors.known(connection, coming)
        self._seen = {key: count for key, count in self._seen.items() if key in set(coming)}
        for study_key in coming:
            if study_key not in decided:
                try:
                    self._look_at(study_key, 2 * self._seen.get(study_key, 0))
                except Retry as error:
                    log.warning("priors.asked-later", study=study_key, code=error.code)

    def before_settling(self, study_key: str) -> None:
        """The last look, at a study whose objects are all there. Raises `Retry` when the ledger cannot take the wish
        now: it could not take the settling either."""
        if not self._models.want_priors():
            return
        with self._node.database.read() as connection:
            decided = priors.known(connection, [study_key])
        if not decided:
            self._look_at(study_key, self._seen.get(study_key, 0) + 1)

    def _look_at(self, study_key: str, least: int) -> None:
        """Unless it has fewer objects than `least`. Raises `Retry` when the ledger cannot take the wish, and nothing
        else: settling must not wait for what ails this."""
        found = self._asked_for(study_key, least)
        if not found:
            return
        try:
            with self._node.database.write() as connection:
                priors.wish(connection, study_key, found, self._node.actor, over=self._over)
        except Retry:
            self._seen.pop(study_key, None)
            raise
        except Exception:
            log.exception("priors.not-asked", study=study_key)

    def _asked_for(self, study_key: str, least: int) -> list[PriorAsk]:
        try:
            objects = self._node.clean.study(study_key).objects
            if len(objects) < least:
                return []
            self._seen[study_key] = count = len(objects)
            with self._models.begin() as triage:
                return asks(triage.models, objects[:: max(1, count // FEW)][:FEW])
        except EdgeNodeError as error:  # what ails the study is triage's to say; it does without priors
            if isinstance(error, Retry):
                self._seen.pop(study_key, None)
            log.warning("priors.not-asked", study=study_key, code=error.code)
        except Exception:
            log.exception("priors.not-asked", study=study_key)
        return []
