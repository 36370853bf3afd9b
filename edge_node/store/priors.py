"""Priors in the ledger: wishes for them, which studies are priors, and what was here when a study was judged.

A study is a prior as long as all of it came while it was pulled as one. It is kept and destroyed like any other, but it
is not judged, has no place in the reading order, and nobody is told of it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from edge_node.domain.priors import PriorAsk, Priors, asks_from_json, asks_to_json
from edge_node.domain.pull import OPEN, Kind, PullState
from edge_node.domain.study import TaskState
from edge_node.store import audit
from edge_node.store.prior_tables import prior, prior_wish
from edge_node.store.tables import pull_item, study, task

HERE, NONE, INCOMPLETE, FAILED = "priors.here", "priors.none", "priors.incomplete", "priors.failed"
TOO_LATE, OFF, NO_PATIENT = "priors.too-late", "priors.off", "priors.no-patient"
# So long after its pull what comes of a prior is still ours. Shorter than for other pulls: to read a prior once more
# costs little, to leave a study unread may cost everything.
OURS_S = 60.0


def wish(connection: Connection, study_key: str, asks: Sequence[PriorAsk], actor: str, *, over: str = "") -> None:
    """A study wants priors; once. `over` is why none will be asked for."""
    if known(connection, [study_key]):
        return
    now = time.time()
    connection.execute(
        insert(prior_wish).values(
            study_key=study_key,
            asks=asks_to_json(asks),
            speaks=any(one.speaks for one in asks),
            wished_at=now,
            ended_at=now if over else None,
            code=over,
        )
    )
    detail = {"models": [one.model for one in asks], **({"code": over} if over else {})}
    audit.append(connection, actor, "prior.wanted", study_key, detail)


def known(connection: Connection, study_keys: Collection[str]) -> set[str]:
    """Which of these studies have wished, or are priors themselves."""
    found: set[str] = set()
    for table in (prior_wish, prior):
        found |= set(connection.execute(select(table.c.study_key).where(table.c.study_key.in_(study_keys))).scalars())
    return found


def to_ask(connection: Connection) -> list[str]:
    """Study keys whose wishes nobody has asked an archive for yet, the oldest first."""
    waiting = (prior_wish.c.job == "") & prior_wish.c.ended_at.is_(None)
    return list(
        connection.execute(
            select(prior_wish.c.study_key).where(waiting).order_by(prior_wish.c.wished_at).limit(20)
        ).scalars()
    )


def asks_of(connection: Connection, study_key: str) -> tuple[PriorAsk, ...]:
    """What the models still ask for, for this study: nothing once it was judged."""
    wished = select(prior_wish.c.asks).where(prior_wish.c.study_key == study_key, prior_wish.c.ended_at.is_(None))
    text = connection.execute(wished).scalar()
    return asks_from_json(text) if text else ()


def asked(connection: Connection, study_key: str, job: str) -> None:
    """The archive is asked by this job."""
    connection.execute(update(prior_wish).where(prior_wish.c.study_key == study_key).values(job=job))


def end(connection: Connection, study_key: str, code: str, actor: str) -> None:
    """Nothing more comes: triage need not wait."""
    ended = update(prior_wish).where(prior_wish.c.study_key == study_key, prior_wish.c.ended_at.is_(None))
    if not connection.execute(ended.values(code=code, ended_at=time.time())).rowcount:
        return
    audit.append(connection, actor, "prior.ended", study_key, {"code": code, "studies": _pulled(connection, study_key)})
    waits = (task.c.step == "triage") & (task.c.state == TaskState.READY) & (task.c.failures == 0)
    connection.execute(update(task).where(task.c.study_key == study_key, waits).values(not_before=0.0))


def job_over(connection: Connection, job: str, actor: str) -> None:
    """The job that brings priors has ended: whoever waits for them need not wait any more."""
    study_key = connection.execute(select(prior_wish.c.study_key).where(prior_wish.c.job == job)).scalar()
    if study_key is None:
        return
    rows = connection.execute(select(pull_item.c.kind, pull_item.c.state).where(pull_item.c.job == job)).all()
    came = [row.state == PullState.DONE for row in rows if row.kind == Kind.STUDY]
    searched = any(row.kind != Kind.STUDY and row.state == PullState.DONE for row in rows)
    if not searched:
        code = FAILED
    elif not came:
        code = NONE
    else:
        code = HERE if all(came) else INCOMPLETE if any(came) else FAILED
    end(connection, study_key, code, actor)


def wait_until(connection: Connection, study_key: str, wait_s: float) -> float:
    """Until when triage of a study that settles now may wait, 0 for not at all; a later revision has the same bound."""
    row = connection.execute(select(prior_wish).where(prior_wish.c.study_key == study_key)).one_or_none()
    if row is None or row.ended_at is not None or not row.speaks:
        return 0.0
    if row.wait_until is not None:
        return float(row.wait_until)
    until = time.time() + wait_s
    connection.execute(update(prior_wish).where(prior_wish.c.study_key == study_key).values(wait_until=until))
    return until


def give_up(connection: Connection, study_key: str, actor: str) -> str:
    """The study is judged: what nobody has begun to fetch is not fetched any more. Returns the job that may be over
    with it, "" if there is none."""
    row = connection.execute(select(prior_wish).where(prior_wish.c.study_key == study_key)).one_or_none()
    if row is None or row.ended_at is not None:
        return ""
    late = update(pull_item).where(pull_item.c.job == row.job, pull_item.c.state == PullState.WAITING)
    connection.execute(late.values(state=PullState.CANCELLED, code=TOO_LATE, finished_at=time.time()))
    end(connection, study_key, TOO_LATE, actor)
    return str(row.job)


def here(connection: Connection, study_key: str) -> Priors | None:
    """What is here of the priors that were wished for; None when nobody wished."""
    row = connection.execute(select(prior_wish).where(prior_wish.c.study_key == study_key)).one_or_none()
    if row is None:
        return None
    return Priors(str(row.code) if row.ended_at is not None else TOO_LATE, tuple(_pulled(connection, study_key)))


def _pulled(connection: Connection, study_key: str) -> list[str]:
    """Study keys of what was pulled for a study and is whole, in the order of the archive's answers."""
    mine = (prior_wish.c.study_key == study_key) & (pull_item.c.job == prior_wish.c.job)
    whole = (pull_item.c.kind == Kind.STUDY) & (pull_item.c.state == PullState.DONE)
    found = connection.execute(
        select(pull_item.c.study_key)
        .select_from(pull_item.join(prior_wish, mine))
        .where(whole)
        .order_by(pull_item.c.id)
    )
    return list(found.scalars())


