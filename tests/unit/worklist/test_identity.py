"""Who a result belongs to, rebuilt from envelopes."""

from __future__ import annotations

import warnings

import pytest
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from edge_node.domain.errors import Quarantine
from edge_node.worklist.identity import WriteBackIdentity
from tests.results_back import (
    JAPANESE,
    MADE_AT,
    PATIENT,
    SERIES_UID,
    STUDY_UID,
    envelopes,
    identity,
    original_uid,
    pseudonym,
    write_back,
)


def test_a_pseudonymous_image_leads_back_to_the_original() -> None:
    image = identity().original(pseudonym(2))
    assert (image.sop_uid, image.series_uid, image.number) == (original_uid(2), SERIES_UID, 2)
    assert identity().study_uid == STUDY_UID


def test_nothing_of_the_identity_shows_in_a_repr() -> None:
    whole = identity()
    shown = repr(whole) + repr(whole.first) + repr(write_back()) + str(whole)
    assert not [value for value in PATIENT.values() if value in shown]
    assert original_uid(1) not in shown


def test_an_image_without_an_envelope_stops_the_write_back() -> None:
    with pytest.raises(Quarantine) as raised:
        identity().original("2.25.404")
    assert raised.value.code == "worklist.identity-incomplete"
    assert "2.25.404" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"00100010": {"vr": "PN", "Value": 3}}'])
def test_an_unreadable_envelope_is_quarantined_without_quoting_it(text: str) -> None:
    with pytest.raises(Quarantine) as raised:
        WriteBackIdentity.from_envelopes(text, envelopes()[1])
    assert raised.value.code == "worklist.identity-unreadable"
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("missing", ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"])
def test_an_envelope_without_a_uid_is_quarantined(missing: str) -> None:
    with pytest.raises(Quarantine, match="identity-incomplete"):
        identity(image={missing: None})


def test_a_study_without_its_uid_or_without_images_is_quarantined() -> None:
    with pytest.raises(Quarantine, match="identity-incomplete"):
        identity(StudyInstanceUID=None)
    with pytest.raises(Quarantine, match="identity-incomplete"):
        identity(images=0)


def test_every_spelling_of_a_name_is_kept() -> None:
    target = Dataset()
    identity(PatientName=JAPANESE).stamp(target)
    assert str(target.PatientName) == JAPANESE
    assert target.SpecificCharacterSet == "ISO_IR 192"


def test_what_the_source_lacked_is_empty_when_required_and_absent_otherwise() -> None:
    target = Dataset()
    identity(AccessionNumber=None, IssuerOfPatientID=None, PatientBirthDate=None).stamp(target)
    assert target["AccessionNumber"].is_empty
    assert target["PatientBirthDate"].is_empty
    assert "IssuerOfPatientID" not in target


def test_odd_values_are_copied_as_they_came_and_nobody_prints_them() -> None:
    before = pydicom_config.settings.reading_validation_mode
    study, instances = envelopes()
    study = study.replace("MRN-77310", "X" * 70).replace("19570313", "1957.3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = Dataset()
        WriteBackIdentity.from_envelopes(study, instances).stamp(target)
    assert (target.PatientID, target.PatientBirthDate) == ("X" * 70, "1957.3")
    assert pydicom_config.settings.reading_validation_mode == before


def test_the_order_behind_the_study_is_found_wherever_the_image_said_it() -> None:
    item = identity().request()
    assert (item.AccessionNumber, item.RequestedProcedureID) == ("ACC-551", "RP-12")
    assert item.PlacerOrderNumberImagingServiceRequest == "PLACER-3"
    assert "RequestingPhysician" not in item
    workitem = identity().request(workitem=True)
    assert str(workitem.RequestingPhysician) == "Nowak^Jan"
    assert list(workitem.OrderPlacerIdentifierSequence) == []


def test_images_are_grouped_by_series_in_their_order() -> None:
    series = identity(images=12).series()
    assert [image.number for image in series[SERIES_UID]] == list(range(1, 13))


def test_only_multi_frame_images_need_a_frame_number() -> None:
    assert not identity().first.multi_frame
    assert identity(image={"SOPClassUID": EnhancedCTImageStorage}).first.multi_frame


@pytest.mark.parametrize(("offset", "clock"), [("+0100", "1031"), ("-0530", "0401"), ("+0000", "0931")])
def test_times_are_on_the_clock_the_study_states(offset: str, clock: str) -> None:
    assert identity(TimezoneOffsetFromUTC=offset).local(MADE_AT).strftime("%H%M") == clock


@pytest.mark.parametrize("offset", [None, "nonsense", "+9999"])
def test_without_a_stated_zone_the_clock_of_the_node_counts(offset: str | None) -> None:
    assert identity(TimezoneOffsetFromUTC=offset).local(MADE_AT) == MADE_AT.astimezone()
