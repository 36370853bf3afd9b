"""What a recipe does to a folder of objects, counted per attribute: for dry runs, reports and reviews.

No values, except those of clean objects that `review` lists on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from edge_node.deid import bitstream, wire
from edge_node.deid.charset import Charset
from edge_node.deid.door import Deidentifier
from edge_node.deid.e1_1 import table
from edge_node.deid.part10 import instance_from_bytes, instance_from_file
from edge_node.deid.scene import charset_of
from edge_node.deid.wire import Element, Node
from edge_node.domain.errors import Quarantine, Stop

ACTIONS = ("removed", "emptied", "replaced", "kept", "added", "empty")  # empty: before and after
_FREE_TEXT = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN", "CS", "AE", "UR"})
_IDENTITY_REMOVED = 0x00120062


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute wherever sequences hold it: `path` of tags, outermost first."""

    path: tuple[int, ...]

    @property
    def tag(self) -> int:
        return self.path[-1]

    @property
    def name(self) -> str:
        """Keywords (or ``(gggg,eeee)``) joined by ``__``, as a recipe writes it."""
        return "__".join(keyword_for_tag(tag) or wire.tag_name(tag) for tag in self.path)

    @property
    def basic(self) -> str:
        """Action of the Basic Profile (``X``, ``Z/D`` …), "" for one that the table does not name."""
        row = table().get(self.tag)
        return "X" if self.tag >> 16 & 1 else row.basic if row else ""

    @property
    def kind(self) -> str:
        """private, pixels, uid, date, person, device, institution, patient, descriptor, identifier or technical."""
        vr = wire.dictionary_vr(self.tag)[:2]
        if any(tag >> 16 & 1 for tag in self.path):
            return "private"
        if self.tag >> 16 == 0x7FE0:
            return "pixels"
        simple = {"UI": "uid", "DA": "date", "DT": "date", "TM": "date", "PN": "person"}
        if vr in simple:
            return simple[vr]
        row = table().get(self.tag)
        if row is None:
            return "technical"
        told = {"device": "device", "institution": "institution", "patient": "patient", "descriptors": "descriptor"}
        return next((name for option, name in told.items() if option in row.options), "identifier")


@dataclass(frozen=True, slots=True)
class Held:
    """One file that was held back; `file` is relative to the folder."""

    file: str
    code: str
    reason: str


@dataclass(slots=True)
class Survey:
    """`counts` says of each attribute how often what happened to it; `files` how many were looked at."""

    files: int = 0
    clean: int = 0
    held: list[Held] = field(default_factory=list)
    counts: dict[Attribute, Counter[str]] = field(default_factory=dict)
    risks: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)

    def rows(self) -> list[tuple[Attribute, Counter[str]]]:
        """In order of tags."""
        return sorted(self.counts.items(), key=lambda pair: pair[0].path)


def survey(paths: Iterable[Path], folder: Path, engine: Deidentifier) -> Iterator[tuple[Path, bytes | None, Survey]]:
    """De-identify each file in memory and count. Yields (path, clean Part 10 bytes or None if it is held back, what was
    counted up to now: one and the same object)."""
    seen = Survey()
    for path in paths:
        seen.files += 1
        part10 = None
        try:
            instance = instance_from_file(path)
            made = engine.deidentify(instance).instance
            part10 = made.part10
            syntax = bitstream.syntax_of(instance.transfer_syntax)
            before = wire.parse(instance.dataset, syntax)
            after = wire.parse(instance_from_bytes(part10).dataset, syntax)
            for attribute_path, action in differences(before, after):
                seen.counts.setdefault(Attribute(attribute_path), Counter())[action] += 1
            seen.clean += 1
            seen.modalities[made.modality] += 1
            if made.pixel_risk:
                seen.risks[made.pixel_risk] += 1
        except Quarantine as error:
            seen.held.append(Held(str(path.relative_to(folder)), error.code, error.message))
        yield path, part10, seen


def differences(before: Node, after: Node, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], str]]:
    """(path of tags, action) for every element at any depth, items compared one by one."""
    for tag in sorted(before.keys() | after.keys()):
        was, now = before.get(tag), after.get(tag)
        here = (*path, tag)
        if was is None:
            yield here, "added"
        elif now is None:
            yield here, "removed"
        elif was.items is not None and now.items is not None and now.items:
            for old, new in zip(was.items, now.items, strict=False):
                yield from differences(old, new, here)
        else:
            yield here, _action(was, now)


def _action(was: Element, now: Element) -> str:
    if (was.value.rstrip(b" \0"), was.fragments) == (now.value.rstrip(b" \0"), now.fragments):
        return "kept" if was.value.rstrip(b" \0") or was.fragments else "emptied" if was.items else "empty"
    return "replaced" if now.value or now.fragments else "emptied"


def review(paths: Iterable[Path], folder: Path) -> dict[Attribute, Counter[str]]:
    """Distinct values, with counts, of every text that clean objects hold, at any depth; the most frequent are first.

    Raises Stop("deid.not-clean") for an object that does not say that it was de-identified: its values are not shown.
    """
    found: dict[Attribute, Counter[str]] = {}
    for path in paths:
        instance = instance_from_file(path)
        node = wire.parse(instance.dataset, bitstream.syntax_of(instance.transfer_syntax))
        if wire.ascii_text(node, _IDENTITY_REMOVED) != "YES":
            raise Stop(
                "deid.not-clean",
                f"{path.relative_to(folder)} was not de-identified (0012,0062)",
                hint="edge-node deid apply first, then review what it wrote",
                exit_code=1,
            )
        for place, text in _texts(node, charset_of(node)):
            found.setdefault(Attribute(place), Counter())[text] += 1
    return dict(sorted(found.items(), key=lambda pair: pair[0].path))


def _texts(node: Node, charset: Charset, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], str]]:
    for tag, element in node.items():
        here = (*path, tag)
        if element.items is not None:
            for item in element.items:
                yield from _texts(item, charset_of(item, charset), here)
        elif element.vr in _FREE_TEXT and element.value:
            text = charset.text(element.value).strip()
            if text:
                yield here, text
