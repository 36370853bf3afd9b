from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge_node.demo.chestfilm import turned
from edge_node.demo.phantom import head_phantom
from edge_node.domain.errors import Retry
from edge_node.domain.finding import TriageOutcome, Verdict, result_from_json, result_to_json
from edge_node.triage import film_judge
from edge_node.triage.film import made_of
from edge_node.triage.judge import Triage
from edge_node.triage.model import ModelFault
from edge_node.triage.runner import OutOfTime
from tests.unit.triage.films import CHEST, film, phantom
from tests.unit.triage.studies import clean_study, ct_slices, loaded

PTX, OPACITY = "36118008", "112001"
# Phantoms that the model finds; the card says how many it misses.
POSITIVES = ((PTX, "pneumothorax", 30), (OPACITY, "nodule", 35), (OPACITY, "consolidation", 32))


@pytest.fixture(scope="module")
def triage():
    model = loaded(CHEST)
    yield Triage([model], threads=1, time_limit_s=60)
    model.process.close()


def said(result, code):
    return next(one for one in result.findings if one.code.value == code)


def bits(mask):
    unpacked = np.unpackbits(np.frombuffer(mask.bits, np.uint8), bitorder="little")
    return unpacked[: mask.rows * mask.columns].reshape(mask.rows, mask.columns).astype(bool)


@pytest.mark.parametrize(("code", "kind", "seed"), POSITIVES)
def test_what_was_put_in_is_flagged_and_the_box_meets_it(triage, code, kind, seed):
    result = triage.judge(clean_study([film(seed, kind)]))
    finding = said(result, code)
    assert finding.verdict is Verdict.FLAGGED
    assert finding.box is not None
    top, left, bottom, right = finding.box
    assert phantom(seed, kind).mask[top:bottom, left:right].any()
    assert finding.model.label == "reference model, synthetic training data, not for clinical use"
    assert result_from_json(result_to_json(result), result.key_image) == result
    assert result.key_image is not None
    if result.top == finding:
        assert (bits(result.key_image.mask) & phantom(seed, kind).mask).any()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_film_that_lies_otherwise_gets_the_same_answer_at_the_same_place(triage, quarters):
    code, kind, seed = POSITIVES[0]
    upright = said(triage.judge(clean_study([film(seed, kind)])), code)
    result = triage.judge(clean_study([turned(film(seed, kind), quarters)]))
    lying = said(result, code)
    assert lying.probability == pytest.approx(upright.probability, abs=1e-5)
    rows, columns = phantom(seed, kind).film.shape
    marked = np.zeros((rows, columns), bool)
    marked[upright.box[0] : upright.box[2], upright.box[1] : upright.box[3]] = True
    top, left, bottom, right = lying.box
    assert np.rot90(marked, quarters)[top:bottom, left:right].mean() > 0.95
    assert result.key_image.mask is None or bits(result.key_image.mask).shape == np.rot90(marked, quarters).shape


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_monochrome1_and_2_are_one_film(triage, modality):
    code, kind, seed = POSITIVES[0]
    plain, inverted = (
        said(triage.judge(clean_study([film(seed, kind, modality=modality, inverted=one)])), code)
        for one in (False, True)
    )
    assert plain.probability == pytest.approx(inverted.probability, abs=1e-5)
    assert plain.box == inverted.box


def test_of_two_films_the_stronger_answer_counts_and_the_other_order_changes_nothing(triage):
    code, kind, seed = POSITIVES[0]
    one, two = film(seed, kind), film(3)
    two.StudyInstanceUID, two.SeriesInstanceUID = one.StudyInstanceUID, one.SeriesInstanceUID
    for both in ((one, two), (two, one)):
        result = triage.judge(clean_study(both))
        assert len(result.findings) == 2
        assert said(result, code).key_sop_uid == one.SOPInstanceUID


def test_a_lateral_view_beside_the_frontal_one_is_left_out(triage):
    frontal, lateral = film(POSITIVES[0][2], POSITIVES[0][1]), film(4)
    lateral.SeriesInstanceUID, lateral.PatientOrientation = frontal.SeriesInstanceUID, ["A", "F"]
    result = triage.judge(clean_study([frontal, lateral]))
    assert "select.lateral: 1 lateral views left out" in result.findings[0].quality
    lateral.ViewPosition = "LL"
    assert triage.judge(clean_study([lateral])).outcome is TriageOutcome.NOT_APPLICABLE


def test_a_film_of_something_else_or_without_a_body_part_is_not_applicable(triage):
    for part in ("HAND", ""):
        ds = film()
        ds.BodyPartExamined = part
        del ds.SeriesDescription
        result = triage.judge(clean_study([ds]))
        assert result.outcome is TriageOutcome.NOT_APPLICABLE
        assert not result.findings


def test_an_image_made_to_be_looked_at_is_not_applicable_and_says_why(triage):
    ds = film()
    ds.ImageType = ["DERIVED", "SECONDARY"]
    result = triage.judge(clean_study([ds]))
    assert result.outcome is TriageOutcome.NOT_APPLICABLE
    assert "select.derived: 1 derived images left out" in result.reason


