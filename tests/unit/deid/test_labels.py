"""Pseudonyms: stable for ever, one to one, the same on every node with the key, and apart under every label."""

from __future__ import annotations

from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from edge_node.deid import Deidentifier, folder, patient_key, study_key_of
from edge_node.deid.pseudonym import Pseudonyms, key_id_of, patient_of
from edge_node.domain.errors import Stop
from tests.unit.deid.objects import KEY, RECIPE, clean, ct, received

UIDS = st.from_regex(r"1\.3\.[1-9][0-9]{0,12}(\.[1-9][0-9]{0,8}){0,4}", fullmatch=True)
LABELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", fullmatch=True)
PEOPLE = st.tuples(st.text(max_size=8), st.text(min_size=1, max_size=16).filter(lambda text: bool(text.strip())))


def test_pseudonyms_without_a_label_are_those_of_the_first_version() -> None:
    names = Pseudonyms(KEY)
    assert names.uid("1.2.3.4") == "2.25.133214384558451522782789046205766344720"
    assert names.identifier("patient", "H", "A1") == "45SM6MV72UFY"
    assert names.patient("H", "A1", "1.2.3") == "45SM6MV72UFY"
    assert names.shift_days("id|H|A1") == -126
    assert (study_key_of(KEY, "1.2.3"), patient_key(KEY, "A1", "H")) == ("26RXHQMNZZAH", "4PHHRLV4SOSLGYPTSUTL")
    assert key_id_of(KEY) == "fa0cde5e"
    assert Pseudonyms(KEY, "trial-A").uid("1.2.3.4") == "2.25.289877343199295551616948212187046128055"


@given(st.sets(UIDS, max_size=40), st.sampled_from(["", "trial-A"]))
def test_no_two_uids_become_one_and_each_becomes_the_same_every_time(olds: set[str], label: str) -> None:
    made = {old: Pseudonyms(KEY, label).uid(old) for old in olds}
    assert len(set(made.values())) == len(olds)
    assert made == {old: Pseudonyms(bytes(KEY), label).uid(old) for old in olds}
    assert not set(made.values()) & olds


@given(st.sets(PEOPLE, max_size=30), st.sets(LABELS, min_size=2, max_size=5))
def test_pseudonyms_of_different_labels_have_nothing_in_common(people: set[tuple[str, str]], given: set[str]) -> None:
    seen: set[str] = set()
    for label in ("", *given):
        names = Pseudonyms(KEY, label)
        made = {names.identifier("patient", *one) for one in people} | {names.uid("1.3." + str(n)) for n in range(5)}
        assert not made & seen
        seen |= made


def test_labels_shift_the_dates_of_a_patient_apart() -> None:
    shifts = {Pseudonyms(KEY, f"trial-{n}").shift_days("id||PAT-1") for n in range(40)}
    assert len(shifts) > 30
    assert all(-3647 <= shift <= -7 and shift % 7 == 0 for shift in shifts)


@pytest.mark.parametrize("label", [" ", "trial A", "-a", "ü", "a" * 33, "a|b", "a\n"])
def test_a_label_that_could_be_misspelt_unseen_is_refused(label: str) -> None:
    with pytest.raises(Stop, match=r"deid\.label-invalid"):
        Pseudonyms(KEY, label)


def test_intervals_are_kept_to_the_day_within_a_label_and_no_pseudonym_is_shared_between_two() -> None:
    seen = []
    for label in ("", "trial-A", "trial-B"):
        engine = Deidentifier(RECIPE, KEY, version="0.1.0", label=label)
        visits = [_clean(engine, ct(StudyDate=day)) for day in ("20230105", "20240229")]
        first, second = (date.fromisoformat(visit.StudyDate) for visit in visits)
        assert (second - first).days == (date(2024, 2, 29) - date(2023, 1, 5)).days
        assert len({visit.PatientID for visit in visits}) == 1
        seen.append((visits[0].PatientID, visits[0].StudyInstanceUID, visits[0].AccessionNumber, visits[0].StudyDate))
    for column in zip(*seen, strict=True):
        assert len(set(column)) == 3


def _clean(engine: Deidentifier, ds: Dataset) -> Dataset:
    return dcmread(BytesIO(engine.deidentify(received(ds)).instance.part10))


def test_the_nodes_own_names_do_not_depend_on_the_label() -> None:
    plain, labelled = (
        Deidentifier(RECIPE, KEY, version="0.1.0", label=label).deidentify(received(ct())) for label in ("", "trial-A")
    )
    assert plain.instance.study_key == labelled.instance.study_key
    assert plain.instance.patient_key == labelled.instance.patient_key
    assert (plain.derivation.label, labelled.derivation.label) == ("", "trial-A")
    assert plain.derivation.key_id == labelled.derivation.key_id == key_id_of(KEY)


def test_two_nodes_that_share_a_key_make_the_same_object_to_the_last_byte() -> None:
    one, other = (Deidentifier(RECIPE, bytes(KEY), version="0.1.0", label="t").deidentify(received(ct())) for _ in "ab")
    assert one.instance == other.instance
    stranger = Deidentifier(RECIPE, bytes(32), version="0.1.0", label="t").deidentify(received(ct()))
    assert stranger.instance.study_uid != one.instance.study_uid


def test_the_derivation_tells_what_was_done_to_the_object() -> None:
    made = Deidentifier(RECIPE, KEY, version="0.1.0").deidentify(received(ct()))
    patient = patient_of("", "PAT-420042", "")
    assert made.derivation.shift_days == Pseudonyms(KEY).shift_days(patient)
    assert made.derivation.patient == clean(ct())[1].PatientID
    assert str(made.derivation.shift_days) not in repr(made)


def test_a_folder_is_written_under_its_label(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.dcm").write_bytes(clean(ct())[0].part10)
    targets = []
    for label in ("", "trial-A", "trial-B"):
        work = folder.Work(RECIPE, KEY, "0.1.0", hold_pixels=False, label=label)
        [made] = folder.apply(tmp_path / "in", tmp_path / f"out{label}", work)
        targets.append(made.target)
    assert len({Path(target).parts[0] for target in targets}) == 3
    assert Path(targets[1]).parts[0] != clean(ct())[0].study_uid
