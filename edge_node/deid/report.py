"""What de-identification did to one object, attribute by attribute, for people who must be able to check it.

Holds values of both sides: for `edge-node deid diff` on test data and for the demo, never for logs or the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from edge_node.deid.part10 import part10_of
from edge_node.domain.study import IdentifiedInstance

LONGEST = 64  # characters of a value shown
_BULK = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute at its place: `tag` is a path like ``(0040,0275)[1] > (0040,0007)``; `action` is removed,
    replaced, kept or added; values are text, cut at 64 characters."""

    tag: str
    name: str
    action: str
    before: str = field(repr=False)
    after: str = field(repr=False)


def changes(before: IdentifiedInstance, after_part10: bytes) -> list[Change]:
    """Every attribute of both sides at any nesting, in order of tag. Pixel data are compared, not shown."""
    with pydicom_config.disable_value_validation():
        old = dict(_flat(dcmread(BytesIO(part10_of(before)), force=True)))
        new = dict(_flat(dcmread(BytesIO(after_part10))))
    rows = []
    for path in sorted(old.keys() | new.keys()):
        was, is_now = old.get(path), new.get(path)
        action = (
            "added" if was is None else "removed" if is_now is None else "kept" if was[2] == is_now[2] else "replaced"
        )
        name = (was or is_now or ("", "", b""))[0]
        rows.append(Change(path, name, action, was[1] if was else "", is_now[1] if is_now else ""))
    return rows


def _flat(ds: Dataset, prefix: str = "") -> Iterator[tuple[str, tuple[str, str, object]]]:
    for element in ds:
        if element.tag.element == 0 or element.tag.group == 0xFFFC:
            continue
        path = f"{prefix}({element.tag.group:04X},{element.tag.element:04X})"
        name = keyword_for_tag(element.tag) or ("private" if element.tag.is_private else "unknown")
        if element.VR == "SQ":
            for number, item in enumerate(element.value or (), start=1):
                yield from _flat(item, f"{path}[{number}] > ")
            continue
        value = element.value
        shown = f"{len(value)} bytes" if element.VR in _BULK and value else _text(value)
        yield path, (name, shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…", value)


def _text(value: object) -> str:
    if isinstance(value, MultiValue):
        return "\\".join(str(part) for part in value)
    return "" if value is None else str(value)
