"""The compute role's pixel step: what may show identity is masked and looked at again, or stays withheld."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import structlog
from pydicom import dcmread
from sqlalchemy import Connection, select

from edge_node import pipeline
from edge_node.deid import burned_in
from edge_node.deid.boxes import Boxes, load_box_rules, vendor_rules
from edge_node.deid.burned_in import Overlay, TextFinder
from edge_node.deid.deface import FaceMasks, face_masks, may_show_a_face
from edge_node.deid.pixels import CLEAN_PIXEL_DATA, CLEAN_VISUAL_FEATURES, Mask, Picture
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject, TaskState
from edge_node.pipeline import Done
from edge_node.service.node import Node
from edge_node.service.recipes import recipes_in_force
from edge_node.store import audit
from edge_node.store.cleaned import CleanedObjects, Judged, Staged
from edge_node.store.tables import instance, study
from edge_node.store.tasks import Task, requeue

log = structlog.get_logger()

NO_DETECTOR = "held:no-detector"
FACE = "face"


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

    def boxes_of(self, one: CleanObject) -> Boxes:
        """By the recipe that the object was de-identified with."""
        return self.by_recipe.get(one.recipe_sha256, self.boxes)


def load_tools(node: Node) -> Tools:
    """Every recipe's and the vendors' boxes, and the detector where it is installed. Raises Stop for a bad recipe."""
    options = node.config.deid
    shipped = [vendor_rules()] if options.vendor_boxes else []
    files = {recipe.sha256: path for recipe, path in recipes_in_force(node.config)}
    own = {path: load_box_rules(path.read_text(encoding="utf-8"), str(path)) for path in files.values()}
    return Tools(
        Boxes([*shipped, *own.values()]),
        load_finder(),
        options.deface,
        frozenset(options.pixels_may_leave),
        {sha256: Boxes([*shipped, own[path]]) for sha256, path in files.items()},
    )


def load_finder() -> TextFinder | None:
    """The text detector, or None where the extra `ocr` is not installed."""
    from edge_node.deid import text_detector

    path = text_detector.model_path()
    return None if path is None else text_detector.TextDetector(path)


def pixels_work(node: Node, tools: Tools) -> pipeline.Work:
    """Judge every object of the study that was not judged yet, series by series; one bad object holds only itself."""
    store = CleanedObjects(node.keyring, node.spool_writer())

    def work(task: Task) -> Done:
        waiting = node.clean.study(task.study_key).objects
        series: dict[str, list[CleanObject]] = defaultdict(list)
        for one in waiting:
            series[one.series_uid].append(one)
        staged: list[Staged] = []
        told: Counter[str] = Counter()
        freed = 0
        for objects in series.values():
            if any(_open(one) for one in objects):
                for judged in _Series(objects, tools).judged():
                    staged.append(store.stage(task.study_key, judged))
                    told[judged.pixel_work] += 1
                    freed += bool(judged.was.pixel_risk) and not judged.pixel_risk

        def commit(connection: Connection) -> None:
            store.commit(connection, task.study_key, staged)
            if freed:  # the forwarder may have been here before, and withheld them
                requeue(connection, task.study_key, steps=("forward",), states=(TaskState.DONE,))

        return Done("pixels.held" if any(w.startswith("held:") for w in told) else "pixels.done", dict(told), commit)

    return work


def _open(one: CleanObject) -> bool:
    """Not judged yet, or held for something that may have been mended since."""
    return one.pixel_work in ("", "unlooked") or one.pixel_work.startswith("held:")


@dataclass(slots=True)
class _Series:
    """One series under judgement."""

    objects: list[CleanObject]
    tools: Tools
    _still: dict[tuple[int, int], Mask] = field(default_factory=dict)
    _faces: FaceMasks = field(default_factory=dict)
    _faceless: bool = True

    def judged(self) -> Iterator[Judged]:
        """A judgement for every object that is open."""
        if self.tools.deface and any(may_show_a_face(one.read()) for one in self.objects):
            self._faces = face_masks((one.sop_uid, one.read()) for one in self.objects)
            self._faceless = False
        risky = [one for one in self.objects if one.pixel_risk not in ("", FACE) and _open(one)]
        if risky and self.tools.finder is not None:
            self._still = dict(_still_text(risky, self.tools.finder))
        for one in self.objects:
            if _open(one) or (one.sop_uid in self._faces and "defaced" not in one.pixel_work):
                try:
                    yield self._judge(one)
                except Quarantine as error:
                    risk = one.pixel_risk or "uncleanable"
                    if one.pixel_risk or error.code != "pixels.unsupported":
                        yield Judged(one, risk, f"held:{error.code}"[:64])
                    else:  # no pixels to mask, and no reason to
                        yield Judged(one, "", "looked")

    def _judge(self, one: CleanObject) -> Judged:
        part10, risk = one.read(), "" if one.pixel_risk == FACE else one.pixel_risk
        header = dcmread(BytesIO(part10), stop_before_pixels=True)
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        boxes = self.tools.boxes_of(one).mask(header, one.series_uid, rows, columns)
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
            known = self._still.get((rows, columns))
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
        except (Quarantine, struct.error):
            continue  # it is judged, and held, on its own
    for size, overlay in overlays.items():
        still = overlay.still()
        yield size, np.zeros(size, bool) if still is None else finder.area(still)


def look_again(node: Node, tools: Tools) -> int:
    """After the detector was installed: studies withheld for want of it are due again; returns how many."""
    if tools.finder is None:
        return 0
    with node.database.read() as connection:
        query = (
            select(instance.c.study_key)
            .join(study, study.c.study_key == instance.c.study_key)
            .where(instance.c.pixel_work == NO_DETECTOR, instance.c.kept, study.c.closed_at.is_(None))
            .distinct()
        )
        keys = [str(key) for key in connection.execute(query).scalars()]
    for key in keys:
        with node.database.write() as connection:
            requeue(connection, key, steps=("pixels",), states=(TaskState.DONE,))
            audit.append(connection, node.actor, "pixels.look-again", key)
    return len(keys)
