from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from edge_node.domain.finding import TriageOutcome, Verdict, result_from_json, result_to_json
from edge_node.triage.judge import Triage
from edge_node.worklist.priority import decide
from tests.unit.triage.hazards import FLAGGED, HAZARDS, Hazard, study
from tests.unit.triage.studies import clean_study, loaded


@pytest.fixture(scope="module")
def triage():
    model = loaded()
    yield Triage([model], threads=1, time_limit_s=60)
    model.process.close()


@pytest.mark.parametrize("hazard", HAZARDS, ids=lambda h: h.name)
def test_a_malformed_study_is_judged_right_or_not_at_all_and_says_why(triage, hazard: Hazard):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = clean_study(hazard.make(study()))
        result = triage.judge(made)
    finding = result.top
    said = [result.reason, *(finding.quality if finding else ())] + ([finding.reason] if finding else [])
    assert (str(finding.verdict) if finding else str(result.outcome)) == hazard.answer, said
    assert any(hazard.says in one for one in said), said
    assert result_from_json(result_to_json(result), result.key_image) == result
    if hazard.answer != FLAGGED:
        assert result.key_image is None
        places = [decide(arrival=0.0, order="STAT", patient_class="", finding=one) for one in (finding, None)]
        assert replace(places[0], reason="") == replace(places[1], reason="")
    else:
        assert result.outcome is TriageOutcome.FINDING
        assert finding is not None
        assert finding.verdict is Verdict.FLAGGED
