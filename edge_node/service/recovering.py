"""The process that recovers identity after a restart: finds the studies in the archive, and lets them come again.

Only where the vault key is in memory. A study is known by the keyed hash of its Study Instance UID and by nothing else:
the archive is asked for the studies of the days around its receipt, and what it answers is hashed and compared. What
then comes is sealed by the workers, who look at its patient too.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta

import structlog

from edge_node.config.schema import Config
from edge_node.config.secrets import MemoryVault, load_old_key
from edge_node.deid import study_key_of
from edge_node.domain.errors import EdgeNodeError, Retry, Stop
from edge_node.domain.pull import Kind, Match, Wanted
from edge_node.domain.study import Role
from edge_node.service import beside
from edge_node.service.memory_identity import asking
from edge_node.service.node import Node, open_node
from edge_node.service.pulling import Archive, archive_of
from edge_node.store import lost
from edge_node.store.lost import Lost
from edge_node.store.renewal import tell

log = structlog.get_logger()

IDLE_S = 1.0
ARRIVAL_S = 15.0  # an archive may say that it is done before our receiver has committed the last instance
FIRST_S, CAP_S = 5.0, 300.0
BREATH_S = 0.02  # between two questions: an archive has others to answer
DAYS_BACK = (3, 31, 366, *[7] * 9)  # by the number of looks, and again: the widest costs as many questions
PARTS_AFTER = 3  # looks after which what the archive still has of a study must be enough

Question = tuple[date, str]


def questions(study: Lost) -> Iterator[Question]:
    """(day, modality) to ask for a study, the likeliest first; the study's date is not known, its receipt is."""
    first = datetime.fromtimestamp(study.received_at).astimezone().date()
    back = DAYS_BACK[study.looks % len(DAYS_BACK)]
    # An archive that fills Modalities in Study late, or not at all, is asked without it the second time.
    names = study.modalities if not study.looks else ("",)
    for days in (0, -1, 1, *range(-2, -back - 1, -1)):
        for name in names or ("",):
            yield first + timedelta(days), name


def plan(studies: Iterable[Lost]) -> dict[Question, set[str]]:
    """What to ask for all of them together, in order, with the studies that are looked for in each answer."""
    asked: dict[Question, set[str]] = {}
    for study in studies:
        for question in questions(study):
            asked.setdefault(question, set()).add(study.study_key)
    return asked


