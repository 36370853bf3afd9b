from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from edge_node.demo.chestfilm import turned
from edge_node.triage.card_tables import FilmTable
from edge_node.triage.film import read_films
from edge_node.triage.prepare import CannotJudge
from tests.unit.triage.films import film, header, made, phantom, sealed


def pixels(ds):
    return np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)


def test_a_film_shown_inverted_is_the_same_film_to_a_model():
    plain, inverted = made(film()), made(film(inverted=True))
    assert np.abs(plain.tensor - inverted.tensor).max() < 1e-6
    assert inverted.header.inverted
    assert np.abs(plain.tensor - made(film(modality="DX", inverted=True)).tensor).max() < 1e-6


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_however_a_film_lay_on_the_detector_the_model_sees_it_upright(quarters):
    upright, lying = made(film()), made(turned(film(), quarters))
    assert np.array_equal(upright.tensor, lying.tensor)
    assert not lying.header.notes


def test_a_mirrored_film_that_says_so_is_turned_round():
    ds = film()
    ds.PixelData, ds.PatientOrientation = np.ascontiguousarray(pixels(ds)[:, ::-1]).tobytes(), ["R", "F"]
    assert np.array_equal(made(ds).tensor, made(film()).tensor)
    assert header(ds).letters == ("L", "R", "H", "F")


def test_the_letters_of_a_film_are_those_of_its_header_or_none():
    assert header(film()).letters == ("R", "L", "H", "F")
    assert header(turned(film(), 1)).letters == ("H", "F", "L", "R")
    ds = film()
    del ds.PatientOrientation
    assert header(ds).letters == (" ", " ", " ", " ")
    assert any(note.startswith("film.orientation") for note in header(ds).notes)


def test_places_lead_back_to_the_stored_pixels():
    for quarters in range(4):
        ds = turned(film(), quarters)
        one = made(ds)
        plane = one.header.plane
        stored = pixels(ds)
        assert np.array_equal(plane.stored(plane.canonical(stored)), stored)
        assert np.array_equal(plane.canonical(stored), phantom(3, None).film)


def test_a_film_on_its_head_is_refused_only_where_the_header_does_not_say_so():
    ds = turned(film(), 2)
    del ds.PatientOrientation
    with pytest.raises(CannotJudge, match=r"film\.upside-down"):
        made(ds)
    upright = film()
    del upright.PatientOrientation
    assert np.array_equal(made(upright).tensor, made(film()).tensor)


def test_bits_and_exposure_do_not_matter():
    ds = film()
    ds.PixelData = (pixels(ds) * 7 + 900).astype("<u2").tobytes()
    ds.BitsStored, ds.HighBit = 16, 15
    assert np.abs(made(ds).tensor - made(film()).tensor).max() < 1e-5


def test_a_collimator_does_not_change_the_grey_scale():
    ds = film()
    framed = np.zeros((ds.Rows + 120, ds.Columns + 120), "<u2")
    framed[60:-60, 60:-60] = pixels(ds)
    ds.PixelData, ds.Rows, ds.Columns = framed.tobytes(), *framed.shape
    inside = made(ds).image[60:-60, 60:-60]
    assert np.abs(inside - made(film()).image).max() < 0.03


def test_the_square_holds_the_whole_film_and_cells_beside_it_do_not_count():
    one = made(film())
    rows, columns = one.image.shape
    assert one.side == max(rows, columns)
    inside = one.inside(32)
    assert inside.any()
    assert inside.sum() == pytest.approx(32 * 32 * min(rows, columns) / max(rows, columns), rel=0.05)


def small(ds):
    cut = pixels(ds)[:200, :200]
    ds.PixelData, ds.Rows, ds.Columns = np.ascontiguousarray(cut).tobytes(), *cut.shape


def vast(ds):
    ds.Rows = ds.Columns = 20_000


def flat(ds):
    ds.PixelData = np.full((ds.Rows, ds.Columns), 700, "<u2").tobytes()


def burnt(ds):
    ds.PixelData = np.minimum(pixels(ds), np.percentile(pixels(ds), 30)).astype("<u2").tobytes()


