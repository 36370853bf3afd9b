"""After the day: what the ledger, the PACS and the trainer say, put together into the report and the summary."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from edge_node import __version__
from edge_node.config.schema import Config
from edge_node.deid.part10 import instance_from_file
from edge_node.deid.report import changes
from edge_node.demo.day import Run
from edge_node.demo.held import held_rows
from edge_node.demo.orthanc import LocalOrthanc
from edge_node.demo.pacs import ToyPacs
from edge_node.demo.pictures import png_from_dicom, png_from_rgb
from edge_node.demo.promises import judge, summarise
from edge_node.demo.report_data import (
    DeidRow,
    DeidView,
    KeyImageCard,
    ModelView,
    ReportData,
    StudyEvents,
    StudyRow,
    TrainerView,
    WorklistRow,
)
from edge_node.demo.studies import DemoStudy
from edge_node.demo.trainer import ToyTrainer, needle_bytes
from edge_node.domain.finding import ADVISORY
from edge_node.domain.study import Role
from edge_node.service.node import ledger_path, models_path, open_node, recipe_path
from edge_node.service.snapshot import snapshot, study_detail
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.triage.card import load_card

SHOWN_ATTRIBUTES = 44


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report's data and the machine-readable summary."""

    report: ReportData
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Trainer:
    name: str
    contents: dict[str, bytes]
    refused: int
    repeated: int
    changed: int


def collect(
    run: Run,
    config: Config,
    pacs: ToyPacs,
    toy_trainer: ToyTrainer,
    archive: LocalOrthanc | None,
    central: LocalOrthanc | None,
) -> Outcome:
    """Read ledger, worklist, archive and trainer; judge the promises."""
    shot = snapshot(config)
    details = _details(run, config)
    held_items = {q["study"]: q for q in shot.quarantine}
    workitems = pacs.workitems
    order = _order(run, workitems)
    rows = tuple(_study_row(run, s, details[s.arrival], held_items.get(run.keys[s.arrival])) for s in run.studies)
    held = tuple(held_rows(run, details, held_items))
    trainer = _trainer(toy_trainer, central)
    view = _trainer_view(run, trainer)
    images = _archived(pacs, archive)
    cards = tuple(_key_images(run, details, images))
    with Database(ledger_path(config), read_only=True).read() as connection:
        chain = audit.verify(connection)
    checks = judge(run, rows, order, view, images, chain.intact, chain.entries, held)
    report = ReportData(
        started_at=datetime.fromtimestamp(run.started).astimezone().strftime("%Y-%m-%d %H:%M"),
        seconds=time.time() - run.started,
        seed=run.seed,
        version=__version__,
        hospital=run.hospital,
        studies=rows,
        checks=checks,
        worklist_before=tuple(s.arrival for s in run.studies if _in(order, s.arrival)),
        worklist_after=order,
        key_images=cards,
        deid=_deid_view(run, config, rows),
        trainer=view,
        held=held,
        models=tuple(_models(config, details)),
    )
    return Outcome(report, summarise(run, report, details))


def _in(order: tuple[WorklistRow, ...], arrival: int) -> bool:
    return any(row.study == arrival for row in order)


def _details(run: Run, config: Config) -> dict[int, dict[str, Any] | None]:
    """What the ledger says of each study; None for one of which nothing was kept (all quarantined)."""
    with Database(ledger_path(config), read_only=True).read() as connection:
        known = {row[0] for row in connection.exec_driver_sql("SELECT study_key FROM study")}
        return {n: study_detail(connection, key) if key in known else None for n, key in run.keys.items()}


