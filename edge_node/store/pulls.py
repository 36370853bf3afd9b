"""The queue of pulls: durable, resumable, identifiers sealed under the vault key and destroyed with their job's end."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, case, func, insert, select, update

from edge_node.domain.errors import EdgeNodeError, Quarantine
from edge_node.domain.pull import OPEN, Kind, Pulled, PullState, Wanted
from edge_node.domain.study import KeyClass, StudyState
from edge_node.store import audit, priors
from edge_node.store.database import Database
from edge_node.store.keyring import Keyring, destroy
from edge_node.store.seal import seal, unseal
from edge_node.store.tables import instance, pull_item, pull_job, quarantine, study

BACKOFF_FIRST_S, BACKOFF_CAP_S = 30.0, 3600.0
PORTION = 500  # requests in one transaction
AT_ONCE = ("pull.stopping", "pull.cancelled")
ASKING_S = 120.0  # nobody adds to a list for so long and lives
KILLS = 3  # a study that the puller did not survive so often is given up, however few tries it has
OURS_S = 600.0  # an archive may go on sending so long after it said that it is done


@dataclass(frozen=True, slots=True)
class Named:
    """A request with the node's names for it: `request_key` tells equal ones, `study_key` is a study's, else "". What
    comes of a `prior` is kept and not read."""

    wanted: Wanted
    request_key: str
    study_key: str = ""
    prior: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed request. `number` is its place in its job, from 1 on; `wanted_by` is the study that waits for it."""

    id: int
    job: str
    number: int
    wanted: Wanted = field(repr=False)
    study_key: str
    attempts: int
    created_at: float
    again: bool
    prior: bool = False
    wanted_by: str = ""


