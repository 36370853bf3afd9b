"""Labels of images: when their conditions are true, and which boxes they draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.deid.fields import BadField, parse_field
from edge_node.deid.filters import Condition, Filter
from tests.unit.deid.recipes import told


def label(tmp_path: Path, *lines: str) -> Filter:
    recipe, findings = told(tmp_path, "%filter g\nLABEL a\n" + "\n".join(lines) + "\n%header\nKEEP Rows\n")
    assert not findings
    return recipe.filters[0]


@pytest.mark.parametrize(
    ("lines", "said", "holds"),
    [
        (["contains Modality c"], ["CT"], True),
        (["contains Modality ^t"], ["CT"], False),
        (["notcontains Modality c"], ["MR"], True),
        (["notcontains Modality c"], ["CT", "MR"], False),
        (["notcontains Modality c"], None, True),
        (["equals Modality ct"], [" CT "], True),
        (["equals Modality c"], ["CT"], False),
        (["equals Modality MR|CT"], ["ct"], True),
        (["equals Modality MR|CT"], ["mr|ct"], True),
        (["notequals Modality MR | CT"], ["CT"], False),
        (["notequals Modality MR|CT"], ["US"], True),
        (["notequals Modality CT"], None, True),
        (["missing Modality"], None, True),
        (["missing Modality"], [], False),
        (["present Modality"], [], True),
        (["present Modality"], None, False),
        (["empty Modality"], [" ", ""], True),
        (["empty Modality"], ["x"], False),
        (["empty Modality"], None, False),
        (["contains Modality C + contains Modality T"], ["CT"], True),
        (["contains Modality C + contains Modality X"], ["CT"], False),
        (["contains Modality X || contains Modality T"], ["CT"], True),
        (["contains Modality X", "contains Modality T"], ["CT"], True),
        (["contains Modality X", "+ contains Modality T"], ["CT"], False),
        (["contains Modality C", "+ contains Modality T"], ["CT"], True),
        (["contains Modality X", "|| contains Modality T"], ["CT"], True),
        (["contains Modality X || contains Modality C", "+contains Modality T"], ["CT"], True),
        (["+ contains Modality C"], ["CT"], True),
        (["contains Modality C", "|| contains Modality X", "+ contains Modality Y"], ["CT"], False),
        (["contains Modality X", "|| contains Modality C", "+ contains Modality T"], ["CT"], True),
        (["equals Modality C+T"], ["c+t"], True),
        (["contains Modality C + contains Modality T + contains Modality X"], ["CT"], False),
        (["contains Modality C + contains Modality X || contains Modality T"], ["CT"], True),
        (["contains Modality X || contains Modality C + contains Modality Y || contains Modality T"], ["CT"], True),
        (["EQUALS Modality C + EQUALS Modality C"], ["c"], True),
    ],
)
def test_a_label_holds_an_image_when_its_conditions_are_true(
    lines: list[str], said: list[str] | None, holds: bool, tmp_path: Path
) -> None:
    one = label(tmp_path, *lines)
    assert one.holds(lambda tag: said if tag == 0x00080060 else None) is holds
    assert one.fields == {0x00080060}


def test_conditions_and_boxes_are_read_in_every_spelling(tmp_path: Path) -> None:
    one = label(tmp_path, "Contains 0x0008103E  two words ", "CoordinateS 1, 2, 3, 4", "ctpcoordinates 1,2,3,4",
                "keepcoordinates ALL", "keepcoordinates from:SequenceOfUltrasoundRegions")  # fmt: skip
    assert one.checks == ((("", (("", Condition("contains", 0x0008103E, "two words")),)),),)
    assert [(box.keep, box.area, box.source) for box in one.boxes] == [
        (False, (1, 2, 3, 4), 0),
        (False, (1, 2, 4, 6), 0),
        (True, (), 0),
        (True, (), 0x00186011),
    ]
    with pytest.raises(BadField, match="select: is followed") as caught:
        parse_field("select:VR")
    assert str(caught.value) == caught.value.what
