"""The dicom role's part of priors: who the patient is, and which of the archive's answers are asked for.

Patient ID, issuer and dates of studies are opened here, in memory, and go nowhere but into the query.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from datetime import date, datetime

import structlog

from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.priors import PriorAsk
from edge_node.domain.pull import Kind, Match, Wanted
from edge_node.service.node import Node
from edge_node.service.pull_requests import named, unsearchable
from edge_node.store import priors
from edge_node.store.own_list import ListedIdentity
from edge_node.store.pulls import Pulls
from edge_node.triage import rule
from edge_node.worklist.identity import WriteBackIdentity, number_of

log = structlog.get_logger()

LOOK_S = 1.0
_DAY = re.compile(r"[0-9]{8}")


class PriorRequests:
    """Asks for the priors that studies wish for, through the queue of pulls; for all threads of the process."""

    def __init__(self, node: Node, queue: Pulls) -> None:
        self._node = node
        self._queue = queue
        self._identity = ListedIdentity(node.database, node.keyring)
        self._lock = threading.Lock()
        self._looked = 0.0

    def ask(self) -> None:
        """A job for each new wish, once a second at most. Raises Retry of the ledger."""
        with self._lock:
            if time.monotonic() - self._looked < LOOK_S:
                return
            self._looked = time.monotonic()
            with self._node.database.read() as connection:
                waiting = priors.to_ask(connection)
            for study_key in waiting:
                self._ask_for(study_key)

    def _ask_for(self, study_key: str) -> None:
        try:
            wanted = _patient_of(self._study(study_key))
        except Retry:
            raise
        except EdgeNodeError as error:
            log.warning("priors.no-identity", study=study_key, code=error.code)
            wanted = None
        if wanted is None:
            with self._node.database.write() as connection:
                priors.end(connection, study_key, priors.NO_PATIENT, self._node.actor)
            return
        request = named(self._node.keys.key("pseudonym"), wanted)
        self._queue.ask([request], f"priors for {study_key}", again=False, wanted_by=study_key)

    def chosen(self, study_key: str, found: Iterable[Match]) -> list[Match]:
        """Those of the archive's answers that a model asks for, made on a day before the study.

        Raises Quarantine ``vault.destroyed``.
        """
        identity = self._study(study_key)
        with self._node.database.read() as connection:
            asks = priors.asks_of(connection, study_key)
        others = [one for one in found if one.study_uid != identity.study_uid]
        return choose(asks, others, _day(identity.text("StudyDate").strip()) or datetime.now().astimezone().date())

    def _study(self, study_key: str) -> WriteBackIdentity:
        return WriteBackIdentity.of_study(self._identity.study(study_key))


def choose(asks: Iterable[PriorAsk], found: Iterable[Match], day: date) -> list[Match]:
    """What the models ask for: the newest before `day`, by each model's own rule; each study once, newest first.

    A study without a date is none: nobody can say that it came before.
    """
    dated = [(made, one) for one in found if (made := _day(one.date)) is not None and made < day]
    dated.sort(key=lambda pair: (pair[0], pair[1].study_uid), reverse=True)
    wanted: dict[str, tuple[date, Match]] = {}
    for ask in asks:
        fits = rule.parse(ask.rule, rule.ASKED_OF_ARCHIVES)
        near = [pair for pair in dated if (day - pair[0]).days <= ask.within_days and fits.matches(_said(pair[1]))]
        wanted |= {match.study_uid: (made, match) for made, match in near[: ask.most]}
    return [match for _, match in sorted(wanted.values(), key=lambda pair: pair[0], reverse=True)]


def _said(match: Match) -> dict[str, rule.Values]:
    told: dict[str, rule.Values] = {"Modality": match.modalities}
    return told | ({"StudyDescription": (match.description,)} if match.description else {})


def _patient_of(identity: WriteBackIdentity) -> Wanted | None:
    """None when the study has no Patient ID, or none that could be searched for."""
    number, issuer = (number_of(identity.patient, keyword) for keyword in ("PatientID", "IssuerOfPatientID"))
    return Wanted(Kind.PRIORS, number, issuer) if number and not unsearchable(number + issuer) else None


def _day(text: str) -> date | None:
    if not _DAY.fullmatch(text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
