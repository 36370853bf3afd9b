"""When a study is complete: what was announced of it, what the site requires, quiet time by modality, a hard cap."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_node.config.schema import Settle
from edge_node.domain.announcement import Announced
from edge_node.store.studies import Unsettled


@dataclass(frozen=True, slots=True)
class Settlement:
    """Why a study was called settled; `complete` is False when something is missing. `detail` is for the audit."""

    reason: str
    complete: bool
    detail: dict[str, object] = field(default_factory=dict)


def quiet_seconds(config: Settle, modalities: tuple[str, ...]) -> float:
    """Quiet time of a study: the longest of its modalities' times, the general one for those not named."""
    return max((config.quiet_by_modality.get(m, config.quiet_s) for m in modalities), default=config.quiet_s)


def settlement(config: Settle, study: Unsettled, now: float) -> Settlement | None:
    """The reason to settle now, or None to wait. Times in seconds since the epoch."""
    quiet, silent = quiet_seconds(config, study.modalities), now - study.last_received_at
    said = study.announced
    lacks = _lacks(config, study)
    detail: dict[str, object] = {"silent_s": round(silent, 1), "quiet_s": quiet, **said.told()}
    if lacks:
        detail["lacks"] = ", ".join(lacks)
    ended = None if lacks else _ended(config, study, silent)
    if ended is not None:
        return Settlement(ended, not said.discontinued, detail)
    capped = now - study.opened_at >= config.hard_cap_s
    if said.missing or lacks:
        waited = now - max(study.last_received_at, said.changed_at)
        if waited >= max(config.missing_s, quiet):
            return Settlement(f"{_missing(said, lacks)} after {waited:.0f} s, incomplete", False, detail)
    elif silent >= (max(quiet, config.in_progress_s) if said.open_steps else quiet):
        return Settlement(f"quiet for {quiet:g} s" + (", step in progress" if said.open_steps else ""), True, detail)
    if capped:
        return Settlement(f"hard cap of {config.hard_cap_s:g} s, incomplete", False, detail)
    return None


def _ended(config: Settle, study: Unsettled, silent: float) -> str | None:
    """Why nothing more is to come by what others say; None when they do not say that."""
    said = study.announced
    if said.open_steps or said.missing or not said.listed:
        return None
    if said.steps and not (said.unlisted if study.revision == 1 else said.unlisted_now):
        # An instance that no step lists says that the steps do not tell of all: then quiet time decides. Of what came
        # before the study was reopened that was decided then.
        word = "discontinued" if said.discontinued else "completed"
        return f"step {word}, all {said.listed} announced came"
    if said.notices and not said.unlisted and study.revision == 1 and silent >= config.notice_s:
        # An archive may list as it goes: a list that was overtaken once is not believed again.
        return f"archive lists all {said.listed} instances"
    return None


def _missing(said: Announced, lacks: list[str]) -> str:
    return f"{said.missing} of {said.listed} announced missing" if said.missing else f"lacks {lacks[0]}"


def _lacks(config: Settle, study: Unsettled) -> list[str]:
    """What the site requires of a study of these modalities and did not come, in words."""
    lacks = []
    for modality in study.modalities:
        wanted = int(config.required_instances.get(modality, 0))
        there = sum(count for name, count in study.series if name == modality)
        if there < wanted:
            lacks.append(f"{wanted - there} of {wanted} {modality}")
        left = sorted(study.series, key=lambda one: one[1])
        for name, fewest in _series(config.required_series.get(modality, "")):
            fits = next((one for one in left if one[0] == name and one[1] >= fewest), None)
            if fits is None:
                lacks.append(f"a series {name}:{fewest}")
            else:
                left.remove(fits)
    return list(dict.fromkeys(lacks))


def _series(text: str) -> list[tuple[str, int]]:
    """What must be there, the smallest first, so that each takes the smallest series that is enough for it."""
    pairs = (part.partition(":") for part in text.split())
    return sorted(((name, int(fewest)) for name, _, fewest in pairs), key=lambda one: one[1])
