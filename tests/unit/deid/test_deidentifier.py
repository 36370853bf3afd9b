"""The door itself: recipe, key and label go in, and the clean object says by what it was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from edge_node.deid import Deidentifier, wire
from edge_node.deid.pseudonym import patient_key, study_key_of
from edge_node.deid.wire import Element
from edge_node.domain.errors import Quarantine, Stop
from tests.unit.deid.objects import CT, DEIDENTIFIER, KEY, RECIPE, RESEARCH, clean, ct, encoded, instance_of, received


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


def test_a_great_age_is_capped_in_big_endian_too() -> None:
    ds = ct(PatientAge="091Y")
    made = RESEARCH.deidentify(received(ds, "1.2.840.10008.1.2.2")).instance
    assert dcmread(DicomBytesIO(made.part10)).PatientAge == "090Y"
