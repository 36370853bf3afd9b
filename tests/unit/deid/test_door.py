from __future__ import annotations

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from io import BytesIO

import pytest
from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_node.deid import Deidentifier, door, instance_key_of, patient_key, peek_study_key, study_key_of
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.domain.errors import Quarantine, Stop
from tests.unit.deid.objects import (
    CT,
    DEIDENTIFIER,
    KEY,
    RECIPE,
    RESEARCH,
    clean,
    ct,
    encoded,
    from_file,
    instance_of,
    received,
)

IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
PHI = (
    "beeblebrox",
    "zaphod",
    "pat-420042",
    "acc-774411",
    "elsewhere",
    "quincy",
    "kildare",
    "19500102",
    "ctroom4",
    "study77",
)


def test_nothing_of_the_person_is_left_and_the_image_is() -> None:
    made, ds = clean(ct())
    low = made.part10.lower()
    assert [word for word in PHI if word.encode() in low] == []
    assert ds.PixelData == bytes(range(32))
    assert (ds.Modality, ds.BodyPartExamined, ds.Manufacturer) == ("CT", "HEAD", "GE MEDICAL SYSTEMS")
    assert (made.modality, made.body_part, made.pixel_risk, made.sop_class) == ("CT", "HEAD", "", CT)


def test_descriptions_keep_anatomy_acquisition_and_measures() -> None:
    _, ds = clean(ct())
    assert ds.StudyDescription == "CT Head w/o contrast 5 mm"
    assert ds.SeriesDescription == "AXIAL 2.5mm"


def test_patient_characteristics_go_unless_the_recipe_is_one_for_research() -> None:
    _, ds = clean(ct())
    assert ds.PatientSex == ""
    assert not any(name in ds for name in ("PatientAge", "PatientSize", "PatientWeight", "EthnicGroup"))


def test_a_recipe_for_research_keeps_patient_characteristics_and_caps_a_great_age() -> None:
    made = RESEARCH.deidentify(received(ct())).instance
    ds = dcmread(BytesIO(made.part10))
    assert (ds.PatientSex, ds.PatientAge, ds.PatientSize, ds.PatientWeight) == ("M", "090Y", 1.81, 82)
    assert ds.PatientBirthDate == ""


def test_the_clean_object_says_what_was_done_and_nothing_of_burned_in_text() -> None:
    made, ds = clean(ct())
    assert ds.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in ds.DeidentificationMethodCodeSequence] == [
        "113100",
        "113103",
        "113104",
        "113105",
        "113107",
    ]
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED"
    assert made.recipe.sha256[:32] in ds.DeidentificationMethod[1]
    assert "BurnedInAnnotation" not in ds


def test_the_same_input_gives_the_same_bytes_in_any_thread() -> None:
    instance = received(ct())
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: DEIDENTIFIER.deidentify(instance), range(16)))
    assert {m.instance.part10 for m in made} == {made[0].instance.part10}
    again = Deidentifier(RECIPE, KEY, version="0.1.0").deidentify(instance)
    assert again == made[0]


def test_another_site_key_gives_other_pseudonyms() -> None:
    other = Deidentifier(RECIPE, b"x" * 32, version="0.1.0").deidentify(received(ct())).instance
    ours = DEIDENTIFIER.deidentify(received(ct())).instance
    assert {other.study_uid, other.study_key, other.patient_key} & {
        ours.study_uid,
        ours.study_key,
        ours.patient_key,
    } == set()


def test_instances_of_a_study_stay_together_and_point_at_each_other() -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.826.0.1.3680043.8.498.77.1"
    first, _ = clean(ct())
    second, ds = clean(
        ct(SOPInstanceUID="1.2.826.0.1.3680043.8.498.77.2", ReferencedImageSequence=Sequence([reference]))
    )
    assert (first.study_uid, first.series_uid, first.study_key) == (
        second.study_uid,
        second.series_uid,
        second.study_key,
    )
    assert ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == first.sop_uid
    assert ds.ReferencedImageSequence[0].ReferencedSOPClassUID == CT
    assert ds.file_meta.MediaStorageSOPInstanceUID == second.sop_uid == ds.SOPInstanceUID


