"""Keyed pseudonyms: the same input and site key give the same answer, without the key nothing can be reversed.

UIDs are ``2.25.`` + 128 bits of HMAC-SHA256 in the form of a version 8 UUID (PS3.5 B.2, RFC 9562 5.8).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from functools import lru_cache

from edge_node.deid.remembered import LONGEST, remembered
from edge_node.domain.body import Buffer
from edge_node.domain.errors import Stop
from edge_node.store.seal import fingerprint

WELL_KNOWN = "1.2.840.10008."
_REMEMBERED = 256  # UIDs: study, series and frame of reference are the same in all instances of a series
_PATIENTS = 32
_LONGEST_UID = 64  # PS3.5 9.1; what is longer is none, and could be of any length
WEEKS = 521  # shifts lie between -3647 and -7 days
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@lru_cache(16)
def _keyed(site_key: bytes) -> hmac.HMAC:
    """Started with the key once: a dozen pseudonyms an object make that worth while."""
    return hmac.new(site_key, digestmod="sha256")


def _digest(site_key: bytes, kind: str, *parts: str) -> bytes:
    engine = _keyed(site_key).copy()
    engine.update("|".join((kind, *parts)).encode("utf-8", "surrogatepass"))
    return engine.digest()


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # RFC 4648 6
_PAIRS = [one + two for one in _LETTERS for two in _LETTERS]


def _base32(digest: bytes, length: int) -> str:
    """The first `length` characters, at most 32: ten bits at a time, a dozen times an object."""
    number = int.from_bytes(digest[:20], "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(150, 150 - 5 * length, -10)])[:length]


def joined(*parts: str) -> str:
    """Parts as one text from which they can be told: what divides them is marked where it is part of one."""
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


@remembered(64)
def study_key_of(site_key: bytes, study_instance_uid: str) -> str:
    """The node's name for a study: 12 base32 characters, keyed hash of the original Study Instance UID."""
    return _base32(_digest(site_key, "study-key", study_instance_uid.strip(" \0")), 12)


@remembered(64)
def patient_key(site_key: bytes, patient_id: str, issuer: str = "") -> str:
    """The name consent lists know a patient by: 20 base32 characters; "" for a patient without an ID.

    Spaces around ID and issuer do not matter, case does.
    """
    patient_id = patient_id.strip(" \0")
    return _base32(_digest(site_key, "patient-key", joined(issuer.strip(" \0"), patient_id)), 20) if patient_id else ""


def instance_key_of(site_key: bytes, sop_instance_uid: str) -> str:
    """The node's name for an instance as it was sent, whatever trial it goes to: 26 base32 characters."""
    return _base32(_digest(site_key, "instance-key", sop_instance_uid.strip(" \0")), 26)


def signal_key_of(site_key: bytes, sop_instance_uid: str) -> str:
    """The node's name for a performed procedure step or an availability notification: 26 base32 characters."""
    return _base32(_digest(site_key, "signal-key", sop_instance_uid.strip(" \0")), 26)


def key_id_of(site_key: bytes) -> str:
    """What ledger and audit call a key by: 8 hexadecimal digits that say nothing of it."""
    return hmac.digest(site_key, b"key-id", "sha256").hex()[:8]


def patient_of(issuer: str, patient_id: str, study_instance_uid: str) -> str:
    """What pseudonyms and the date shift of a patient hang on: issuer and ID, or the study when there is no ID."""
    patient_id = patient_id.strip()
    return joined("id", issuer.strip(), patient_id) if patient_id else _of_study(study_instance_uid)


def _of_study(study_instance_uid: str) -> str:
    return "study|" + study_instance_uid


class Pseudonyms:
    """All pseudonyms of one site key under one label. Stateless, safe to share between threads.

    A label (one for each trial, say) gives pseudonyms of its own, made with the key HMAC-SHA256(site key, "label|" +
    label): nobody without the site key can tell that two pseudonyms of two labels are one patient. "" is the site key
    itself. Raises Stop("deid.label-invalid") unless a label has 1 to 32 letters, digits, dots, dashes or underscores.
    """

    def __init__(self, site_key: bytes, label: str = "") -> None:
        if label and not _LABEL.fullmatch(label):
            raise Stop(
                "deid.label-invalid",
                "a key label is 1 to 32 letters, digits, dots, dashes, underscores, the first a letter or digit",
                hint="write it exactly alike wherever it is used: another spelling makes other pseudonyms",
            )
        self.label = label
        self.key_id = key_id_of(site_key)
        self._site_key = site_key
        self._key = _digest(site_key, "label", label) if label else site_key
        self._fingerprint_key = hmac.digest(site_key, b"source fingerprint", "sha256")
        self._made: dict[str, str] = {}
        self._patients: dict[tuple[str, str, str], tuple[str, str, int]] = {}
        self._source = hmac.new(site_key, b"source 2|", "sha256")

    def uid(self, old: str) -> str:
        """Pseudonymous UID; UIDs of the standard itself (1.2.840.10008…) and "" stay as they are."""
        if not old or old.startswith(WELL_KNOWN):
            return old
        made = self._made.get(old)
        if made is None:
            made = self._uid(old)
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            if len(old) <= _LONGEST_UID:
                self._made[old] = made
        return made

    def _uid(self, old: str) -> str:
        bits = int.from_bytes(_digest(self._key, "uid", old)[:16], "big")
        bits = bits & ~(0xF << 76) | 0x8 << 76
        bits = bits & ~(0x3 << 62) | 0x2 << 62
        return f"2.25.{bits}"

    def identifier(self, kind: str, issuer: str, value: str, length: int = 12) -> str:
        """Pseudonym of an identifier of one kind ("patient", "AccessionNumber" …): base32, "" for ""."""
        return _base32(_digest(self._key, kind, issuer, value), length) if value else ""

    def of_patient(self, issuer: str, patient_id: str, study_instance_uid: str) -> tuple[str, str, int]:
        """`patient_of`, `patient` and `shift_days`: the same in all instances of a study."""
        named = issuer, patient_id, study_instance_uid
        known = self._patients.get(named)
        if known is None:
            key = patient_of(*named)
            known = key, self.patient(*named), self.shift_days(key)
            if len(self._patients) >= _PATIENTS:
                self._patients.clear()
            if sum(map(len, named)) <= LONGEST:
                self._patients[named] = known
        return known

    def shift_days(self, patient: str) -> int:
        """The patient's one date shift in days: whole weeks, so weekdays stay, -3647 to -7, never 0."""
        number = int.from_bytes(_digest(self._key, "date-shift", patient)[:8], "big")
        return -7 * (1 + number % WEEKS)

    def patient(self, issuer: str, patient_id: str, study_instance_uid: str) -> str:
        """The patient's pseudonymous ID; without a Patient ID, one for the study."""
        issuer, patient_id = issuer.strip(), patient_id.strip()
        named = joined(patient_id) or _of_study(study_instance_uid)
        return self.identifier("patient", joined(issuer), named)

    def source_digest(self, transfer_syntax: str, chunks: Iterable[Buffer]) -> str:
        """Keyed hash of an object as received, whatever the label: recognises it when it is sent again, without
        remembering it. Begins with the number of its scheme."""
        engine = self._source.copy()
        engine.update(transfer_syntax.encode())
        engine.update(fingerprint(self._fingerprint_key, chunks))
        return "2:" + engine.hexdigest()[:62]