def _order(run: Run, workitems: list[Dataset]) -> tuple[WorklistRow, ...]:
    by_uid = {s.study_uid: s.arrival for s in run.studies}
    rows = []
    for item in workitems:
        request = (item.get("ReferencedRequestSequence") or [Dataset()])[0]
        arrival = by_uid.get(str(request.get("StudyInstanceUID", "")))
        if arrival is None:
            continue
        due = str(item.get("ScheduledProcedureStepExpirationDateTime") or item.get("ExpectedCompletionDateTime") or "")
        reason = str(item.get("CommentsOnTheScheduledProcedureStep") or "").removesuffix(ADVISORY).rstrip(" .")
        rows.append(
            WorklistRow(
                study=arrival,
                level=str(item.ScheduledProcedureStepPriority),
                reason=reason,
                due=f"{due[8:10]}:{due[10:12]}" if len(due) >= 12 else "",
                flagged="threshold" in reason and "not flagged" not in reason,
            )
        )
    return tuple(rows)


def _best(detail: dict[str, Any] | None) -> dict[str, Any] | None:
    findings = ((detail or {}).get("result") or {}).get("findings") or []
    return max(findings, key=lambda f: (f["verdict"] == "FLAGGED", f["probability"])) if findings else None


def _study_row(run: Run, study: DemoStudy, detail: dict[str, Any] | None, held: dict[str, Any] | None) -> StudyRow:
    best = _best(detail)
    if detail is None:
        verdict, outcome = "QUARANTINED", f"sealed in quarantine ({held['code']})" if held else "nothing was received"
    elif best is None:
        verdict = detail["result"]["outcome"] if detail["result"] else "SKIPPED"
        outcome = f"no model judged it ({(detail['result'] or {}).get('reason', 'not triaged')})"
    else:
        verdict, outcome = best["verdict"], best["code"]["meaning"]
    truth = {None: "no haemorrhage put in", "n/a": "no model is meant for it"}.get(
        study.truth, f"{study.truth} (phantom)"
    )
    forwarded = (detail or {}).get("trainer", {}).get("DELIVERED", 0)
    return StudyRow(
        number=study.arrival,
        patient=study.patient.shown_name,
        patient_id=study.patient.patient_id,
        accession=study.patient.accession,
        description=study.description + (f" ({study.note})" if study.note else ""),
        modality=study.modality,
        objects=len(study.files),
        order_priority=study.order_priority,
        truth=str(truth),
        verdict=verdict,
        outcome=outcome,
        events=_events(run, detail),
        probability=best["probability"] if best else None,
        forwarded=forwarded,
    )


def _events(run: Run, detail: dict[str, Any] | None) -> StudyEvents:
    if detail is None:
        return StudyEvents()
    since = run.opened

    def at(action: str, target: str = "") -> float | None:
        for entry in detail["timeline"]:
            if entry["action"] == action and entry["detail"].get("target", "") == target:
                return float(entry["at"]) - since
        return None

    delivered = at("forward.done") if detail["trainer"].get("DELIVERED") else None
    return StudyEvents(
        first_image=detail["first_received_at"] - since,
        last_image=detail["last_received_at"] - since,
        settled=at("settle.done"),
        triaged=at("triage.done"),
        worklist=at("worklist.done", "ups"),
        delivered=delivered,
    )


def _trainer(toy: ToyTrainer, central: LocalOrthanc | None) -> _Trainer:
    if central is None:
        contents = {uid: item.path.read_bytes() for uid, item in toy.received.items()}
        repeated = sum(item.count - 1 for item in toy.received.values())
        changed = sum(item.changed for item in toy.received.values())
        return _Trainer("toy trainer", contents, len(toy.bad), repeated, changed)
    contents = {one.sop_uid: central.part10(one) for one in central.instances()}
    return _Trainer("Orthanc (DICOMweb)", contents, 0, 0, 0)


def _trainer_view(run: Run, trainer: _Trainer) -> TrainerView:
    """Look for every identifier of every patient, in every character set, in every byte the trainer holds."""
    needles = sorted({needle for study in run.studies for needle in study.needles})
    patterns = needle_bytes(needles)
    found = {index for data in trainer.contents.values() for index, raw in patterns if raw in data}
    studies = {str(dcmread(BytesIO(d), stop_before_pixels=True).StudyInstanceUID) for d in trainer.contents.values()}
    return TrainerView(
        name=trainer.name,
        objects=len(trainer.contents),
        studies=len(studies),
        size=sum(len(data) for data in trainer.contents.values()),
        needles=len(needles),
        needles_found=len(found),
        refused=trainer.refused,
        repeated=trainer.repeated,
        changed=trainer.changed,
    )


