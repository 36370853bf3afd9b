"""The line: every step, the process it runs in, the state it takes and the state it gives - and the one loop.

    association ─receive─▶ RECEIVING ─settle─▶ SETTLED ─┬─triage─▶ TRIAGED ─┬─worklist─┬─▶ DELIVERED ─purge─▶ CLOSED
                               ▲                        └─pixels────────────┴─forward──┘
                               └── a late instance reopens the study as its next revision

Each step claims a row, works, and commits its outcome, its audit entry and the rows of the steps after it in one
transaction. Each is idempotent (pseudonymous UIDs are deterministic), so a crash means "do it again", never "twice".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import Connection

from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry, Stop
from edge_node.domain.study import Role, StudyState
from edge_node.store import priors, studies
from edge_node.store.database import Database
from edge_node.store.tasks import Lease, Task, Tasks, enqueue, supersede, unfinished, urgency_after

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table. `then` names the steps whose work it adds when it is done."""

    name: str
    role: Role
    works_on: str
    takes: str
    gives: str
    on_failure: str
    then: tuple[str, ...] = ()


STEPS = (
    Step("receive", Role.DICOM, "instance", "association", StudyState.RECEIVING,
         "cannot be de-identified: sealed quarantine, Success; cannot be kept: a named failure status", ("settle",)),
    Step("settle", Role.COMPUTE, "study", StudyState.RECEIVING, StudyState.SETTLED, "asked again",
         ("order", "triage", "pixels")),
    Step("order", Role.DICOM, "study", StudyState.SETTLED, StudyState.SETTLED, "what the images say of it counts"),
    Step("pixels", Role.COMPUTE, "study", StudyState.SETTLED, StudyState.SETTLED,
         "the object stays withheld, with the reason", ("forward",)),
    Step("triage", Role.COMPUTE, "study", StudyState.SETTLED, StudyState.TRIAGED,
         "reading order untouched; skipped with the reason", ("worklist", "forward")),
    Step("worklist", Role.DICOM, "delivery", StudyState.TRIAGED, StudyState.DELIVERED, "retry, then a human",
         ("purge",)),
    Step("forward", Role.FORWARD, "delivery", StudyState.TRIAGED, StudyState.DELIVERED,
         "retry, resumable, for days", ("purge",)),
    Step("purge", Role.COMPUTE, "study", StudyState.DELIVERED, StudyState.CLOSED, "never before delivery"),
)  # fmt: skip
BY_NAME = {step.name: step for step in STEPS}
DELIVERIES = ("worklist", "forward")

LEASE_S, POLL_S, UNEXPECTED_TRIES = 60.0, 0.2, 5


@dataclass(frozen=True, slots=True)
class Targets:
    """Where a study goes after triage, and when what is kept of it is destroyed (seconds after delivery)."""

    worklist: tuple[str, ...]
    forward: tuple[str, ...]
    purge: Mapping[str, float]

    def of(self, step: str) -> tuple[str, ...]:
        return {"worklist": self.worklist, "forward": self.forward, "purge": tuple(self.purge)}.get(step, ("",))


@dataclass(frozen=True, slots=True)
class Done:
    """What a step's work yields: a stable code, audit detail (no PHI) and the writes to commit with it."""

    code: str
    detail: dict[str, object] = field(default_factory=dict)
    commit: Callable[[Connection], None] | None = None


Work = Callable[[Task], Done]


def settled(connection: Connection, study_key: str, revision: int, urgency: int, triage_from: float = 0.0) -> None:
    """Follow-up of `settle`, in its transaction: older revisions' work is void; order (not of a prior), triage and
    pixels are due, triage at `triage_from` (seconds since the epoch) unless what it waits for comes sooner."""
    supersede(connection, study_key, revision)
    for step in (one for one in BY_NAME["settle"].then if one != "order" or not priors.is_prior(connection, study_key)):
        due = triage_from if step == "triage" else 0.0
        enqueue(connection, study_key, revision, step, urgency=urgency, not_before=due)


