"""A recipe compiled: which rule counts where, what is kept on purpose, and what becomes of a whole data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.deid import wire
from edge_node.deid.plan import Plan
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.recipe import load
from edge_node.deid.scene import set_scene
from edge_node.deid.wire import Element, Node
from edge_node.domain.errors import Stop

KEY = bytes(range(32))
DATE, SERIES_DATE, TIME, ID, TEXT, FRAME = 0x00080020, 0x00080021, 0x00080030, 0x00200010, 0x00081030, 0x00200052
REQUESTS, REFERENCES, COMMENTS = 0x00400275, 0x00081140, 0x00204000


def plan(tmp_path: Path, text: str, name: str = "own", **variables: str) -> Plan:
    path = tmp_path / f"{name}.deid"
    path.write_text("FORMAT dicom\n" + text)
    return Plan(load(path, variables), variables)


def cleaned(made: Plan, *elements: Element, big: bool = False) -> Node:
    node = {0x00100010: Element(0x00100010, "PN", b"Zorblax"), **{one.tag: one for one in elements}}
    scene = set_scene(node, Pseudonyms(KEY))
    scene.shift_days, scene.big = -7, big
    return made.scrub(node, scene)


def values(made: Plan, *elements: tuple[int, str, bytes]) -> dict[int, bytes]:
    return {one.tag: one.value for one in cleaned(made, *(Element(*one) for one in elements)).values()}


def test_a_plan_is_known_by_its_recipe_its_name_and_the_variables_it_uses(tmp_path: Path) -> None:
    text = "%header\nREPLACE StudyID var:room\nADD PatientComments var:recipe_name\n"
    known = plan(tmp_path, text, room="7", days="3").sha256
    assert known == plan(tmp_path, text, room="7", days="4").sha256
    others = [plan(tmp_path, text, room="8").sha256, plan(tmp_path, text, "other", room="7").sha256]
    others.append(plan(tmp_path, text + "KEEP Rows\n", room="7").sha256)
    assert len({known, *others}) == 4
    named = "%header\nKEEP Rows\n"
    assert plan(tmp_path, named).sha256 != plan(tmp_path, named, "other").sha256


def test_a_variable_that_is_no_number_of_days_stops_the_role(tmp_path: Path) -> None:
    for days, fits in (("-31", True), ("+3", True), ("0", False), ("soon", False)):
        if fits:
            plan(tmp_path, "%header\nJITTER StudyDate var:days\n", days=days)
        else:
            with pytest.raises(Stop, match=r"own\.deid:3: the variable 'days' is no number of days") as caught:
                plan(tmp_path, "%header\nJITTER StudyDate var:days\n", days=days)
            assert caught.value.code == "deid.recipe-invalid"
            assert caught.value.hint == "a number such as -31"


@pytest.mark.parametrize(
    ("rules", "structured", "shifts"),
    [
        ("KEEP ContentSequence", True, False),
        ("KEEP Rows", False, False),
        ("REMOVE ContentSequence", False, False),
        ("KEEP ALL", True, False),
        ("JITTER StudyDate 3", False, True),
        ("JITTER StudyDate var:patient_shift", False, True),
        ("JITTER select:VR:DA 3", False, True),
        ("REPLACE StudyDate func:shift_date", False, True),
        ("REPLACE StudyDate func:dummy", False, False),
        ("KEEP StudyDate", False, False),
        ("JITTER StudyTime 3", False, False),
    ],
)
def test_a_plan_says_whether_reports_and_intervals_stay(
    rules: str, structured: bool, shifts: bool, tmp_path: Path
) -> None:
    made = plan(tmp_path, f"%header\n{rules}\n")
    assert (made.structured, made.shifts_dates) == (structured, shifts)


def test_dates_and_uids_that_are_kept_on_purpose_are_known_and_nothing_else(tmp_path: Path) -> None:
    dates, uids, moments = (set(wire.tags_of(vr)) for vr in ("DA", "UI", "DT"))
    kept = plan(tmp_path, "%header\nKEEP select:VR:DA\nKEEP select:VR:UI\nREMOVE StudyDate\nKEEP StudyID\n").kept
    assert kept == (dates - {DATE}) | uids | {ID}
    assert plan(tmp_path, "%header\nKEEP select:VR:DT\n").kept == moments
    for rules in (
        "KEEP select:VR:LO",
        "REMOVE select:VR:DA",
        "KEEP contains:Date",
        "JITTER select:VR:DA 3",
        "KEEP ALL",
    ):
        assert plan(tmp_path, f"%header\n{rules}\n").kept == frozenset()
    later = plan(tmp_path, "%header\nKEEP select:VR:DA\nREMOVE contains:StudyDate\n").kept
    assert later == dates - {tag for tag in dates if "StudyDate" in wire_name(tag)}
    private = '%header\nKEEP (0019,"A",01)\nREMOVE (0019,"A",02)\nBLANK (0019,"B",03)\nREPLACE (0021,"B",04) x\n'
    assert plan(tmp_path, private).kept_private == {(0x0019, "A", 1), (0x0021, "B", 4)}


def wire_name(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return str(keyword_for_tag(tag))


def test_a_list_of_fields_counts_for_each_of_them_that_has_no_rule_of_its_own(tmp_path: Path) -> None:
    text = (
        "%fields some\nFIELD StudyID\nFIELD SeriesDescription\nFIELD contains:Comments\n"
        "FIELD RequestAttributesSequence__StudyID\nFIELD AccessionNumber\n"
        "%header\nKEEP StudyID\nKEEP RequestAttributesSequence\nREPLACE fields:some x\n"
    )
    made = plan(tmp_path, text)
    inner = {ID: Element(ID, "SH", b"inner")}
    node = cleaned(
        made,
        Element(ID, "SH", b"seven "),
        Element(0x0008103E, "LO", b"text"),
        Element(COMMENTS, "LT", b"text"),
        Element(0x00080050, "SH", b"text"),
        Element(REQUESTS, "SQ", items=[inner]),
    )
    assert {tag: node[tag].value for tag in (ID, 0x0008103E, COMMENTS, 0x00080050)} == {
        ID: b"seven ",
        0x0008103E: b"x",
        COMMENTS: b"x",
        0x00080050: b"x",
    }
    assert (node[REQUESTS].items or [])[0][ID].value == b"x"


def test_a_rule_for_a_place_counts_there_and_its_item_may_be_named(tmp_path: Path) -> None:
    text = (
        "%header\nKEEP ImageComments\nKEEP RequestAttributesSequence\nKEEP ReferencedImageSequence\n"
        "REPLACE RequestAttributesSequence__1__StudyID second\nREPLACE RequestAttributesSequence__StudyID any\n"
        "REMOVE RequestAttributesSequence__ImageComments\nREPLACE StudyID top\n"
        "ADD RequestAttributesSequence__PatientComments added\n"
    )
    made = plan(tmp_path, text)
    item = {ID: Element(ID, "SH", b"a"), COMMENTS: Element(COMMENTS, "LT", b"lung")}
    node = cleaned(
        made,
        Element(ID, "SH", b"a"),
        Element(COMMENTS, "LT", b"lung"),
        Element(REQUESTS, "SQ", items=[dict(item), dict(item), dict(item)]),
        Element(REFERENCES, "SQ", items=[dict(item)]),
    )
    requests, references = node[REQUESTS].items or [], node[REFERENCES].items or []
    assert [one[ID].value for one in requests] == [b"any", b"second", b"any"]
    assert [COMMENTS in one for one in requests] == [False] * 3
    assert [one[0x00104000].value for one in requests] == [b"added"] * 3
    assert (node[ID].value, references[0][ID].value) == (b"top", b"top")
    assert COMMENTS in node
    assert COMMENTS in references[0]
    assert 0x00104000 not in node
    assert 0x00104000 not in references[0]


@pytest.mark.parametrize(
    ("rules", "becomes"),
    [
        ("KEEP StudyDate", b"20240229"),
        ("BLANK StudyDate", b""),
        ("REMOVE StudyDate", None),
        ("JITTER StudyDate 1", b"20240301"),
        ("JITTER StudyDate var:patient_shift", b"20240222"),
        ("JITTER StudyDate var:days", b"20240302"),
        ("JITTER contains:Study 1", b"20240301"),
        ("REPLACE StudyDate func:shift_date", b"20240222"),
        ("REPLACE StudyDate deid_func:jitter days=3", b"20240303"),
        ("KEEP ALL\nREMOVE contains:StudyDate", None),
        ("REMOVE ALL\nKEEP contains:StudyDate", b"20240229"),
        ("KEEP contains:StudyDate\nBLANK contains:Date", b""),
        ("BLANK contains:Date\nKEEP contains:StudyDate", b"20240229"),
        ("REPLACE contains:StudyDate x\nKEEP contains:Date", b"20240229"),
        ("KEEP contains:StudyDate\nREPLACE contains:Date x", b"x"),
        ("REPLACE StudyDate 20200101", b"20200101"),
    ],
)
def test_the_rule_that_counts_says_what_becomes_of_a_date(rules: str, becomes: bytes | None, tmp_path: Path) -> None:
    made = plan(tmp_path, f"%header\n{rules}\n", days="2")
    assert values(made, (DATE, "DA", b"20240229")).get(DATE) == becomes
    empty = values(made, (DATE, "DA", b"")).get(DATE)
    assert empty == (None if becomes is None else b"")


@pytest.mark.parametrize(
    ("rules", "sent", "becomes"),
    [
        ("KEEP StudyDescription", b"of Zorblax lung", b"lung"),
        ("KEEP StudyDescription", b"of nobody", b"of nobody"),
        ("REPLACE StudyDescription var:patient_pseudonym", b"x", b"HXUHFSLDH4IE"),
        ("REPLACE StudyDescription var:room", b"x", b"R 7"),
        ("REPLACE StudyDescription literal text", b"x", b"literal text"),
        ("REPLACE StudyDescription func:clean_text", b"x lung", b"lung"),
        ("KEEP StudyDescription\nREMOVE StudyDescription func:is_name", b"of Zorblax", None),
        ("KEEP StudyDescription\nREMOVE StudyDescription func:is_name", b"of nobody", b"of nobody"),
        ("KEEP StudyDescription\nREMOVE contains:Description func:has_digits", b"room 123", None),
        ("KEEP StudyDescription\nREMOVE contains:Comment func:has_digits", b"room 123", b"room 123"),
        ("REMOVE StudyDescription\nREMOVE contains:Description func:has_digits", b"lung", None),
    ],
)
def test_text_is_kept_changed_or_removed_as_its_rule_and_conditions_say(
    rules: str, sent: bytes, becomes: bytes | None, tmp_path: Path
) -> None:
    made = plan(tmp_path, f"%header\n{rules}\n", room="R 7")
    assert values(made, (TEXT, "LO", sent)).get(TEXT, None) == becomes or "pseudonym" in rules
    if "pseudonym" in rules:
        assert values(made, (TEXT, "LO", sent))[TEXT] == Pseudonyms(KEY).patient("", "", "").encode()


def test_values_that_were_collected_decide_over_any_text_but_what_identifies_the_object(tmp_path: Path) -> None:
    text = (
        "%values who\nFIELD StudyID\nSPLIT PatientID by=-;minlength=3\nFIELD contains:Comment\n"
        "%header\nKEEP StudyDescription\nKEEP SeriesDescription\nKEEP StudyInstanceUID\nKEEP SOPInstanceUID\n"
        "REPLACE values:who gone\n"
    )
    made = plan(tmp_path, text)
    sent = [(ID, "SH", b"seven"), (0x00100020, "LO", b"AB-CDE-FGHI"), (COMMENTS, "LT", b"Nested one")]
    for said, gone in ((b"has SEVEN in it", True), (b"cde", True), (b"ab only", False), (b"a nested one", True),
                       (b"other", False)):  # fmt: skip
        assert values(made, *sent, (TEXT, "LO", said))[TEXT] == (b"gone" if gone else said)
    uid = (0x0020000D, "UI", b"1.2.seven")
    assert values(made, *sent, uid)[0x0020000D] == b"1.2.seven"
    inner = {0x00200010: Element(ID, "SH", b"deeper")}
    node = cleaned(made, Element(REFERENCES, "SQ", items=[inner]), Element(TEXT, "LO", b"how deeper"))
    assert node[TEXT].value == b"gone"


def test_sequences_are_kept_emptied_or_removed_and_pixels_are_not_emptied(tmp_path: Path) -> None:
    item = {ID: Element(ID, "SH", b"a")}
    for rules, becomes in (("KEEP", [{}]), ("BLANK", []), ("REMOVE", None)):
        made = plan(tmp_path, f"%header\n{rules} ReferencedImageSequence\nREMOVE StudyID\n")
        node = cleaned(made, Element(REFERENCES, "SQ", items=[dict(item)]))
        assert (node[REFERENCES].items if REFERENCES in node else None) == becomes
    pixels = Element(wire.PIXEL_DATA, "OB", fragments=[b"", b"ab"])
    made = plan(tmp_path, "%header\nKEEP Rows\n")
    assert cleaned(made, pixels)[wire.PIXEL_DATA] == pixels


PRIVATE = '%header\nKEEP (0019,"VENDOR 1",01)\nREMOVE (0019,"VENDOR 1",02)\nREPLACE (0019,"VENDOR 1",03) x\n'


def test_private_elements_are_kept_with_their_creator_and_by_their_rule(tmp_path: Path) -> None:
    made = plan(tmp_path, PRIVATE + 'JITTER (0019,"VENDOR 1",04) 1\nBLANK (0019,"VENDOR 1",05)\n')
    elements = [
        Element(0x00190011, "LO", b"VENDOR 1 "),
        Element(0x00191101, "DS", b"1.5 "),
        Element(0x00191102, "DS", b"1.5 "),
        Element(0x00191103, "LO", b"text"),
        Element(0x00191104, "DA", b"20240229"),
        Element(0x00191105, "LO", b"text"),
        Element(0x00191106, "LO", b"text"),
    ]
    node = cleaned(made, *elements)
    assert {tag: one.value for tag, one in node.items() if tag >> 16 & 1} == {
        0x00190011: b"VENDOR 1",
        0x00191101: b"1.5 ",
        0x00191103: b"x",
        0x00191104: b"20240301",
        0x00191105: b"",
    }
    assert node[0x00190011] == Element(0x00190011, "LO", b"VENDOR 1")
    assert not [tag for tag in cleaned(made, *elements[1:]) if tag >> 16 & 1]
    wrong = [elements[0], Element(0x00191103, "US", b"\1\2"), Element(0x00191104, "LO", b"text")]
    assert not [tag for tag in cleaned(made, *wrong) if tag >> 16 & 1]
    assert not [tag for tag in cleaned(plan(tmp_path, "%header\nKEEP Rows\n"), *elements) if tag >> 16 & 1]


def test_what_code_refuses_no_rule_saves(tmp_path: Path) -> None:
    made = plan(tmp_path, "%header\nKEEP ALL\nKEEP PatientName\nADD PatientComments x\nADD StudyID var:recipe_name\n")
    item = {0x00100010: Element(0x00100010, "PN", b"Zorblax"), ID: Element(ID, "SH", b"a")}
    node = cleaned(made, Element(REFERENCES, "SQ", items=[item]), Element(0x00104444, "LO", b"x"))
    assert (node[REFERENCES].items or [{}])[0].keys() == {ID}
    assert 0x00104444 not in node
    assert node[0x00104000] == Element(0x00104000, "LT", b"x")
    assert node[ID] == Element(ID, "SH", b"own")


def test_text_that_is_kept_is_looked_through_for_names_public_private_and_nested(tmp_path: Path) -> None:
    rules = (
        '%header\nKEEP BodyPartExamined\nKEEP (0019,"VENDOR 1",01)\nKEEP ReferencedImageSequence\nKEEP ImageComments\n'
    )
    made = plan(tmp_path, rules)
    name = Element(0x00100010, "PN", "Зорблакс".encode("iso8859_5"))
    inner = {COMMENTS: Element(COMMENTS, "LT", "lung Зорблакс".encode("iso8859_5"))}
    node = cleaned(
        made,
        Element(0x00080005, "CS", b"ISO_IR 144"),
        name,
        Element(0x00180015, "CS", b"axial of nobody"),
        Element(REFERENCES, "SQ", items=[inner]),
    )
    assert (node[REFERENCES].items or [])[0][COMMENTS].value == b"lung"
    assert node[0x00180015].value == b"AXIAL"
    private = [Element(0x00190010, "LO", b"VENDOR 1"), Element(0x00191001, "LO", b"coil of Zorblax")]
    assert cleaned(made, *private)[0x00191001].value == b"coil"
    assert cleaned(made, private[0], Element(0x00191001, "IS", b"Zorblax")).keys() & {0x00191001} == set()


def test_what_stands_behind_a_sequence_is_at_the_top_again(tmp_path: Path) -> None:
    made = plan(tmp_path, "%header\nKEEP PatientSex\nREMOVE ReferencedImageSequence__StudyID\nKEEP StudyID\n")
    item = {ID: Element(ID, "SH", b"a"), REQUESTS: Element(REQUESTS, "SQ", items=[{}, {}])}
    node: Node = {
        REFERENCES: Element(REFERENCES, "SQ", items=[item, dict(item)]),
        0x00100040: Element(0x00100040, "CS", b"F "),
        ID: Element(ID, "SH", b"b"),
        wire.PIXEL_DATA: Element(wire.PIXEL_DATA, "OW", b"ab"),
    }
    scene = set_scene(node, Pseudonyms(KEY))
    clean = made.scrub(node, scene)
    assert list(clean) == [REFERENCES, 0x00100040, ID, wire.PIXEL_DATA]
    assert (scene.depth, scene.path, scene.node) == (0, (), node)


def test_values_are_collected_in_the_character_set_that_holds_and_one_by_one(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        "%values a\nFIELD OtherPatientIDs\nFIELD PatientComments\n%header\nKEEP StudyDescription\nREMOVE values:a\n",
    )
    inner = {0x00104000: Element(0x00104000, "LT", "Грюс".encode("iso8859_5"))}
    sent = [
        Element(0x00080005, "CS", b"ISO_IR 144"),
        Element(REFERENCES, "SQ", items=[inner, {0x00104000: Element(0x00104000, "LT", b"second")}]),
        Element(REQUESTS, "SQ", items=[{}]),
        Element(0x00101000, "LO", b"ONE 1\\TWO 2"),
    ]
    for said, gone in (("xГРЮСx", True), ("two 2", True), ("one 1", True), ("one", False), ("second", True)):
        text = Element(TEXT, "LO", said.encode("iso8859_5"))
        assert (TEXT not in cleaned(made, *sent, text)) is gone
