"""What is remembered of earlier objects changes no byte of the next one, no envelope and no refusal."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edge_node.deid import Deidentifier, functions, identity, needles, verify, wire, witness
from edge_node.deid.apart import APART
from edge_node.deid.functions import FUNCTIONS, LOOKED_AT
from edge_node.deid.header import Header, Headers
from edge_node.deid.plan import Plan
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.recipe import load
from edge_node.deid.scene import set_scene
from edge_node.deid.wire import Element, Syntax
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.elements import ALL, EXPLICIT, IMPLICIT, sent
from tests.unit.deid.objects import CT, KEY, RECIPE, RESEARCH, ct, encoded, instance_of, received

SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
OWN = """FORMAT dicom
%values said
FIELD PatientComments

%header
REMOVE contains:Comments func:is_name
KEEP ImageComments
KEEP PatientComments
KEEP FilterType
REPLACE values:said var:patient_pseudonym
REPLACE CodeValue func:code_value
REPLACE CodeMeaning func:code_meaning
REPLACE ProtocolName func:code_meaning
KEEP (0019,"GEMS_ACQU_01",23)
KEEP (0019,"OWN",23)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Deidentifier:
    path = tmp_path_factory.mktemp("recipe") / "own.deid"
    path.write_text(OWN, encoding="utf-8")
    return Deidentifier(path, KEY, version="0.1.0", base=RECIPE)


def forget(*all_of: Deidentifier) -> None:
    """As a worker is that has just been started."""
    for one in all_of:
        one._headers = Headers()
        one._pseudonyms._made.clear()
    witness._received.update(witness._memory())
    witness._made.update(witness._memory())
    identity._plain.cache_clear()
    needles._needles_of.cache_clear()  # type: ignore[attr-defined]


def outcome(deidentifier: Deidentifier, instance: IdentifiedInstance) -> tuple[Any, ...]:
    try:
        done = deidentifier.deidentify(instance)
    except Quarantine as error:
        return error.code, error.message, error.study
    made = done.instance
    said = made.study_key, made.patient_key, made.pixel_risk, made.modality, made.body_part, made.order_priority
    return made.part10, done.identity.study, done.identity.instance, done.source_digest, done.derivation, *said


