from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, RLELossless

from edge_node.demo.headct import head_ct
from edge_node.demo.identities import identity
from edge_node.demo.studies import NOT_APPLICABLE, DemoStudy, make_studies
from edge_node.demo.trainer import needle_bytes


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[DemoStudy]:
    return make_studies(tmp_path_factory.mktemp("hospital"), 1, slices=6, rows=64)


def test_there_are_at_least_twelve_studies_of_all_the_kinds(studies: list[DemoStudy]) -> None:
    assert len(studies) >= 12
    assert {study.modality for study in studies} == {"CT", "CR", "MR", "US"}
    heads = [study for study in studies if study.kind == "head-ct"]
    assert len({study.truth for study in heads if study.truth}) == 4
    assert sum(study.truth is None for study in heads) == 4
    assert [study.expected for study in studies].count("quarantine") == 1


def test_positives_do_not_come_first(studies: list[DemoStudy]) -> None:
    assert [study.arrival for study in studies] == list(range(1, len(studies) + 1))
    places = [study.arrival for study in studies if study.truth not in (None, NOT_APPLICABLE)]
    assert min(places) > 4
    assert max(places) == len(studies)


def test_every_study_has_its_own_patient_order_and_uids(studies: list[DemoStudy]) -> None:
    for values in (
        {study.patient.patient_id for study in studies},
        {study.patient.accession for study in studies},
        {study.study_uid for study in studies},
        {study.patient.name for study in studies},
    ):
        assert len(values) == len(studies)


def test_names_survive_their_character_sets(studies: list[DemoStudy]) -> None:
    for study in studies:
        for path in study.files:
            ds = dcmread(path, stop_before_pixels=True)
            assert str(ds.PatientName) == study.patient.name
            assert str(ds.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName) == study.patient.name
            assert ds.Modality == study.modality
            assert ds.StudyInstanceUID == study.study_uid


def test_every_study_really_carries_its_needles(studies: list[DemoStudy]) -> None:
    for study in studies:
        raw = b"".join(path.read_bytes() for path in study.files)
        present = {index for index, needle in needle_bytes(study.needles) if needle in raw}
        long_enough = {index for index, _ in needle_bytes(study.needles)}
        unfound = {study.needles[index] for index in long_enough - present}
        # a text of a name in another script than the object's may be written with escapes in between
        assert not {text for text in unfound if text.isascii()}


def test_real_objects_keep_nothing_of_their_old_identity(studies: list[DemoStudy]) -> None:
    for study in studies:
        if study.note.startswith("real object"):
            ds = dcmread(study.files[0])
            assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
            assert not any(old in study.files[0].read_bytes() for old in (b"CompressedSamples", b"Rubo", b"4MR1"))


def test_all_objects_but_the_broken_one_can_be_decoded(studies: list[DemoStudy]) -> None:
    syntaxes = set()
    for study in studies:
        ds = dcmread(study.files[0])
        syntaxes.add(ds.file_meta.TransferSyntaxUID)
        if study.expected == "quarantine":
            with pytest.raises(Exception, match=r"(?i)pixel data|bytes|length"):
                _ = ds.pixel_array
        else:
            assert ds.pixel_array.size > 0
    assert {RLELossless, JPEG2000Lossless} <= syntaxes


def test_compressed_slices_hold_the_same_pixels_as_the_phantom(studies: list[DemoStudy]) -> None:
    for study in studies:
        if study.kind == "head-ct" and study.note.startswith(("RLE", "JPEG 2000")):
            plain = head_ct(1000 + study.arrival - 1, study.truth, slices=6, rows=64)
            by_uid = {ds.SOPInstanceUID: ds for ds in plain}
            for path in study.files:
                ds = dcmread(path)
                assert np.array_equal(ds.pixel_array, by_uid[ds.SOPInstanceUID].pixel_array)


def test_one_series_is_sent_out_of_order(studies: list[DemoStudy]) -> None:
    def numbers(study: DemoStudy) -> list[int]:
        return [int(dcmread(path, stop_before_pixels=True).InstanceNumber) for path in study.files]

    shuffled = [study for study in studies if "out of order" in study.note]
    assert len(shuffled) == 1
    assert numbers(shuffled[0]) != sorted(numbers(shuffled[0]))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (make_studies(tmp_path / name, 3, slices=2, rows=32) for name in "ab")
    for a, b in zip(one, two, strict=True):
        assert [p.read_bytes() for p in a.files] == [p.read_bytes() for p in b.files]
    assert identity(3, 0) != identity(4, 0)


def test_a_tilted_gantry_cuts_the_same_head_at_the_stated_angle() -> None:
    tilted = head_ct(5, None, slices=12, rows=64, tilt_degrees=12)
    axes = np.array(tilted[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(*axes)
    table = np.subtract(tilted[1].ImagePositionPatient, tilted[0].ImagePositionPatient).astype(float)
    angle = np.degrees(np.arccos(normal @ table / np.linalg.norm(table)))
    assert angle == pytest.approx(12, abs=0.01)
    straight = np.stack([ds.pixel_array for ds in head_ct(5, None, slices=12, rows=64)]).astype(float)
    # A voxel of a tilted slice, looked up at its stated position in the straight volume, is the same head.
    dy, dz = float(tilted[0].PixelSpacing[0]), float(table[2])
    ds = tilted[6]
    for row in (16, 32, 48):
        centre = np.array(ds.ImagePositionPatient, float) + axes[1] * row * dy + axes[0] * 32 * dy
        y, z = (centre[1] + dy * 31.5) / dy, centre[2] / dz
        y0, z0 = int(y), int(z)
        fy, fz = y - y0, z - z0
        corner = straight[z0 : z0 + 2, y0 : y0 + 2, 32]
        expected = (corner * np.outer([1 - fz, fz], [1 - fy, fy])).sum()
        assert float(ds.pixel_array[row, 32]) == pytest.approx(expected, abs=1.5)
