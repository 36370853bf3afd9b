"""What a recipe does to a folder of objects, counted per attribute: for dry runs, reports and reviews.

No values, except those of clean objects that `review` lists on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from edge_node.deid import bitstream, wire
from edge_node.deid.charset import Charset
from edge_node.deid.door import Deidentifier
from edge_node.deid.e1_1 import table
from edge_node.deid.folder import clean_object, read_again
from edge_node.deid.part10 import instance_from_bytes, instance_from_file
from edge_node.deid.scene import charset_of
from edge_node.deid.series import Tools, asks_for_work, judge_series, why_held
from edge_node.deid.wire import Element, Node
from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import CleanObject

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
    """`counts` says of each attribute how often what happened to it; `files` how many were looked at, `risks` why
    pixels may show identity, `pixels` what the pixel step did (`CleanObject.pixel_work`)."""

    files: int = 0
    clean: int = 0
    held: list[Held] = field(default_factory=list)
    counts: dict[Attribute, Counter[str]] = field(default_factory=dict)
    risks: Counter[str] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)

    def rows(self) -> list[tuple[Attribute, Counter[str]]]:
        """In order of tags."""
        return sorted(self.counts.items(), key=lambda pair: pair[0].path)


@dataclass(frozen=True, slots=True)
class Looked:
    """One file on the way out: its clean bytes as far as they were made (those of an object that is held back too, when
    its pixels were masked), its modality, and what the pixel step did, "" where it had nothing to do."""

    part10: bytes | None = None
    modality: str = ""
    pixels: str = ""


def survey(
    paths: Iterable[Path], folder: Path, engine: Deidentifier, tools: Tools, seen: Survey
) -> Iterator[tuple[Path, Looked]]:
    """De-identify each file in memory, pixels too, and count into `seen`; files whose pixels are judged come last,
    series by series."""
    waiting: dict[str, list[CleanObject]] = {}
    for path in paths:
        seen.files += 1
        try:
            made = engine.clean(instance_from_file(path))
            if made.pixel_risk:
                seen.risks[made.pixel_risk] += 1
            if asks_for_work(made.part10, made.pixel_risk, tools):
                again = partial(read_again, engine, path, made.sha256)
                one = clean_object(made, made.sha256, str(path), again)
                waiting.setdefault(made.series_uid, []).append(one)
                continue
            _count(path, made.part10, seen)
            yield path, Looked(made.part10, made.modality)
        except Quarantine as error:
            seen.held.append(Held(str(path.relative_to(folder)), error.code, error.message))
            yield path, Looked()
    for objects in waiting.values():
        for judged in judge_series(objects, tools):
            path = Path(judged.was.sop_uid)
            seen.pixels[judged.pixel_work] += 1
            part10 = judged.part10
            held = why_held(judged)
            if held is not None:
                seen.held.append(Held(str(path.relative_to(folder)), held.code, held.message))
            else:
                part10 = part10 or judged.was.read()
                _count(path, part10, seen)
            yield path, Looked(part10, judged.was.modality, judged.pixel_work)


def _count(path: Path, part10: bytes, seen: Survey) -> None:
    """One object that came out clean."""
    instance = instance_from_file(path)
    before = wire.parse(instance.dataset, bitstream.syntax_of(instance.transfer_syntax))
    after = instance_from_bytes(part10)
    for place, action in differences(before, wire.parse(after.dataset, bitstream.syntax_of(after.transfer_syntax))):
        seen.counts.setdefault(Attribute(place), Counter())[action] += 1
    seen.clean += 1


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
