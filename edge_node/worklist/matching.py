"""Attribute matching of queries (PS3.4 C.2.2.2): for our own reading list, and for the toy PACS."""

from __future__ import annotations

import re
from typing import Any

_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_RANGE_VRS = frozenset({"DA", "TM", "DT"})
_NOT_KEYS = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC"})


def values_of(element: Any) -> list[str]:
    """The values of an element as text; an empty element has none."""
    value = element.value
    if value is None or value == "":
        return []
    if element.VR == "PN" or isinstance(value, (str, bytes, int, float)) or not hasattr(value, "__iter__"):
        return [str(value)]
    return [str(item) for item in value]


def in_range(value: str, wanted: str) -> bool:
    """Range matching of PS3.4 C.2.2.2.5: ``a-b``, ``a-``, ``-b``; a shorter bound covers all it is a prefix of."""
    low, _, high = wanted.partition("-")
    return (not low or value >= low) and (not high or value[: len(high)] <= high)


def _text_matches(value: str, wanted: str, *, person: bool) -> bool:
    pattern = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in wanted)
    flags = re.DOTALL | (re.IGNORECASE if person else 0)
    # One component group of a name is enough: a query may be in Latin letters, the name also in ideographs.
    candidates = [value, *(value.split("=") if person else ())]
    return any(re.fullmatch(pattern, candidate.rstrip("^ "), flags) for candidate in candidates)


def element_matches(found: Any | None, key: Any) -> bool:
    """Does the stored element (None: absent) answer to the key of a query? An empty key matches everything."""
    if key.VR == "SQ":
        if not key.value or not len(key.value[0]):
            return True
        items = found.value if found is not None and found.VR == "SQ" else []
        return any(dataset_matches(item, key.value[0]) for item in items)
    wanted = values_of(key)
    if not wanted or wanted == ["*"]:
        return True
    values = values_of(found) if found is not None else []
    if key.VR in _RANGE_VRS and "-" in wanted[0]:
        return any(in_range(value, wanted[0]) for value in values)
    if key.VR in _WILDCARD_VRS:
        return any(_text_matches(v, w.rstrip("^ "), person=key.VR == "PN") for v in values for w in wanted)
    return any(value == w for value in values for w in wanted)


def dataset_matches(found: Any, query: Any) -> bool:
    """True if every key of `query` matches in the pydicom data set `found`."""
    return all(element_matches(found.get(key.tag, None), key) for key in query if key.keyword not in _NOT_KEYS)