def follow_up(connection: Connection, done: Task, targets: Targets, urgency: int) -> None:
    """Move the study on after a step and add the work of the next ones; a superseded revision adds nothing."""
    step, study = BY_NAME[done.step], (done.study_key, done.revision)
    if priors.is_prior(connection, done.study_key):  # nobody is told of it, so its identity's time runs from here
        targets = replace(targets, worklist=())
        if step.name == "triage":
            enqueue(connection, *study, "purge", target="envelope", not_before=time.time() + targets.purge["envelope"])
    if step.name == "worklist" and not unfinished(connection, *study, ("worklist",)):
        # Identity serves the write-back alone: its time runs from there, however long the trainer is away.
        enqueue(connection, *study, "purge", target="envelope", not_before=time.time() + targets.purge["envelope"])
    if step.name == "order":
        return  # nothing waits for it for long
    if step.name == "pixels":
        # The study's state is triage's to change; forwarding waits for both, nothing is delivered before both.
        if unfinished(connection, *study, ("triage",)) or not studies.is_current(connection, *study):
            return
        for target in targets.of("forward"):
            enqueue(connection, *study, "forward", target=target, urgency=urgency)
        step = BY_NAME["forward"]
    together = (*DELIVERIES, "pixels") if step.name in DELIVERIES else (step.name,)
    if not unfinished(connection, *study, together):
        _advance(connection, step, *study, targets, urgency)


def _advance(connection: Connection, step: Step, study_key: str, revision: int, targets: Targets, urgency: int) -> None:
    if not studies.advance(connection, study_key, revision, StudyState(step.gives), now := time.time()):
        return
    waiting = step.name == "triage" and unfinished(connection, study_key, revision, ("pixels",))
    then = [(name, to) for name in step.then for to in targets.of(name) if name != "forward" or not waiting]
    for name, target in then:
        due = now + targets.purge[target] if name == "purge" else 0.0
        enqueue(connection, study_key, revision, name, target=target, urgency=urgency, not_before=due)
    if step.name == "triage" and not then and not waiting:  # a site that neither writes back nor forwards
        _advance(connection, BY_NAME["worklist"], study_key, revision, targets, urgency)


@dataclass(frozen=True, slots=True)
class Bench:
    """One worker of a role: works off one step (of one target, of rows `up_to` an urgency), with `rest` between."""

    step: str
    work: Work
    tasks: Tasks
    database: Database
    targets: Targets
    max_age_s: float
    target: str | None = None
    up_to: int | None = None
    rest: Callable[[threading.Event], object] = lambda stop: stop.wait(POLL_S)

    def run(self, stop: threading.Event) -> None:
        """Claim and work until `stop` is set. Only Stop leaves this loop: the role then exits with its code."""
        while not stop.is_set():
            try:
                if (claimed := self.claim()) is None:
                    self.rest(stop)
                else:
                    self.one(claimed)
            except Retry as error:  # the ledger itself: a row left behind is taken up again when its lease runs out
                log.warning("step.waiting", step=self.step, code=error.code)
                stop.wait(1.0)

    def claim(self) -> Task | None:
        """The most urgent row that is due, or none."""
        return self.tasks.claim(self.step, self.target, LEASE_S, self.up_to)

    def one(self, claimed: Task) -> None:
        """Work one claimed row and commit whatever came of it."""
        started, label = time.monotonic(), {"step": claimed.step, "study": claimed.study_key}
        try:
            with Lease(self.tasks, claimed, LEASE_S):
                done = self.work(claimed)
            self.commit(claimed, done)
            log.info("step.done", **label, code=done.code, seconds=round(time.monotonic() - started, 3))
        except (Retry, Quarantine) as error:
            self.failed(claimed, error)
        except Stop:
            self.tasks.release_leases()
            raise
        except Exception as error:  # the last line of defence: one study's surprise must not stop the others
            log.exception("step.unexpected", **label)
            kind, said = type(error).__name__, f"unexpected error in try {claimed.attempts}, see the log of this role"
            again = claimed.attempts < UNEXPECTED_TRIES
            self.failed(claimed, Retry(f"internal.{kind}", said) if again else EdgeNodeError(f"internal.{kind}", said))

    def failed(self, claimed: Task, error: EdgeNodeError) -> None:
        """What may pass is due again later; after anything else the row waits for a human."""
        label = {"step": claimed.step, "study": claimed.study_key, "code": error.code, "attempts": claimed.attempts}
        if isinstance(error, Retry):
            log.warning("step.retry", **label, state=str(self.tasks.put_back(claimed, error, self.max_age_s)))
        else:
            self.tasks.bury(claimed, error)
            log.warning("step.failed", **label)

    def commit(self, claimed: Task, done: Done) -> None:
        """The outcome and the work of the steps after it, in one transaction."""
        with self.database.write() as connection:
            if not self.tasks.done(connection, claimed, done.code, done.detail):
                return  # the lease ran out and another worker has the row: its outcome counts
            if done.commit is not None:
                done.commit(connection)
            follow_up(connection, claimed, self.targets, urgency_after(connection, claimed))
