from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from edge_node.demo.phantom import head_phantom
from edge_node.demo.trunk import trunk_phantom
from edge_node.domain.finding import TriageOutcome, Verdict, result_from_json, result_to_json
from edge_node.domain.model import Stage
from edge_node.triage import body_part
from edge_node.triage.headers import read_headers
from edge_node.triage.judge import Triage
from edge_node.triage.select import candidates
from edge_node.triage.series_volume import Volumes
from tests.unit.triage.films import BODY_PART, sealed
from tests.unit.triage.studies import clean_study, ct_slices, loaded

LATER = time.monotonic() + 3600
CONTRADICTED = "select.body-part: the pixels suggest CHEST, for which this model is not made"


@pytest.fixture(scope="module")
def models():
    made = [loaded(), loaded(BODY_PART)]
    yield made
    for model in made:
        model.process.close()


@pytest.fixture(scope="module")
def head():
    return head_phantom(77, kind=None, slices=22, rows=128)


def told(phantom, part, words="-"):
    """A series whose header says this body part, None nothing."""
    datasets = ct_slices(phantom)
    for ds in datasets:
        ds.StudyDescription = words
        if part is None:
            del ds.BodyPartExamined
        else:
            ds.BodyPartExamined = part
    return datasets


@pytest.mark.parametrize("region", ["chest", "abdomen", "legs"])
def test_a_series_without_a_body_part_is_declined_with_what_it_seems_to_show(models, region):
    phantom = trunk_phantom(501, region, slices=10, rows=96)
    result = Triage(models, time_limit_s=60).judge(clean_study(told(phantom, None)))
    assert result.outcome is TriageOutcome.NOT_APPLICABLE
    (one,) = result.suggestions
    assert one.value == {"chest": "CHEST", "abdomen": "ABDOMEN", "legs": "OTHER"}[region]
    assert (one.kind, one.said, one.model.name) == ("body-part", "", "ref-ct-body-part")
    words = f"(body part missing: suggests {one.value})"
    assert (words in result.reason) == (one.value != "OTHER")
    assert result_from_json(result_to_json(result)) == result


def test_a_head_that_does_not_say_so_is_not_judged_but_suggested(models, head):
    result = Triage(models, time_limit_s=60).judge(clean_study(told(head, None)))
    assert result.outcome is TriageOutcome.NOT_APPLICABLE
    assert result.reason.endswith("(body part missing: suggests HEAD)")
    assert not result.findings


def test_results_without_suggestions_can_still_be_read():
    text = '{"outcome": "SKIPPED", "reason": "r", "findings": []}'
    assert result_from_json(text).suggestions == ()


def test_what_was_decoded_for_a_finding_is_not_decoded_again(models, head):
    headers, _ = read_headers([sealed(ds) for ds in told(head, "HEAD")])
    series = candidates(headers, models[0].rule)[0]
    fresh, used = Volumes(1), Volumes(1)
    volume = used.of(series, LATER)
    alone = body_part._tensor(models[1], candidates(headers, models[1].rule)[0], fresh, LATER)
    after = body_part._tensor(models[1], candidates(headers, models[1].rule)[0], used, LATER)
    assert used.decoded == len(volume.hu)
    assert fresh.decoded == 0
    assert alone.shape == after.shape == (8, 3, 64, 64)
    assert np.abs(alone - after).max() < 1e-4


def in_stage(model, stage):
    return dataclasses.replace(model, stage=stage)


@pytest.fixture(scope="module")
def contradicted(models, head):
    """A judged head whose pixels seem to show a chest: headers, findings and the suggestion."""
    objects = [sealed(ds) for ds in told(head, "HEAD")]
    headers, _ = read_headers(objects)
    result = Triage(models[:1], time_limit_s=60).judge(clean_study(told(head, "HEAD")))
    (finding,) = result.findings
    (one,) = body_part.suggestions(models[1], headers, Volumes(1), LATER, 0)
    assert (one.value, one.said) == ("HEAD", "HEAD")
    return headers, [(finding, result.key_image)], dataclasses.replace(one, value="CHEST")


@pytest.mark.parametrize("stage", ["shadow", "information", "live"])
def test_a_contradiction_is_recorded_then_marked_then_a_reason_to_decline(models, contradicted, stage):
    headers, judged, one = contradicted
    one = dataclasses.replace(one, model=dataclasses.replace(one.model, stage=stage))
    ((finding, image),) = body_part.heeded(models, headers, judged, [one])
    before, picture = judged[0]
    assert before.verdict is Verdict.NOT_FLAGGED
    if stage == "shadow":
        assert (finding, image) == (before, picture)
    elif stage == "information":
        assert finding.quality == (*before.quality, CONTRADICTED)
        assert (finding.verdict, image) == (before.verdict, picture)
    else:
        assert (finding.verdict, finding.reason, image) == (Verdict.CANNOT_JUDGE, CONTRADICTED, None)
        assert finding.probability == 0


