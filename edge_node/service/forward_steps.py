"""The forward role's work: consent, pixel gate, delivery to the trainer with per-instance accounting."""

from __future__ import annotations

from dataclasses import dataclass

from edge_node import pipeline
from edge_node.domain.consent import ConsentSource
from edge_node.domain.errors import Retry
from edge_node.domain.study import CleanObject, DeliveryState, TaskState
from edge_node.forward.parcel import plan
from edge_node.forward.stow import StowTrainer
from edge_node.pipeline import Done
from edge_node.service.node import Node
from edge_node.store import audit, studies
from edge_node.store.tables import study as study_table
from edge_node.store.tables import task as task_table
from edge_node.store.tasks import Task, requeue

TRAINER = "trainer"


@dataclass(frozen=True, slots=True)
class _Books:
    """Commits each instance's fate as soon as it is known, so that a crash re-sends nothing that was answered."""

    node: Node
    study_key: str

    def __call__(self, sop_uid: str, state: DeliveryState, code: str) -> None:
        with self.node.database.write() as connection:
            studies.put_delivery(connection, self.study_key, sop_uid, TRAINER, state, code)


def forward_work(node: Node, trainer: StowTrainer, consent: ConsentSource) -> pipeline.Work:
    """Send what may leave and was not delivered yet; withholding is an outcome, not an error."""

    def work(task: Task) -> Done:
        study = node.clean.study(task.study_key)
        with node.database.read() as connection:
            patient_key = str(studies.get(connection, task.study_key)._mapping["patient_key"])
            known = studies.deliveries(connection, task.study_key, TRAINER)
        final = {u for u, (state, _) in known.items() if state in (DeliveryState.DELIVERED, DeliveryState.REJECTED)}
        # What the pixel step has not judged came late: the next revision takes it, after its own pixel step.
        open_objects = [o for o in study.objects if o.sop_uid not in final and o.pixel_work]
        books = _Books(node, task.study_key)
        decision = consent.decide(patient_key)
        if not decision.allowed:
            for one in open_objects:
                books(one.sop_uid, DeliveryState.WITHHELD, decision.reason)
            return Done("forward.withheld", {"reason": decision.reason, "source": decision.source})
        send, held = plan(open_objects)
        for sop_uid, withheld in held.items():
            books(sop_uid, DeliveryState.WITHHELD, withheld.reason)
        return _send(trainer, send, books, held=len(held), before=len(final))

    return work


def _send(trainer: StowTrainer, send: list[CleanObject], books: _Books, *, held: int, before: int) -> Done:
    report = trainer.send(send, on_result=books)
    if report.retry is not None:
        why = report.retry
        raise Retry(
            why.code, why.message, hint=why.hint, after=why.after, counts=why.counts, progress=report.delivered > 0
        )
    withheld = held + len(report.withheld)
    code = "forward.delivered" if report.delivered + before else "forward.withheld" if withheld else "forward.nothing"
    if report.rejected:
        code = "forward.rejected-in-part"
    detail: dict[str, object] = {
        "delivered": report.delivered,
        "delivered_before": before,
        "withheld": withheld,
        "rejected": sorted(set(report.rejected.values())),
    }
    return Done(code, detail)


def refresh_consent(node: Node, consent: ConsentSource) -> int:
    """Send after all what was withheld for want of consent, where consent is given by now; returns how many studies."""
    with node.database.read() as connection:
        rows = connection.execute(
            study_table.select()
            .join(
                task_table,
                (task_table.c.study_key == study_table.c.study_key) & (task_table.c.revision == study_table.c.revision),
            )
            .where(
                task_table.c.step == "forward",
                task_table.c.state == TaskState.DONE,
                task_table.c.code == "forward.withheld",
                study_table.c.closed_at.is_(None),
            )
            .with_only_columns(study_table.c.study_key, study_table.c.patient_key)
        ).all()
        waiting = [
            row.study_key
            for row in rows
            if any(
                state == DeliveryState.WITHHELD and code.startswith("consent.")
                for state, code in studies.deliveries(connection, row.study_key, TRAINER).values()
            )
            and consent.decide(row.patient_key).allowed
        ]
    for study_key in waiting:
        with node.database.write() as connection:
            requeue(connection, study_key, steps=("forward",), states=(TaskState.DONE,))
            audit.append(connection, node.actor, "forward.consent-given", study_key)
    return len(waiting)
