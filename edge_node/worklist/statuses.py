"""DIMSE statuses by name and by what must be done about them (PS3.7 Annex C, PS3.4 B.2.3 and CC.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Answer(Enum):
    """What a status means to us: done, come again later, refused for good, or a human has the workitem."""

    DONE = auto()
    LATER = auto()
    REFUSED = auto()
    EXISTS = auto()
    TAKEN = auto()


@dataclass(frozen=True, slots=True)
class Status:
    """A status as messages, reports and logs show it."""

    name: str
    answer: Answer


NO_ANSWER = Status("NO_ANSWER", Answer.LATER)
NO_CONTEXT = Status("PRESENTATION_CONTEXT_NOT_ACCEPTED", Answer.REFUSED)

_GENERAL = {
    0x0000: Status("SUCCESS", Answer.DONE),
    0x0001: Status("OPTIONAL_ATTRIBUTES_NOT_SUPPORTED", Answer.DONE),
    0x0105: Status("NO_SUCH_ATTRIBUTE", Answer.REFUSED),
    0x0106: Status("INVALID_ATTRIBUTE_VALUE", Answer.REFUSED),
    0x0107: Status("ATTRIBUTE_LIST_ERROR", Answer.DONE),
    0x0110: Status("PROCESSING_FAILURE", Answer.LATER),
    0x0111: Status("DUPLICATE_SOP_INSTANCE", Answer.EXISTS),
    0x0112: Status("NO_SUCH_SOP_INSTANCE", Answer.LATER),
    0x0116: Status("ATTRIBUTE_VALUE_OUT_OF_RANGE", Answer.DONE),
    0x0117: Status("INVALID_SOP_INSTANCE", Answer.REFUSED),
    0x0118: Status("NO_SUCH_SOP_CLASS", Answer.REFUSED),
    0x0119: Status("CLASS_INSTANCE_CONFLICT", Answer.REFUSED),
    0x0120: Status("MISSING_ATTRIBUTE", Answer.REFUSED),
    0x0121: Status("MISSING_ATTRIBUTE_VALUE", Answer.REFUSED),
    0x0122: Status("SOP_CLASS_NOT_SUPPORTED", Answer.REFUSED),
    0x0124: Status("NOT_AUTHORIZED", Answer.REFUSED),
    0x0210: Status("DUPLICATE_INVOCATION", Answer.LATER),
    0x0211: Status("UNRECOGNIZED_OPERATION", Answer.REFUSED),
    0x0212: Status("MISTYPED_ARGUMENT", Answer.REFUSED),
    0x0213: Status("RESOURCE_LIMITATION", Answer.LATER),
}
_STORAGE = {
    # The object is in the archive already: that is what we want.
    0x0111: Status("DUPLICATE_SOP_INSTANCE", Answer.DONE),
    0xB000: Status("COERCION_OF_DATA_ELEMENTS", Answer.DONE),
    0xB006: Status("ELEMENTS_DISCARDED", Answer.DONE),
    0xB007: Status("STORED_THOUGH_DATA_SET_DOES_NOT_MATCH_SOP_CLASS", Answer.DONE),
}
_UPS = {
    0xB300: Status("CREATED_WITH_MODIFICATIONS", Answer.DONE),
    0xB304: Status("UPS_ALREADY_CANCELED", Answer.DONE),
    0xC300: Status("UPS_MAY_NO_LONGER_BE_UPDATED", Answer.TAKEN),
    0xC301: Status("UPS_LOCKED_BY_ANOTHER_TRANSACTION", Answer.TAKEN),
    0xC302: Status("UPS_ALREADY_IN_PROGRESS", Answer.TAKEN),
    0xC307: Status("NO_SUCH_UPS", Answer.LATER),
    0xC309: Status("UPS_NOT_CREATED_AS_SCHEDULED", Answer.REFUSED),
    0xC311: Status("UPS_ALREADY_COMPLETED", Answer.TAKEN),
    0xC312: Status("UPS_PERFORMER_CANNOT_BE_REACHED", Answer.TAKEN),
    0xC313: Status("UPS_PERFORMER_DOES_NOT_CANCEL", Answer.TAKEN),
}


def storage_status(code: int | None) -> Status:
    """The answer to a C-STORE (PS3.4 B.2.3); `code` is None when none came. What nobody defined is tried again."""
    if code is None:
        return NO_ANSWER
    if 0xA700 <= code <= 0xA7FF:
        return Status("OUT_OF_RESOURCES", Answer.LATER)
    if 0xA900 <= code <= 0xA9FF:
        return Status("DATA_SET_DOES_NOT_MATCH_SOP_CLASS", Answer.REFUSED)
    if 0xC000 <= code <= 0xCFFF:
        return Status("CANNOT_UNDERSTAND", Answer.REFUSED)
    return _STORAGE.get(code) or _GENERAL.get(code) or _undefined(code)


def workitem_status(code: int | None) -> Status:
    """The answer to an N-CREATE, N-GET or N-SET of a workitem (PS3.4 CC.2.5, CC.2.6, CC.2.7)."""
    if code is None:
        return NO_ANSWER
    return _UPS.get(code) or _GENERAL.get(code) or _undefined(code)


def _undefined(code: int) -> Status:
    return Status(f"UNDEFINED_STATUS_{code:04X}", Answer.LATER)
