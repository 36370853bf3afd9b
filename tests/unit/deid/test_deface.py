"""Faces of head CT: gone from the front, and not one voxel of brain with them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from edge_node.deid.deface import face_masks, may_show_a_face
from edge_node.deid.pixels import CLEAN_VISUAL_FEATURES, Picture
from edge_node.demo import phantom
from edge_node.demo.head import skull_depth
from edge_node.demo.headct import head_ct
from tests.unit.deid.objects import clean, ct

SLICES, ROWS = 24, 128


def brain_of(seed: int) -> np.ndarray:
    """Where the phantom's brain is, by its own construction: inside the inner table of the skull."""
    rng = np.random.default_rng([seed, 0])
    dy = float(rng.uniform(225, 250)) / ROWS
    grid, _ = phantom._place(rng, SLICES, ROWS, float(rng.uniform(122, 152)) / SLICES, dy)
    return np.asarray(skull_depth(rng, grid) > 0)


def series(seed: int, kind: str | None = None, **more: object) -> list[tuple[str, bytes]]:
    made = []
    for ds in head_ct(seed, kind, slices=SLICES, rows=ROWS):
        for name, value in {"Modality": "CT", **more}.items():
            setattr(ds, name, value)
        made.append(clean(ds)[0])
    return [(one.sop_uid, one.part10) for one in made]


def in_order(objects: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return sorted(objects, key=lambda o: float(dcmread(BytesIO(o[1])).ImagePositionPatient[2]))


@pytest.mark.parametrize(
    ("seed", "kind", "least_mm"),
    # The last two are cut higher up: the brain lies right behind the brow there, and less may go.
    [(1, None, 10), (2, "subdural", 10), (3, "epidural", 3), (7, "subarachnoid", 9)],
)
def test_the_front_of_the_head_is_gone_and_no_voxel_of_brain_is(seed: int, kind: str | None, least_mm: float) -> None:
    objects = in_order(series(seed, kind))
    masks = face_masks(objects)
    assert masks.keys() == {sop_uid for sop_uid, _ in objects}
    volume = np.stack([masks[sop_uid] for sop_uid, _ in objects])
    assert not (volume & brain_of(seed)).any()
    hu = np.stack([dcmread(BytesIO(part10)).pixel_array.astype(int) for _, part10 in objects])
    first = dcmread(BytesIO(objects[0][1]))
    hu = hu * int(first.RescaleSlope) + int(first.RescaleIntercept)
    tissue = hu > -300
    low = tissue[: SLICES // 8]  # below the skull base: nose, mouth, jaw
    skin = np.where(low.any(axis=1), low.argmax(axis=1), ROWS)
    middle = slice(ROWS * 2 // 5, ROWS * 3 // 5)
    taken = volume[: SLICES // 8].sum(axis=1)[:, middle]
    seen = skin[:, middle] < ROWS // 3
    assert seen.any()
    dy = float(first.PixelSpacing[0])
    assert np.median(taken[seen]) * dy >= least_mm  # of the face, in the median ray


def test_a_masked_slice_is_air_in_front_and_bit_for_bit_the_same_elsewhere() -> None:
    objects = in_order(series(4))
    sop_uid, part10 = objects[2]
    area = face_masks(objects)[sop_uid]
    picture = Picture(part10)
    picture.mask(area)
    after = dcmread(BytesIO(picture.written(options=(CLEAN_VISUAL_FEATURES,)).part10))
    before = dcmread(BytesIO(part10))
    assert (after.pixel_array[area] == before.pixel_array.min()).all()
    assert np.array_equal(after.pixel_array[~area], before.pixel_array[~area])
    assert after.DeidentificationMethodCodeSequence[-1].CodeValue == "113102"


@pytest.mark.parametrize(
    "change",
    [{"Modality": "MR"}, {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, {"PixelSpacing": None}],
)
def test_where_the_method_does_not_apply_there_are_no_masks(change: dict[str, object]) -> None:
    assert face_masks(series(5, **change)) == {}


def test_a_body_without_a_skull_gets_no_masks() -> None:
    objects = series(6)
    flat = []
    for sop_uid, part10 in objects:
        picture = Picture(part10)
        picture._stored[...] = np.minimum(picture._stored, picture._stored.min() + 1100)  # no bone
        flat.append((sop_uid, picture._native_bytes() and part10.replace(
            dcmread(BytesIO(part10)).PixelData, picture._native_bytes())))  # fmt: skip
    assert face_masks(flat) == {}


@pytest.mark.parametrize(
    ("change", "shows"),
    [
        ({}, True),
        ({"BodyPartExamined": ""}, True),
        ({"BodyPartExamined": "CHEST"}, False),
        ({"Modality": "MR"}, True),
        ({"Modality": "CR"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, False),
    ],
)
def test_what_may_show_a_face(change: dict[str, object], shows: bool) -> None:
    assert may_show_a_face(clean(ct(**change))[0].part10) is shows
