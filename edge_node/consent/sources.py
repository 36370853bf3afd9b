"""Where consent comes from. Every doubt is a denial: unlisted, contradictory, malformed, unreadable."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock

from edge_node.domain.consent import ConsentDecision

ALLOWED = "consent.allowed"
DENIED = "consent.denied"
UNLISTED = "consent.unlisted"
CONTRADICTION = "consent.contradiction"
MALFORMED_ROW = "consent.malformed-row"
MALFORMED_KEY = "consent.malformed-key"
SOURCE_UNREADABLE = "consent.source-unreadable"
DENY_ALL = "consent.deny-all"
HELD_ELSEWHERE = "consent.held-elsewhere"

_PATIENT_KEY = re.compile(r"[A-Za-z0-9]{16,128}", re.ASCII)  # a keyed hash in base32 or hexadecimal
_HEADER = frozenset({"patient_key", "consent"})
_FILE_MOST = 256 << 20  # bytes: several million patients
_WORDS: Mapping[str, str] = {"allow": ALLOWED, "deny": DENIED}

_Stamp = tuple[int, int, int]


class DenyAll:
    """The default: nothing leaves."""

    def decide(self, patient_key: str) -> ConsentDecision:  # noqa: ARG002  every patient gets the same answer
        """Deny."""
        return ConsentDecision(False, DENY_ALL, "deny-all")


class AllowAll:
    """For sites where consent is checked before a study reaches the node."""

    def decide(self, patient_key: str) -> ConsentDecision:  # noqa: ARG002  every patient gets the same answer
        """Allow."""
        return ConsentDecision(True, HELD_ELSEWHERE, "allow-all")


class CsvList:
    """A CSV file with the columns patient_key and consent (allow or deny), read again whenever it changes.

    Patients are listed by patient key (the keyed hash), never by an identifier. A malformed row denies the patient it
    names, rows that contradict each other deny, a file that cannot be read or understood denies everyone. Safe for
    several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._stamp: _Stamp | None = None
        self._reasons: Mapping[str, str] | None = None

    def decide(self, patient_key: str) -> ConsentDecision:
        """The list's answer for `patient_key` as the file stands now; never raises."""
        if not _PATIENT_KEY.fullmatch(patient_key):
            return ConsentDecision(False, MALFORMED_KEY, "csv")
        with self._lock:
            reasons = self._current()
        if reasons is None:
            return ConsentDecision(False, SOURCE_UNREADABLE, "csv")
        reason = reasons.get(_folded(patient_key), UNLISTED)
        return ConsentDecision(reason == ALLOWED, reason, "csv")

    def _current(self) -> Mapping[str, str] | None:
        """Reasons by patient key; None while the file cannot be trusted."""
        try:
            if self._stamp is None or _stamp(self._path.stat()) != self._stamp:
                self._stamp, self._reasons = None, None
                self._stamp, self._reasons = _load(self._path)
        except (OSError, ValueError, csv.Error):
            self._stamp, self._reasons = None, None
        return self._reasons


def _load(path: Path) -> tuple[_Stamp, Mapping[str, str]]:
    with path.open("rb") as file:
        before = _stamp(os.fstat(file.fileno()))
        content = file.read(_FILE_MOST + 1)
        if b"\0" in content:
            raise ValueError("damaged: csv itself would read on")
        if len(content) > _FILE_MOST or _stamp(os.fstat(file.fileno())) != before:
            raise ValueError("too large, or written to while it was read")
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    columns = [name.strip() for name in next(rows, [])]
    if len(columns) != len(_HEADER) or set(columns) != _HEADER:
        raise ValueError("unknown header")
    reasons: dict[str, str] = {}
    for key, reason in _rows(rows, columns.index("patient_key"), columns.index("consent")):
        reasons[key] = reason if reasons.get(key, reason) == reason else CONTRADICTION
    return before, reasons


def _rows(rows: Iterator[list[str]], key_at: int, word_at: int) -> Iterator[tuple[str, str]]:
    """(patient key, reason) of each row; a row without a readable key names nobody, and who is unlisted is denied."""
    for row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) == len(_HEADER) and _PATIENT_KEY.fullmatch(cells[key_at]):
            yield _folded(cells[key_at]), _WORDS.get(cells[word_at].casefold(), MALFORMED_ROW)
            continue
        for cell in cells:  # whichever cell looks like a key: its patient is denied
            if _PATIENT_KEY.fullmatch(cell):
                yield _folded(cell), MALFORMED_ROW


def _folded(patient_key: str) -> str:
    return patient_key.upper()  # base32 and hexadecimal mean the same in either case; spreadsheets change it


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino
