"""Two site keys at once: after a rotation, a study that the ledger knows goes on under the key that began it.

Otherwise a late instance would open a second study for the same images, with other UIDs, and a repeated write-back
would store a second report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_node.domain.study import Deidentified, IdentifiedInstance

Deidentify = Callable[[IdentifiedInstance], Deidentified]
PeekStudy = Callable[[IdentifiedInstance], str | None]
NameInstance = Callable[[IdentifiedInstance], str]


@dataclass(frozen=True, slots=True)
class SiteKey:
    """What one site key does to an instance: de-identify it, name its study, name it as announcements do."""

    deidentify: Deidentify
    peek_study: PeekStudy
    name_instance: NameInstance = lambda _instance: ""


def continuing(now: SiteKey, before: SiteKey | None, has_study: Callable[[str], bool]) -> SiteKey:
    """`now` for new studies and `before` for those that the ledger knows by the name that `before` gives them."""
    if before is None:
        return now
    old = before

    def chosen(instance: IdentifiedInstance) -> SiteKey:
        name = old.peek_study(instance)
        return old if name and has_study(name) else now

    return SiteKey(
        lambda instance: chosen(instance).deidentify(instance),
        lambda instance: chosen(instance).peek_study(instance),
        lambda instance: chosen(instance).name_instance(instance),
    )