class Recovery:
    """Works off the studies whose identity is lost; one thread. `recovered` counts them."""

    def __init__(self, config: Config, node: Node, archive: Archive) -> None:
        self._node = node
        self._archive = archive
        self._keys = [key for key in (node.keys.key("pseudonym"), load_old_key("pseudonym", config)) if key]
        self._max_age_s = config.worklist.max_age_hours * 3600.0
        self._silent = 0  # how often in a row the archive could not be asked
        self._closed_until = 0.0
        self.recovered = 0

    def facts(self) -> dict[str, object]:
        """For `edge-node status`."""
        with self._node.database.read() as connection:
            waiting = lost.lost(connection)
        return {"waiting": len(waiting), "recovered": self.recovered}

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop, whatever happens."""
        while not stop.is_set():
            try:
                self.look(stop)
            except Retry as error:
                log.warning("identity.waiting", code=error.code)
            except Exception:
                log.exception("identity.unexpected")
                self._closed_until = time.monotonic() + CAP_S
            stop.wait(IDLE_S)

    def look(self, stop: threading.Event) -> None:
        """One round over all that are due."""
        with self._node.database.read() as connection:
            waiting = lost.lost(connection)
            here = lost.whole(connection) if waiting else set()
        for study in waiting:
            if study.study_key in here:  # whoever sent it again
                self._recover(study)
        due = {one.study_key: one for one in waiting if one.study_key not in here and self._is_due(one)}
        if not due or time.monotonic() < self._closed_until:
            return
        try:
            self._ask(due, stop)
            self._silent = 0
        except EdgeNodeError as error:  # nobody there, or a certificate of ours that is gone: as long as it takes
            if stop.is_set():
                return
            self._silent += 1
            self._closed_until = time.monotonic() + pause(self._silent)
            log.warning("identity.waiting", code=error.code, count=len(due))
            self._stand(due.values(), _unanswered(error))

    def _is_due(self, study: Lost) -> bool:
        now = time.time()
        wanted = now - study.lost_at < self._max_age_s if study.writers is None else study.writers
        return study.settled and wanted and study.not_before <= now

    def _recover(self, study: Lost) -> None:
        with self._node.database.write() as connection:
            done = lost.recovered(connection, study.study_key, self._node.actor)
        if done:
            self.recovered += 1
            log.info("identity.recovered", study=study.study_key, seconds=round(time.time() - study.lost_at, 3))

    def _stand(self, studies: Iterable[Lost], why: EdgeNodeError, *, looked: bool = False) -> None:
        """Nothing came of it for these; who was looked for rests a while, the longer the more often."""
        with self._node.database.write() as connection:
            for study in studies:
                after = time.time() + pause(study.looks + 1) if looked else 0.0
                lost.stands(connection, study.study_key, why, not_before=after, looked=looked)

    def _says(self, study: Lost, why: EdgeNodeError) -> None:
        with self._node.database.write() as connection:
            tell(connection, study.study_key, why)

    def _ask(self, due: dict[str, Lost], stop: threading.Event) -> None:
        """Ask day by day and fetch what is found at once: the most urgent shall not wait for the last question.

        Raises what the archive raises when it cannot be asked at all; a day or study that fails stands alone.
        """
        failed: EdgeNodeError | None = None
        for (day, modality), keys in plan(due.values()).items():
            if not keys & due.keys():
                continue
            if stop.wait(BREATH_S):
                return
            try:
                found = self._archive.find(Wanted(Kind.DAY, day.strftime("%Y%m%d"), modality=modality))
            except Retry as error:
                if not error.counts:
                    raise
                failed = error  # more matches in a day than it answers, say
                continue
            matches = dict(self._named(found))
            for study_key in [key for key in due if key in matches]:
                self._fetch(due[study_key], matches[study_key], stop)
                del due[study_key]
        self._stand(due.values(), _unanswered(failed) if failed else _not_found(), looked=True)

    def _named(self, found: Iterable[Match]) -> Iterator[tuple[str, Match]]:
        """Answers by the node's own names, under the present and the previous site key."""
        for match in found:
            for key in self._keys:
                yield study_key_of(key, match.study_uid), match

    def _fetch(self, study: Lost, match: Match, stop: threading.Event) -> None:
        # Counted before it is tried: one that kills this process, by its size perhaps, must keep no other waiting.
        self._stand([study], asking(), looked=True)
        try:
            said = self._archive.retrieve(match, lambda: not stop.is_set(), lambda: None)
        except Stop:  # ours, such as a certificate that is gone: it is the same for all
            raise
        except Exception as error:  # it answered a moment ago: neither must one that it cannot send, or we not take
            if not stop.is_set():
                self._says(study, _unanswered(_known(error)))
            return
        left = self._arrived(study, stop)
        with self._node.database.read() as connection:
            enough = lost.has_own(connection, study.study_key)
            now = lost.of(connection, study.study_key)
        refused = Retry(now.code, now.message) if now is not None and now.code == OTHER_PATIENT else None
        if not left or (enough and not refused and not said.failed and study.looks + 1 >= PARTS_AFTER):
            self._recover(study)
            return
        why = refused or _incomplete(left)
        log.warning("identity.waiting", study=study.study_key, code=why.code, count=left)
        self._says(study, why)

    def _arrived(self, study: Lost, stop: threading.Event) -> int:
        """How many envelopes are missing still, once none is or no more come."""
        left, deadline = self._missing(study), time.monotonic() + ARRIVAL_S
        while left and time.monotonic() < deadline and not stop.wait(0.25):
            now = self._missing(study)
            deadline = time.monotonic() + ARRIVAL_S if now < left else deadline
            left = now
        return left

    def _missing(self, study: Lost) -> int:
        with self._node.database.read() as connection:
            return lost.missing(connection, study.study_key)


OTHER_PATIENT = "identity.other-patient"


def pause(times: int) -> float:
    """Seconds until it is tried again after it failed so often."""
    whole: float = min(CAP_S, FIRST_S * 2.0 ** min(times - 1, 8))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311  jitter


def _not_found() -> Retry:
    return Retry(
        "identity.not-found",
        "the PACS answers and has no study of this name on the days around its receipt; nothing is written."
        " Send it to the node again, then edge-node study retry",
    )


def _incomplete(count: int) -> Retry:
    return Retry(
        "identity.incomplete",
        f"the PACS has the study, and {count} of its identities did not come with it."
        " Send it to the node again, then edge-node study retry",
    )


def _known(error: Exception) -> EdgeNodeError:
    """Our own errors as they are; of a surprise no more than its kind."""
    if isinstance(error, EdgeNodeError):
        return error
    log.exception("identity.unexpected")
    return EdgeNodeError(f"internal.{type(error).__name__}", "unexpected error, see the log of the dicom role")


def _unanswered(error: EdgeNodeError) -> Retry:
    return Retry("identity.unanswered", f"the PACS cannot be asked for the identity: {error.code}: {error.message}")


def wanted(config: Config) -> bool:
    """Whether anything may have to be recovered."""
    return config.node.identity == "memory"


def serve(config: Config, vault: MemoryVault) -> None:
    """Recover until SIGTERM; the receiver is told every few seconds, for `edge-node status`."""
    stop = beside.begin(config)
    node = open_node(config, Role.DICOM, vault)
    recovery = Recovery(config, node, archive_of(config))
    thread = threading.Thread(target=recovery.run, args=(stop,), name="identity", daemon=True)
    beside.live(config, stop, [thread], {"identity": recovery.facts})
    node.database.close()