NAMES = ["Beeblebrox^Zaphod", "Prefect^Ford", "Müller^Änne", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Head^Axial", ""]
TEXTS = ["AXIAL 2.5mm", "Zaphod AXIAL", "seen by Ford", "HEAD", "123 mm", "Müller", "OWN", "DCM", "113100", "CT;1"]


def private(ds: Dataset, creator: str, block: int, value: str) -> None:
    ds.add_new(0x00190000 | block, "LO", creator)
    ds.add_new(0x00190000 | block << 8 | 0x23, "DS", value)
    ds.add_new(0x00190000 | block << 8 | 0x24, "LO", "Zaphod")


@st.composite
def an_instance(draw: st.DrawFn) -> tuple[IdentifiedInstance, str]:
    """One of a few patients and studies, and here and there something else; what differs varies."""
    ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{draw(st.integers(1, 400))}")
    ds.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 192", "ISO_IR 100", ["", "ISO 2022 IR 87"], "GB18030"]))
    ds.InstanceNumber = draw(st.integers(1, 30))
    for keyword, texts in [("PatientName", NAMES), ("OperatorsName", NAMES), ("SeriesDescription", TEXTS)]:
        if draw(st.booleans()):
            setattr(ds, keyword, draw(st.sampled_from(texts)))
    for keyword in ("ProtocolName", "ImageComments", "PatientComments", "CodingSchemeDesignator", "CodeValue"):
        if draw(st.booleans()):
            setattr(ds, keyword, draw(st.sampled_from(TEXTS)))
    if draw(st.booleans()):
        ds.PatientID = draw(st.sampled_from(["PAT-420042", "PAT-420043", ""]))
    if draw(st.booleans()):
        ds.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{draw(st.integers(76, 78))}"
    if draw(st.booleans()):
        ds.StudyDate = draw(st.sampled_from(["20240229", "20240301"]))
    if draw(st.booleans()):
        private(ds, draw(st.sampled_from(["GEMS_ACQU_01", "OWN", "OTHER"])), draw(st.sampled_from([0x10, 0x11])), "1.5")
    if draw(st.booleans()):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D1100", "SRT", draw(st.sampled_from(TEXTS))
        item.PatientName = draw(st.sampled_from(NAMES))
        ds.AnatomicRegionSequence = [item]
    syntax = draw(st.sampled_from(SYNTAXES))
    try:
        data = encoded(ds, implicit=syntax == SYNTAXES[0], big=syntax == SYNTAXES[2])
    except (UnicodeEncodeError, ValueError):
        ds.SpecificCharacterSet = "ISO_IR 192"
        data = encoded(ds, implicit=syntax == SYNTAXES[0], big=syntax == SYNTAXES[2])
    if draw(st.integers(0, 3)) == 0:  # one byte is another
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    if syntax == SYNTAXES[3]:
        import zlib

        engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = engine.compress(data) + engine.flush()
        data += b"\0" * (len(data) & 1)
    return instance_of(data, syntax, str(ds.SOPClassUID), str(ds.SOPInstanceUID)), syntax


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(an_instance(), min_size=2, max_size=8), st.sampled_from(["basic", "research", "own"]))
def test_a_worker_that_remembers_answers_like_one_that_has_just_begun(
    own: Deidentifier, some: list[tuple[IdentifiedInstance, str]], recipe: str
) -> None:
    deidentifier = {"basic": BASIC, "research": RESEARCH, "own": own}[recipe]
    forget(deidentifier)
    remembering = [outcome(deidentifier, one) for one, _ in [*some, *some, *some]]
    anew = []
    for one, _ in some:
        forget(deidentifier)
        anew.append(outcome(deidentifier, one))
    assert remembering == anew * 3


BASIC = Deidentifier(RECIPE, KEY, version="0.1.0")


