"""When a study is complete: quiet time by modality, with a hard cap."""

from __future__ import annotations

from dataclasses import dataclass

from edge_node.config.schema import Settle
from edge_node.store.studies import Unsettled


@dataclass(frozen=True, slots=True)
class Settlement:
    """Why a study was called settled; `complete` is False at the hard cap."""

    reason: str
    complete: bool


def quiet_seconds(config: Settle, modalities: tuple[str, ...]) -> float:
    """Quiet time of a study: the longest of its modalities' times, the general one for those not named."""
    return max((config.quiet_by_modality.get(m, config.quiet_s) for m in modalities), default=config.quiet_s)


def settlement(config: Settle, study: Unsettled, now: float) -> Settlement | None:
    """The reason to settle now, or None to wait. Times in seconds since the epoch."""
    quiet = quiet_seconds(config, study.modalities)
    if now - study.last_received_at >= quiet:
        return Settlement(f"quiet for {quiet:g} s", True)
    if now - study.opened_at >= config.hard_cap_s:
        return Settlement(f"hard cap of {config.hard_cap_s:g} s, incomplete", False)
    return None