class Pulls:
    """The queue, for whoever holds the vault key."""

    def __init__(self, database: Database, keyring: Keyring, actor: str) -> None:
        self._database = database
        self._keyring = keyring
        self._actor = actor

    def ask(self, requests: Iterable[Named], what: str, *, again: bool, wanted_by: str = "") -> tuple[str, int]:
        """A new job of these requests, equal ones once; its name and how many were asked for.

        In portions, so that a long list never holds the ledger from the receiver. Until all are in, the job is RUNNING
        and does not end. Who is interrupted takes back what he asked; of who was killed, `end_cut_short` does.
        """
        self.end_cut_short()
        job, asked = "P" + secrets.token_hex(4).upper(), list({one.request_key: one for one in requests}.values())
        with self._database.write() as connection:
            values = {"job": job, "what": what, "again": again, "state": PullState.RUNNING, "wanted_by": wanted_by}
            connection.execute(insert(pull_job).values(**values, created_at=time.time()))
            if wanted_by:
                priors.asked(connection, wanted_by, job)
            audit.append(connection, self._actor, "pull.asked", detail={"job": job, "what": what, "count": len(asked)})
        count = 0
        try:
            for first in range(0, len(asked), PORTION):
                with self._database.write() as connection:
                    state = connection.execute(select(pull_job.c.state).where(pull_job.c.job == job)).scalar()
                    if state != PullState.RUNNING:
                        return job, count  # cancelled meanwhile
                    count += self._add(connection, job, asked[first : first + PORTION])
            with self._database.write() as connection:
                whole = update(pull_job).where(pull_job.c.job == job, pull_job.c.state == PullState.RUNNING)
                connection.execute(whole.values(state=PullState.WAITING))
                ended = close_if_over(connection, job, PullState.DONE, self._actor)
        except BaseException:  # an interrupt from the keyboard too
            with suppress(EdgeNodeError):
                self._cut(job)
            raise
        self._shred(ended)
        return job, count

    def end_cut_short(self) -> int:
        """Give up the lists whose asker was killed before all was in: half a list must not look like a whole one."""
        with self._database.read() as connection:
            begun = select(pull_job.c.job, pull_job.c.created_at).where(pull_job.c.state == PullState.RUNNING)
            jobs = connection.execute(begun).all()
            last = select(func.max(pull_item.c.created_at))
            lives = {
                row.job: max(row.created_at, connection.execute(last.where(pull_item.c.job == row.job)).scalar() or 0.0)
                for row in jobs
            }
        dead = [job for job, at in lives.items() if at < time.time() - ASKING_S]
        return sum(self._cut(job) for job in dead)

    def _cut(self, job: str) -> bool:
        with self._database.write() as connection:
            state = connection.execute(select(pull_job.c.state).where(pull_job.c.job == job)).scalar()
            if state != PullState.RUNNING:
                return False
            audit.append(connection, self._actor, "pull.cut-short", detail={"job": job})
            cancel(connection, job, self._actor, code="pull.cut-short")
        self._shred(True)
        return True

    def _shred(self, ended: bool) -> None:
        """Behind the transaction in which a key was destroyed. What a crash leaves is done at the next start."""
        if ended:
            self._database.shred_journal()

    def _add(self, connection: Connection, job: str, requests: Iterable[Named]) -> int:
        """Add what the job does not hold yet; returns how many were new."""
        key = self._keyring.obtain_in(connection, job, KeyClass.ENVELOPE)
        wanted = {one.request_key: one for one in requests}
        mine = pull_item.c.job == job
        known = select(pull_item.c.request_key).where(mine, pull_item.c.request_key.in_(list(wanted)))
        there = set(connection.execute(known).scalars())
        last = int(connection.execute(select(func.coalesce(func.max(pull_item.c.number), 0)).where(mine)).scalar_one())
        rows: list[dict[str, object]] = []
        for one in wanted.values():
            if one.request_key in there:
                continue
            words = json.dumps([one.wanted.kind, one.wanted.value, one.wanted.issuer, one.wanted.modality]).encode()
            rows.append(
                {
                    "job": job,
                    "number": last + len(rows) + 1,
                    "request_key": one.request_key,
                    "kind": one.wanted.kind,
                    "study_key": one.study_key,
                    "key_id": key.key_id,
                    "sealed": seal(key.secret, words, f"pull {job} {one.request_key}"),
                    "state": PullState.WAITING,
                    "attempts": 0,
                    "created_at": time.time(),
                    "not_before": 0.0,
                    "prior": one.prior,
                }
            )
        if rows:
            connection.execute(insert(pull_item), rows)
        return len(rows)

    def claim(self, *, awaited: bool = False) -> Item | None:
        """The next due request; those that a study waits for come first (and alone, if only what is `awaited` may be
        begun), then those whose studies must be found before studies."""
        due = (pull_item.c.state == PullState.WAITING) & (pull_item.c.not_before <= time.time())
        waits = pull_job.c.wanted_by != ""
        order = case((waits, 0), else_=1), case((pull_item.c.kind == Kind.STUDY, 1), else_=0), pull_item.c.id
        query = select(pull_item, pull_job.c.again, pull_job.c.wanted_by).join(
            pull_job, pull_job.c.job == pull_item.c.job
        )
        query = query.where(due, *([waits] if awaited else [])).order_by(*order).limit(1)
        while True:
            with self._database.read() as connection:
                row = connection.execute(query).one_or_none()
            if row is None:
                return None
            told = (row.study_key, row.attempts + 1, row.created_at, bool(row.again), bool(row.prior), row.wanted_by)
            unopened: Quarantine | None = None
            item = Item(row.id, row.job, row.number, Wanted(Kind(row.kind), ""), *told)
            try:  # before it is RUNNING: nobody would take it up again if the ledger were busy now
                key = self._keyring.open(row.key_id, row.job, KeyClass.ENVELOPE)
                kind, *words = json.loads(unseal(key.secret, row.sealed, f"pull {row.job} {row.request_key}"))
                item = replace(item, wanted=Wanted(Kind(kind), *words))
            except Quarantine as error:  # cancelled meanwhile, and its key is gone; or a ledger of another node's keys
                unopened = error
            with self._database.write() as connection:
                taken = update(pull_item).where(pull_item.c.id == row.id, due, pull_item.c.attempts == row.attempts)
                values = {"state": PullState.RUNNING, "attempts": row.attempts + 1, "started_at": time.time()}
                if not connection.execute(taken.values(values)).rowcount:
                    continue  # another thread has it
            if unopened is None:
                return item
            self.failed(item, unopened)

    def found(self, item: Item, studies: Iterable[Named]) -> int:
        """What a search found joins its job; returns how many were new."""
        found, count = list(studies), 0
        for first in range(0, len(found), PORTION):
            with self._database.write() as connection:
                if not self._is_running(connection, item):
                    return count
                count += self._add(connection, item.job, found[first : first + PORTION])
        with self._database.write() as connection:
            if not self._is_running(connection, item):
                return count
            ended = self._finish(connection, item, PullState.DONE, Pulled("pull.found", count), "")
        self._shred(ended)
        return count

    def done(self, item: Item, pulled: Pulled) -> None:
        """The study is here."""
        with self._database.write() as connection:
            running = self._is_running(connection, item)
            ended = running and self._finish(connection, item, PullState.DONE, pulled, "")
        self._shred(ended)

    def failed(self, item: Item, error: EdgeNodeError) -> None:
        """Nobody tries again by himself."""
        with self._database.write() as connection:
            running = self._is_running(connection, item)
            ended = running and self._finish(connection, item, PullState.FAILED, Pulled(error.code), error.message)
        self._shred(ended)

    def later(self, item: Item, error: EdgeNodeError, *, counts: bool) -> None:
        """Back into the queue; `counts` is False when it was not the request's fault.

        Even then others go first, lest one that always breaks off keeps all of them waiting.
        """
        pause = _pause(item.attempts if counts else 1)
        if error.code in AT_ONCE:
            pause = 0.0
        with self._database.write() as connection:
            if self._is_running(connection, item):
                connection.execute(
                    update(pull_item)
                    .where(pull_item.c.id == item.id)
                    .values(
                        state=PullState.WAITING,
                        attempts=item.attempts if counts else item.attempts - 1,
                        not_before=time.time() + pause,
                        code=error.code,
                        message=error.message,
                    )
                )

    def mark_prior(self, item: Item, names: list[str]) -> bool:
        """What is about to be retrieved is kept as a prior, unless it is here already."""
        with self._database.write() as connection:
            return priors.mark(connection, names, item.job, item.wanted_by, self._actor)

    def is_wanted(self, item: Item) -> bool:
        """False once the job was cancelled."""
        with self._database.read() as connection:
            return self._is_running(connection, item)

    def take_over(self, tries: int) -> int:
        """At the start: what a killed predecessor had under way waits again; returns how many.

        One of them may be why it was killed (a study too large for the memory). So each costs a try, waits longer each
        time and not together with the others, and is given up after `tries` of them (KILLS at least).
        """
        count, limit = 0, max(tries, KILLS)
        with self._database.write() as connection:
            rows = connection.execute(
                select(pull_item).where(pull_item.c.state == PullState.RUNNING).order_by(pull_item.c.id)
            ).all()
            for row in rows:
                if row.attempts >= limit:
                    told = (row.study_key, row.attempts, row.created_at, False)
                    item = Item(row.id, row.job, row.number, Wanted(Kind(row.kind), ""), *told)
                    why = f"the pulling process ended {row.attempts} times while it was under way"
                    self._finish(connection, item, PullState.FAILED, Pulled("pull.killed"), why)
                    continue
                pause = _pause(row.attempts - 1) * (count + 1) if row.attempts > 1 else 0.0
                waits = {"state": PullState.WAITING, "not_before": time.time() + pause, "code": "pull.killed"}
                words = {"message": "the pulling process ended while it was under way"}
                connection.execute(update(pull_item).where(pull_item.c.id == row.id).values(waits | words))
                count += 1
        self._shred(True)
        return count

    def _is_running(self, connection: Connection, item: Item) -> bool:
        state = connection.execute(select(pull_item.c.state).where(pull_item.c.id == item.id)).scalar()
        return state == PullState.RUNNING

    def _finish(self, connection: Connection, item: Item, state: PullState, pulled: Pulled, message: str) -> bool:
        """Returns whether its job ended with it."""
        connection.execute(
            update(pull_item)
            .where(pull_item.c.id == item.id)
            .values(state=state, code=pulled.code, message=message, instances=pulled.instances, finished_at=time.time())
        )
        if item.study_key:
            detail = {"job": item.job, "state": str(state), "code": pulled.code, "instances": pulled.instances}
            audit.append(connection, self._actor, "study.pulled", item.study_key, detail)
        return close_if_over(connection, item.job, PullState.DONE, self._actor)


