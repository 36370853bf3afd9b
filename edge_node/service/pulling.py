"""The process that pulls: takes requests off the durable queue, one study at a time, when the site lets it.

A process of its own beside the receiver, which it must never slow. It may be killed at any time: what was under way is
asked for again, and instances that came twice are duplicates.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from edge_node.config.schema import Config
from edge_node.config.secrets import MemoryVault, load_old_key
from edge_node.deid import study_key_of
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry, Stop
from edge_node.domain.pull import Kind, Match, Pulled, Retrieved, Wanted
from edge_node.domain.study import Role
from edge_node.service import beside
from edge_node.service.node import Node, open_node, spool_path
from edge_node.service.prior_requests import PriorRequests
from edge_node.service.pull_dimse import DicomArchive, StillWanted, not_found
from edge_node.service.pull_requests import named
from edge_node.service.pull_web import WebArchive
from edge_node.store import pulls
from edge_node.store.pulls import Item, Named, Pulls
from edge_node.store.spool import free_bytes

log = structlog.get_logger()

IDLE_S = 1.0
ARRIVAL_S = 15.0  # an archive may say that it is done before our receiver has committed the last instance
UNAVAILABLE_FIRST_S, UNAVAILABLE_CAP_S = 10.0, 300.0
BREATH_S = 0.25


class Archive(Protocol):
    """Whom studies are asked of: a PACS by DIMSE, or a DICOMweb server."""

    def find(self, wanted: Wanted) -> list[Match]: ...

    def retrieve(self, match: Match, wanted: StillWanted, breathe: Callable[[], None]) -> Retrieved: ...


def in_window(windows: list[str], now: datetime) -> bool:
    """Whether `now` (local time) lies in one of the windows ``HH:MM-HH:MM``; they may go over midnight."""
    clock = now.strftime("%H:%M")
    return not windows or any(
        first <= clock < last if first < last else clock >= first or clock < last
        for first, _, last in (text.partition("-") for text in windows)
    )


class Gate:
    """When a study may be begun, and how fast; shared by all threads of the process."""

    def __init__(self, config: Config, node: Node) -> None:
        self._options = config.pull
        self._node = node
        storage = config.storage
        self._low = (storage.low_mb or storage.reserve_mb * 3 // 2) * 1_000_000
        self._folder = spool_path(config)
        self._lock = threading.Lock()
        self._next = self._closed_until = 0.0
        self._failures = 0
        self._why = ""
        self._live_at, self._live = 0.0, False

    def closed(self, *, awaited: bool = False) -> str:
        """Why no study may be begun now, as a stable word; "" when one may. One that is `awaited`, a prior of a study
        that is to be judged, is not for the night, and comes while others send, as slowly as `breathe` says."""
        if not awaited and not in_window(self._options.windows, datetime.now().astimezone()):
            return "outside-window"
        if time.monotonic() < self._closed_until:
            return self._why
        if free_bytes(self._folder) < self._low:
            return "disk-low"
        return "live-receiving" if not awaited and self.live() else ""

    def live(self) -> bool:
        """Whether somebody else sends; looked up once a second at most."""
        if not self._options.yield_s:
            return False
        with self._lock:
            if time.monotonic() - self._live_at > 1.0:
                with self._node.database.read() as connection:
                    self._live = pulls.receives_live(connection, self._options.yield_s)
                self._live_at = time.monotonic()
            return self._live

    def breathe(self) -> None:
        """Between two instances of a study: slower while somebody else sends."""
        if self.live():
            time.sleep(BREATH_S)

    def turn(self, stop: threading.Event) -> bool:
        """Wait for the next turn of `studies_per_minute`; False when told to stop meanwhile."""
        with self._lock:
            at = max(self._next, time.monotonic())
            self._next = at + 60.0 / self._options.studies_per_minute
        return not stop.wait(max(0.0, at - time.monotonic()))

    def answered(self) -> None:
        self._failures = 0

    def unavailable(self, after: float | None, why: str = "pull.unavailable") -> None:
        """The archive cannot be asked: nobody asks again for a while."""
        with self._lock:
            self._why = why
            if time.monotonic() < self._closed_until:
                return  # another thread met the same
            pause = min(UNAVAILABLE_CAP_S, UNAVAILABLE_FIRST_S * 2 ** min(self._failures, 10))
            self._failures += 1
            self._closed_until = time.monotonic() + max(pause * random.uniform(0.5, 1.0), after or 0.0)  # noqa: S311  jitter


class Puller:
    """Works the queue off; one thread each. `counts` and `state` are for `edge-node status`."""

    def __init__(self, config: Config, node: Node, archive: Archive) -> None:
        self._options = config.pull
        self._node = node
        self._archive = archive
        self._key = node.keys.key("pseudonym")
        self._before = load_old_key("pseudonym", config)
        self.gate = Gate(config, node)
        self.queue = Pulls(node.database, node.keyring, node.actor)
        self.priors = PriorRequests(node, self.queue)
        self.counts = {"pulled": 0, "failed": 0, "instances": 0}
        self.state = "idle"

    def run(self, stop: threading.Event, *, awaited: bool = False) -> None:
        """Pull until told to stop, or only what is `awaited`. Only an error of the ledger itself leaves this loop."""
        while not stop.is_set():
            try:
                self.priors.ask()
                why = self.gate.closed()
                closed = why and self.gate.closed(awaited=True)
                item = None if closed else self.queue.claim(awaited=awaited or bool(why))
                if item is None:
                    if not awaited:
                        self.state = why or "idle"
                        self.queue.end_cut_short()
                    stop.wait(IDLE_S)
                else:
                    self.state = "pulling"
                    self.one(item, stop)
            except Retry as error:
                log.warning("pull.waiting", code=error.code)
                stop.wait(IDLE_S)

    def one(self, item: Item, stop: threading.Event) -> None:
        """One request, and whatever came of it, in the queue: as often as it takes, or it would be RUNNING for ever."""
        write = self._worked(item, stop)
        while True:
            try:
                write()
            except Retry as error:
                log.warning("pull.waiting", code=error.code)
                if not stop.wait(IDLE_S):
                    continue
            return

    def _worked(self, item: Item, stop: threading.Event) -> Callable[[], None]:
        """What is to be written of it."""
        try:
            if item.wanted.kind is not Kind.STUDY:
                outcome = partial(self._found, item, self._search(item))
            elif self.gate.turn(stop):
                outcome = partial(self._done, item, self._study(item, stop))
            else:
                stopping = Retry("pull.stopping", "the node is stopping")
                return partial(self.queue.later, item, stopping, counts=False)
            self.gate.answered()
        except Retry as error:
            return partial(self._again, item, error)
        except Stop as error:  # ours, such as a certificate that is gone: nothing is wrong with the study
            return partial(self._wait_for_a_human, item, error)
        except EdgeNodeError as error:
            return partial(self._give_up, item, error)
        except Exception as error:  # one study's surprise must not stop the others
            log.exception("pull.unexpected")
            code, words = f"internal.{type(error).__name__}", "unexpected error, see the log of the dicom role"
            return partial(self._again, item, Retry(code, words))
        return outcome

    def _search(self, item: Item) -> list[Named]:
        found = self._archive.find(item.wanted)
        if not found and item.wanted.kind is Kind.ACCESSION:
            raise not_found("")
        if item.wanted_by:
            found = self.priors.chosen(item.wanted_by, found)
        today = datetime.now().astimezone().strftime("%Y%m%d")
        studies = [named(self._key, Wanted(Kind.STUDY, match.study_uid)) for match in found]
        if item.wanted.kind is not Kind.PRIORS:
            return studies
        # What was made today may be on its way to us from the modality, to be read.
        return [replace(one, prior="" < match.date < today) for one, match in zip(studies, found, strict=True)]

    def _found(self, item: Item, studies: list[Named]) -> None:
        log.info("pull.found", count=self.queue.found(item, studies))

    def _done(self, item: Item, pulled: Pulled) -> None:
        self.queue.done(item, pulled)
        self.counts["pulled"] += 1
        self.counts["instances"] += pulled.instances
        log.info("pull.done", study=item.study_key, code=pulled.code, count=pulled.instances)

    def _study(self, item: Item, stop: threading.Event) -> Pulled:
        found = self._archive.find(item.wanted)
        if not found:
            raise not_found(item.study_key)
        match, names = found[0], self._names(item)
        here = self._here(names)
        if match.instances and here >= match.instances and not item.again:
            return Pulled("pull.already-here", here)
        if item.prior:
            self.queue.mark_prior(item, names)
        said = self._archive.retrieve(match, self._wanted(item, stop), self.gate.breathe)
        here = self._arrived(names, max(match.instances, here), stop)
        if not here and said.sent and not said.failed:
            raise Quarantine(
                "pull.went-elsewhere",
                f"the PACS says that it sent {said.sent} instances, and none came",
                hint="check which address the PACS has for our AE title",
                study=item.study_key,
            )
        if said.failed or here < match.instances or not here:
            whole = str(match.instances) if match.instances else "an unknown number of"
            raise Retry(
                "pull.incomplete",
                f"{here} of {whole} instances are here, {said.failed} could not be sent",
                hint="see the log of the PACS, and `edge-node status` for what was refused",
                study=item.study_key,
            )
        return Pulled("pull.complete", here)

    def _names(self, item: Item) -> list[str]:
        """The study's names under the present and the previous site key."""
        keys = (self._key, self._before)
        return [study_key_of(key, item.wanted.value) for key in keys if key]

    def _here(self, names: list[str]) -> int:
        with self._node.database.read() as connection:
            return max(pulls.instances_here(connection, name) for name in names)

    def _arrived(self, names: list[str], expected: int, stop: threading.Event) -> int:
        """How many are here, once as many are as there should be, or no more come."""
        here, deadline = self._here(names), time.monotonic() + ARRIVAL_S
        while here < max(expected, 1) and time.monotonic() < deadline and not stop.wait(0.5):
            now = self._here(names)
            deadline = time.monotonic() + ARRIVAL_S if now > here else deadline
            here = now
        return here

    def _wanted(self, item: Item, stop: threading.Event) -> StillWanted:
        looked, answer = 0.0, True

        def wanted() -> bool:
            nonlocal looked, answer
            if time.monotonic() - looked > 1.0:
                answer, looked = self.queue.is_wanted(item), time.monotonic()
            return answer and not stop.is_set()

        return wanted

    def _again(self, item: Item, error: Retry) -> None:
        log.warning("pull.retry", study=item.study_key, code=error.code, attempts=item.attempts)
        ours = error.code.startswith("ledger.")
        counts = error.counts and not ours
        if not counts and not ours and error.code != "pull.cancelled":
            self.gate.unavailable(error.after)
        old = time.time() - item.created_at > self._options.max_age_days * 86400.0
        if old or (counts and item.attempts >= self._options.tries):
            self._give_up(item, error)
        else:
            self.queue.later(item, error, counts=counts)

    def _wait_for_a_human(self, item: Item, error: Stop) -> None:
        log.error("pull.retry", study=item.study_key, code=error.code, message=error.message, hint=error.hint)
        self.gate.unavailable(None, error.code)
        self.queue.later(item, error, counts=False)

    def _give_up(self, item: Item, error: EdgeNodeError) -> None:
        self.queue.failed(item, error)
        self.counts["failed"] += 1
        log.warning("pull.failed", study=item.study_key, code=error.code)


def wanted(config: Config) -> bool:
    """Whether the node may pull at all."""
    return config.pull.method != "off"


def archive_of(config: Config) -> Archive:
    """Whom the configuration says to ask."""
    return WebArchive(config) if config.pull.method == "web" else DicomArchive(config)


def serve(config: Config, vault: MemoryVault | None = None) -> None:
    """Pull until SIGTERM; the receiver is told every few seconds, for `edge-node status`."""
    stop = beside.begin(config)
    node = open_node(config, Role.DICOM, vault)
    puller = Puller(config, node, archive_of(config))
    puller.queue.take_over(config.pull.tries)
    puller.queue.end_cut_short()
    threads = [
        threading.Thread(target=puller.run, args=(stop,), name=f"pull-{number}", daemon=True)
        for number in range(config.pull.associations)
    ]
    if config.priors.wait_s:  # who is waited for must not stand behind a large study that nobody waits for
        run = partial(puller.run, awaited=True)
        threads.append(threading.Thread(target=run, args=(stop,), name="pull-awaited", daemon=True))
    beside.live(config, stop, threads, {"pull": lambda: {"state": puller.state, **puller.counts}})
    node.database.close()
