"""The promises, judged from what PACS, trainer and ledger really hold, and the summary for machines."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

from edge_node.demo.day import Run
from edge_node.demo.report_data import Check, HeldRow, ReportData, StudyRow, TrainerView, WorklistRow


def judge(
    run: Run,
    rows: tuple[StudyRow, ...],
    order: tuple[WorklistRow, ...],
    trainer: TrainerView,
    archived: list[Dataset],
    chain_intact: bool,
    entries: int,
    held: tuple[HeldRow, ...],
) -> tuple[Check, ...]:
    sent = sum(len(s.files) for s in run.studies)
    acknowledged = sum(n.get("SUCCESS", 0) for n in run.sent.values())
    delivered = sum(row.forwarded for row in rows)
    withheld = sum(h.objects for h in held if h.state in ("withheld", "quarantined"))
    flagged = [row for row in order if row.flagged]
    on_top = all(row.flagged for row in order[: len(flagged)]) and bool(flagged)
    uids = {s.study_uid for s in run.studies}
    home = [ds for ds in archived if str(ds.StudyInstanceUID) in uids]
    patients = {s.study_uid: s.patient.patient_id for s in run.studies}
    right = all(str(ds.PatientID) == patients[str(ds.StudyInstanceUID)] for ds in home)
    refused_consent = next(r for r in rows if r.number == run.without_consent)
    waits = [r.events.seconds_to_worklist for r in rows if r.events.seconds_to_worklist is not None]
    return (
        Check("Every object sent was acknowledged", sent == acknowledged, f"{acknowledged} of {sent} with Success"),
        Check(
            "Every object is accounted for",
            delivered + withheld == sent,
            f"{delivered} at the trainer, {withheld} withheld or in quarantine with a reason, {sent} sent",
        ),
        Check(
            "Flagged studies are read first",
            on_top,
            f"{len(flagged)} flagged of {len(order)}; worklist entry {max(waits):.1f} s after the last image at most"
            if waits
            else "no worklist entry",
        ),
        Check(
            "Results came home under the right patient",
            bool(home) and right and len(home) == len(archived),
            f"{len(home)} reports and key images, each in its study",
        ),
        Check(
            "No identity left the hospital",
            trainer.needles_found == 0 and trainer.refused == 0 and trainer.objects > 0,
            f"{trainer.needles} identifiers looked for in {trainer.objects} objects: {trainer.needles_found} found",
        ),
        Check(
            "No consent, no sending",
            refused_consent.forwarded == 0,
            f"study {run.without_consent} was read and prioritised, none of its objects left",
        ),
        Check("The audit chain is intact", chain_intact, f"{entries} entries"),
    )


def summarise(run: Run, report: ReportData, details: dict[int, dict[str, Any] | None]) -> dict[str, Any]:
    place = {row.study: number for number, row in enumerate(report.worklist_after, start=1)}
    return {
        "seconds": round(report.seconds, 1),
        "hospital": report.hospital,
        "studies": [
            {
                "arrival": row.number,
                "study": run.keys[row.number],
                "description": row.description,
                "truth": row.truth,
                "objects": row.objects,
                "acknowledged": run.sent[row.number].get("SUCCESS", 0),
                "verdict": row.verdict,
                "outcome": row.outcome,
                "probability": row.probability,
                "worklist_place": place.get(row.number),
                "seconds_to_worklist": row.events.seconds_to_worklist,
                "at_trainer": row.forwarded,
                "held": [
                    {"state": h.state, "objects": h.objects, "reason": h.reason}
                    for h in report.held
                    if h.study == row.number
                ],
                "state": (details[row.number] or {}).get("state", "QUARANTINED"),
            }
            for row in report.studies
        ],
        "worklist": [
            {"place": n, "arrival": row.study, "level": row.level, "flagged": row.flagged, "reason": row.reason}
            for n, row in enumerate(report.worklist_after, start=1)
        ],
        "trainer": {
            "objects": report.trainer.objects,
            "studies": report.trainer.studies,
            "identifiers_looked_for": report.trainer.needles,
            "identifiers_found": report.trainer.needles_found,
        },
        "checks": [{"promise": c.promise, "kept": c.kept, "detail": c.detail} for c in report.checks],
    }