def _pause(attempts: int) -> float:
    """Seconds before the next try after so many."""
    return min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 10))


def close_if_over(connection: Connection, job: str, state: PullState, actor: str) -> bool:
    """End a job that holds nothing open any more: its identifiers are destroyed. Returns whether it ended now.

    Then the caller runs `Database.shred_journal` after the transaction.
    """
    ending = (PullState.WAITING,) if state is PullState.DONE else OPEN
    closing = update(pull_job).where(pull_job.c.job == job, pull_job.c.state.in_(ending))
    left = select(pull_item.c.id).where(pull_item.c.job == job, pull_item.c.state.in_(OPEN))
    if connection.execute(left.limit(1)).first() is not None:
        return False
    if not connection.execute(closing.values(state=state, finished_at=time.time())).rowcount:
        return False
    destroy(connection, job, KeyClass.ENVELOPE)
    connection.execute(update(pull_item).where(pull_item.c.job == job).values(sealed=b""))
    counts = {str(name).lower(): count for name, count in _counts(connection, job).items()}
    audit.append(connection, actor, "pull.ended", detail={"job": job, **counts})
    priors.job_over(connection, job, actor)
    return True


def cancel(connection: Connection, job: str, actor: str, *, code: str = "pull.cancelled") -> int:
    """Give up what a job still holds open; returns how many requests. What is here stays here.

    The caller runs `Database.shred_journal` after the transaction.
    """
    changed = connection.execute(
        update(pull_item)
        .where(pull_item.c.job == job, pull_item.c.state.in_(OPEN))
        .values(state=PullState.CANCELLED, code=code, finished_at=time.time())
    )
    close_if_over(connection, job, PullState.CANCELLED, actor)
    return int(changed.rowcount)