def test_dates_keep_intervals_and_weekdays_within_a_patient_and_times_stay() -> None:
    _, ds = clean(ct())
    _, later = clean(ct(StudyDate="20240310"))
    shifted, shifted_later = (date.fromisoformat(d) for d in (str(ds.StudyDate), str(later.StudyDate)))
    assert (shifted_later - shifted).days == (date(2024, 3, 10) - date(2024, 2, 29)).days
    assert shifted.weekday() == date(2024, 2, 29).weekday()
    assert shifted != date(2024, 2, 29)
    assert ds.StudyTime == "101500"
    moment = str(ds.AcquisitionDateTime)
    assert moment[8:] == "101530.123456+0100"
    assert (date.fromisoformat(moment[:8]) - shifted).days == 1


def test_the_keys_are_what_the_public_functions_say() -> None:
    made, _ = clean(ct(IssuerOfPatientID="HOSPITAL-1"))
    assert made.study_key == study_key_of(KEY, "1.2.826.0.1.3680043.8.498.77")
    assert made.patient_key == patient_key(KEY, "PAT-420042", "HOSPITAL-1") != patient_key(KEY, "PAT-420042")
    assert clean(ct(PatientID=""))[0].patient_key == ""


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_every_uncompressed_syntax_comes_out_as_it_came_in(syntax: str) -> None:
    made, ds = clean(ct(), syntax)
    assert made.transfer_syntax == ds.file_meta.TransferSyntaxUID == syntax
    assert (ds.Rows, ds.HighBit, ds.StudyDescription) == (4, 15, "CT Head w/o contrast 5 mm")
    assert ds.PixelData == bytes(range(32))


def test_deflated_data_is_deflated_again() -> None:
    engine = zlib.compressobj(wbits=-15)
    data = engine.compress(encoded(ct())) + engine.flush()
    made = DEIDENTIFIER.deidentify(received(ct(), DEFLATED, data)).instance
    ds = dcmread(BytesIO(made.part10))
    assert ds.file_meta.TransferSyntaxUID == DEFLATED
    assert ds.PixelData == bytes(range(32))
    assert b"STUDY" not in made.part10


def test_the_envelope_holds_the_identity_for_the_write_back_and_repr_does_not() -> None:
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    ds = ct(PatientName="Müller^Jürgen=山田^太郎", RequestAttributesSequence=Sequence([request]), AdmissionID="ADM9")
    done = DEIDENTIFIER.deidentify(received(ds))
    study, instance = (Dataset.from_json(text) for text in (done.identity.study, done.identity.instance))
    assert str(study.PatientName) == "Müller^Jürgen=山田^太郎"
    assert (study.PatientID, study.AccessionNumber, study.AdmissionID) == ("PAT-420042", "ACC-774411", "ADM9")
    assert study.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    assert (study.StudyInstanceUID, instance.SOPInstanceUID) == (ds.StudyInstanceUID, ds.SOPInstanceUID)
    assert (instance.InstanceNumber, instance.SOPClassUID) == (3, CT)
    assert "PatientName" not in instance
    assert "PAT-420042" not in repr(done)


def test_the_study_part_of_the_envelope_is_equal_in_all_instances_of_a_study() -> None:
    other = ct(SOPInstanceUID="1.2.3.4.5", InstanceNumber=4)
    first, second = (DEIDENTIFIER.deidentify(received(ds)).identity.study for ds in (ct(), other))
    assert first == second
    assert "SOPInstanceUID" not in Dataset.from_json(json.loads(first))


