"""Clean elements are remembered by all that they depend on, and by nothing less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_node.deid import Deidentifier, functions, wire
from edge_node.deid.functions import FUNCTIONS, LOOKED_AT
from edge_node.deid.header import Header
from edge_node.deid.plan import Plan
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.recipe import load
from edge_node.deid.scene import set_scene
from edge_node.deid.wire import Element
from tests.unit.deid.elements import EXPLICIT, IMPLICIT
from tests.unit.deid.objects import KEY, RECIPE, ct, encoded, instance_of, received
from tests.unit.deid.remembering import BASIC, SYNTAXES, forget, outcome

LATIN, CYRILLIC = "ISO_IR 100", "ISO_IR 144"

HANG_ON: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "the patient": ({"PatientID": "PAT-420042"}, {"PatientID": "PAT-420043"}),
    "a patient without an ID": (
        {"PatientID": ""},
        {"PatientID": "", "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.7"},
    ),
    "a name": ({"OperatorsName": "Prefect^Ford"}, {"OperatorsName": "Kildare^James"}),
    "the character set": ({"SpecificCharacterSet": LATIN}, {"SpecificCharacterSet": CYRILLIC}),
    "how text is read": ({"SpecificCharacterSet": LATIN}, {"SpecificCharacterSet": "GB18030"}),
    "a list of values": ({"PatientComments": "contrast"}, {"PatientComments": "mm"}),
    "the code's scheme": ({"CodingSchemeDesignator": "DCM"}, {"CodingSchemeDesignator": "99OWN"}),
    "the code": ({"CodeValue": "113100"}, {"CodeValue": "113101"}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", SYNTAXES[:2])
@pytest.mark.parametrize("what", HANG_ON)
def test_what_is_remembered_of_elements_hangs_on_all_that_they_are_cleaned_by(
    own: Deidentifier, what: str, syntax: str
) -> None:
    """Objects that differ far away from what they have in common come in turns."""
    forget(own)
    series = []
    for number in range(24):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", CodeValue="113100", ImageComments="1 mm")
        ds.CodingSchemeDesignator, ds.PatientComments, ds.PerformedProcedureStepDescription = "DCM", "none", "FORD HEAD"
        ds.ProtocolName, ds.SequenceName, ds.FilterType, ds.ContrastBolusAgent = (
            "FORD 5 mm",
            "S",
            "JXmes 5mm",
            "contrast",
        )
        ds.SeriesDescription = "AXIAL XXHEAD"
        ds.AcquisitionDate, ds.AcquisitionTime, ds.SpecificCharacterSet = "20240301", "101600", LATIN
        for keyword, value in HANG_ON[what][number % 2].items():
            setattr(ds, keyword, value)
        data = encoded(ds, implicit=syntax == SYNTAXES[0])
        # bytes that are letters in both character sets, but not the same
        if what == "the character set":
            data = data.replace(b"Kildare^James", b"Kildare^J\xe1mes").replace(b"JXmes", b"J\xe1mes")
        data = data.replace(b"XXHEAD", b"\x81_HEAD")  # one letter in one of them, two in the other
        series.append(instance_of(data, syntax, str(ds.SOPClassUID), str(ds.SOPInstanceUID)))
    remembering = [outcome(own, one) for one in series]
    header = Header(own._headers)
    header.parse(series[-1].dataset, EXPLICIT if syntax == SYNTAXES[1] else IMPLICIT)
    covered = sum(len(run.node) for run in header.runs)
    assert covered > len(header.rest)
    assert any(len(run._cleaned) > 1 or len(run._words) > 1 for run in header.runs)
    for one, expected in zip(series, remembering, strict=True):
        forget(own)
        assert outcome(own, one) == expected
    assert len({answer[1] if len(answer) == 3 else answer[0] for answer in remembering}) > 1


class _Watched(dict[int, Element]):
    """Tells which elements are asked for."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: set[int] = set()

    def get(self, tag: int, otherwise: Any = None) -> Any:
        self.asked.add(tag)
        return super().get(tag, otherwise)

    def __getitem__(self, tag: int) -> Element:
        self.asked.add(tag)
        return super().__getitem__(tag)

    def __contains__(self, tag: object) -> bool:
        assert isinstance(tag, int)
        self.asked.add(tag)
        return super().__contains__(tag)


@pytest.mark.parametrize("name", [*FUNCTIONS, "keep_technical", "keep_term", "upper_words", "shift_private"])
def test_no_function_looks_at_other_elements_than_it_says(name: str) -> None:
    """What is remembered of an element is kept by these, too."""
    node = wire.parse(encoded(ct(CodeValue="113100", CodingSchemeDesignator="DCM")), EXPLICIT)
    scene = set_scene(node, Pseudonyms(KEY))
    for element in node.values():
        scene.node = watched = _Watched(node)
        if element.vr not in ("SQ", "OW", "US"):
            getattr(functions, name)(element, scene)
        assert watched.asked <= set(LOOKED_AT)


@pytest.mark.parametrize("recipe", ["basic.deid", "basic+research.deid", "strict.deid"])
def test_no_rule_looks_at_other_elements_than_it_says(recipe: str) -> None:
    plan = Plan(load(RECIPE.with_name(recipe), ()))
    node = wire.parse(encoded(ct(CodeValue="113100", CodingSchemeDesignator="DCM")), EXPLICIT)
    scene = set_scene(node, Pseudonyms(KEY))
    for tag, element in node.items():
        watched = _Watched(node)
        scene.node = watched
        plan._scrub({tag: element}, watched, scene, {})
        assert watched.asked <= set(LOOKED_AT)


def test_too_much_is_not_kept_but_cleaned_all_the_same(tmp_path: Path) -> None:
    forget(BASIC)
    words = [f"name{number}" for number in range(400)]
    for number in range(4):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", ProtocolName="AXIAL NAME7 HEAD")
        ds.OtherPatientNames = words
        assert b"NAME7" not in BASIC.clean(received(ds)).part10
    header = Header(BASIC._headers)
    header.parse(received(ds).dataset, EXPLICIT)
    assert header.runs
    assert not any(run._cleaned for run in header.runs)
    assert "Zaphod" not in repr([*header.runs, header, BASIC._headers])
