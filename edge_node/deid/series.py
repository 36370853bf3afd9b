"""The pixels of one series under judgement: what may show identity is masked and looked at again, or does not leave.

One engine for the line, where the compute role asks it study by study, and for folders (`edge_node.deid.folder`).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_node.deid import burned_in
from edge_node.deid.bitstream import syntax_of
from edge_node.deid.boxes import Boxes, Image, vendor_filters
from edge_node.deid.burned_in import Overlay, TextFinder
from edge_node.deid.deface import FaceMasks, face_masks, may_show_a_face
from edge_node.deid.pixels import CLEAN_PIXEL_DATA, CLEAN_VISUAL_FEATURES, Mask, Picture, opened
from edge_node.deid.recipe import Recipe
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject, Judged

NO_DETECTOR = "held:no-detector"
FACE = "face"
# What readers stumble over in an object that breaks the rules: it holds itself, not its neighbours.
_BROKEN = (struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError)
_WHY = {
    NO_DETECTOR: "nobody looked: there is no text detector (extra ocr)",
    "held:text-remains": "they were masked, and the second look still finds text",
    "held:no-face-method": "no method here takes a face out of this series",
}


@dataclass(frozen=True, slots=True)
class Tools:
    """What pixels are cleaned with. `finder` is None without the extra `ocr`.

    `leave` names the risks whose objects may leave once a second look finds no text; others wait for a human.
    `by_recipe` has the boxes of every recipe in force by its sha256; `boxes` are those of all of them together, for
    objects whose recipe is in force no more.
    """

    boxes: Boxes
    finder: TextFinder | None
    deface: bool
    leave: frozenset[str]
    by_recipe: Mapping[str, Boxes] = field(default_factory=dict)

    def boxes_of(self, recipe_sha256: str) -> Boxes:
        """Those of the recipe that an object was de-identified with."""
        return self.by_recipe.get(recipe_sha256, self.boxes)


def tools_of(
    recipes: Mapping[str, Recipe], finder: TextFinder | None, *, vendor_boxes: bool, deface: bool, leave: Iterable[str]
) -> Tools:
    """With the boxes of recipes, by their sha256 in the ledger, and, if asked, the vendors'. Raises Stop."""
    shipped = [vendor_filters()] if vendor_boxes else []
    by_recipe = {sha256: Boxes([*shipped, recipe.filters]) for sha256, recipe in recipes.items()}
    together = Boxes([*shipped, *(recipe.filters for recipe in recipes.values())])
    return Tools(together, finder, deface, frozenset(leave), by_recipe)


def load_finder() -> TextFinder | None:
    """The text detector, or None where the extra `ocr` is not installed."""
    from edge_node.deid import text_detector

    path = text_detector.model_path()
    return None if path is None else text_detector.TextDetector(path)


def asks_for_work(part10: bytes, risk: str, tools: Tools) -> bool:
    """Whether `judge_series` could do anything but let a clean object pass as it is."""
    if risk or tools.deface:
        return True
    try:
        return bool(tools.boxes.mask(_image(part10)).any())
    except (Quarantine, *_BROKEN):
        return True


def judge_series(objects: Sequence[CleanObject], tools: Tools) -> Iterator[Judged]:
    """A judgement for every object of a series that was not judged yet, or was held for what may have been mended.

    An object that cannot be opened holds itself only. Memory: one object at a time, and for faces one volume.
    """
    if any(_open(one) for one in objects):
        yield from _Series(list(objects), tools).judged()


def why_held(judged: Judged) -> Quarantine | None:
    """Why an object does not leave; None when it may."""
    if not judged.pixel_risk:
        return None
    said = _WHY.get(judged.pixel_work)
    if judged.pixel_work.startswith("review:"):
        said = "they were looked at and what was found is masked; such images wait for a human"
    elif said is None:
        said = f"they cannot be opened ({judged.pixel_work.removeprefix('held:')})"
    return Quarantine(
        "deid.pixels-uncleaned",
        f"the pixels may show identity ({judged.pixel_risk}): {said}",
        hint="edge-node docs pixels",
    )


