"""Several recipes at once: each object gets the one its association and its modality ask for, always the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edge_node.deid import Deidentifier, patient_key, study_key_of
from edge_node.deid.choice import Choice, Recipes, modality_of
from edge_node.deid.lint import lint
from edge_node.domain.body import Memory
from edge_node.domain.errors import Stop
from edge_node.domain.selection import Condition, plain
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.objects import KEY, RECIPE, ct, received

STRICT = RECIPE.with_name("strict.deid")
EVERYTHING = Condition()


def sent(ds: Dataset, calling: str = "CT1", called: str = "EDGENODE") -> IdentifiedInstance:
    return replace(received(ds), calling_ae=calling, called_ae=called)


RECIPES = Recipes(
    [
        Choice(Condition(called=plain(["LUNG"])), RECIPE, "LUNG-1"),
        Choice(Condition(calling=plain(["CT1"]), modalities=plain(["SR", "US"])), STRICT),
        Choice(EVERYTHING, RECIPE),
    ],
    KEY,
    version="1",
)


@pytest.mark.parametrize(
    ("calling", "called", "modality", "recipe", "trial"),
    [
        ("CT1", "EDGENODE", "CT", "basic", ""),
        ("CT1", "EDGENODE", "US", "strict", ""),
        ("CT1", "EDGENODE", "us", "strict", ""),
        ("CT1", "EDGENODE", "", "basic", ""),
        ("CT2", "EDGENODE", "US", "basic", ""),
        ("CT1", "LUNG", "US", "basic", "LUNG-1"),
        ("  CT1", " LUNG ", "CT", "basic", "LUNG-1"),
    ],
)
def test_an_object_gets_the_first_recipe_that_fits(
    calling: str, called: str, modality: str, recipe: str, trial: str
) -> None:
    chosen = RECIPES.engine_for(sent(ct(Modality=modality), calling, called)).recipe_id
    assert (chosen.name, chosen.trial) == (recipe, trial)


def test_the_clean_object_names_the_recipe_that_was_chosen() -> None:
    for ds, name in ((ct(), "basic"), (ct(Modality="US"), "strict")):
        made = RECIPES.deidentify(sent(ds)).instance
        assert made.recipe.name == name
        method = str(dcmread(BytesIO(made.part10)).DeidentificationMethod)
        assert f"recipe {name} {made.recipe.sha256[:32]}" in method
    assert [one.name for one in RECIPES.ids] == ["basic", "strict", "basic"]


def test_the_same_object_sent_the_same_way_gives_the_same_bytes() -> None:
    again = Recipes([Choice(EVERYTHING, RECIPE, "LUNG-1")], KEY, version="1")
    one = RECIPES.deidentify(sent(ct(), called="LUNG"))
    other = again.deidentify(sent(ct(), called="LUNG"))
    assert (one.instance, one.source_digest) == (other.instance, other.source_digest)


def test_a_trial_has_pseudonyms_and_a_shift_of_its_own_and_the_node_keeps_its_names() -> None:
    site, trial = (RECIPES.deidentify(sent(ct(), called=called)).instance for called in ("EDGENODE", "LUNG"))
    assert (site.study_key, site.patient_key) == (trial.study_key, trial.patient_key)
    assert site.study_key == study_key_of(KEY, str(ct().StudyInstanceUID))
    assert site.patient_key == patient_key(KEY, "PAT-420042")
    here, there = (dcmread(BytesIO(one.part10)) for one in (site, trial))
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDate"):
        assert here[keyword].value != there[keyword].value, keyword
    assert there.FrameOfReferenceUID != here.FrameOfReferenceUID


def test_one_recipe_of_two_rules_is_built_once() -> None:
    ids = Recipes([Choice(Condition(plain(["A"])), RECIPE), Choice(EVERYTHING, RECIPE)], KEY, version="1")
    assert ids.engine_for(sent(ct(), "A")) is ids.engine_for(sent(ct(), "B"))


@pytest.mark.parametrize("choices", [[], [Choice(Condition(plain(["A"])), RECIPE)]])
def test_something_must_hold_for_everything_else(choices: list[Choice]) -> None:
    with pytest.raises(ValueError, match="fit everything"):
        Recipes(choices, KEY, version="1")


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian],
)
def test_the_modality_is_read_in_every_byte_order_and_only_at_the_top(syntax: str) -> None:
    ds = ct(Modality="MR")
    item = Dataset()
    item.Modality = "SR"
    ds.LanguageCodeSequence = ds.ReferencedImageSequence = [item, item]  # before it and behind it
    assert modality_of(received(ds, syntax)) == "MR"


def test_the_modality_of_a_deflated_object_is_read(tmp_path: Path) -> None:
    import zlib

    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain_bytes = received(ct(Modality="NM")).dataset
    data = engine.compress(plain_bytes) + engine.flush()
    assert modality_of(received(ct(), DeflatedExplicitVRLittleEndian, data)) == "NM"


def test_a_modality_behind_a_long_front_is_still_found() -> None:
    data = received(ct(Modality="PT")).dataset
    front = b"\x08\x00\x01\x00UN\x00\x00" + (70_000).to_bytes(4, "little") + bytes(70_000)
    assert modality_of(received(ct(), data=front + data)) == "PT"


@given(st.binary(max_size=200), st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "9.9", ""]))
def test_the_modality_of_anything_is_a_text(data: bytes, syntax: str) -> None:
    assert isinstance(modality_of(replace(received(ct()), source=Memory(data), transfer_syntax=syntax)), str)


def own(folder: Path, lines: str) -> Path:
    path = folder / "own.deid"
    path.write_text("FORMAT dicom\n\n%header\n" + lines)
    return path


def test_a_recipe_has_its_own_variables(tmp_path: Path) -> None:
    path = own(tmp_path, "ADD ClinicalTrialProtocolID var:protocol\n")
    recipes = Recipes(
        [
            Choice(Condition(plain(["A"])), path, "X", {"protocol": "P-1"}),
            Choice(Condition(plain(["B"])), path, "X", {"protocol": "P-2", "unused": "1"}),
            Choice(EVERYTHING, RECIPE, "", {"unused": "1"}),
        ],
        KEY,
        version="1",
    )
    told = [dcmread(BytesIO(recipes.deidentify(sent(ct(), a)).instance.part10)) for a in "AB"]
    assert [ds.ClinicalTrialProtocolID for ds in told] == ["P-1", "P-2"]
    assert len({one.sha256 for one in recipes.ids}) == 3
    assert recipes.ids[2].sha256 == RECIPES.ids[2].sha256  # a variable that a recipe does not use changes nothing


@pytest.mark.parametrize("days", ["x", "0", "1.5", ""])
def test_a_shift_by_a_variable_that_is_no_number_of_days_is_refused_with_its_line(tmp_path: Path, days: str) -> None:
    path = own(tmp_path, "JITTER StudyDate var:days\n")
    given: Mapping[str, str] = {"days": days}
    with pytest.raises(Stop, match=r"own\.deid:4: the variable 'days' is no number of days"):
        Deidentifier(path, KEY, version="1", variables=given)
    assert [(f.line, f.error) for f in lint(path, given) if f.error] == [(4, True)]
    assert not any(f.error for f in lint(path, {"days": "-31"}))
    assert not any(f.error for f in lint(path, ["days"]))


def test_a_clinical_trial_module_that_is_not_whole_is_doubtful(tmp_path: Path) -> None:
    lines = [
        "ADD ClinicalTrialProtocolID X",
        "ADD ClinicalTrialProtocolName X",
        "ADD ClinicalTrialSponsorName X",
        "ADD ClinicalTrialSiteID X",
        "ADD ClinicalTrialSiteName X",
        "ADD ClinicalTrialSubjectReadingID func:pseudonym_patient",
    ]
    assert not [f for f in lint(own(tmp_path, "\n".join(lines))) if f.line]
    [doubt] = [f for f in lint(own(tmp_path, "\n".join(lines[1:5]))) if f.line]
    assert (doubt.line, doubt.error) == (4, False)
    assert "needs ClinicalTrialProtocolID, ClinicalTrialSubjectID too" in doubt.what
    assert not [f for f in lint(own(tmp_path, "REMOVE ClinicalTrialProtocolID")) if f.line]
