"""Report data of an invented run, for tests of the page and for looking at it."""

from __future__ import annotations

from edge_node.demo.identities import identity
from edge_node.demo.report_data import (
    Check,
    DeidRow,
    DeidView,
    HeldRow,
    KeyImageCard,
    ModelView,
    ReportData,
    StudyEvents,
    StudyRow,
    TrainerView,
    WorklistRow,
)

_STUDIES = (
    ("CT head without contrast", "CT", 24, "ROUTINE", "nothing put in", "NOT_FLAGGED", 0.04),
    ("Cervical spine, 3 views", "CR", 3, "ROUTINE", "not a head CT", "NOT_APPLICABLE", None),
    ("CT head, gantry tilted", "CT", 24, "ROUTINE", "nothing put in", "NOT_FLAGGED", 0.11),
    ("MR abdomen", "MR", 1, "ROUTINE", "not a head CT", "NOT_APPLICABLE", None),
    ("CT head after fall", "CT", 24, "URGENT", "nothing put in", "NOT_FLAGGED", 0.07),
    ("CT head, headache", "CT", 24, "ROUTINE", "subdural haemorrhage", "FLAGGED", 0.81),
    ("US abdomen", "US", 1, "ROUTINE", "not a head CT", "NOT_APPLICABLE", None),
    ("CT head, transfer broke off", "CT", 1, "ROUTINE", "broken object", "QUARANTINED", None),
    ("CT head, confusion", "CT", 24, "ROUTINE", "intraparenchymal haemorrhage", "FLAGGED", 0.97),
    ("CT head, follow-up", "CT", 24, "ROUTINE", "nothing put in", "NOT_FLAGGED", 0.05),
    ("CT, single slice", "CT", 1, "ROUTINE", "not a head CT", "NOT_APPLICABLE", None),
    ("CT head after accident", "CT", 24, "URGENT", "epidural haemorrhage", "FLAGGED", 0.93),
    ("MR brain", "MR", 1, "ROUTINE", "not a head CT", "NOT_APPLICABLE", None),
    ("CT head, vomiting", "CT", 24, "ROUTINE", "intraventricular haemorrhage", "FLAGGED", 0.88),
)
_AFTER = (12, 9, 14, 6, 5, 1, 2, 3, 4, 7, 10, 11, 13)