def mark(connection: Connection, names: Iterable[str], job: str, wanted_by: str, actor: str) -> bool:
    """A study is about to be pulled as a prior by `job`: it is one unless it is here already as something else. `names`
    are its study keys under the present and the previous site key, the present one first."""
    keys = list(names)
    if connection.execute(update(prior).where(prior.c.study_key == keys[0]).values(job=job)).rowcount:
        return True
    if connection.execute(select(study.c.study_key).where(study.c.study_key.in_(keys)).limit(1)).first() is not None:
        return False
    values = {"job": job, "wanted_by": wanted_by, "marked_at": time.time()}
    connection.execute(insert(prior).values(study_key=keys[0], **values))
    audit.append(connection, actor, "study.prior", keys[0], {"job": job, "wanted_by": wanted_by})
    return True


def is_prior(connection: Connection, study_key: str) -> bool:
    """Whether the study is kept as a prior."""
    return connection.execute(select(prior.c.study_key).where(prior.c.study_key == study_key)).first() is not None


def still_prior(connection: Connection, study_key: str, last_received_at: float, actor: str) -> bool:
    """The same for a study that settles now: one to which something came long after the pull is read like any other."""
    row = connection.execute(select(prior).where(prior.c.study_key == study_key)).one_or_none()
    if row is None:
        return False
    if _ours(connection, row.job, study_key, last_received_at):
        return True
    connection.execute(delete(prior).where(prior.c.study_key == study_key))
    audit.append(connection, actor, "study.live", study_key, {"job": row.job})
    return False


def _ours(connection: Connection, job: str, study_key: str, received_at: float) -> bool:
    """Whether what was received then came because we had asked for it."""
    mine = (pull_item.c.job == job) & (pull_item.c.study_key == study_key)
    asked_for = connection.execute(select(pull_item.c.state, pull_item.c.finished_at).where(mine)).one_or_none()
    if asked_for is None:
        return False
    return asked_for.state in OPEN or received_at <= (asked_for.finished_at or 0.0) + OURS_S


def sent_by_others(connection: Connection, study_keys: Collection[str], received_at: float) -> list[str]:
    """Those of the priors among these studies whose instances somebody sends now though nobody asked."""
    among = prior.c.study_key.in_(study_keys)
    rows = connection.execute(select(prior.c.study_key, prior.c.job).where(among)).all()
    return [row.study_key for row in rows if not _ours(connection, row.job, row.study_key, received_at)]