def _open(one: CleanObject) -> bool:
    """Not judged yet, or held for something that may have been mended since."""
    return one.pixel_work in ("", "unlooked") or one.pixel_work.startswith("held:")


def _image(part10: bytes) -> Image:
    _, node, transfer_syntax = opened(part10)
    return Image(node, syntax_of(transfer_syntax))


@dataclass(slots=True)
class _Series:
    objects: list[CleanObject]
    tools: Tools
    _still: dict[tuple[int, int], Mask] = field(default_factory=dict)
    _faces: FaceMasks = field(default_factory=dict)
    _faceless: bool = True

    def judged(self) -> Iterator[Judged]:
        if self.tools.deface:
            self._look_for_faces()
        risky = [one for one in self.objects if one.pixel_risk not in ("", FACE) and _open(one)]
        if risky and self.tools.finder is not None:
            self._still = dict(_still_text(risky, self.tools.finder))
        for one in self.objects:
            if _open(one) or (one.sop_uid in self._faces and "defaced" not in one.pixel_work):
                yield self._judged(one)

    def _look_for_faces(self) -> None:
        """What cannot be opened may hide a face: then, as where no method applies, the series is withheld."""
        try:
            self._faceless = not any(may_show_a_face(one.read()) for one in self.objects)
            if not self._faceless:
                self._faces = face_masks((one.sop_uid, one.read()) for one in self.objects)
        except (Quarantine, *_BROKEN):
            self._faceless = False

    def _judged(self, one: CleanObject) -> Judged:
        try:
            return self._judge(one)
        except Quarantine as error:
            return Judged(one, one.pixel_risk or "uncleanable", f"held:{error.code}"[:64])
        except _BROKEN:
            return Judged(one, one.pixel_risk or "uncleanable", "held:pixels.unreadable")

    def _judge(self, one: CleanObject) -> Judged:
        part10, risk = one.read(), "" if one.pixel_risk == FACE else one.pixel_risk
        boxes = self.tools.boxes_of(one.recipe_sha256).mask(_image(part10))
        face = self._faces.get(one.sop_uid)
        faceless = self._faceless or face is not None
        if not risk and not boxes.any() and (face is None or not face.any()):
            return Judged(one, "" if faceless else FACE, "looked" if faceless else "held:no-face-method")
        picture = Picture(part10)
        if risk == "embedded-overlay":
            picture.clear_unused_bits()
        picture.mask(boxes)
        checked, work = False, ["masked"] if boxes.any() else []
        if risk:
            if self.tools.finder is None:
                return Judged(one, risk, NO_DETECTOR)
            known = self._still.get(boxes.shape)
            pixels, checked = burned_in.mask_text(picture, self.tools.finder, [] if known is None else [known])
            if not checked:
                return Judged(one, risk, "held:text-remains")
            work = ["masked"] if pixels or work else []
        options = [CLEAN_PIXEL_DATA] if work or checked else []
        if face is not None and face.any():
            picture.mask(face)
            work.append("defaced")
            options.append(CLEAN_VISUAL_FEATURES)
        made = picture.written(options=tuple(options), burned_in_checked=checked)
        done, left = "+".join(work) or "looked", ""
        if risk and risk not in self.tools.leave:
            done, left = f"review:{done}", risk
        elif not faceless:
            done, left = "held:no-face-method", FACE
        return Judged(one, left, done, made.part10, made.transfer_syntax)


def _still_text(objects: Iterable[CleanObject], finder: TextFinder) -> Iterator[tuple[tuple[int, int], Mask]]:
    """Text that stands still over a series, by size of image."""
    overlays: dict[tuple[int, int], Overlay] = defaultdict(Overlay)
    for one in objects:
        try:
            picture = Picture(one.read())
            overlays[picture.rows, picture.columns].add(picture)
        except (Quarantine, *_BROKEN):
            continue  # it is judged, and held, on its own
    for size, overlay in overlays.items():
        still = overlay.still()
        yield size, np.zeros(size, bool) if still is None else finder.area(still)
