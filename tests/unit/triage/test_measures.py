from __future__ import annotations

import copy

import pytest
from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from edge_node.domain.finding import TriageOutcome, result_from_json, result_to_json
from edge_node.triage.header_quality import header_quality
from edge_node.triage.judge import Triage
from edge_node.triage.measures import MEASURES, refuse, score
from edge_node.triage.prepare import CannotJudge
from tests.unit.triage.hazards import study
from tests.unit.triage.studies import clean_object, clean_study


def radiograph(**values: object) -> Dataset:
    ds = copy.deepcopy(study()[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    ds.Modality = "CR"
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def alerts(ds: Dataset) -> list[str]:
    (one,) = header_quality([clean_object(ds)]).values()
    return [s.name for s in one.alerts]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"BodyPartExamined": "HAND"}, ["laterality"]),
        ({"BodyPartExamined": "HAND", "ImageLaterality": "L"}, []),
        ({"BodyPartExamined": "HAND", "Laterality": "R"}, []),
        ({"BodyPartExamined": "CHEST"}, []),
        ({"BodyPartExamined": ""}, ["body-part"]),
    ],
)
def test_body_part_and_side_are_asked_of_what_has_two_sides(values, names):
    assert alerts(radiograph(**values)) == names


def test_a_study_that_no_model_is_made_for_still_has_its_quality_kept():
    result = Triage([], time_limit_s=60).judge(clean_study([radiograph(BodyPartExamined="HAND")]))
    assert result.outcome is TriageOutcome.NOT_APPLICABLE
    (one,) = result.inputs
    assert [s.note.split(":")[0] for s in one.alerts] == ["quality.laterality"]
    assert not one.pixels
    assert result_from_json(result_to_json(result)) == result


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_says_itself_in_a_sentence_when_it_is_beyond_its_limit(name):
    limit = MEASURES[name][1]
    assert score(name, limit, {}).note == ""
    told = score(name, limit + 1, {})
    assert told.note.startswith(f"quality.{name}: ")
    assert "{" not in told.note
    assert score(name, limit + 1, {name: limit + 2}).good


def test_a_card_may_refuse_earlier_or_later_than_the_default():
    noise = (score("noise", 55, {}),)
    with pytest.raises(CannotJudge, match=r"^quality\.noise"):
        refuse(noise, {})
    refuse(noise, {"noise": 70})
    with pytest.raises(CannotJudge, match=r"^quality\.metal"):
        refuse((score("metal", 0.3, {}),), {"metal": 0.2})
