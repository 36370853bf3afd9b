"""The last word, byte and day on either side of each decision: where a small slip would let somebody's name pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from edge_node.deid import Deidentifier, private, wire
from edge_node.deid.charset import Charset
from edge_node.deid.functions import FUNCTIONS, PREDICATES, Function, deid_function, jitter, keep_term, upper_words
from edge_node.deid.harden import basic_action, default_action, refuse_object, refused
from edge_node.deid.pseudonym import Pseudonyms, joined, patient_key, patient_of, study_key_of
from edge_node.deid.scene import Scene, charset_of, person_words, set_scene
from edge_node.deid.wire import Element, Node
from edge_node.domain.errors import Quarantine, Stop
from tests.unit.deid.objects import CT, DEIDENTIFIER, KEY, RECIPE, RESEARCH, clean, ct, encoded, instance_of, received

NAMES = Pseudonyms(KEY)
NAME, NUMBER, TEXT = 0x00100010, 0x00100020, 0x00081030


def node_of(*elements: tuple[int, str, bytes]) -> Node:
    return {tag: Element(tag, vr, value) for tag, vr, value in elements}


def scene_of(name: bytes = b"Zorblax^Head", days: int = -7) -> Scene:
    scene = set_scene(node_of((NAME, "PN", name), (NUMBER, "LO", b"P-1 ")), NAMES)
    scene.shift_days = days
    return scene


def done(action: Function, value: bytes, tag: int = TEXT, vr: str = "LO", name: bytes = b"Zorblax^Head") -> object:
    return action(Element(tag, vr, value), scene_of(name))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("a", "b"), "a|b"),
        (("a|b",), "a\\|b"),
        (("a\\", "b"), "a\\\\|b"),
        (("a\\|b", "", "c"), "a\\\\\\|b||c"),
        (("XX|XX", "XX\\XX"), "XX\\|XX|XX\\\\XX"),
    ],
)
def test_what_divides_the_parts_of_a_pseudonym_is_marked_inside_them(parts: tuple[str, ...], text: str) -> None:
    assert joined(*parts) == text


def test_without_an_id_a_patient_is_known_by_the_study_whoever_issued_nothing() -> None:
    assert patient_of("H", "A", "1.2") == patient_of(" H ", " A ", "1.3") == "id|H|A"
    assert patient_of("H", "", "1.2") == patient_of("", " ", "1.2") == "study|1.2"
    assert NAMES.patient("H", " ", "1.2") == NAMES.patient(" H", "", "1.2") != NAMES.patient("H", "", "1.3")
    assert NAMES.patient("", "", "1.2") == "55N4EPLORBHQ"
    assert patient_key(KEY, "B", "A") == patient_key(KEY, "\0B ", " A\0")
    assert study_key_of(KEY, " 1.2\0") == study_key_of(KEY, "1.2") != study_key_of(KEY, "1.2X")
    ids = [("A", ""), ("AX", ""), ("XA", ""), ("A", "X"), ("A", "H"), ("A", "HX"), ("A", "XH")]
    assert len({patient_key(KEY, *one) for one in ids}) == len({patient_of(b, a, "") for a, b in ids}) == len(ids)
    assert len({NAMES.patient(issuer, number, "") for number, issuer in ids}) == len(ids)


def test_a_label_that_is_refused_is_refused_by_its_code() -> None:
    with pytest.raises(Stop) as caught:
        Pseudonyms(KEY, "a b")
    assert caught.value.code == "deid.label-invalid"


def test_pseudonyms_of_more_uids_than_are_remembered_stay_the_same() -> None:
    names = Pseudonyms(KEY)
    first = [names.uid(f"1.2.{n}") for n in range(600)]
    assert [names.uid(f"1.2.{n}") for n in range(600)] == first == [Pseudonyms(KEY).uid(f"1.2.{n}") for n in range(600)]


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (["", "ISO 2022 IR 149"], b"\xb0\xa1", "°¡"),
        (["ISO 2022 IR 149"], b"\xb0\xa1", "가"),
        (["ISO 2022 IR 87"], b"A\x1b$B;3ED\x1b(B", "A山田"),
        (["ISO_IR 100"], b"a\x1b(Zb", "ab"),
        (["ISO_IR 100"], b" \ta \0\0 ", " \ta"),
        (["ISO_IR 100"], b" a\x1b-Ab\t \0", " ab\t"),
        (["ISO_IR 100"], b"XaX \0X", "XaX \0X"),
        (["ISO_IR 100"], b"a\x1b-AX", "aX"),
        (["iso ir 192"], "ü".encode(), "ü"),
        (["ISO_IR 6"], b"\xfc", "ü"),
    ],
)
def test_text_is_decoded_as_its_first_character_set_and_its_escapes_say(
    terms: list[str], raw: bytes, text: str
) -> None:
    assert Charset(terms).text(raw) == text


@pytest.mark.parametrize(("terms", "declared"), [([""], False), ([], False), (["ISO_IR 6"], True), (["", "X"], True)])
def test_a_character_set_is_declared_if_any_is_named(terms: list[str], declared: bool) -> None:
    assert Charset(terms).declared is declared


def test_names_are_known_by_every_word_of_two_letters_or_more_at_any_depth() -> None:
    inner = node_of((0x00080090, "PN", "Müller^Ün^Ö".encode("latin-1")), (TEXT, "LO", b"nobody"))
    other = node_of((0x00080005, "CS", b"\\ISO_IR 144 "), (0x00080090, "PN", b"plain"))
    cyrillic = node_of((0x00080005, "CS", b"ISO_IR 144"), (0x00080090, "PN", "Иванов".encode("iso8859_5")))
    cyrillic[0x00081110] = Element(0x00081110, "SQ", items=[node_of((0x00080090, "PN", "Петров".encode("iso8859_5")))])
    node = node_of(
        (0x00080005, "CS", b"ISO_IR 100"),
        (NAME, "PN", "Zörb^X Li".encode("latin-1")),
        (0x00101005, "UN", b"Birthname"),
        (0x00101060, "LO", b"Mothers"),
        (0x00080092, "LO", b"street"),
        (0x00104444, "UN", b"unknown"),
        (0x00091001, "PN", b"Makers"),
        (0x00081048, "SH", b"shorttext"),
    )
    node[0x00081140] = Element(0x00081140, "SQ", items=[inner, {}, other, cyrillic])
    said = {"zörb", "li", "birthname", "mothers", "makers", "müller", "ün", "plain", "иванов", "петров"}
    assert person_words(node) == said
    assert set_scene(node, NAMES).names == said


def test_a_character_set_holds_until_an_item_names_another() -> None:
    outer = Charset(["ISO_IR 144"])
    assert charset_of({}, outer) is outer
    assert charset_of(node_of((0x00080005, "CS", b"ISO_IR 192")), outer).text("ü".encode()) == "ü"
    assert charset_of({}).text(b"\xfc") == "ü"
    multi = charset_of(node_of((0x00080005, "CS", b" \\ ISO 2022 IR 149 ")), outer)
    assert (multi.text(b"\xb0\xa1"), multi.declared) == ("°¡", True)
    korean = charset_of(node_of((0x00080005, "CS", b"ISO 2022 IR 149\\ISO_IR 192")))
    assert korean.text(b"\xb0\xa1") == "가"


def test_a_scene_hangs_on_issuer_and_id_or_else_on_the_study() -> None:
    node = node_of((0x00080005, "CS", b"ISO_IR 100"), (NUMBER, "LO", b" P\xfc "), (0x00100021, "LO", b"H "))
    assert set_scene(node, NAMES).patient == "id|H|Pü"
    assert set_scene(node, NAMES).patient_pseudonym == NAMES.patient("H", "Pü", "")
    one, two = (set_scene(node_of((0x0020000D, "UI", uid)), NAMES) for uid in (b"1.2\0", b"1.3\0"))
    assert (one.patient, two.patient) == ("study|1.2", "study|1.3")
    assert one.patient_pseudonym != two.patient_pseudonym
    assert one.shift_days == NAMES.shift_days("study|1.2")


def test_a_private_creator_is_looked_for_where_it_reserves_a_block() -> None:
    node = node_of((0x00190000, "UL", b"ABCD"), (0x0019000F, "LO", b"LOW"), (0x00190010, "LO", b"VENDOR 1 \0"))
    assert private.creator_of(0x00191000, node) == private.creator_of(0x001910FF, node) == "VENDOR 1"
    assert private.creator_of(0x00190011, node) == private.creator_of(0x00190FFF, node) == ""
    assert private.creator_of(0x00191000, node_of((0x00190010, "LO", b"XVENDORX"))) == "XVENDORX"
    assert private.creator_of(0x00191000, {0x00190010: Element(0x00190010, "SQ", items=[])}) == ""


def test_a_private_element_of_unknown_kind_is_what_its_creator_is_known_for_unless_it_is_a_sequence() -> None:
    value = Element(0x00191008, "UN", b"12")
    assert private.as_known(value, "SIEMENS MR HEADER", False) == Element(0x00191008, "CS", b"12")
    assert private.as_known(Element(0x00191008, "UN", items=[{}]), "SIEMENS MR HEADER", False) is None
    assert private.as_known(Element(0x00191008, "CS", fragments=[]), "SIEMENS MR HEADER", False) is None


@pytest.mark.parametrize(
    ("vr", "value", "becomes"),
    [
        ("DS", b"abc 12", None),
        ("DS", b"1.5\0", b"1.5\0"),
        ("DS", b"5X", None),
        ("IS", b" 5", b" 5"),
        ("DA", b"20240229", b"20240222"),
        ("DT", b"20240229101500", b"20240222101500"),
        ("DT", b"soon", None),
        ("TM", b"soon", None),
        ("TM", b"101500.5", b"101500.5"),
        ("US", b"\1\0\2\0", b"\1\0\2\0"),
        ("UI", b"1.2.3\0", NAMES.uid("1.2.3").encode()),
        ("CS", b"ZORB7\0", b"ZORB7"),
    ],
)
def test_a_private_value_is_kept_changed_or_removed_by_its_kind(vr: str, value: bytes, becomes: bytes | None) -> None:
    assert private.keep(Element(0x00191001, vr, value), scene_of()) == becomes


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("keep_age", b"089Y", b"089Y"),
        ("keep_age", b"000Y", b"000Y"),
        ("keep_age", b"090Y", b"090Y"),
        ("keep_age", b"091Y", b"090Y"),
        ("keep_age", b"999Y", b"090Y"),
        ("keep_age", b"044YX", None),
        ("keep_age", b"999M", b"999M"),
        ("keep_sex", b"MX", b""),
        ("keep_size", b"1.5X", None),
        ("code_value", b"XA1", b"ANON"),
        ("shift_date", b"X20240229", b""),
        ("shift_date", b"20240229X", b""),
    ],
)
def test_what_stands_beside_a_value_is_part_of_it(name: str, value: bytes, becomes: bytes | None) -> None:
    assert done(FUNCTIONS[name], value, 0x00080020 if name == "shift_date" else TEXT) == becomes


def test_a_public_code_is_kept_to_its_last_letter_and_a_uid_is_taken_whole() -> None:
    scene = scene_of()
    scene.node = node_of((0x00080102, "SH", b"SCT "))
    assert FUNCTIONS["code_value"](Element(0x00080100, "SH", b"XA20X "), scene) == b"XA20X"
    assert done(FUNCTIONS["pseudonym_uid"], b"X1.2.3", vr="UI") == NAMES.uid("X1.2.3").encode()
    assert done(FUNCTIONS["pseudonym_uid"], b"1.2.3X\\\0", vr="UI") == NAMES.uid("1.2.3X").encode() + b"\\"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"axial zorblax\\head lung", b"AXIAL\\LUNG"),
        (b"abdomen pelvis x", b"ABDOMEN PELVIS"),
        (b"abdomen, pelvis!", b"ABDOMEN PELVIS"),
        (b"thorax abdo pelvis", b"THORAX ABDO PELV"),
        (b"abdomen pelvis. thorax", b"ABDOMEN PELVIS T"),
        (b"abdomen thorax  t2", b"ABDOMEN THORAX T"),
        (b"a thoracic spine knee", b"THORACIC SPINE K"),
        (b"w/o contrast", b"WO CONTRAST"),
        (b"abdomen lung ct spine", b"ABDOMEN LUNG CT"),
        (b"zorblax", None),
        (b"zorblax\\zorblax", b"\\"),
    ],
)
def test_a_code_string_is_made_of_words_that_are_known_and_fits_in_sixteen_letters(
    value: bytes, words: bytes | None
) -> None:
    assert done(upper_words, value, vr="CS") == words


@pytest.mark.parametrize(("value", "term"), [(b"ZORB7\0", b"ZORB7"), (b"ZORB7 \0", b"ZORB7"), (b"AXIALX", b"AXIALX"),
                                             (b"zorb seven", None)])  # fmt: skip
def test_a_term_that_is_one_is_kept_without_its_padding(value: bytes, term: bytes | None) -> None:
    assert done(keep_term, value, vr="CS") == term


@pytest.mark.parametrize(
    ("options", "day"),
    [
        ("jitter", b"20240301"),
        ("jitter days=-31", b"20240129"),
        ("jitter days=2", b"20240302"),
        ("jitter years=1", b"20250228"),
        ("jitter years=1 days=1", b"20250301"),
        ("jitter days=-2 years=-1", b"20230227"),
    ],
)
def test_jitter_counts_days_and_years_of_365_and_one_day_if_it_says_none(options: str, day: bytes) -> None:
    assert done(deid_function(options), b"20240229", 0x00080020, "DA") == day


def test_jitter_leaves_the_shift_of_the_patient_to_all_that_follows() -> None:
    scene = scene_of(days=-14)
    assert jitter(1)(Element(0x00080020, "DA", b"20240229"), scene) == b"20240301"
    assert scene.shift_days == -14


def test_a_function_of_deid_makes_a_uid_of_what_is_one_and_an_identifier_of_everything_else() -> None:
    function = deid_function("suffix_uuid")
    uid = NAMES.uid("1.2.3").encode()
    assert done(function, b"1.2.3", 0x00200052, "UI") == uid
    assert done(function, b"1.2.3", 0x00200052, "UN") == uid
    assert done(function, b"1.2.3", 0x00104444, "UI") == uid
    assert done(function, b"1.2.3", TEXT, "LO") == done(FUNCTIONS["pseudonym_id"], b"1.2.3", TEXT, "LO") != uid


@pytest.mark.parametrize(
    ("name", "value", "true"),
    [
        ("is_name", b"seen by ZORBLAX", True),
        ("is_name", b"zorblaxian", False),
        ("has_digits", b"room 123", True),
        ("has_digits", b"1 2 3 12", False),
    ],
)
def test_a_condition_is_true_of_names_and_of_three_digits_in_a_row(name: str, value: bytes, true: bool) -> None:
    assert PREDICATES[name](Element(TEXT, "LO", value), scene_of()) is true


@pytest.mark.parametrize(
    ("tag", "vr", "gone"),
    [
        (TEXT, "SH", False),
        (TEXT, "DS", False),
        (TEXT, "US", True),
        (TEXT, "OB", True),
        (TEXT, "UN", True),
        (0x0072006D, "UN", True),
        (0x0072006D, "LO", True),
        (0x00280010, "IS", False),
        (0x00280010, "DS", False),
        (0x00280010, "UL", False),
        (0x00280010, "OW", True),
        (0x00280010, "AT", True),
        (0x00280106, "US", False),
        (0x00280106, "SS", False),
        (0x00280106, "FD", False),
        (0x00280106, "LO", True),
        (0x00181060, "FD", False),
        (0x00200013, "UL", False),
        (0x00283006, "US", False),
        (0x00283006, "OW", False),
        (0x00283006, "OB", False),
        (0x00143050, "OB", False),
        (0x00281201, "OB", False),
        (0x00281201, "UT", True),
        (0x00280009, "AT", False),
        (0x00280009, "US", True),
        (0x00081140, "SQ", False),
        (0x00081140, "LO", True),
        (0x00080000, "UL", True),
        (0xFFFAFFFA, "SQ", True),
        (0x50000010, "US", True),
        (0x60000010, "US", True),
    ],
)
def test_an_element_sent_as_another_kind_of_value_is_refused(tag: int, vr: str, gone: bool) -> None:
    assert refused(tag, vr, 0) is gone


@pytest.mark.parametrize(
    ("basic", "vr", "date", "action"),
    [
        ("X", "SQ", False, "remove"),
        ("X/Z/U*", "SQ", False, "descend"),
        ("Z", "SQ", False, "blank"),
        ("D", "SQ", False, "blank"),
        ("X/Z", "SQ", False, "blank"),
        ("U", "UI", False, FUNCTIONS["pseudonym_uid"]),
        ("X", "LO", False, "remove"),
        ("X", "DA", True, "remove"),
        ("Z", "LO", False, "blank"),
        ("X/Z", "LO", False, "blank"),
        ("X/Z/D", "LO", False, FUNCTIONS["dummy"]),
        ("D", "LO", False, FUNCTIONS["dummy"]),
        ("D", "DA", True, "blank"),
    ],
)
def test_the_basic_profile_is_carried_out(basic: str, vr: str, date: bool, action: object) -> None:
    assert basic_action(basic, vr, date) == action


@pytest.mark.parametrize(
    ("tag", "vr", "value", "name", "becomes"),
    [
        (0x0018991E, "UI", b"1.2.3\0", b"A", NAMES.uid("1.2.3").encode()),
        (0x00180022, "CS", b"ZORB7 \0", b"A", b"ZORB7"),
        (0x00180022, "CS", b"LI\\AX", b"Li^Axi", b"LI\\AX"),
        (0x00180022, "CS", b"XFAT", b"Fat", b"XFAT"),
        (0x00180022, "CS", b"FAT", b"Fat^Li", None),
        (0x00080005, "CS", b"ISO_IR 100\0", b"A", b"ISO_IR 100\0"),
        (0x00080005, "CS", b"ISO_IR 100X", b"A", None),
        (0x00181060, "DS", b"1.5\0", b"A", b"1.5"),
        (0x00181060, "DS", b"5X", b"A", None),
    ],
)
def test_the_defaults_look_at_the_value_without_its_padding(
    tag: int, vr: str, value: bytes, name: bytes, becomes: bytes | None
) -> None:
    action = default_action(tag, vr)
    assert not isinstance(action, str)
    assert done(action, value, tag, vr, name) == becomes


@pytest.mark.parametrize(
    ("sop_class", "structured", "held"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", True, True),
        ("1.2.840.10008.5.1.4.1.1.9.4.1", True, True),
        ("1.2.840.10008.1.3.10", True, True),
        ("1.2.840.10008.5.1.4.1.1.88.11", False, True),
        ("1.2.840.10008.5.1.4.1.1.88.11", True, False),
        (CT, False, False),
    ],
)
def test_documents_are_held_back_by_their_class(sop_class: str, structured: bool, held: bool) -> None:
    if held:
        with pytest.raises(Quarantine) as caught:
            refuse_object(sop_class, structured=structured)
        assert caught.value.code == "deid.unsupported-content"
    else:
        refuse_object(sop_class, structured=structured)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.deid"
    path.write_text("FORMAT dicom\n" + text)
    return path


def out(engine: Deidentifier, ds: Dataset) -> Dataset:
    return dcmread(DicomBytesIO(engine.deidentify(received(ds)).instance.part10))


def test_a_recipe_stands_on_another_and_both_know_the_variables(tmp_path: Path) -> None:
    own = written(tmp_path, "%header\nREPLACE ClinicalTrialSiteID var:site\nKEEP SoftwareVersions\n")
    engine = Deidentifier(own, KEY, version="0.1.0", base=RECIPE, variables={"site": "N7"}, label="t1")
    source = ct(ClinicalTrialSiteID="St. Elsewhere", SoftwareVersions="syngo 7")
    ds = out(engine, source)
    assert (ds.ClinicalTrialSiteID, ds.SoftwareVersions, ds.StudyDescription) == (
        "N7",
        "syngo 7",
        "CT Head w/o contrast 5 mm",
    )
    base = written(tmp_path, "%header\nREPLACE ClinicalTrialSiteID var:site\n").rename(tmp_path / "base.deid")
    plain = written(tmp_path, "%header\nKEEP SoftwareVersions\n")
    both = Deidentifier(plain, KEY, version="0.1.0", base=base, variables={"site": "N7"})
    assert out(both, source).ClinicalTrialSiteID == "N7"
    assert (engine.recipe_id.name, engine.recipe_id.trial) == ("own", "t1")
    assert engine.recipe_id.sha256 != both.recipe_id.sha256


def test_a_key_of_sixteen_bytes_is_long_enough() -> None:
    assert Deidentifier(RECIPE, bytes(16), version="0.1.0").recipe_id.name == "basic"
    with pytest.raises(Stop):
        Deidentifier(RECIPE, bytes(15), version="0.1.0")


def test_what_is_held_back_names_its_study_whatever_the_reason() -> None:
    key = study_key_of(KEY, "1.2.826.0.1.3680043.8.498.77")
    for instance in (
        instance_of(encoded(ct()), "1.2.840.10008.1.2.1", CT, "1.2.3.4"),
        received(ct(PixelData=bytes(8))),
    ):
        with pytest.raises(Quarantine) as caught:
            DEIDENTIFIER.deidentify(instance)
        assert caught.value.study == key


def test_the_clean_object_says_by_what_it_was_made(tmp_path: Path) -> None:
    made, ds = clean(ct())
    assert list(ds.DeidentificationMethod) == ["edge-node 0.1.0", f"recipe basic {made.recipe.sha256[:32]}"]
    codes = ds.DeidentificationMethodCodeSequence
    assert {item.CodingSchemeDesignator for item in codes} == {"DCM"}
    assert codes[0].CodeMeaning == "Basic Application Confidentiality Profile"
    assert all(list(item.keys()) == [0x00080100, 0x00080102, 0x00080104] for item in codes)
    meta = ds.file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, ds.SOPInstanceUID)
    assert (meta.ImplementationVersionName, meta.ImplementationClassUID[:5]) == ("EDGE_NODE_0.1.0", "2.25.")
    assert len(meta) == 7
    long = Deidentifier(RECIPE, KEY, version="10.20.30rc1")
    assert out(long, ct()).file_meta.ImplementationVersionName == "EDGE_NODE_10.20."
    forged = ct()
    item = Dataset()
    item.CodeValue = "113110"
    forged.DeidentificationMethodCodeSequence = [item]
    assert [i.CodeValue for i in clean(forged)[1].DeidentificationMethodCodeSequence] == [i.CodeValue for i in codes]
    silent = Deidentifier(written(tmp_path, "%header\nKEEP DeidentificationMethodCodeSequence\n"), KEY, version="0.1.0")
    assert "DeidentificationMethodCodeSequence" not in out(silent, forged)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("KEEP StudyDate", "UNMODIFIED"),
        ("REMOVE StudyDate", "REMOVED"),
        ("BLANK StudyDate", "REMOVED"),
        ("JITTER StudyDate -3", "MODIFIED"),
        ("REPLACE StudyDate func:shift_date", "MODIFIED"),
        ("KEEP StudyTime", "REMOVED"),
    ],
)
def test_the_clean_object_says_what_became_of_its_dates(rules: str, said: str, tmp_path: Path) -> None:
    engine = Deidentifier(written(tmp_path, f"%header\n{rules}\n"), KEY, version="0.1.0")
    assert out(engine, ct()).LongitudinalTemporalInformationModified == said


def test_uids_that_a_recipe_keeps_are_the_objects_own(tmp_path: Path) -> None:
    rules = "KEEP StudyInstanceUID\nKEEP SeriesInstanceUID\nKEEP SOPInstanceUID\n"
    engine = Deidentifier(written(tmp_path, "%header\n" + rules), KEY, version="0.1.0")
    made = engine.deidentify(received(ct())).instance
    assert (made.study_uid, made.series_uid, made.sop_uid) == (
        "1.2.826.0.1.3680043.8.498.77",
        "1.2.826.0.1.3680043.8.498.77.9",
        "1.2.826.0.1.3680043.8.498.77.1",
    )


def test_a_uid_may_have_sixty_four_characters_and_no_more() -> None:
    longest = "1." + "2" * 62
    assert clean(ct(StudyInstanceUID=longest))[0].study_key == study_key_of(KEY, longest)
    with pytest.raises(Quarantine) as caught:
        DEIDENTIFIER.deidentify(received(ct(), data=encoded(ct()).replace(b"1.2.826.0.1.3680043.8.498.77", b"1" * 28)))
    assert caught.value.code == "deid.no-uid"
    data = wire.parse(encoded(ct()), wire.Syntax())
    data[0x0020000D] = Element(0x0020000D, "UI", b"1." + b"2" * 63)
    with pytest.raises(Quarantine) as caught:
        DEIDENTIFIER.deidentify(received(ct(), data=wire.encode(data, wire.Syntax())))
    assert caught.value.code == "deid.no-uid"


def test_the_source_digest_hangs_on_header_pixels_and_transfer_syntax() -> None:
    def digest(ds: Dataset, syntax: str = "1.2.840.10008.1.2.1") -> str:
        return DEIDENTIFIER.deidentify(received(ds, syntax)).source_digest

    base = digest(ct())
    assert base == digest(ct())
    others = [ct(PatientName="Other^One"), ct(PixelData=bytes(32)), ct(OperatorsName="Kildare^Jim")]
    assert len({base, *(digest(ds) for ds in others), digest(ct(), "1.2.840.10008.1.2")}) == 5


def test_a_patient_without_id_has_no_key_whatever_the_issuer() -> None:
    ds = ct()
    del ds.PatientID
    assert clean(ds)[0].patient_key == ""
    assert clean(ct(PatientID="P1"))[0].patient_key == patient_key(KEY, "P1")


def test_big_endian_priority_private_and_video_are_judged_as_they_came() -> None:
    ds = ct(PatientAge="091Y")
    made = RESEARCH.deidentify(received(ds, "1.2.840.10008.1.2.2")).instance
    assert dcmread(DicomBytesIO(made.part10)).PatientAge == "090Y"