def test_japanese_names_survive_in_the_envelope_and_nowhere_else() -> None:
    instance = from_file(str(get_testdata_file("CT_small.dcm")))
    assert DEIDENTIFIER.deidentify(instance).identity.study
    ds = ct(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    done = DEIDENTIFIER.deidentify(received(ds))
    assert str(Dataset.from_json(done.identity.study).PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert b"\x1b$B" not in done.instance.part10
    assert b"Yamada" not in done.instance.part10


@pytest.mark.parametrize(
    ("changes", "risk"),
    [
        ({}, ""),
        ({"BurnedInAnnotation": "YES"}, "burned-in-annotation"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen-save"),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, ""),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived-image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary-capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "ultrasound"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.12.1"}, "other-class"),
        ({"ConversionType": "DF"}, "secondary-capture"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour-rendering"),
    ],
)
def test_what_hints_at_text_in_the_pixels_is_named(changes: dict[str, object], risk: str) -> None:
    assert clean(ct(**changes))[0].pixel_risk == risk


@pytest.mark.parametrize(
    ("said", "priority"), [("STAT", "STAT"), ("HIGH", "URGENT"), ("MEDIUM", "URGENT"), ("LOW", "ROUTINE")]
)
def test_the_priority_of_the_order_is_read(said: str, priority: str) -> None:
    assert clean(ct(RequestedProcedurePriority=said))[0].order_priority == priority
    assert clean(ct())[0].order_priority == ""


def test_patient_words_never_survive_in_a_description_even_if_they_are_anatomy() -> None:
    _, ds = clean(ct(PatientName="Head^Axial", StudyDescription="CT Head contrast", SeriesDescription="axial bone"))
    assert ds.StudyDescription == "CT contrast"
    assert ds.SeriesDescription == "bone"
    assert ds.BodyPartExamined == "HEAD"


def test_what_no_recipe_can_say_is_removed() -> None:
    ds = ct()
    ds.private_block(0x0011, "SECRET", create=True).add_new(1, "LO", "Beeblebrox")
    ds.add_new(0x50003000, "OW", b"Zaphod  ")
    ds.add_new(0x60003000, "OW", b"Zaphod  ")
    ds.add_new(0x00104444, "LO", "unknown even tag")
    ds.add_new(0xFFFCFFFC, "OB", b"Beeblebrox")
    ds.add_new(0x00101000, "UN", b"PAT-420042")
    ds.add_new(0x00880200, "SQ", Sequence([ct()]))
    ds.PixelData = bytes(range(32)) + b"Beeblebrox"[:8]
    made, out = clean(ds)
    assert b"eeblebro" not in made.part10
    assert out.PixelData == bytes(range(32))
    assert not [e for e in out if e.tag.is_private or e.tag.group in (0x5000, 0x6000, 0xFFFC)]
    assert "IconImageSequence" not in out
    assert made.part10[:128] == bytes(128)


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        (received(ct(), data=b""), "deid.no-uid"),
        (received(ct(), data=b"GET / HTTP/1.1\r\nHost: beeblebrox\r\n\r\n"), "deid.malformed"),
        (received(ct(), data=encoded(ct())[:-7]), "deid.malformed"),
        (received(ct(), data=encoded(ct(StudyInstanceUID=""))), "deid.no-uid"),
        (instance_of(encoded(ct()), EXPLICIT, CT, "1.2.3.4"), "deid.uid-mismatch"),
        (received(ct(), "1.2.840.10008.1.2.4.94", encoded(ct())), "deid.unsupported-transfer-syntax"),
        (received(ct(), "1.2.840.10008.1.2.4.50", encoded(ct())), "deid.pixel-data"),
        (received(ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")), "deid.unsupported-content"),
        (received(ct(PixelData=bytes(30))), "deid.pixel-data"),
        (received(ct(PixelData=bytes(64))), "deid.pixel-data"),
        (received(ct(), DEFLATED, encoded(ct())), "deid.malformed"),
    ],
)
def test_what_cannot_be_handled_is_quarantined_without_a_value(instance: object, code: str) -> None:
    with pytest.raises(Quarantine) as caught:
        DEIDENTIFIER.deidentify(instance)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert [word for word in PHI if word in str(caught.value).lower()] == []
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_sequences_without_end_are_quarantined() -> None:
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(Quarantine, match="nested deeper"):
        DEIDENTIFIER.deidentify(received(ct(), data=level * 20_000))


def test_a_broken_object_still_tells_its_study_if_it_can() -> None:
    data = encoded(ct())
    key = study_key_of(KEY, "1.2.826.0.1.3680043.8.498.77")
    assert peek_study_key(received(ct(), data=data[:-7]), KEY) == key
    assert peek_study_key(received(ct(), data=b"junk junk" + data), KEY) == key
    assert peek_study_key(received(ct(), data=b"\xff" * 99), KEY) is None
    with pytest.raises(Quarantine) as caught:
        DEIDENTIFIER.deidentify(received(ct(), data=data[:-7]))
    assert caught.value.study == key


@pytest.mark.parametrize("size", [100, 5_000, 70_000])
def test_a_broken_object_tells_its_study_from_the_beginning_or_from_more_of_it(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PEEKED", 1000)
    ds = ct()
    ds.add_new(0x00091001, "UN", bytes(size))
    data, key = encoded(ds)[:-7], study_key_of(KEY, "1.2.826.0.1.3680043.8.498.77")
    assert peek_study_key(received(ct(), data=data), KEY) == (None if size == 70_000 else key)
    engine = zlib.compressobj(wbits=-15)
    deflated = engine.compress(encoded(ct())) + engine.flush()
    assert peek_study_key(instance_of(deflated[:-3], DEFLATED, CT, "1.2.3"), KEY) == key


def test_an_instance_is_recognised_by_its_name_and_by_all_of_its_bytes() -> None:
    one = received(ct())
    made = DEIDENTIFIER.deidentify(one)
    assert made.instance_key == instance_key_of(KEY, one.sop_instance)
    names = Pseudonyms(KEY, "")
    assert made.source_digest == names.source_digest(one.transfer_syntax, [one.dataset])


def test_the_identity_of_an_object_does_not_hang_on_the_order_of_its_bytes() -> None:
    ds = ct(PregnancyStatus=4)
    little, big = (DEIDENTIFIER.deidentify(received(ds, syntax)).identity for syntax in (EXPLICIT, BIG))
    assert (little.study, little.instance) == (big.study, big.instance)


def test_a_short_site_key_stops_the_role() -> None:
    with pytest.raises(Stop) as caught:
        Deidentifier(RECIPE, b"short", version="0.1.0")
    assert caught.value.code == "deid.site-key"


def test_source_digests_tell_equal_from_unequal_bytes_and_need_the_key() -> None:
    one, two = (DEIDENTIFIER.deidentify(received(ct(KVP=kv))).source_digest for kv in ("120", "140"))
    assert one != two
    assert one == DEIDENTIFIER.deidentify(received(ct(KVP="120"))).source_digest
    assert one != Deidentifier(RECIPE, b"x" * 32, version="0.1.0").deidentify(received(ct(KVP="120"))).source_digest


def test_an_unknown_character_set_is_not_passed_on() -> None:
    data = encoded(ct()).replace(b"ISO_IR 192", b"Beeblebrox")
    ds = dcmread(BytesIO(DEIDENTIFIER.deidentify(received(ct(), data=data)).instance.part10))
    assert "SpecificCharacterSet" not in ds


def test_no_warning_quotes_a_value(recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    with pydicom_config.disable_value_validation():
        instance = received(ct(PatientBirthDate="Beeblebrox", StudyDate="not a date", PatientAge="Zaphod"))
    done = DEIDENTIFIER.deidentify(instance)
    assert dcmread(BytesIO(done.instance.part10)).StudyDate == ""
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
