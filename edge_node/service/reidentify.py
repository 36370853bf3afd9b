"""The way back: who a pseudonym is, for somebody who may know it, by one of three means, never without a record.

The escrow record (private key from outside), the identity envelope while it lives (vault key), or a list of candidates
whose keyed hashes are made again (site key). The audit entry is committed before the answer exists for anybody; if it
cannot be written there is no answer. It names who asked, why and which study, never whose it is.
"""

from __future__ import annotations

import csv
import getpass
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_node.config.schema import Config
from edge_node.config.secrets import load_key, load_old_key
from edge_node.deid import Pseudonyms, key_id_of, patient_key, patient_of, study_key_of
from edge_node.domain.errors import EdgeNodeError, Quarantine, Stop
from edge_node.domain.status import ExitCode
from edge_node.domain.study import Role
from edge_node.service.node import Node, existing_ledger, open_node
from edge_node.service.vault_key import refuse_without_key
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.escrow import Known, Record, find, labels, open_record, record_of

SHOWN, REFUSED = "identity.shown", "identity.refused"
_IDENTITY = ("patient_name", "patient_id", "birth_date", "accession_number", "study_instance_uid", "uid")
_UNSET = 2**32 - 1
Answer = list[tuple[str, Record]]  # study key, what is told of it


@dataclass(frozen=True, slots=True)
class Request:
    """Whom somebody wants to know, and why. `what` is a pseudonym or a study key; `reason` goes into the audit."""

    what: str = field(repr=False)
    reason: str


def by_escrow(config: Config, request: Request, private: bytes) -> list[Record]:
    """The records of the studies that `request.what` leads to, opened with the escrow private key (32 bytes).

    Raises Stop("reidentify.reason"), Quarantine("reidentify.unknown"), and as `open_record`; every refusal is audited.
    """
    return _by_study(config, request, "escrow", lambda known: open_record(known, private))


def by_vault(config: Config, request: Request) -> list[Record]:
    """The same from the identity envelopes; needs the keys of the dicom role.

    Raises Quarantine("vault.destroyed"), and Stop("identity.in-memory") where no command has their key.
    """
    refuse_without_key(config, "--escrow-key, where the site keeps escrow, else --candidates")
    node = open_node(config, Role.DICOM)
    return _by_study(config, request, "vault", lambda known: _from_vault(node, known))


def _from_vault(node: Node, known: Known) -> Record:
    envelope, _ = node.vault.open(known.study_key)

    def told(shift: int | None) -> Record:
        return record_of(envelope, study_uid=known.study_uid, label=known.label, key_id=known.site_key_id, shift=shift)

    record = told(None)
    issuer, patient, uid = (str(record[name]) for name in ("issuer_of_patient_id", "patient_id", "study_instance_uid"))
    for key in (node.keys.key("pseudonym"), node.keys.old("pseudonym")):
        # the study key proves that this is the key that made the pseudonyms
        if key is not None and study_key_of(key, uid) == known.study_key:
            return told(Pseudonyms(key, known.label).shift_days(patient_of(issuer, patient, uid)))
    return record


def _by_study(config: Config, request: Request, means: str, opened: Callable[[Known], Record]) -> list[Record]:
    database = existing_ledger(config)

    def answer() -> Answer:
        with database.read() as connection:
            known = find(connection, request.what.strip())
        if not known:
            raise Quarantine(
                "reidentify.unknown",
                "the ledger knows no study, object or patient of that pseudonym",
                hint="edge-node deid reidentify --candidates FILE needs no record",
            )
        told: Answer = []
        errors: list[EdgeNodeError] = []
        for one in known:
            try:
                told.append((one.study_key, opened(one)))
            except EdgeNodeError as error:
                error.study = error.study or one.study_key
                errors.append(error)
                unopened: Record = {"pseudonymous_study_instance_uid": one.study_uid, "not_opened": error.code}
                told.append((one.study_key, unopened))
        if len(errors) == len(known):
            raise errors[0]
        return told

    return _audited(config, database, request, means, answer)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of a list: whose pseudonym may it be? `uid` is any original UID."""

    line: int
    patient_id: str = field(repr=False)
    issuer: str = field(repr=False)
    uid: str = field(repr=False)


def read_candidates(path: Path) -> list[Candidate]:
    """A CSV file (comma or semicolon, UTF-8) with the columns patient_id and issuer, or uid, or all.

    Raises Stop("reidentify.candidates") without repeating any content.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=";" if head.count(";") > head.count(",") else ","))
    except (OSError, UnicodeDecodeError, csv.Error):
        rows = []
    columns = {str(name).strip().lower(): name for name in (rows[0] if rows else {})}
    if not {"patient_id", "uid"} & set(columns):
        raise Stop(
            "reidentify.candidates",
            f"{path}: no list of candidates can be read",
            hint="a CSV file in UTF-8 whose first line names the columns patient_id and issuer, or uid",
            exit_code=ExitCode.USAGE,
        )

    def cell(row: dict[str, Any], name: str) -> str:
        return str(row.get(columns.get(name, name)) or "").strip(" \0")

    return [
        Candidate(n, *(cell(row, name) for name in ("patient_id", "issuer", "uid"))) for n, row in enumerate(rows, 2)
    ]


