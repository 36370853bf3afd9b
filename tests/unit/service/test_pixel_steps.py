"""The pixel step: what may show identity is cleaned or stays, and every object is accounted for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from sqlalchemy import select

from edge_node import pipeline
from edge_node.cli.study import RETRIED
from edge_node.deid.boxes import Boxes, labels_in
from edge_node.deid.pixels import Bytes8, Mask
from edge_node.deid.series import Tools
from edge_node.demo.headct import head_ct
from edge_node.domain.study import IdentifiedInstance, TaskState
from edge_node.pipeline import Bench, Targets
from edge_node.service.pixel_steps import look_again, pixels_work
from edge_node.store import studies
from edge_node.store.digest import digest_of
from edge_node.store.tables import instance, study, task
from edge_node.store.tasks import requeue
from tests.unit.deid.objects import DEIDENTIFIER, ct, received
from tests.unit.store.conftest import Store

TARGETS = Targets(worklist=(), forward=("",), purge={})
US, SC = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"


class Ink:
    """Knows text when it sees it: two neighbours displayed pure white."""

    def area(self, picture: Bytes8) -> Mask:
        white = (picture == 255).all(axis=2)
        pairs = white[:, 1:] & white[:, :-1]
        text = np.zeros_like(white)
        text[:, 1:] |= pairs
        text[:, :-1] |= pairs
        return text


class Stubborn:
    """Sees text that no mask removes."""

    def area(self, picture: Bytes8) -> Mask:
        moving = np.zeros(picture.shape[:2], bool)
        moving[np.unravel_index(int(picture[:, :, 0].argmax()), moving.shape)] = True
        return moving


def tools(finder: Any = None, *, boxes: str = "", deface: bool = False) -> Tools:
    return Tools(Boxes([labels_in(boxes)]), finder, deface, frozenset({"ultrasound"}))


def head(modality: str, slices: slice = slice(None)) -> list[IdentifiedInstance]:
    """A head of one study and series."""
    made = []
    for ds in head_ct(4, None, slices=16, rows=96)[slices]:
        ds.Modality, ds.BodyPartExamined = modality, "HEAD"
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1." + ("2" if modality == "CT" else "4")
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
        made.append(received(ds))
    return made


def picture(number: int, sop_class: str = US, *, text: bool = True, noise: bool = False) -> IdentifiedInstance:
    """8 x 8, a gradient, with two white "letters"."""
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) + number
    if noise:
        values = np.random.default_rng(number).integers(0, 200, (8, 8)).astype(np.uint8)
    if text:
        values[1, 2:4] = 255
    return received(
        ct(
            SOPClassUID=sop_class, SOPInstanceUID=f"1.2.3.{number}", Rows=8, Columns=8, BitsAllocated=8, BitsStored=8,
            HighBit=7, PixelRepresentation=0, PixelData=values.tobytes(),  Modality="US",
        )
    )  # fmt: skip


@dataclass
class Line:
    store: Store
    node: Any

    def take(self, *instances: IdentifiedInstance) -> str:
        for number, one in enumerate(instances):
            self.store.intake.record(DEIDENTIFIER.deidentify(one), calling_ae="US1", received_at=float(number))
        with self.store.database.write() as connection:
            [candidate] = studies.unsettled(connection)
            studies.settle(connection, candidate, reason="quiet", complete=True, at=1.0)
            pipeline.settled(connection, candidate.study_key, candidate.revision, urgency=1)
        return candidate.study_key

    def clean(self, with_tools: Tools) -> None:
        while (claimed := self.store.tasks.claim("pixels", None, 60)) is not None:
            work = pixels_work(self.node, with_tools)
            Bench("pixels", work, self.store.tasks, self.store.database, TARGETS, 60.0).one(claimed)

    def rows(self) -> list[Any]:
        with self.store.database.read() as connection:
            return list(connection.execute(select(instance).order_by(instance.c.received_at)).all())


@pytest.fixture
def line(store: Store) -> Line:
    node = SimpleNamespace(
        clean=store.clean, keyring=store.keyring, database=store.database, actor="test/compute",
        spool_writer=lambda: store.spool,
    )  # fmt: skip
    return Line(store, node)


def test_a_study_that_ends_the_process_again_and_again_is_held_and_says_why(line: Line) -> None:
    key = line.take(picture(1))
    for _ in range(5):
        assert line.store.tasks.claim("pixels", None, -1) is not None
    line.clean(tools(Ink()))
    with line.store.database.read() as connection:
        row = connection.execute(select(task).where(task.c.step == "pixels")).one()
        assert not connection.execute(select(task).where(task.c.step == "forward")).first()
    assert (row.state, row.code) == (TaskState.DEAD, "pixels.crashed")
    assert line.rows()[0].pixel_risk
    with line.store.database.write() as connection:  # a human says: again
        requeue(connection, key, steps=RETRIED, states=(TaskState.DEAD,))
    line.clean(tools(Ink()))
    assert not line.rows()[0].pixel_risk


def test_an_object_is_masked_by_the_filters_of_the_recipe_it_went_by(line: Line) -> None:
    """Two recipes in force, and objects of one that is not any more: those get the boxes of both."""
    rule = "FORMAT dicom\n%filter x\nLABEL x\n  present Modality\n  coordinates {}\n"
    left, top = (labels_in(rule.format(box)) for box in ("0,0,2,8", "0,0,8,2"))
    mine = DEIDENTIFIER.recipe_id.sha256
    for by_recipe, masked in (
        ({mine: Boxes([left]), "other": Boxes([top])}, 16),
        ({mine: Boxes([top])}, 16),
        ({"other": Boxes([left])}, 28),
    ):
        found = replace(tools(), boxes=Boxes([left, top]), by_recipe=by_recipe)
        number = len(line.rows()) + 1
        values = np.full((8, 8), 90, np.uint8)
        values[7, 7] = 0  # the darkest of the image is what masks are made of
        ds = ct(
            StudyInstanceUID=f"1.2.{number}", SOPInstanceUID=f"1.2.3.{number}", Rows=8, Columns=8, BitsAllocated=8,
            BitsStored=8, HighBit=7, PixelRepresentation=0, PixelData=values.tobytes(),
        )  # fmt: skip
        key = line.take(received(ds))
        line.clean(found)
        [after] = line.store.clean.study(key).objects
        pixels = np.frombuffer(dcmread(BytesIO(after.read())).PixelData, np.uint8)
        assert (after.recipe_sha256, int((pixels == 0).sum())) == (mine, masked + 1)


def test_a_masked_object_replaces_the_received_one_in_spool_and_ledger(line: Line) -> None:
    key = line.take(picture(1))
    [before] = line.store.clean.study(key).objects
    line.clean(tools(Ink()))
    [after] = line.store.clean.study(key).objects
    part10 = after.read()
    assert (after.pixel_risk, after.pixel_work, after.sop_uid) == ("", "masked", before.sop_uid)
    assert (after.size, after.digest) == (len(part10), digest_of(part10))
    ds = dcmread(BytesIO(part10))
    assert ds.BurnedInAnnotation == "NO"
    assert [item.CodeValue for item in ds.DeidentificationMethodCodeSequence][-1] == "113101"
    assert ds.pixel_array.max() < 255
    assert np.array_equal(ds.pixel_array[2:], dcmread(BytesIO(before.read())).pixel_array[2:])
    with line.store.database.read() as connection:
        assert connection.execute(select(study.c.bytes)).scalar() == len(part10)


def test_without_a_detector_risky_objects_stay_withheld_and_are_looked_at_when_it_comes(line: Line) -> None:
    key = line.take(picture(1))
    line.clean(tools())
    [one] = line.store.clean.study(key).objects
    assert (one.pixel_risk, one.pixel_work) == ("ultrasound", "held:no-detector")
    assert look_again(line.node, tools()) == 0
    assert look_again(line.node, tools(Ink())) == 1
    line.clean(tools(Ink()))
    [one] = line.store.clean.study(key).objects
    assert (one.pixel_risk, one.pixel_work) == ("", "masked")


def test_what_was_withheld_is_forwarded_after_all_once_it_is_clean(line: Line) -> None:
    key = line.take(picture(1))
    line.clean(tools())
    with line.store.database.write() as connection:
        connection.execute(task.update().where(task.c.step == "triage").values(state=TaskState.DONE))
        pipeline.enqueue(connection, key, 1, "forward")
        connection.execute(task.update().where(task.c.step == "forward").values(state=TaskState.DONE))
    look_again(line.node, tools(Ink()))
    line.clean(tools(Ink()))
    with line.store.database.read() as connection:
        state = connection.execute(select(task.c.state).where(task.c.step == "forward")).scalar()
    assert state == TaskState.READY


def test_text_that_stays_after_masking_holds_the_object_and_not_its_neighbours(line: Line) -> None:
    key = line.take(picture(1), received(ct(SOPInstanceUID="1.2.3.77")))
    line.clean(tools(Stubborn()))
    works = {o.modality: (o.pixel_risk, o.pixel_work) for o in line.store.clean.study(key).objects}
    assert works == {"US": ("ultrasound", "held:text-remains"), "CT": ("", "looked")}


def test_a_kind_that_may_not_leave_on_its_own_is_masked_and_waits_for_a_human(line: Line) -> None:
    key = line.take(picture(1, SC))
    line.clean(tools(Ink()))
    [one] = line.store.clean.study(key).objects
    assert (one.pixel_risk, one.pixel_work) == ("secondary-capture", "review:masked")
    assert dcmread(BytesIO(one.read())).pixel_array.max() < 255


def test_boxes_are_masked_also_where_nothing_hints_at_text(line: Line) -> None:
    rule = "%filter g\nLABEL corner\n contains Modality CT\n coordinates 0,0,2,2"
    key = line.take(received(ct()))
    [before] = line.store.clean.study(key).objects
    was = dcmread(BytesIO(before.read()))
    line.clean(tools(boxes=rule))
    [one] = line.store.clean.study(key).objects
    now = dcmread(BytesIO(one.read()))
    assert (one.pixel_risk, one.pixel_work) == ("", "masked")
    assert (now.pixel_array[:2, :2] == was.pixel_array.min()).all()
    assert np.array_equal(now.pixel_array[2:], was.pixel_array[2:])
    assert "BurnedInAnnotation" not in now  # boxes were painted, nobody looked


def test_an_overlay_that_stands_still_is_found_where_no_single_frame_shows_it(line: Line) -> None:
    class OnBlack:
        """Knows text only where everything else is black."""

        def area(self, picture: Bytes8) -> Mask:
            lit: Mask = np.any(picture, axis=2)
            return lit if lit.sum() <= 2 else np.zeros_like(lit)

    key = line.take(*(picture(number, noise=True) for number in range(1, 9)))
    line.clean(tools(OnBlack()))
    for one in line.store.clean.study(key).objects:
        assert (one.pixel_work, one.pixel_risk) == ("masked", "")
        assert (dcmread(BytesIO(one.read())).pixel_array[1, 2:4] < 255).all()


def test_objects_already_judged_are_not_touched_again(line: Line) -> None:
    line.take(picture(1))
    line.clean(tools(Ink()))
    [before] = line.rows()
    line.take(picture(2, text=False))
    line.clean(tools(Ink()))
    after = {row.sop_uid: row for row in line.rows()}
    assert after[before.sop_uid] == before
    assert {row.pixel_work for row in after.values()} == {"masked", "looked"}


def test_an_object_that_cannot_be_opened_is_held_and_the_step_goes_on(line: Line) -> None:
    ds = ct(SOPClassUID=US, SOPInstanceUID="1.2.3.1", Modality="US", Rows=8, Columns=8)
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00\xff\xd9"])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    key = line.take(received(ds, "1.2.840.10008.1.2.4.50"), picture(2))
    line.clean(tools(Ink()))
    assert sorted(o.pixel_work for o in line.store.clean.study(key).objects) == ["held:pixels.undecodable", "masked"]


def test_the_old_bytes_are_the_object_until_the_outcome_is_committed(line: Line) -> None:
    key = line.take(picture(1))
    [before] = line.store.clean.study(key).objects
    claimed = line.store.tasks.claim("pixels", None, 60)
    assert claimed is not None
    done = pixels_work(line.node, tools(Ink()))(claimed)
    assert line.store.clean.study(key).objects[0].digest == before.digest
    assert done.commit is not None
    with line.store.database.write() as connection:
        done.commit(connection)
    assert line.store.clean.study(key).objects[0].digest != before.digest


def test_faces_leave_a_head_ct_when_asked_and_only_then(line: Line) -> None:
    key = line.take(*head("CT"))
    line.clean(tools(deface=True))
    objects = line.store.clean.study(key).objects
    assert {o.pixel_risk for o in objects} == {""}
    assert {o.pixel_work for o in objects} <= {"defaced", "looked"}
    assert sum(o.pixel_work == "defaced" for o in objects) >= 8
    defaced = next(o for o in objects if o.pixel_work == "defaced")
    codes = [item.CodeValue for item in dcmread(BytesIO(defaced.read())).DeidentificationMethodCodeSequence]
    assert "113102" in codes
    assert "113101" not in codes


def test_faces_stay_when_nobody_asked(line: Line) -> None:
    key = line.take(*head("CT"))
    line.clean(tools())
    assert {o.pixel_work for o in line.store.clean.study(key).objects} == {"looked"}


def test_a_head_that_no_method_applies_to_is_withheld_when_faces_must_go(line: Line) -> None:
    key = line.take(*head("MR"))
    line.clean(tools(deface=True))
    works = {(o.pixel_risk, o.pixel_work) for o in line.store.clean.study(key).objects}
    assert works == {("face", "held:no-face-method")}
    with line.store.database.write() as connection:
        connection.execute(task.update().where(task.c.step == "pixels").values(state=TaskState.READY))
    line.clean(tools())  # the site changed its mind
    assert {o.pixel_risk for o in line.store.clean.study(key).objects} == {""}


def test_a_slice_that_comes_late_loses_its_face_too(line: Line) -> None:
    key = line.take(*head("CT", slice(0, 12)))
    line.clean(tools(deface=True))
    assert line.take(*head("CT", slice(12, 16))) == key
    line.clean(tools(deface=True))
    objects = line.store.clean.study(key).objects
    assert len(objects) == 16
    assert {o.pixel_risk for o in objects} == {""}
    assert "" not in {o.pixel_work for o in objects}