def test_a_series_is_taken_from_memory_and_stays_what_it_is() -> None:
    forget(BASIC)
    series = [received(ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{n}", InstanceNumber=n)) for n in range(1, 30)]
    remembering = [outcome(BASIC, one) for one in series]
    header = Header(BASIC._headers)
    node = header.parse(series[-1].dataset, EXPLICIT)
    assert len(header.runs) >= 2
    assert set(header.rest) == {0x00080018, 0x00200013}
    assert node == wire.parse(series[-1].dataset, EXPLICIT)
    for one, expected in zip(series, remembering, strict=True):
        forget(BASIC)
        assert outcome(BASIC, one) == expected


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


def test_a_name_in_one_of_many_instances_is_taken_out_of_its_comments_only_there() -> None:
    forget(BASIC)
    made = []
    for number in range(12):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", ProtocolName="AXIAL HEAD FORD")
        ds.OperatorsName = "Prefect^Ford" if number == 7 else "Kildare^James"
        made.append(BASIC.clean(received(ds)).part10)
        assert b"FORD" not in made[7:8]
    assert all(b"AXIAL HEAD" in one for one in made)


@pytest.mark.parametrize("recipe", ["research", "own"])
def test_a_private_element_is_kept_by_the_creator_of_its_own_object(own: Deidentifier, recipe: str) -> None:
    """The creator stands at the end of what differs, so that it is never part of what is remembered with its block."""
    deidentifier = own if recipe == "own" else RESEARCH
    forget(deidentifier)
    for number in range(40):
        creator = "GEMS_ACQU_01" if number % 3 else f"OTHER {number}"
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}")
        ds.add_new(0x00190010, "LO", creator)
        for offset in (0x20, 0x21, 0x22, 0x23, 0x24):
            ds.add_new(0x00191000 | offset, "DS", "1.5")
        assert (b"GEMS_ACQU_01" in deidentifier.clean(received(ds)).part10) == bool(number % 3)


@ALL
def test_of_two_elements_with_one_tag_the_last_counts_however_often_they_came(syntax: Syntax) -> None:
    headers = Headers()
    parts = [sent(syntax, tag, "LO", b"one ") for tag in (0x00081030, 0x0008103E, 0x00081040, 0x00081048)]
    plain, double = b"".join(parts), b"".join([*parts, sent(syntax, 0x0008103E, "LO", b"two ")])
    for data in (plain, plain, double, double, plain, double):
        header = Header(headers)
        node = header.parse(data, syntax)
        assert node == wire.parse(data, syntax)
        covered = [tag for run in header.runs for tag in run.node]
        assert sorted([*covered, *header.rest]) == sorted(node)


def test_the_same_bytes_in_another_encoding_are_not_taken_for_the_same() -> None:
    headers = Headers()
    # Read as implicit VR, the kind and the length of the one element are the length of the other.
    data = b"".join(sent(IMPLICIT, tag, "US", b"\1\0") for tag in (0x00280010, 0x00280011, 0x00280100))
    for syntax in (IMPLICIT, EXPLICIT, IMPLICIT, EXPLICIT):
        try:
            expected: object = wire.parse(data, syntax)
        except wire.Malformed as error:
            expected = str(error)
        try:
            found: object = Header(headers).parse(data, syntax)
        except wire.Malformed as error:
            found = str(error)
        assert found == expected


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


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_the_check_reads_the_same_whatever_it_has_read_before(syntax: str) -> None:
    kind = {"implicit": syntax == SYNTAXES[0], "big": syntax == SYNTAXES[2]}
    files, sources = [], []
    for number in range(12):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", InstanceNumber=number)
        item = Dataset()
        item.PatientName = NAMES[number % len(NAMES)]
        ds.ReferencedPatientSequence = [item]
        ds.SpecificCharacterSet = "ISO_IR 192"
        sources.append(received(ds, syntax).dataset)
        files.append(RESEARCH.clean(received(ds, syntax)).part10)
    forget()
    again = [[witness.witness(one, **kind).places for one in sources] for _ in range(3)]
    made = [[witness.witness_file(one, **kind).places for one in files] for _ in range(3)]
    for number, (source, file) in enumerate(zip(sources, files, strict=True)):
        forget()
        fresh, fresh_made = witness.witness(source, **kind).places, witness.witness_file(file, **kind).places
        for turn in range(3):
            assert (again[turn][number], made[turn][number]) == (fresh, fresh_made)
            assert list(again[turn][number]) == list(fresh)


def code_of(source: bytes, file: bytes) -> str:
    try:
        verify.verify(source, SYNTAXES[1], file, frozenset())
    except Quarantine as error:
        return f"{error.code} {error.message}"
    return ""


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_check_finds_what_came_through_in_one_of_many_objects(data: st.DataObject) -> None:
    """Some are changed in a byte, or say a name, a number or a day where the others do not."""
    pairs = []
    for number in range(5):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", InstanceNumber=number)
        one = received(ds)
        file, source = BASIC.clean(one).part10, one.dataset
        where = data.draw(st.sampled_from(["", "byte", "leak", "source"]))
        if where == "byte":
            at = data.draw(st.integers(0, len(file) - 1))
            file = file[:at] + bytes([data.draw(st.integers(0, 255))]) + file[at + 1 :]
        elif where == "leak":
            said = data.draw(st.sampled_from([b"Beeblebrox", b"PAT-420042", b"20240229", b"19500102", b"harmless!!"]))
            tag = data.draw(st.sampled_from([0x00081030, 0x00204000, 0x00102000]))
            pixels = file.index(b"\xe0\x7f\x10\0OW")
            file = file[:pixels] + sent(EXPLICIT, tag, "LT", said + b" " * (len(said) & 1)) + file[pixels:]
        elif where == "source":
            source = source.replace(
                b"Beeblebrox^Zaphod", data.draw(st.sampled_from([b"Axialis^Headbangr", b"GE^MEDICALSYSTEMS"]))
            )
        pairs.append((source, file))
    forget()
    remembering = [code_of(*pair) for pair in [*pairs, *pairs]]
    for number, pair in enumerate(pairs):
        forget()
        assert remembering[number] == remembering[number + 5] == code_of(*pair)


def test_the_check_remembers_by_what_it_reads_itself() -> None:
    """An object that leaks is refused the tenth time as the first, among clean ones of the same series."""
    forget()
    one = received(ct())
    good = BASIC.clean(one).part10
    at = good.index(b"\xe0\x7f\x10\0OW")
    bad = good[:at] + sent(EXPLICIT, 0x00204000, "LT", b"of Zaphod ") + good[at:]
    for _ in range(10):
        assert code_of(one.dataset, good) == ""
        assert code_of(one.dataset, bad).startswith("deid.residual-identifier")


def test_pixels_that_were_small_before_are_found_apart_when_something_large_stands_behind_them(
    own: Deidentifier,
) -> None:
    """What is remembered knows nothing of where pixels stay apart, nor does an element that comes twice."""
    jpeg = "1.2.840.10008.1.2.4.70"
    stream = (
        b"\xff\xd8\xff\xc3\0\x0b\x08\0\x04\0\x04\1\1\x11\0\xff\xda\0\x08\1\1\0\1\0\0" + b"\x12\x34" * 10 + b"\xff\xd9"
    )
    fragments = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in (b"", stream))
    pixels = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + fragments + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    padding = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, APART + 10) + bytes(APART + 10)
    part = b"\x18\0\x15\0CS\4\0HEAD"

    def sent_one(number: int, *, large: bool) -> IdentifiedInstance:
        uid = f"1.2.826.0.1.3680043.8.498.77.{number}"
        ds = ct(SOPInstanceUID=uid, InstanceNumber=number)
        del ds.PixelData
        data = encoded(ds)
        at = data.index(part[:6])
        whole = data[:at] + part + data[at:] + pixels + padding if large else data + pixels
        return instance_of(whole, jpeg, CT, uid)

    deidentifier = Deidentifier(RECIPE, KEY, version="0.1.0")
    forget(deidentifier, own)
    fresh = outcome(deidentifier, sent_one(7, large=True))
    forget(deidentifier)
    for number in range(1, 7):
        assert len(outcome(deidentifier, sent_one(number, large=False))) > 3
    assert outcome(deidentifier, sent_one(7, large=True)) == fresh
    assert len(fresh) > 3


