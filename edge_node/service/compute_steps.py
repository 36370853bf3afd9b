"""The compute role's work: settle, triage, purge. Knows no identity."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog
from sqlalchemy import Connection

from edge_node import pipeline
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.finding import TriageOutcome, TriageResult
from edge_node.domain.priors import Priors
from edge_node.domain.pull import PullState
from edge_node.domain.study import StudyState
from edge_node.pipeline import Done, Targets
from edge_node.receive.settle import settlement
from edge_node.service.models_in_force import ModelsInForce
from edge_node.service.node import Node, spool_path
from edge_node.service.prior_wishes import PriorWishes
from edge_node.service.reading import place
from edge_node.service.unfailing import Otherwise, survivable
from edge_node.service.urgent_first import UrgentFirst
from edge_node.store import audit, priors, pulls, retention, studies, watch
from edge_node.store.tasks import Task, unfinished
from edge_node.triage.turns import Precedence
from edge_node.worklist.priority import ORDER_MINUTES

log = structlog.get_logger()

LAST = 1_000_000  # the urgency of what nobody waits for
AT_ONCE = int(ORDER_MINUTES["STAT"])


def settle_due(node: Node, wishes: PriorWishes | None = None, woken: threading.Event | None = None) -> int:
    """Settle every study that is complete by policy, the urgent first; returns how many. `wishes` says which want
    priors; `woken` is set when one is ready for who judges the urgent alone."""
    config = node.config.settle
    counted = {*config.required_instances, *config.required_series}
    with node.database.read() as connection:
        waiting = studies.unsettled(connection, with_series=counted)
    count, now = 0, time.time()
    for due in sorted(waiting, key=lambda one: ordered(one.order_priority)):
        if settlement(config, due, now) is None:
            continue
        if wishes is not None:
            wishes.before_settling(due.study_key)
        with node.database.write() as connection:
            # Instances and announcements that came meanwhile count.
            still = studies.unsettled(connection, only=due.study_key, with_series=counted)
            candidate = still[0] if still else due
            verdict = settlement(config, candidate, time.time()) if still else None
            if verdict is None:
                continue
            detail = studies.settle(
                connection, candidate, reason=verdict.reason, complete=verdict.complete, at=time.time()
            )
            if detail is None:
                continue  # an instance arrived between looking and writing
            urgency = ordered(str(studies.get(connection, candidate.study_key)._mapping["order_priority"]))
            audit.append(connection, node.actor, "settle.done", candidate.study_key, detail | verdict.detail)
            named = (connection, candidate.study_key)
            if priors.still_prior(*named, candidate.last_received_at, node.actor):
                pipeline.settled(*named, candidate.revision, LAST)
            else:
                until = priors.wait_until(*named, node.config.priors.wait_s)
                pipeline.settled(*named, candidate.revision, urgency, until)
        if woken is not None and urgency <= AT_ONCE:
            woken.set()
        log.info("study.settled", study=candidate.study_key, reason=verdict.reason)
        count += 1
    return count


def ordered(priority: str) -> int:
    """The urgency of a study of which only the order is known: minutes, the smaller the sooner."""
    return int(ORDER_MINUTES.get(priority, ORDER_MINUTES["ROUTINE"]))


def judging(
    node: Node, models: ModelsInForce | None, targets: Targets, precedence: Precedence | None = None
) -> UrgentFirst:
    """A worker of this node for triage, which leaves no study without a place in the reading order; `precedence` is
    that of the models."""
    line = (node.tasks, node.database, targets, float("inf"))
    first = precedence or Precedence()
    return UrgentFirst("triage", triage_work(node, models), *line, otherwise=unjudged(node), precedence=first)


def triage_work(node: Node, models: ModelsInForce | None) -> pipeline.Work:
    """Judge the study and decide its place in the reading order. Without models the order alone decides."""

    def work(task: Task) -> Done:
        prior, came = _as_prior(node, task)
        if prior is not None:
            return prior
        survivable("triage.crashed", task)
        study = node.clean.study(task.study_key)
        if models is None:
            result = TriageResult(TriageOutcome.SKIPPED, "triage.disabled")
        else:
            with models.begin() as triage:  # what is promoted meanwhile is for the next study
                result = triage.judge(study, float(task.urgency))
        return _placed(node, task, replace(result, priors=came))

    return work


def _as_prior(node: Node, task: Task) -> tuple[Done | None, Priors | None]:
    """All that is done with a study that is a prior: it is not judged, has no place in the reading order, and nobody is
    told of it. Of another study, which priors of its patient are here."""
    with node.database.read() as connection:
        if priors.is_prior(connection, task.study_key):
            return Done("triage.prior"), None
        return None, priors.here(connection, task.study_key)


def unjudged(node: Node) -> Otherwise:
    """A study that cannot be judged gets the place of its order, and the result says why."""

    def otherwise(task: Task, error: EdgeNodeError) -> Done:
        prior, came = _as_prior(node, task)
        if prior is not None:
            return prior
        reason = f"triage.gave-up: not judged in {task.attempts} tries, the last ended with {error.code}"
        if error.code == "triage.crashed":
            reason = f"{error.code}: {error.message}"
        return _placed(node, task, TriageResult(TriageOutcome.SKIPPED, reason, priors=came))

    return otherwise


def _placed(node: Node, task: Task, result: TriageResult) -> Done:
    def commit(connection: Connection) -> None:
        node.clean.put_finding(connection, task.study_key, task.revision, result)
        watch.observe(connection, task.study_key, result)
        # Looked up here: what is known of the order may have changed while the study was judged.
        priority = place(connection, node.config, task.study_key, result)
        studies.put_reading(connection, task.study_key, task.revision, priority)
        if result.priors and (job := priors.give_up(connection, task.study_key, node.actor)):
            pulls.close_if_over(connection, job, PullState.DONE, node.actor)

    return Done(f"triage.{result.outcome.lower()}", _triage_detail(result), commit)


def _triage_detail(result: TriageResult) -> dict[str, object]:
    """What the audit must be able to tell for ever: model, variant, provider, threshold, score."""
    return {
        "reason": result.reason,
        "findings": [
            {
                "model": f"{f.model.name} {f.model.version}",
                "variant": f.model.variant,
                "sha256": f.model.sha256,
                "package": f.model.package,
                "stage": f.model.stage,
                "trust": f.model.trust,
                "provider": f.provider,
                "verdict": str(f.verdict),
                "probability": round(f.probability, 6),
                "threshold": f.threshold,
                "reason": f.reason,
            }
            for f in result.findings
        ],
        "unavailable": list(result.unavailable),
        **({"priors": {"code": p.code, "studies": list(p.studies)}} if (p := result.priors) else {}),
        "suggestions": [
            {
                "model": f"{s.model.name} {s.model.version}",
                "stage": s.model.stage,
                "kind": s.kind,
                "value": s.value,
                "header": s.said,
                "probability": round(s.probability, 6),
            }
            for s in result.suggestions
        ],
    }


def purge_work(node: Node) -> pipeline.Work:
    """Destroy what the retention time of `task.target` (envelope or clean) has run out for."""
    destroyers: dict[str, Callable[[Connection, str, int], None]] = {
        "envelope": retention.destroy_identity,
        "clean": retention.destroy_clean,
    }

    def work(task: Task) -> Done:
        with node.database.read() as connection:
            state = studies.get(connection, task.study_key)._mapping["state"]
            waiting = unfinished(connection, task.study_key, task.revision, ("worklist",))
        if state == StudyState.RECEIVING:
            raise Retry("purge.reopened", "the study was reopened; it is purged after its next delivery", counts=False)
        if task.target == "envelope" and waiting:
            raise Retry("purge.awaits-write-back", "a result is still to be written back", counts=False, after=60.0)
        destroy = destroyers[task.target]
        return Done(f"purge.{task.target}", {}, lambda c: destroy(c, task.study_key, task.revision))

    return work


def tidy(node: Node) -> None:
    """Expire quarantine and escrow, delete empty segments, fold the journal so that destroyed keys leave no bytes."""
    expired = retention.expire_quarantine(node.database, node.actor)
    retention.expire_escrow(node.database, node.actor, node.config.retention.escrow_days)
    retention.forget_announcements(node.database)
    watch.forget(node.database, time.time())
    freed = retention.sweep_segments(node.database, spool_path(node.config))
    node.database.shred_journal()
    if expired or freed:
        log.info("store.tidied", count=expired, bytes=freed)
