"""Cleaning descriptors (PS3.15 E.3.5): only words of anatomy and acquisition, and numbers with a unit, survive."""

from __future__ import annotations

import re
from importlib import resources

from edge_node.deid.remembered import remembered

WORDS = frozenset(
    word
    for line in resources.files("edge_node.deid").joinpath("words.txt").read_text(encoding="ascii").splitlines()
    if not line.startswith("#")
    for word in line.split()
)
_UNIT = (
    "(?:mm|cm|m|um|kv|kvp|ma|mas|ms|msec|s|sec|min|h|ml|cc|mg|g|kg|hz|khz|mhz|t|tesla|deg|hu|gy|mgy|mci|mbq|kbq|%|fps)"
)
_NUMBER = re.compile(r"\d{1,4}(?:[.,]\d{1,3})?")
_MEASURE = re.compile(rf"{_NUMBER.pattern}{_UNIT}|{_NUMBER.pattern}(?:x{_NUMBER.pattern}){{1,2}}(?:mm|cm)?")
_UNIT_ALONE = re.compile(_UNIT)
_OUTER = re.compile(r"[\s_^=,;:()\[\]{}<>|\"'!?&#@\\]+")
# Points, strokes and hyphens divide only beside letters, so that 1.25 stays whole.
_INNER = re.compile(r"(?<=\w)[./-]+(?=[^\W\d])|(?<=[^\W\d])[./-]+(?=\w)|[./-]+$")
_WORD = re.compile(r"[^\W_]+")
_WHOLE = ("c-", "c+", "-c", "+c", "w/o", "w/")  # dividing these would turn their meaning round


def _chunks(text: str) -> list[str]:
    found: list[str] = []
    for piece in _OUTER.split(text):
        found += [piece] if piece.lower() in _WHOLE else [chunk.strip("./-") for chunk in _INNER.split(piece)]
    return [chunk for chunk in found if chunk]


@remembered(256)  # the texts of a series are the same in all its instances
def clean_text(text: str, forbidden: frozenset[str]) -> str:
    """Words of the vocabulary and measures ("5 mm", "120kV", "512x512") of `text`, joined by single spaces.

    A word in `forbidden` (lower case; the names in this very object) never survives, vocabulary or not.
    """
    chunks = _chunks(text)
    kept: list[str] = []
    for index, chunk in enumerate(chunks):
        low = chunk.lower()
        if not low.isascii() or low in forbidden:
            continue
        following = chunks[index + 1].lower() if index + 1 < len(chunks) else ""
        measure = _MEASURE.fullmatch(low) or (_NUMBER.fullmatch(low) and _UNIT_ALONE.fullmatch(following))
        unit = index > 0 and _UNIT_ALONE.fullmatch(low) and _NUMBER.fullmatch(chunks[index - 1])
        if low in WORDS or measure or unit:
            kept.append(chunk)
    return " ".join(kept)


def words_of(text: str) -> list[str]:
    """Lower-case words (runs of letters and digits) of a text."""
    return _WORD.findall(text.lower())
