"""Answers kept of questions that are asked again for every instance of a series."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

LONGEST = 1024  # characters of a text, bytes, members of a set: longer ones are worked out each time

P = ParamSpec("P")
T = TypeVar("T")


def remembered(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Like `functools.lru_cache(most)`, with positional arguments; what an object brings can fill no memory."""

    def keep(work: Callable[P, T]) -> Callable[P, T]:
        kept = lru_cache(most)(work)

        @wraps(work)
        def answer(*given: P.args, **_: P.kwargs) -> T:
            for one in given:
                kind = one.__class__
                if (kind is str or kind is bytes or kind is frozenset) and len(one) > LONGEST:  # type: ignore[arg-type]
                    return work(*given)  # type: ignore[call-arg]
            return kept(*given)

        answer.cache_clear = kept.cache_clear  # type: ignore[attr-defined]
        return answer

    return keep
