"""The text detector and its loop. Where the extra `ocr` is not installed, the model itself is not asked."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from edge_node.deid.burned_in import _local, mask_text
from edge_node.deid.pixels import Picture
from edge_node.deid.text_detector import TextBox, TextDetector, _blobs, _may_be_text, _resized, _shows, model_path
from tests.unit.deid.objects import clean, ct

PATH = model_path()
needs_model = pytest.mark.skipif(PATH is None, reason="the extra `ocr` is not installed")


def test_connected_areas_are_told_apart() -> None:
    chance = np.zeros((12, 20), np.float32)
    chance[1:4, 2:9] = 0.9
    chance[6:9, 3:7] = 0.5
    chance[3:9, 15] = chance[8, 11:16] = chance[3:9, 11] = 1.0  # a U: three runs, one area
    found = sorted(_blobs(np.maximum(chance, 0)))
    assert [(t, b, x0, x1) for t, b, x0, x1, _ in found] == [(1, 4, 2, 9), (3, 9, 11, 16), (6, 9, 3, 7)]
    assert [round(score, 3) for *_, score in found] == [0.9, 1.0, 0.5]


def test_an_outline_is_no_line_of_text_and_a_long_line_is() -> None:
    assert _may_be_text(TextBox(0, 0, 200, 20, 0.9), 512)
    assert not _may_be_text(TextBox(0, 0, 400, 300, 0.9), 512)
    assert not _may_be_text(TextBox(0, 0, 120, 100, 0.9), 512)
    assert _may_be_text(TextBox(0, 0, 480, 100, 0.9), 512)
    assert _may_be_text(TextBox(0, 0, 24, 20, 0.9), 64)
    assert not _may_be_text(TextBox(0, 0, 24, 20, 0.6), 64)  # a spot must be surer than a line
    assert _may_be_text(TextBox(0, 0, 60, 20, 0.6), 512)
    assert not _may_be_text(TextBox(0, 0, 480, 100, 0.6), 512)  # and so must what is thick


def test_resizing_keeps_the_mean_and_the_place() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[50:, :100] = 200
    for size in ((32, 64), (96, 192), (224, 448)):
        small = _resized(picture, *size)
        assert small.shape == (*size, 3)
        assert abs(float(small.mean()) - 50) < 3
        assert small[-2, 2, 0] == pytest.approx(200, abs=1)
        assert small[2, 2, 0] == pytest.approx(0, abs=1)


def test_what_cannot_be_seen_in_the_box_is_no_text() -> None:
    picture = np.full((40, 40, 3), 9, np.uint8)
    picture[:, 20:] += 3
    assert not _shows(TextBox(10, 10, 30, 20, 0.9), picture)
    picture[12:18, 22:26] = 200
    assert _shows(TextBox(10, 10, 30, 20, 0.9), picture)


def on_a_slope(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Letters 14 grey levels above a ground that goes from 40 to 200, with noise; and where they are."""
    ground = np.tile(np.linspace(40, 200, 360), (120, 1)) + np.random.default_rng(5).normal(0, 1.5, (120, 360))
    drawn = Image.new("L", (360, 120))
    ImageDraw.Draw(drawn).text((30, 50), text, fill=14, font=ImageFont.load_default(18))
    ink = np.asarray(drawn)
    return (ground + ink).clip(0, 255).astype(np.uint8), ink >= 10


def test_letters_close_to_their_ground_stand_out_when_contrast_is_equal_everywhere() -> None:
    shown, ink = on_a_slope("DOE^JOHN 12.03.1957")
    near = np.zeros_like(ink)
    near[44:76, 24:220] = True
    for reach in (12, 6):
        view = _local(shown[:, :, None].astype(np.float32), reach)[:, :, 0]
        assert view[ink].mean() - view[near & ~ink].mean() > 50
        assert abs(float(view[:, :60].mean()) - float(view[:, -60:].mean())) < 8  # the slope is gone


def radiograph(text: str, size: int) -> tuple[Picture, np.ndarray]:
    rng = np.random.default_rng(size)
    ground = rng.normal(90, 4, (400, 400)).clip(0, 255).astype(np.uint8)
    drawn = Image.fromarray(ground)
    ImageDraw.Draw(drawn).text((30, 60), text, fill=250, font=ImageFont.load_default(size))
    values = np.asarray(drawn)
    ds = ct(Rows=400, Columns=400, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0,
            PixelData=values.tobytes())  # fmt: skip
    return Picture(clean(ds)[0].part10), values != ground


@needs_model
@pytest.mark.parametrize("size", [12, 24, 44, 80])
def test_burned_in_names_are_masked_and_the_second_look_finds_nothing(size: int) -> None:
    assert PATH is not None
    picture, ink = radiograph("DOE^JOHN 1957", size)
    pixels, checked = mask_text(picture, TextDetector(PATH))
    assert checked
    assert pixels < 0.35 * 400 * 400
    assert picture._touched[ink].mean() > 0.97


@needs_model
def test_grey_on_a_similar_grey_is_masked() -> None:
    assert PATH is not None
    shown, ink = on_a_slope("DOE^JOHN 12.03.1957")
    ds = ct(Rows=120, Columns=360, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0,
            PixelData=shown.tobytes())  # fmt: skip
    picture = Picture(clean(ds)[0].part10)
    pixels, checked = mask_text(picture, TextDetector(PATH))
    assert checked
    assert picture._touched[ink].mean() > 0.97
    assert pixels < 0.4 * shown.size


@needs_model
def test_nothing_is_masked_where_no_text_is() -> None:
    assert PATH is not None
    picture, _ = radiograph(" ", 20)
    assert mask_text(picture, TextDetector(PATH)) == (0, True)
