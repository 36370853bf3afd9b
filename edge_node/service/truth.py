"""Studies with known truth, from a folder and a CSV: de-identified files only, one study in memory at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject, CleanStudy
from edge_node.triage.validation import NOT_SAID, age_band

_TAGS = [
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "SOPClassUID",
    "Modality",
    "PatientIdentityRemoved",
    "PatientSex",
    "PatientAge",
    "Manufacturer",
    "ManufacturerModelName",
    "ProtocolName",
    "SliceThickness",
]
_WORDS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class Known:
    """A study with its truth: `line` of the CSV, the kind of finding if it is told, groups of the validation by kind
    and series."""

    line: int
    truth: bool
    kind: str
    study: CleanStudy
    groups: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    truth: bool
    kind: str


def read_truth(path: Path) -> dict[str, _Line]:
    """Lines by study. Columns: ``study`` (Study Instance UID, or the folder below STUDIES), ``truth`` (1 or 0), and
    ``kind`` if wanted. Raises Quarantine ``validation.truth`` with the line; values are not shown."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, 0, f"it cannot be read ({type(error).__name__})") from None
    found: dict[str, _Line] = {}
    for number, row in enumerate(rows, 2):
        name, word = (str(row.get(key) or "").strip() for key in ("study", "truth"))
        if not name or word.lower() not in _WORDS:
            raise _wrong(path, number, "needs a study and a truth of 1 or 0")
        if name in found:
            raise _wrong(path, number, f"the study stands in line {found[name].number} already")
        found[name] = _Line(number, _WORDS[word.lower()], str(row.get("kind") or "").strip()[:32])
    if not found:
        raise _wrong(path, 1, "it has no lines below a head of study,truth")
    return found


def known_studies(folder: Path, truth: Path) -> tuple[list[Known], list[str]]:
    """Every study of the folder whose truth is told, in the order of the CSV, and remarks on what does not fit.

    Raises Quarantine ``validation.truth``, ``validation.no-studies``, ``validation.identified`` (an object that does
    not say that its identity was removed).
    """
    lines = read_truth(truth)
    studies, strange = _read(folder)
    found: list[Known] = []
    used: set[str] = set()
    for uid, members in studies.items():
        names = {uid, *(p.as_posix() for p in members[0][0].relative_to(folder).parents)}
        told = [name for name in names if name in lines]
        if told:
            used.update(told)
            found.append(_known(uid, lines[told[0]], members))
    if not found:
        raise Quarantine(
            "validation.no-studies",
            f"no study of {folder} stands in {truth.name}",
            hint="the column study has Study Instance UIDs of the de-identified studies, or folders below STUDIES",
        )
    remarks = []
    if missing := [line.number for name, line in lines.items() if name not in used]:
        remarks.append(f"{len(missing)} lines of the truth without a study: {_some(missing)}")
    if len(found) < len(studies):
        remarks.append(f"{len(studies) - len(found)} studies without a truth were left out")
    if strange:
        remarks.append(f"{strange} files are no DICOM objects")
    return sorted(found, key=lambda one: one.line), remarks


def studies_of(folder: Path) -> list[CleanStudy]:
    """Every study of a folder, without a truth. Raises Quarantine ``validation.identified``."""
    return [_study("study", uid, members) for uid, members in _read(folder)[0].items()]


def _read(folder: Path) -> tuple[dict[str, list[tuple[Path, Any]]], int]:
    """Headers by study, and how many files are no DICOM objects."""
    studies: dict[str, list[tuple[Path, Any]]] = {}
    strange = 0
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        try:
            ds = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            uid = str(ds.StudyInstanceUID)
            _ = ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.SOPClassUID
        except (InvalidDicomError, OSError, AttributeError, ValueError, KeyError, TypeError, EOFError):
            strange += 1  # the truth itself may lie in the folder
            continue
        if str(ds.get("PatientIdentityRemoved") or "").strip().upper() != "YES":
            raise Quarantine(
                "validation.identified",
                f"an object in {folder} does not say that its identity was removed",
                hint="de-identify the folder first: edge-node deid apply IN OUT",
            )
        studies.setdefault(uid, []).append((path, ds))
    return studies, strange


def _known(uid: str, line: _Line, members: list[tuple[Path, Any]]) -> Known:
    groups: dict[str, dict[str, str]] = {}
    for _, ds in members:
        groups.setdefault(str(ds.SeriesInstanceUID), _groups(ds, line.kind))
    study = _study(f"case-{line.number}", uid, members)
    return Known(line.number, line.truth, line.kind, study, groups)


def _study(key: str, uid: str, members: list[tuple[Path, Any]]) -> CleanStudy:
    objects = tuple(_object(path, ds) for path, ds in members)
    return CleanStudy(key, uid, 1, tuple(sorted({one.modality for one in objects})), objects)


def _object(path: Path, ds: Any) -> CleanObject:
    return CleanObject(
        sop_uid=str(ds.SOPInstanceUID),
        series_uid=str(ds.SeriesInstanceUID),
        sop_class=str(ds.SOPClassUID),
        transfer_syntax=str(ds.file_meta.get("TransferSyntaxUID", "")),
        modality=str(ds.get("Modality") or ""),
        size=path.stat().st_size,
        digest="",
        pixel_risk="",
        read=path.read_bytes,
    )


def _groups(ds: Any, kind: str) -> dict[str, str]:
    def text(name: str) -> str:
        return " ".join(str(ds.get(name) or "").split())[:48]

    try:
        mm = float(ds.get("SliceThickness") or 0)
    except (TypeError, ValueError):
        mm = 0.0
    sex = text("PatientSex").upper()
    return {
        "sex": sex if sex in ("F", "M", "O") else NOT_SAID,
        "age": age_band(text("PatientAge").upper()),
        "manufacturer": " ".join(filter(None, (text("Manufacturer"), text("ManufacturerModelName")))) or NOT_SAID,
        "protocol": text("ProtocolName") or NOT_SAID,
        "slice": NOT_SAID if mm <= 0 else "to 1.5 mm" if mm <= 1.5 else "1.5 to 3 mm" if mm <= 3 else "over 3 mm",
        "kind": kind or NOT_SAID,
    }


def _some(numbers: Iterable[int]) -> str:
    listed = sorted(numbers)
    return ", ".join(map(str, listed[:10])) + (" …" if len(listed) > 10 else "")


def _wrong(path: Path, line: int, why: str) -> Quarantine:
    place = f"{path}:{line}" if line else str(path)
    return Quarantine("validation.truth", f"{place}: {why}", hint="edge-node docs models")