@pytest.mark.parametrize("tag", wire.PIXELS)
@pytest.mark.parametrize("vr", ["UT", "UC", "UR", "OB"])
def test_a_large_value_under_the_tag_of_pixels_is_cleaned_wherever_it_stands(tag: int, vr: str) -> None:
    item = Dataset()
    item.add_new(tag, vr, b"a" * 16_384 if vr == "OB" else "a" * 16_384)
    instance = received(ct(RequestAttributesSequence=[item]))
    assert outcome(Deidentifier(RECIPE, KEY, version="0.1.0"), instance)


def test_what_the_check_remembers_is_held_to_a_plain_reading_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "PLAINLY", 1)
    data = encoded(ct())
    forget()
    for _ in range(3):
        witness.witness(data, implicit=False, big=False)
    [stretch, *_] = [one for some in witness._received[False, False]._known.values() for one in some]
    stretch.made.append(("LO", [(0x00100020, b"another", 0, ())]))
    with pytest.raises(witness.Unreadable):
        witness.witness(data, implicit=False, big=False)
    forget()


def test_a_header_of_thousands_of_elements_is_read_as_by_who_remembers_nothing() -> None:
    data = encoded(ct())
    at = data.index(b"\x10\0\x10\0PN")
    many = b"".join(struct.pack("<HH2sH", 9, 0x1000 + number, b"LO", 2) + b"ab" for number in range(2000))
    whole = data[:at] + many + data[at:]
    headers = Headers()
    for _ in range(4):
        header = Header(headers)
        assert header.parse(whole, Syntax()) == wire.parse(whole, Syntax())
    told = [witness.witness(whole, implicit=False, big=False).places for _ in range(4)]
    assert all(one == told[0] for one in told)
    assert sum(map(len, told[0].values())) > 2000