def by_candidates(
    config: Config,
    request: Request,
    candidates: Iterable[Candidate],
    *,
    own_labels: Iterable[str] = (),
    site_key: bytes | None = None,
) -> list[Record]:
    """The candidates that have this pseudonym, by recomputing; needs no record, only the site key.

    Tries the site key given, else the node's present and old one; the labels given, else those the ledger knows and
    none. Raises Quarantine("reidentify.no-candidate") when none fits.
    """
    keys = [site_key] if site_key else [load_key("pseudonym", config), load_old_key("pseudonym", config)]
    database = existing_ledger(config)
    listed = list(candidates)

    def answer() -> Answer:
        with database.read() as connection:
            known = find(connection, request.what.strip())
            names = list(own_labels) or sorted({"", *labels(connection)})
        tried = [Pseudonyms(key, label) for key in keys if key for label in names]
        found = [
            record
            for key in filter(None, keys)
            for record in _matching(request.what.strip(), key, [p for p in tried if p.key_id == key_id_of(key)], listed)
        ]
        if not found:
            raise Quarantine(
                "reidentify.no-candidate",
                f"none of the {len(listed)} candidates has that pseudonym under the keys and labels tried",
                hint="check issuer and spelling of the Patient IDs, --label, and --key-file for an older site key",
            )
        return [(known[0].study_key if known else "", record) for record in found]

    return _audited(config, database, request, "candidates", answer)


def _matching(what: str, key: bytes, names: list[Pseudonyms], listed: list[Candidate]) -> Iterator[Record]:
    for one in listed:
        told: Record = {"line": one.line, "patient_id": one.patient_id, "issuer": one.issuer, "uid": one.uid}
        own = {
            "study key": study_key_of(key, one.uid) if one.uid else "",
            "patient key": patient_key(key, one.patient_id, one.issuer),
        }
        for kind, value in own.items():
            if value and value == what:
                yield {**told, "matches": kind, "label": "", "site_key_id": key_id_of(key)}
        for made in names:
            under: Record = {"label": made.label, "site_key_id": made.key_id}
            if one.uid and made.uid(one.uid) == what:
                yield {**told, "matches": "uid", **under}
            if one.patient_id and made.patient(one.issuer, one.patient_id, "") == what:
                yield {**told, "matches": "patient", **under}


def _audited(
    config: Config, database: Database, request: Request, means: str, answer: Callable[[], Answer]
) -> list[Record]:
    """What `answer` gives, after an entry for each study is committed; an entry without the reason if it raises."""
    reason = " ".join(request.reason.split())
    who = {"by": getpass.getuser(), "login": _login()}
    actor = f"{config.node.name}/admin"
    try:
        if not 8 <= len(reason) <= 200 or not reason.isprintable():
            raise Stop(
                "reidentify.reason",
                "the reason must be a sentence of 8 to 200 characters",
                hint='--reason "safety report 4711 of trial X"',
                exit_code=ExitCode.USAGE,
            )
        told = answer()
        if any(_names(reason, record) for _, record in told):
            raise Stop(
                "reidentify.reason",
                "the reason names the patient; the audit must not",
                hint="give a reason that says why, not who",
                study=told[0][0],
                exit_code=ExitCode.USAGE,
            )
    except EdgeNodeError as error:
        with database.write() as connection:
            detail = {**who, "means": means, "code": error.code}
            audit.append(connection, actor, REFUSED, error.study or "", detail)
        raise
    with database.write() as connection:
        for study_key in dict.fromkeys(study_key for study_key, _ in told):
            audit.append(connection, actor, SHOWN, study_key, {**who, "means": means, "reason": reason})
    return [record for _, record in told]


def _names(reason: str, record: Record) -> bool:
    """Whether a reason holds a word of the patient's name, or one of the identifiers, however digits are parted."""
    said = reason.casefold()
    words = set(re.findall(r"\w+", said))
    said += " " + re.sub(r"[^\w]", "", said)
    for name in _IDENTITY:
        value = str(record.get(name) or "").casefold()
        if name == "patient_name":
            if any(len(word) > 1 and word in words for word in re.findall(r"\w+", value)):
                return True
        elif len(value) > 2 and value in said:
            return True
    return False


def _login() -> str:
    """The user who logged in, as the kernel keeps it through su and runuser; "" where it does not."""
    import pwd

    try:
        number = int(Path("/proc/self/loginuid").read_text())
        return "" if number == _UNSET else pwd.getpwuid(number).pw_name
    except (OSError, ValueError, KeyError):
        return ""