def _archived(pacs: ToyPacs, archive: LocalOrthanc | None) -> list[Dataset]:
    """Everything the node wrote back, as the archive holds it."""
    if archive is None:
        return [dcmread(path) for path in pacs.instances.values()]
    return [dcmread(BytesIO(archive.part10(one))) for one in archive.instances()]


def _key_images(run: Run, details: dict[int, dict[str, Any] | None], archived: list[Dataset]) -> list[KeyImageCard]:
    by_uid = {s.study_uid: s.arrival for s in run.studies}
    cards = []
    for ds in archived:
        arrival = by_uid.get(str(ds.StudyInstanceUID))
        best = _best(details.get(arrival or 0))
        if ds.SOPClassUID != SecondaryCaptureImageStorage or arrival is None or best is None:
            continue
        cards.append(
            KeyImageCard(
                study=arrival,
                png=png_from_rgb(ds.Rows, ds.Columns, ds.PixelData[: ds.Rows * ds.Columns * 3]),
                finding=best["code"]["meaning"],
                probability=best["probability"],
                threshold=best["threshold"],
                category=best["category"],
                provider=best["provider"],
                seconds=best["seconds"],
            )
        )
    return sorted(cards, key=lambda card: -card.probability)


def _deid_view(run: Run, config: Config, rows: tuple[StudyRow, ...]) -> DeidView | None:
    """Both sides of the wall of one object: the middle slice of the first flagged study, else of any study."""
    order = sorted(rows, key=lambda row: (row.verdict != "FLAGGED", row.number))
    number = next((row.number for row in order if row.verdict != "QUARANTINED"), None)
    if number is None:
        return None
    study = next(s for s in run.studies if s.arrival == number)
    node = open_node(config, Role.COMPUTE)
    clean = [one.read() for one in node.clean.study(run.keys[number]).objects]
    wanted = sorted(study.files)[len(study.files) // 2]
    instance_number = dcmread(wanted, stop_before_pixels=True).InstanceNumber
    after = next(d for d in clean if dcmread(BytesIO(d), stop_before_pixels=True).InstanceNumber == instance_number)
    found = changes(instance_from_file(wanted), after)
    count = Counter(change.action for change in found)
    shown = [c for c in found if c.action in ("removed", "replaced", "added")][: SHOWN_ATTRIBUTES - 12]
    shown += [c for c in found if c.action == "kept"][:12]
    detail_recipe = recipe_path(node.config).name
    return DeidView(
        study=number,
        recipe=detail_recipe,
        rows=tuple(
            DeidRow(c.tag, c.name, c.before, c.after, "replaced" if c.action == "added" else c.action) for c in shown
        ),
        removed=count["removed"],
        replaced=count["replaced"] + count["added"],
        kept=count["kept"],
        before_png=png_from_dicom(wanted),
        after_png=png_from_dicom(_written(after, wanted.parent / "after.dcm")),
    )


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def _models(config: Config, details: dict[int, dict[str, Any] | None]) -> list[ModelView]:
    used = {f["model"]["name"]: f for d in details.values() if d and d["result"] for f in d["result"]["findings"]}
    views = []
    for folder in sorted(p for p in models_path(config).iterdir() if (p / "card.toml").exists()):
        card = load_card(folder).file
        ran = used.get(card.name)
        if ran is None:
            continue
        views.append(
            ModelView(
                name=card.name,
                version=card.version,
                variant=ran["model"]["variant"],
                sha256=ran["model"]["sha256"],
                provider=ran["provider"],
                label=ran["model"]["label"],
                threshold=ran["threshold"],
                intended_use=card.intended_use,
                facts=tuple(
                    (k.replace("_", " "), str(v)) for k, v in card.held_out.items() if not isinstance(v, dict | list)
                ),
            )
        )
    return views