def test_a_film_that_cannot_be_judged_is_said_to_be_so_and_never_not_flagged(triage):
    ds = film()
    ds.PixelData = np.full((ds.Rows, ds.Columns), 700, "<u2").tobytes()
    result = triage.judge(clean_study([ds]))
    (finding,) = result.findings
    assert finding.verdict is Verdict.CANNOT_JUDGE
    assert finding.reason.startswith("film.blank")
    good = film(POSITIVES[0][2], POSITIVES[0][1])
    ds.SeriesInstanceUID = good.SeriesInstanceUID
    both = triage.judge(clean_study([ds, good]))
    assert said(both, PTX).key_sop_uid == good.SOPInstanceUID
    assert any(note.startswith("film.blank") and "one of 2 films" in note for note in both.findings[0].quality)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutOfTime(), "triage.time-limit"),
        (Retry("triage.inference-failed", "on purpose"), "triage.inference-failed"),
        (ValueError(), "internal.ValueError"),
    ],
)
def test_a_film_that_fails_takes_no_flag_of_another_along_and_leaves_nothing_not_flagged(
    triage, monkeypatch, error, code
):
    sick, failing = film(POSITIVES[0][2], POSITIVES[0][1]), film(3)
    failing.SeriesInstanceUID = sick.SeriesInstanceUID

    def made(header, spec):
        if header.item.sop_uid == failing.SOPInstanceUID:
            raise error
        return made_of(header, spec)

    monkeypatch.setattr(film_judge, "made_of", made)
    for both in ((sick, failing), (failing, sick)):
        finding = said(triage.judge(clean_study(both)), PTX)
        assert finding.verdict is Verdict.FLAGGED
        assert f"{code}: 1 of 2 films not judged" in finding.quality
    well = film(5)
    well.SeriesInstanceUID = sick.SeriesInstanceUID
    if isinstance(error, OutOfTime):
        assert triage.judge(clean_study([well, failing])).outcome is TriageOutcome.SKIPPED
    else:
        with pytest.raises(type(error)):
            triage.judge(clean_study([well, failing]))


def test_a_model_that_dies_on_a_film_takes_the_flag_of_the_film_before_not_along(triage, monkeypatch):
    films = [film(POSITIVES[0][2], POSITIVES[0][1]), film(3), film(5)]
    for number, one in enumerate(films):
        one.SeriesInstanceUID, one.SOPInstanceUID = "2.25.7", f"2.25.7.{number}"

    def made(header, spec):
        if header.item.sop_uid != films[0].SOPInstanceUID:
            raise ModelFault("model.crashed", "on purpose")
        return made_of(header, spec)

    monkeypatch.setattr(film_judge, "made_of", made)
    finding = said(triage.judge(clean_study(films)), PTX)
    assert finding.verdict is Verdict.FLAGGED
    assert "model.crashed: 2 of 3 films not judged" in finding.quality
    [refused] = triage.judge(clean_study(films[1:])).findings
    assert (refused.verdict, refused.reason) == (Verdict.CANNOT_JUDGE, "model.crashed: on purpose")


def test_a_radiograph_that_cannot_be_parsed_is_skipped(triage):
    ds = film()
    del ds.Rows
    result = triage.judge(clean_study([ds]))
    assert result.outcome is TriageOutcome.SKIPPED
    assert result.reason.startswith("triage.unreadable")


def test_films_are_nobodys_subject_where_no_model_looks_at_them(triage):
    result = Triage([], time_limit_s=60).judge(clean_study([film()]))
    assert result.outcome is TriageOutcome.NOT_APPLICABLE
    missing = Triage([], time_limit_s=60, absent=["ref-cr-chest 1.0.0: model.crashed: twice"])
    assert missing.judge(clean_study([film()])).outcome is TriageOutcome.SKIPPED
    broken = dataclasses.replace(triage.models[0], fault="model.crashed: on purpose")
    assert Triage([broken], time_limit_s=60).judge(clean_study([film()])).outcome is TriageOutcome.SKIPPED


def test_a_ct_study_is_nothing_to_a_model_of_films(triage):
    slices = ct_slices(head_phantom(1, kind=None, slices=8, rows=64))
    assert triage.judge(clean_study(slices)).outcome is TriageOutcome.NOT_APPLICABLE


def test_films_that_take_too_long_are_skipped(triage):
    late = Triage(triage.models, time_limit_s=0.001).judge(clean_study([film()]))
    assert late.outcome is TriageOutcome.SKIPPED
    assert late.reason.startswith("triage.time-limit")


def test_the_watch_gets_facts_of_the_film(triage):
    seen = dict(triage.judge(clean_study([film()])).findings[0].seen)
    assert set(seen) == {"scanner", "protocol", "film middle", "film spread", "film noise"}
    assert seen["scanner"] == "Toy Scanners Plate One"
