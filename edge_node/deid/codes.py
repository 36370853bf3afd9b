"""Meanings of standard codes in the standard's own words, so that no word of the sender has to be trusted.

``codes.tsv`` is PS3.16 as pydicom lists it, in a form that is read in milliseconds and takes little memory.
"""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def _meanings() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for line in resources.files("edge_node.deid").joinpath("codes.tsv").read_text(encoding="ascii").splitlines():
        if line.startswith("#"):
            continue
        scheme, code, meaning, *old = line.split("\t")
        found[scheme, code] = meaning
        if old:
            for earlier in ("SRT", "SNM3", "99SDM"):
                found[earlier, old[0]] = meaning
    return found


def meaning_of(scheme: str, code: str) -> str:
    """The meaning of a code (PS3.16) in ASCII, at most 64 characters; "" for one that is not known."""
    return _meanings().get((scheme, code), "") if scheme and code else ""
