"""What an administrator asks to be pulled, as requests with the node's own names; identity comes by file, not by word.

A command line stands in the history of the shell and in the list of processes: identifiers are read from a file or from
standard input, or from the node's own vault.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from edge_node.deid import study_key_of
from edge_node.domain.errors import Stop
from edge_node.domain.pull import Kind, Wanted
from edge_node.domain.status import ExitCode
from edge_node.service.node import Node
from edge_node.service.vault_key import refuse_without_key
from edge_node.store.pulls import Named
from edge_node.worklist.identity import WriteBackIdentity

UID = re.compile(r"[0-9]+(\.[0-9]+)+")
MOST_DAYS = 3660
_WILD = re.compile(r"[*?\\]")


def named(site_key: bytes, wanted: Wanted) -> Named:
    """The request with the node's names for it."""
    words = json.dumps([wanted.kind, wanted.value, wanted.issuer, wanted.modality]).encode()
    key = hmac.digest(site_key, b"pull|" + words, "sha256").hex()[:40]
    return Named(wanted, key, study_key_of(site_key, wanted.value) if wanted.kind is Kind.STUDY else "")


def studies_in(lines: Iterable[str]) -> Iterator[Wanted]:
    """A Study Instance UID or an accession number a line; what has digits and dots only, and a dot, is a UID."""
    for value in _values(lines):
        if UID.fullmatch(value) and len(value) <= 64:
            yield Wanted(Kind.STUDY, value)
        else:
            yield Wanted(Kind.ACCESSION, value)


def patients_in(lines: Iterable[str], modality: str = "") -> Iterator[Wanted]:
    """A Patient ID a line; behind a tab its issuer."""
    for value in _values(lines):
        patient, _, issuer = value.partition("\t")
        yield Wanted(Kind.PRIORS, patient.strip(), issuer.strip(), modality)


def _values(lines: Iterable[str]) -> Iterator[str]:
    """Lines with something in them, without comments. Raises Stop("pull.bad-line"), never showing the line."""
    count = 0
    for number, line in enumerate(lines, 1):
        value = line.strip("\ufeff \r\n")
        if not value.strip() or value.startswith("#"):
            continue
        if _WILD.search(value) or len(value) > 130 or not value.replace("\t", "").isprintable():
            raise Stop(
                "pull.bad-line",
                f"line {number} is no UID, accession number or Patient ID: wildcards and control characters are not",
                hint="mend the line; nothing was asked for",
                exit_code=ExitCode.USAGE,
            )
        count += 1
        yield value
    if not count:
        raise Stop("pull.empty-list", "the list is empty", hint="one identifier a line", exit_code=ExitCode.USAGE)


def days_between(first: date, last: date, modality: str = "") -> Iterator[Wanted]:
    """A request a day, newest first: archives limit how many matches they answer. Raises Stop("pull.bad-range")."""
    if not timedelta(0) <= last - first < timedelta(MOST_DAYS):
        raise Stop(
            "pull.bad-range",
            f"the last day lies before the first, or more than {MOST_DAYS} days after it",
            hint="edge-node pull range 2026-01-01 2026-01-31",
            exit_code=ExitCode.USAGE,
        )
    for back in range((last - first).days + 1):
        yield Wanted(Kind.DAY, (last - timedelta(back)).strftime("%Y%m%d"), modality=modality)


def unsearchable(number: str) -> bool:
    """Whether an archive would take an identifier for a pattern."""
    return bool(_WILD.search(number))


def patient_of_study(node: Node, study_key: str, modality: str = "") -> Wanted:
    """The patient of a study that the node has, from its identity envelope.

    Raises Quarantine ``vault.destroyed``, ``study.unknown``; Stop("pull.no-patient-id").
    """
    refuse_without_key(node.config, "edge-node pull status; send priors from the PACS instead")
    identity = WriteBackIdentity.from_envelopes(*node.vault.open(study_key))
    patient = identity.text("PatientID").strip()
    if not patient or unsearchable(patient):
        raise Stop(
            "pull.no-patient-id", "the study has no Patient ID to search for", hint="pull studies by a list instead"
        )
    return Wanted(Kind.PRIORS, patient, identity.text("IssuerOfPatientID").strip(), modality)
