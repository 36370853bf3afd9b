"""What a trainer's STOW-RS answer says about each instance: the body decides, never the HTTP status.

Store Instances Response, DICOM JSON (PS3.18 10.5.3, Annex F): Referenced SOP Sequence (0008,1199) lists what is
stored, Failed SOP Sequence (0008,1198) what is not, each with a Failure Reason (0008,1197). Failure reasons are those
of PS3.4 B.2.3 and PS3.18 I.2; the DICOMweb server of Azure adds two of its own for duplicates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

_REFERENCED_SOP_SEQUENCE = "00081199"
_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_FAILURE_REASON = "00081197"
_WARNING_REASON = "00081196"

UNACCOUNTED = "trainer.unaccounted"
CONTRADICTION = "trainer.contradiction"


class Fate(Enum):
    """What the answer means for one instance."""

    DELIVERED = "delivered"
    RETRY = "retry"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Account:
    """The trainer's word on one instance: `code` is "" when it was simply stored."""

    fate: Fate
    code: str = ""

    @property
    def named(self) -> bool:
        """False when the answer did not mention the instance at all."""
        return self.code != UNACCOUNTED


class Reason(IntEnum):
    """Failure and warning reasons a trainer may give for one instance."""

    PROCESSING_FAILURE = 0x0110
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900  # 43264
    ELEMENTS_COERCED = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_WARNING = 0xB007  # 45063
    ALREADY_STORED = 0xB00E  # 45070
    STORE_IN_PROGRESS = 0xB00F  # 45071
    CANNOT_UNDERSTAND = 0xC000


_FAILURES: Mapping[Reason, Account] = {
    Reason.PROCESSING_FAILURE: Account(Fate.RETRY, "trainer.processing-failure"),
    Reason.SOP_CLASS_NOT_SUPPORTED: Account(Fate.NEVER, "trainer.sop-class-not-supported"),
    Reason.NOT_AUTHORISED: Account(Fate.RETRY, "trainer.not-authorised"),
    Reason.RESOURCE_LIMITATION: Account(Fate.RETRY, "trainer.resource-limitation"),
    Reason.OUT_OF_RESOURCES: Account(Fate.RETRY, "trainer.out-of-resources"),
    Reason.DATA_SET_MISMATCH: Account(Fate.NEVER, "trainer.data-set-mismatch"),
    Reason.DATA_SET_WARNING: Account(Fate.NEVER, "trainer.data-set-mismatch"),
    Reason.ALREADY_STORED: Account(Fate.DELIVERED, "trainer.already-stored"),
    Reason.STORE_IN_PROGRESS: Account(Fate.RETRY, "trainer.store-in-progress"),
    Reason.CANNOT_UNDERSTAND: Account(Fate.NEVER, "trainer.cannot-understand"),
}
# PS3.4 B.2.3 gives A7xx, A9xx and Cxxx as families: the low digits are the server's own.
_FAMILIES: tuple[tuple[int, Reason], ...] = (
    (0xFF00, Reason.OUT_OF_RESOURCES),
    (0xFF00, Reason.DATA_SET_MISMATCH),
    (0xF000, Reason.CANNOT_UNDERSTAND),
)
_WARNINGS: Mapping[Reason, str] = {
    Reason.ELEMENTS_COERCED: "trainer.stored-coerced",
    Reason.ELEMENTS_DISCARDED: "trainer.stored-elements-discarded",
    Reason.DATA_SET_WARNING: "trainer.stored-with-mismatch-warning",
}


class UnreadableAnswer(ValueError):
    """The body is not a Store Instances Response: nothing may be counted as delivered."""


def judge(number: object) -> Account:
    """The account for a Failure Reason as it stood in the answer; one we do not know is tried again, never dropped."""
    if not isinstance(number, int) or isinstance(number, bool):
        return Account(Fate.RETRY, "trainer.reason-missing")
    for mask, family in _FAMILIES:
        if number & mask == family:
            return _FAILURES[family]
    try:
        return _FAILURES[Reason(number)]
    except (KeyError, ValueError):
        return Account(Fate.RETRY, "trainer.reason-unlisted")


def read_answer(body: bytes, sent: Iterable[str]) -> dict[str, Account]:
    """Accounts by SOP Instance UID for every UID of `sent`; one the answer does not name is `UNACCOUNTED` (retry).

    UIDs that were not sent are ignored. An instance in both lists is tried again: a trainer that contradicts itself
    is not believed. Raises `UnreadableAnswer` when `body` is not a DICOM JSON object with sound sequences.
    """
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer("not JSON") from error
    if isinstance(plain, list) and len(plain) == 1:  # some servers wrap the one data set in an array
        plain = plain[0]
    if not isinstance(plain, dict):
        raise UnreadableAnswer("not a JSON object")
    stored = {uid: _warning(item) for uid, item in _items(plain, _REFERENCED_SOP_SEQUENCE)}
    failed = {uid: judge(_first(item, _FAILURE_REASON)) for uid, item in _items(plain, _FAILED_SOP_SEQUENCE)}
    accounts = {}
    for uid in sent:
        if uid in stored and uid in failed and failed[uid].fate is not Fate.DELIVERED:
            accounts[uid] = Account(Fate.RETRY, CONTRADICTION)
        else:
            accounts[uid] = stored.get(uid) or failed.get(uid) or Account(Fate.RETRY, UNACCOUNTED)
    return accounts


def _warning(item: Mapping[str, Any]) -> Account:
    number = _first(item, _WARNING_REASON)
    try:
        return Account(Fate.DELIVERED, _WARNINGS[Reason(number)] if number else "")  # type: ignore[arg-type]
    except (KeyError, ValueError, TypeError):
        return Account(Fate.DELIVERED, "trainer.stored-with-warning")


def _items(plain: Mapping[str, Any], tag: str) -> list[tuple[str, Mapping[str, Any]]]:
    element = plain.get(tag)
    if element is None:
        return []
    values = element.get("Value", []) if isinstance(element, dict) else None
    if not isinstance(values, list):
        raise UnreadableAnswer(f"({tag[:4]},{tag[4:]}) is not a sequence")
    found = []
    for item in values:
        uid = _first(item, _REFERENCED_SOP_INSTANCE_UID) if isinstance(item, dict) else None
        if isinstance(uid, str):
            found.append((uid.rstrip("\0 "), item))
    return found


def _first(item: Mapping[str, Any], tag: str) -> object:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