def sample(png: str = "", before: str = "", after: str = "", keys: tuple[str, ...] = ()) -> ReportData:
    """An invented run of 14 studies; the pictures are base64 PNG (`keys`: one for each flagged study)."""
    studies = tuple(_study(number, *facts) for number, facts in enumerate(_STUDIES, 1))
    flagged = [study for study in studies if study.verdict == "FLAGGED"]
    cards = tuple(
        KeyImageCard(
            s.number, (keys or (png,) * 4)[i], "Intracranial hyperdensity", s.probability or 0, 0.5, 1, "CPU", 0.31
        )
        for i, s in enumerate(flagged)
    )
    return ReportData(
        started_at="9 March 2026, 10:12",
        seconds=48.6,
        seed=1,
        version="0.1.0",
        hospital="toy hospital",
        studies=studies,
        checks=(
            Check("Every study sent is accounted for", True, "14 of 14: 11 delivered, 2 withheld, 1 quarantined"),
            Check("Nothing acknowledged was lost", True, "200 objects acknowledged, 200 found again"),
            Check("No identity left the hospital", True, "612 identifiers sought in 197 objects, none found"),
            Check("Flagged studies are read first", True, "4 of 4 at the top of the reading list"),
            Check("Evidence stands under the right patient", True, "13 of 13 under the original study and order"),
            Check(
                "The broken object is kept and visible", True, "1 object sealed in quarantine, its neighbours went on"
            ),
        ),
        worklist_before=tuple(s.number for s in studies if s.verdict != "QUARANTINED"),
        worklist_after=tuple(_line(studies[number - 1]) for number in _AFTER),
        key_images=cards,
        deid=DeidView(
            study=6,
            recipe="basic.deid",
            rows=(
                DeidRow("(0010,0010)", "Patient's Name", "Παράδειγμα^Ελένη", "", "removed"),
                DeidRow("(0010,0020)", "Patient ID", "TOY00480112", "K7QW3M5DAB2ZP4TC", "replaced"),
                DeidRow("(0010,0030)", "Patient's Birth Date", "19420519", "", "removed"),
                DeidRow("(0010,0040)", "Patient's Sex", "F", "F", "kept"),
                DeidRow("(0008,0050)", "Accession Number", "ACC003748221", "R2VDK6H4", "replaced"),
                DeidRow("(0008,0020)", "Study Date", "20260309", "20251124", "replaced"),
                DeidRow(
                    "(0020,000D)",
                    "Study Instance UID",
                    "1.2.826.0.1.3680043.8.498.42704645497896631653639392",
                    "2.25.329800735698586629295641978511506172918",
                    "replaced",
                ),
                DeidRow("(0008,0090)", "Referring Physician's Name", "Nonesuchova^R4412", "", "removed"),
                DeidRow("(0099,1011)", "Private: scanner header", "Παράδειγμα^Ελένη", "", "removed"),
                DeidRow("(0018,0060)", "KVP", "120", "120", "kept"),
            ),
            removed=41,
            replaced=22,
            kept=58,
            before_png=before or png,
            after_png=after or png,
        ),
        trainer=TrainerView("toy trainer", 197, 12, 31_600_000, 612, 0, 0, 0, 0),
        held=(
            HeldRow(
                7,
                "withheld",
                1,
                "pixels.uncleaned",
                "Ultrasound may show names in its pixels; it stays until they are cleaned.",
                "Nothing: it leaves when the pixel step has cleaned it.",
            ),
            HeldRow(
                8,
                "quarantined",
                1,
                "deid.pixel-length",
                "The pixel data are shorter than the header says.",
                "Ask the modality to send the study again.",
            ),
            HeldRow(
                2,
                "not applicable",
                3,
                "triage.no-model",
                "No model is meant for this kind of study.",
                "Nothing: it is read in its place.",
            ),
        ),
        models=(
            ModelView(
                "ref-ct-head-hyperdensity",
                "1.0.0",
                "int8",
                "9f2c1f4d5e6a7b8c" * 4,
                "CPUExecutionProvider",
                "reference model, synthetic training data, not for clinical use",
                0.5,
                "Shows that the line works. It says nothing about patients.",
                (("Trained on", "1,200 synthetic heads"),),
            ),
        ),
    )


def _study(
    number: int, description: str, modality: str, objects: int, order: str, truth: str, verdict: str, p: float | None
) -> StudyRow:
    person = identity(1, number - 1)
    start = 1.7 * (number - 1)
    last = start + 0.045 * objects + 0.2
    events = StudyEvents(start, last)
    if verdict != "QUARANTINED":
        settled = last + (2.0 if modality == "CT" else 3.0)
        triaged = settled + (0.6 if p is not None else 0.1)
        events = StudyEvents(start, last, settled, triaged, triaged + 0.5, None if modality == "US" else triaged + 1.4)
    outcome = {"QUARANTINED": "quarantined", "NOT_APPLICABLE": "delivered"}.get(verdict, "delivered")
    if modality == "US":
        outcome = "withheld: pixels not cleaned"
    forwarded = 0 if modality == "US" or verdict == "QUARANTINED" else objects
    return StudyRow(
        number,
        person.shown_name,
        person.patient_id,
        person.accession,
        description,
        modality,
        objects,
        order,
        truth,
        verdict,
        outcome,
        events,
        p,
        forwarded,
    )


def _line(study: StudyRow) -> WorklistRow:
    if study.verdict == "FLAGGED":
        reason = (
            f"Suspected hyperdensity {study.probability:.2f}, category 1, target 16 min, due 10:{30 + study.number}"
        )
        return WorklistRow(study.number, "HIGH", reason, f"10:{30 + study.number}", True)
    minutes = 240 if study.order_priority == "URGENT" else 720
    level = "MEDIUM" if study.order_priority == "URGENT" else "LOW"
    said = "not flagged" if study.verdict == "NOT_FLAGGED" else "no model applies"
    return WorklistRow(
        study.number,
        level,
        f"{study.order_priority.capitalize()} order, target {minutes // 60} h, {said}",
        "14:12",
        False,
    )
