"""Who may change what in the hospital: three modes, for the node, for each writer and for each model."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """SHADOW: nothing is written. INFORMATION: what leaves the reading order alone. LIVE: everything."""

    SHADOW = "shadow"
    INFORMATION = "information"
    LIVE = "live"


# The one table of who may write: by mode, whether a writer may that leaves the reading order alone, and one that
# changes it.
MAY_WRITE = {
    Mode.SHADOW: {"leaves": False, "reorders": False},
    Mode.INFORMATION: {"leaves": True, "reorders": False},
    Mode.LIVE: {"leaves": True, "reorders": True},
}
_ORDER = (Mode.SHADOW, Mode.INFORMATION, Mode.LIVE)


def lowest(*modes: Mode) -> Mode:
    """The most cautious of some modes; of none: live."""
    return min(modes, key=_ORDER.index, default=Mode.LIVE)


def may_write(mode: Mode, *, reorders: bool) -> bool:
    """Whether a writer may write in a mode."""
    return MAY_WRITE[mode]["reorders" if reorders else "leaves"]