def a_limb(ds):
    y, x = np.mgrid[: ds.Rows, : ds.Columns] / ds.Rows - 0.5
    limb = 900 * np.exp(-(x**2) / 0.02) + 1500 * (np.abs(x) < 0.05) + 300 * np.random.default_rng(1).random(x.shape) + y
    ds.PixelData = limb.astype("<u2").tobytes()
    # A leg has its bone in the middle; turned by a right angle it has not even that.
    ds.PatientOrientation = ["F", "L"]


def a_leg(ds):
    """Upright: one bone in the middle of flesh that gets thinner on the way down, air to both sides."""
    y, x = np.mgrid[: ds.Rows, : ds.Columns] / ds.Rows - 0.5
    off = np.abs(x - 0.05 * y) / (0.25 - 0.1 * y)
    leg = 1800 * np.clip(1 - off**2, 0, 1) + 1200 * (off < 0.25) + 100 * np.random.default_rng(1).random(x.shape)
    ds.PixelData = leg.astype("<u2").tobytes()


def cut_off(ds):
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2 // 2 * 2]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (small, "film.too-small"),
        (vast, "film.too-large"),
        (flat, "film.blank"),
        (burnt, "film.clipped"),
        (a_limb, "film.not-a-chest"),
        (a_leg, "film.not-a-chest"),
        (cut_off, "decode.undecodable"),
    ],
)
def test_a_film_that_cannot_be_judged_says_why(spoil, reason):
    ds = film()
    spoil(ds)
    with pytest.raises(CannotJudge) as caught:
        made(ds)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("file", "chest"), [("RG1_UNCI.dcm", True), ("RG3_UNCI.dcm", False)])
def test_a_real_chest_is_shown_to_a_model_and_a_real_leg_that_says_chest_is_not(file, chest):
    place = importlib.util.find_spec("data_store")  # pydicom-data
    assert place is not None
    ds = dcmread(Path(place.submodule_search_locations[0]) / "data" / file)
    ds.BodyPartExamined = "CHEST"
    if chest:
        assert made(ds).tensor.shape == (1, 256, 256)
    else:
        with pytest.raises(CannotJudge, match=r"film\.not-a-chest: a field beside the middle is empty"):
            made(ds)


def test_air_beside_a_thin_patient_makes_no_limb_of_a_chest():
    ds = film()
    beside = round(0.3 * ds.Columns)  # more than four of the 24 bands on either side
    wide = np.pad(pixels(ds), ((0, 0), (beside, beside)), constant_values=pixels(ds).min())
    ds.PixelData, ds.Columns = wide.tobytes(), wide.shape[1]
    assert made(ds).image.shape == wide.shape


def test_a_card_may_take_films_of_anything():
    ds = film()
    a_limb(ds)
    assert made(ds, FilmTable(size=64, check="none")).tensor.shape == (1, 64, 64)


def set_(**values):
    def change(ds):
        for name, value in values.items():
            setattr(ds, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "unfit"),
    [
        (set_(PatientOrientation=["A", "F"]), "select.lateral"),
        (set_(ImageType=["DERIVED", "SECONDARY"]), "select.derived"),
        (set_(BitsStored=8), "select.8-bit"),
        (set_(PhotometricInterpretation="RGB", SamplesPerPixel=3), "select.colour"),
        (set_(NumberOfFrames=2), "select.frames-without-place"),
        (set_(ImageType=["DERIVED", "PRIMARY"]), ""),
    ],
)
def test_what_is_no_film_as_it_was_taken_is_left_out(change, unfit):
    ds = film()
    change(ds)
    assert header(ds).unfit == unfit


def test_a_film_that_cannot_be_parsed_is_counted_and_other_classes_are_passed_over():
    ds = film()
    del ds.Rows
    found, unreadable = read_films([sealed(ds), sealed(film(4))])
    assert (len(found), unreadable) == (1, 1)
    ds = film()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    assert read_films([sealed(ds)]) == ([], 0)
