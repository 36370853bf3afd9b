"""What a model may do at this site, and whose word it is that the package is what it says."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """How far a model version may speak. ADDED: kept, never runs. SHADOW: judges, nobody is told. INFORMATION: its
    findings are told, the reading order stays. LIVE: it may shorten a reading time. RETIRED: was there, runs no more.
    QUARANTINED: failed here (crashed twice, no longer what it was); a human promotes it again or retires it.
    """

    ADDED = "added"
    SHADOW = "shadow"
    INFORMATION = "information"
    LIVE = "live"
    RETIRED = "retired"
    QUARANTINED = "quarantined"


RUNNING: Final = (Stage.SHADOW, Stage.INFORMATION, Stage.LIVE)
SPEAKING: Final = (Stage.INFORMATION, Stage.LIVE)

SHIPPED: Final = "shipped with edge-node"
UNSIGNED: Final = "unsigned"