@pytest.mark.parametrize("stage", ["information", "live"])
def test_no_suggestion_takes_a_flag_away(models, contradicted, stage):
    headers, judged, one = contradicted
    one = dataclasses.replace(one, model=dataclasses.replace(one.model, stage=stage))
    flagged, picture = dataclasses.replace(judged[0][0], verdict=Verdict.FLAGGED, probability=0.9), judged[0][1]
    marked = dataclasses.replace(flagged, quality=(*flagged.quality, CONTRADICTED))
    assert body_part.heeded(models, headers, [(flagged, picture)], [one]) == [(marked, picture)]


@pytest.mark.parametrize("value", ["HEAD", "OTHER"])
def test_no_finding_suffers_from_a_suggestion_that_fits_or_says_nothing(models, contradicted, value):
    headers, judged, one = contradicted
    live = dataclasses.replace(one.model, stage="live")
    said = dataclasses.replace(one, value=value, model=live)
    assert body_part.heeded(models, headers, judged, [said]) == judged


def test_a_model_that_does_not_ask_for_a_body_part_is_not_declined(models, contradicted):
    from edge_node.triage.rule import parse

    headers, judged, one = contradicted
    live = dataclasses.replace(one, model=dataclasses.replace(one.model, stage="live"))
    for text in ('Modality == "CT"', 'Modality == "CT" and StudyDescription == "-" and BodyPartExamined != "X"'):
        careless = dataclasses.replace(models[0], rule=parse(text))
        assert body_part.heeded([careless, models[1]], headers, judged, [live]) == judged


def test_a_recogniser_out_of_service_is_no_missing_finding(models, head):
    broken = dataclasses.replace(models[1], fault="model.crashed: on purpose")
    chest, told_again = trunk_phantom(501, "chest", slices=10, rows=96), []
    triage = Triage([models[0], broken], time_limit_s=60, on_fault=told_again.append)
    result = triage.judge(clean_study(told(chest, None)))
    assert result.outcome is TriageOutcome.NOT_APPLICABLE
    assert result.suggestions == ()
    assert [one for one in result.unavailable if "model.crashed" in one]
    assert told_again == []  # it was told when it broke; a human may have brought it back since


def test_slices_that_are_not_axial_suggest_nothing(models):
    datasets = told(trunk_phantom(501, "chest", slices=9, rows=96), None)
    for ds in datasets:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    assert Triage(models, time_limit_s=60).judge(clean_study(datasets)).suggestions == ()


def test_a_table_and_an_empty_image_do_not_move_the_body_out_of_sight(models):
    spec = models[1].card.slabs_input.slices
    hu = np.full((128, 128), -1000, np.int16)
    assert body_part.slice_tensor(hu, 3, 3, spec).max() == 0
    hu[20:80, 30:100] = 40
    centred = body_part.slice_tensor(hu, 3, 3, spec)
    moved = body_part.slice_tensor(np.roll(hu, (24, 16), (0, 1)), 3, 3, spec)
    assert np.abs(centred - moved).max() < 0.02
    hu[118:121, 10:120] = 0
    with_table = body_part.slice_tensor(hu, 3, 3, spec)
    rows = [np.flatnonzero(one[1].sum(1) > 5)[0] for one in (centred, with_table)]
    assert abs(rows[0] - rows[1]) <= 2


def test_whatever_fails_in_a_recogniser_takes_no_finding_away(models, head, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(body_part, "suggestions", fails)
    result = Triage(models, time_limit_s=60).judge(clean_study(told(head, "HEAD")))
    assert result.outcome is TriageOutcome.FINDING
    assert [one for one in result.unavailable if one.endswith("internal.RuntimeError")]


def test_a_recogniser_that_speaks_does_not_put_the_others_on_trial(models, head):
    live = in_stage(models[1], Stage.LIVE)
    shadow = in_stage(models[0], Stage.SHADOW)
    result = Triage([shadow, live], time_limit_s=60).judge(clean_study(told(head, "HEAD")))
    assert result.findings[0].verdict is Verdict.NOT_FLAGGED
    assert result.suggestions[0].model.stage == Stage.LIVE
