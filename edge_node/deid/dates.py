"""Shifting dates (PS3.5 6.2 DA, DT): precision, ranges and weekday stay; what is no date becomes empty."""

from __future__ import annotations

import re
from datetime import date, timedelta

from edge_node.deid.remembered import remembered

_DA = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")
_DT = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)((?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?)?)?)?([+-](?:0\d|1[0-4])[0-5]\d)?"
)


@remembered(256)  # a study has few dates and many attributes that hold them
def shift_da(text: str, days: int) -> str:
    """Shift one DA value or range (``a-b``, ``a-``, ``-b``); "" if any part is no date."""
    parts = text.strip().split("-")
    if len(parts) > 2:
        return ""
    moved = [_shift_one(part.strip(), days) for part in parts]
    if any(m is None for m in moved) or not any(moved):
        return ""
    return "-".join(m or "" for m in moved)


def _shift_one(text: str, days: int) -> str | None:
    if not text:
        return ""
    match = _DA.fullmatch(text)
    if not match:
        return None
    dotted = match[4] is not None
    year, month, day = match.group(4, 5, 6) if dotted else match.group(1, 2, 3)
    moved = _move(int(year), int(month), int(day), days)
    if moved is None:
        return None
    mark = "." if dotted else ""
    return f"{moved.year:04}{mark}{moved.month:02}{mark}{moved.day:02}"


def _move(year: int, month: int, day: int, days: int) -> date | None:
    try:
        return date(year, month, day) + timedelta(days)
    except (ValueError, OverflowError):
        return None


@remembered(256)
def shift_dt(text: str, days: int) -> str:
    """Shift one DT value or range; time of day and offset stay. "" if it is no date.

    A value known to the month or year only is shifted from its middle and given back with the same precision.
    """
    text = text.strip()
    single = _shift_moment(text, days)
    if single:
        return single
    for cut in (m.start() for m in re.finditer("-", text)):
        left, right = text[:cut], text[cut + 1 :]
        moved = [_shift_moment(part, days) for part in (left, right)]
        if (left or right) and all(bool(a) == bool(b) for a, b in zip(moved, (left, right), strict=True)):
            return "-".join(moved)
    return ""


def _shift_moment(text: str, days: int) -> str:
    match = _DT.fullmatch(text)
    if not match:
        return ""
    year, month, day, clock, offset = match.groups()
    moved = _move(int(year), int(month or 7), int(day or (15 if month else 1)), days)
    if moved is None:
        return ""
    stamp = f"{moved.year:04}" + (f"{moved.month:02}" if month else "") + (f"{moved.day:02}" if day else "")
    return stamp + (clock or "") + (offset or "")
