"""DICOM statuses and exit codes by name: no module writes them as numbers."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """DIMSE statuses by name (PS3.7 Annex C; PS3.4 B.2.3, C.4.1.1.4, CC.2)."""

    SUCCESS = 0x0000
    WARNING_ATTRIBUTES = 0x0001
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_TRANSACTION_UID = 0x0131
    UNRECOGNISED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    MATCHES_NOT_COUNTED = 0xA701
    SUB_OPERATIONS_NOT_PERFORMED = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_MISMATCH = 0xA900
    COERCION = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_MISMATCH_WARNING = 0xB007
    UPS_ALREADY_CANCELED = 0xB304
    UPS_ALREADY_COMPLETED = 0xB306
    CANNOT_UNDERSTAND = 0xC000
    UPS_NO_LONGER_UPDATABLE = 0xC300
    UPS_WRONG_TRANSACTION_UID = 0xC301
    UPS_ALREADY_IN_PROGRESS = 0xC302
    UPS_SCHEDULED_ONLY_BY_CREATE = 0xC303
    UPS_FINAL_STATE_NOT_MET = 0xC304
    UPS_UNKNOWN = 0xC307
    UPS_UNKNOWN_RECEIVER = 0xC308
    UPS_NOT_SCHEDULED = 0xC309
    UPS_NOT_IN_PROGRESS = 0xC310
    UPS_ALREADY_COMPLETED_FAILURE = 0xC311
    UPS_PERFORMER_UNREACHABLE = 0xC312
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_WARNING = 0xFF01


class ErrorId(IntEnum):
    """Error ID (0000,0903) by name: what a failure status leaves open (PS3.4 F.7.2.2.3)."""

    STEP_NO_LONGER_UPDATABLE = 0xA710


class ExitCode(IntEnum):
    """Exit codes of `edge-node` (sysexits.h from 64 on)."""

    FINE = 0
    FOUND_WRONG = 1
    USAGE = 2
    UNAVAILABLE = 69
    SOFTWARE = 70
    IO = 74
    TRY_AGAIN = 75
    NOT_PERMITTED = 77
    CONFIG = 78


_STORE_RANGES = (
    (0xA700, 0xA7FF, "OUT_OF_RESOURCES"),
    (0xA900, 0xA9FF, "DATA_SET_MISMATCH"),
    (0xB000, 0xBFFF, "WARNING"),
    (0xC000, 0xCFFF, "CANNOT_UNDERSTAND"),
)


def status_name(code: int) -> str:
    """Name of any status; values within a range of PS3.4 Table B.2-1 carry the name of the range."""
    try:
        return Status(code).name
    except ValueError:
        return next((name for low, high, name in _STORE_RANGES if low <= code <= high), "UNKNOWN_STATUS")
