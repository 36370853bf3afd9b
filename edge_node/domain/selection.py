"""Which recipe an object gets: conditions in order on who sent it, whom it called and what it is; the first that fits
counts. Here stand the words alone, so that what checks the configuration and what de-identifies mean the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


def plain(values: Iterable[str]) -> frozenset[str]:
    """AE titles or modalities without the spaces around them, which mean nothing (PS3.5 6.2)."""
    return frozenset(value.strip() for value in values)


@dataclass(frozen=True, slots=True)
class Condition:
    """AE titles of the association and modalities of the object, as `plain` gives them; an empty set fits everything.

    An object without a modality fits no condition that names any.
    """

    calling: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()

    def fits_association(self, calling: str, called: str) -> bool:
        """Whether objects of this association may fit."""
        return (not self.calling or calling.strip() in self.calling) and (
            not self.called or called.strip() in self.called
        )

    def fits_modality(self, modality: str) -> bool:
        """Whether objects of this modality may fit."""
        return not self.modalities or modality.strip() in self.modalities


def first_fit(conditions: Sequence[Condition], calling: str, called: str, modality: str) -> int:
    """The number of the first condition that fits; `len(conditions)` if none does."""
    for number, condition in enumerate(conditions):
        if condition.fits_association(calling, called) and condition.fits_modality(modality):
            return number
    return len(conditions)


def fates(
    conditions: Sequence[Condition],
    *,
    calling: Collection[str] | None = None,
    called: Collection[str] | None = None,
) -> set[frozenset[int]]:
    """For every kind of association that can be: the numbers `first_fit` gives for its objects, over all modalities.

    `calling` and `called` are the only AE titles there can be; None: any. Exact, and quick for long lists of titles:
    titles that the same conditions name are one kind.
    """
    callers = _kinds([one.calling for one in conditions], calling)
    calls = _kinds([one.called for one in conditions], called)
    modalities = _kinds([one.modalities for one in conditions], None)
    none = 1 << len(conditions)
    met = {who & whom for who in callers for whom in calls}
    return {frozenset(_lowest(those & what | none) for what in modalities) for those in met}


def _kinds(sets: Sequence[frozenset[str]], known: Collection[str] | None) -> set[int]:
    """For every kind of value, the conditions that it fits, as bits; of a value that nobody names too if `known` is
    None."""
    always = sum(1 << number for number, names in enumerate(sets) if not names)
    values = frozenset().union(*sets) if known is None else frozenset(known)
    kinds = {always | sum(1 << number for number, names in enumerate(sets) if value in names) for value in values}
    return kinds | {always} if known is None else kinds


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