def open_jobs(connection: Connection) -> list[str]:
    """Names of the jobs that have not ended."""
    return list(connection.execute(select(pull_job.c.job).where(pull_job.c.state.in_(OPEN))).scalars())


def jobs(connection: Connection, limit: int = 50) -> list[dict[str, Any]]:
    """Jobs, newest first, as plain data: counts by state, instances, and why requests failed."""
    rows = connection.execute(select(pull_job).order_by(pull_job.c.created_at.desc()).limit(limit)).all()
    return [_job(connection, row) for row in rows]


def job(connection: Connection, name: str) -> dict[str, Any] | None:
    """One job as `jobs` tells it."""
    row = connection.execute(select(pull_job).where(pull_job.c.job == name)).one_or_none()
    return None if row is None else _job(connection, row)


def _job(connection: Connection, row: Any) -> dict[str, Any]:
    counts, mine = _counts(connection, row.job), pull_item.c.job == row.job
    told = connection.execute(
        select(pull_item).where(mine, pull_item.c.code != "", pull_item.c.state != PullState.DONE).limit(200)
    )
    total = select(func.coalesce(func.sum(pull_item.c.instances), 0)).where(mine, pull_item.c.kind == Kind.STUDY)
    studies = select(func.count()).where(mine, pull_item.c.kind == Kind.STUDY)
    return {
        "job": row.job,
        "what": row.what,
        "state": "ACTIVE" if row.state in OPEN else row.state,
        "asked_at": row.created_at,
        "ended_at": row.finished_at,
        **{str(state).lower(): counts.get(state, 0) for state in PullState},
        "studies": int(connection.execute(studies).scalar_one()),
        "instances": int(connection.execute(total).scalar_one()),
        "told": [
            {"number": one.number, "study": one.study_key, "state": one.state, "code": one.code, "why": one.message}
            for one in told
        ],
    }


def _counts(connection: Connection, job: str) -> dict[PullState, int]:
    rows = connection.execute(
        select(pull_item.c.state, func.count()).where(pull_item.c.job == job).group_by(pull_item.c.state)
    )
    return {PullState(state): int(count) for state, count in rows}


def instances_here(connection: Connection, study_key: str) -> int:
    """How many instances of a study the node took: clean ones and those in quarantine."""
    clean = select(func.count()).where(instance.c.study_key == study_key)
    held = select(func.count()).where(quarantine.c.study_key == study_key, quarantine.c.state == "HELD")
    return sum(int(connection.execute(query).scalar_one()) for query in (clean, held))


def receives_live(connection: Connection, within_s: float) -> bool:
    """Whether a study that nobody pulls received an instance in the last `within_s` seconds."""
    now = time.time()
    pulled = select(pull_item.c.study_key).where(
        pull_item.c.study_key == study.c.study_key,
        (pull_item.c.state == PullState.RUNNING) | (pull_item.c.finished_at > now - OURS_S),
    )
    live = select(study.c.study_key).where(
        study.c.state == StudyState.RECEIVING,
        study.c.last_received_at > now - within_s,
        ~pulled.exists(),
    )
    return connection.execute(live.limit(1)).first() is not None
