"""The order of a flagged study raised at a real MLLP listener, and everything that must leave it alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edge_node.config.destinations import Hl7Order
from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.finding import Finding, TriageOutcome, TriageResult, Verdict
from edge_node.worklist.order_change import OrderOutcome, change
from edge_node.worklist.oru import message as result_message
from edge_node.worklist.priority import decide
from edge_node.worklist.writer import Site, WorklistWriter
from edge_node.worklist.writers import WRITERS
from tests.integration.peers_mllp import (
    NOT_TAKEN,
    Behaviour,
    MllpListener,
    acknowledgement,
    answer,
    in_pieces,
)
from tests.integration.peers_orthanc import free_port
from tests.results_back import MADE_AT, PATIENT, STUDY_UID, finding, identity, priority, result, write_back


def request(**values: str | None) -> Dataset:
    made = Dataset()
    whole: dict[str, str | None] = {
        "RequestedProcedureID": "RP-12",
        "ScheduledProcedureStepID": "SPS-1",
        "RequestedProcedureDescription": "CT head without contrast",
        **values,
    }
    for keyword, value in whole.items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def ordered(*requests: Dataset, **study: Any) -> dict[str, Any]:
    """The identity of a study with its requests (one when none is given), for `write_back`."""
    of = {"RequestAttributesSequence": list(requests or [request()]), "Modality": "CT", **study}
    return {"identity": identity(**of)}


def writer_to(port: int, *, timeout_s: float = 5, **options: Any) -> WorklistWriter:
    chosen = Hl7Order(host="127.0.0.1", port=port, **options)
    return WRITERS["hl7_order"](Site(None, None, "EDGENODE", timeout_s, hl7_order=chosen))


def outcome_of(writer: WorklistWriter, **order: Any) -> str:
    return writer.write(write_back(**{**ordered(), **order})).outcome


def test_an_imaging_order_is_raised_to_stat_and_nothing_else_of_it_is_said() -> None:
    with MllpListener() as listener:
        report = writer_to(listener.port).write(write_back(**ordered()))
        rows, names = listener.rows(), [row[:3] for row in listener.messages[0].decode().rstrip("\r").split("\r")]
    assert (report.writer, report.outcome) == ("hl7_order", "raised")
    header = rows["MSH"][0]
    assert report.objects == (("order", header[9]),)
    assert (header[8], header[11], header[17]) == ("OMI^O23^OMI_O23", "2.5.1", "UNICODE UTF-8")
    assert names == ["MSH", "PID", "ORC", "TQ1", "OBR", "IPC"]
    assert rows["PID"][0][3] == "MRN-77310^^^HOSPITAL-A^PI"
    control, asked = rows["ORC"][0], rows["OBR"][0]
    assert control[1:4] == ["XO", "PLACER-3", "FILLER-4"] == ["XO", *asked[2:4]]
    assert control[7] == ""
    assert rows["TQ1"][0][1:] == ["1", "", "", "", "", "", "", "", "S^Stat^HL70485"]
    assert (asked[4], asked[18]) == ("^CT head without contrast", "ACC-551")
    assert rows["IPC"][0][1:] == ["ACC-551", "RP-12", STUDY_UID, "SPS-1", "CT^^DCM"]
    said = listener.messages[0].decode()
    assert "hemorrhage" not in said
    assert "Kowalska" not in said


def test_the_older_message_says_it_twice_and_names_the_study_beside() -> None:
    with MllpListener() as listener:
        assert outcome_of(writer_to(listener.port, message="orm")) == "raised"
        rows, names = listener.rows(), [row[:3] for row in listener.messages[0].decode().rstrip("\r").split("\r")]
    assert rows["MSH"][0][8] == "ORM^O01^ORM_O01"
    assert names == ["MSH", "PID", "ORC", "OBR", "ZDS"]
    assert rows["ORC"][0][1] == "XO"
    assert rows["ORC"][0][7] == rows["OBR"][0][27] == "^^^^^S"
    assert rows["ZDS"][0][1] == f"{STUDY_UID}^^Application^DICOM"


def test_a_procedure_code_counts_more_than_its_description_and_each_step_has_its_segment() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTHEAD", "99RIS", "CT | head"
    first, second = request(), request(ScheduledProcedureStepID="SPS-2")
    first.RequestedProcedureCodeSequence = [code]
    with MllpListener() as listener:
        assert outcome_of(writer_to(listener.port), **ordered(first, second)) == "raised"
        rows = listener.rows()
    assert rows["OBR"][0][4] == "CTHEAD^CT \\F\\ head^99RIS"
    assert [row[4] for row in rows["IPC"]] == ["SPS-1", "SPS-2"]


FLAGGED = finding()
DAYS = finding(category=3)
HOURS = replace(finding(category=2), probability=0.5)


@pytest.mark.parametrize(
    "order",
    [
        {"result": result(finding(Verdict.NOT_FLAGGED)), "priority": priority(found=finding(Verdict.NOT_FLAGGED))},
        {"result": TriageResult(TriageOutcome.NOT_APPLICABLE, "no model applies"), "priority": priority()},
        {"result": result(DAYS), "priority": priority(found=DAYS)},
        {"result": result(HOURS), "priority": priority(found=HOURS)},
        {"ordered": "STAT", "priority": priority("STAT", FLAGGED)},
        {"revision": 2, "replaces": 1, "earlier": result()},
        # The place of an earlier revision is kept; this one found nothing that would ask for it.
        {"result": result(finding(Verdict.NOT_FLAGGED)), "priority": priority(found=FLAGGED)},
        {"result": TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.withdrawn"), "revision": 2, "replaces": 1},
    ],
    ids=["not-flagged", "no-model", "days", "hours", "is-stat", "told-before", "kept-place", "withdrawn"],
)
def test_an_order_that_no_live_flag_makes_stat_is_left_alone(order: dict[str, Any]) -> None:
    with MllpListener() as listener:
        assert outcome_of(writer_to(listener.port), **order) == "nothing-to-raise"
        assert not listener.messages


NUMBERLESS = {
    "AccessionNumber": None,
    "PlacerOrderNumberImagingServiceRequest": None,
    "FillerOrderNumberImagingServiceRequest": None,
}


@pytest.mark.parametrize(
    ("study", "outcome"),
    [
        (ordered(**NUMBERLESS), "no-order"),
        (ordered(request(AccessionNumber="ACC-552")), "several-orders"),
        (ordered(request(), request(RequestedProcedureID="RP-13")), "several-orders"),
        (ordered(request(PlacerOrderNumberImagingServiceRequest="PLACER-4")), "several-orders"),
        (ordered(request(ScheduledProcedureStepID=None)), "incomplete-order"),
        (ordered(request(RequestedProcedureID=None)), "incomplete-order"),
        (ordered(request(RequestedProcedureDescription=None)), "incomplete-order"),
        (ordered(AccessionNumber=None), "incomplete-order"),
        (ordered(request(RequestedProcedureID="RP\r12")), "incomplete-order"),
    ],
)
def test_an_order_that_the_images_do_not_name_for_certain_is_left_alone(study: dict[str, Any], outcome: str) -> None:
    with MllpListener() as listener:
        assert outcome_of(writer_to(listener.port), **study) == outcome
        assert not listener.messages


def test_an_order_number_alone_is_enough_for_the_older_message() -> None:
    plain = ordered(request(RequestedProcedureID=None, ScheduledProcedureStepID=None), AccessionNumber=None)
    with MllpListener() as listener:
        assert outcome_of(writer_to(listener.port, message="orm"), **plain) == "raised"
        assert listener.rows()["ORC"][0][2:4] == ["PLACER-3", "FILLER-4"]


@pytest.mark.parametrize("missing", [{"PatientID": None}, {"IssuerOfPatientID": None}, {"PatientID": ["A-1", "A-2"]}])
def test_no_order_is_changed_without_a_patient_for_certain(missing: dict[str, Any]) -> None:
    with MllpListener() as listener, pytest.raises(Quarantine) as raised:
        outcome_of(writer_to(listener.port), **ordered(**missing))
    assert raised.value.code == "worklist.identity-incomplete"
    assert not listener.messages


def test_understood_is_not_changed_when_the_receiver_says_so() -> None:
    def unable(line: Any, message: bytes) -> None:
        line.sendall(acknowledgement(message, "AA").replace(b"\r\x1c", b"\rORC|UX|PLACER-3|FILLER-4\r\x1c"))

    def changed(line: Any, message: bytes) -> None:
        line.sendall(acknowledgement(message, "AA").replace(b"\r\x1c", b"\rORC|XR|PLACER-3|FILLER-4\r\x1c"))

    with MllpListener(unable, changed) as listener:
        report = writer_to(listener.port).write(write_back(**ordered()))
        assert (report.outcome, report.objects) == ("unable", ())
        assert outcome_of(writer_to(listener.port)) == "raised"


@pytest.mark.parametrize(("behaviour", "code"), NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_what_was_not_acknowledged_is_sent_again_to_the_byte(behaviour: Behaviour, code: str) -> None:
    with MllpListener(behaviour, in_pieces) as listener:
        writer = writer_to(listener.port, timeout_s=0.5)
        with pytest.raises(Retry) as raised:
            outcome_of(writer)
        assert raised.value.code == code
        assert outcome_of(writer) == "raised"
        assert len(listener.messages) == 2
        assert len(set(listener.messages)) == 1


def test_a_refusal_waits_for_a_human_and_a_listener_that_is_not_there_is_tried_again() -> None:
    with MllpListener(answer("AR")) as listener, pytest.raises(Quarantine) as refused:
        outcome_of(writer_to(listener.port))
    assert refused.value.code == "worklist.hl7-refused"
    with pytest.raises(Retry):
        outcome_of(writer_to(free_port(), timeout_s=1))
    with pytest.raises(Stop) as nowhere:
        WRITERS["hl7_order"](Site(None, None, "EDGENODE", 5, hl7_order=Hl7Order()))
    assert nowhere.value.code == "worklist.no-address"


def test_result_and_order_of_one_study_have_control_ids_of_their_own() -> None:
    whole, options = write_back(**ordered()), Hl7Order(host="ris")
    made, told = change(whole, options), result_message(whole, options)
    assert not isinstance(made, OrderOutcome)
    assert told is not None
    assert made.control_id != told.control_id
    assert len(made.control_id) <= 20


TEXT = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "AccessionNumber": TEXT,
            "PlacerOrderNumberImagingServiceRequest": TEXT,
            "PatientID": TEXT,
            "PatientName": st.text("ab^|~& ", max_size=20),
        },
    ),
    st.sampled_from(["omi", "orm"]),
)
def test_no_value_of_a_study_breaks_the_message_apart(study: Mapping[str, str], kind: str) -> None:
    try:
        made = change(write_back(**ordered(**study)), Hl7Order(host="ris", message=kind))
    except Quarantine:
        return
    if isinstance(made, OrderOutcome):
        return
    rows = made.content.decode().rstrip("\r").split("\r")
    assert [row[:3] for row in rows] == (
        ["MSH", "PID", "ORC", "TQ1", "OBR", "IPC"] if kind == "omi" else ["MSH", "PID", "ORC", "OBR", "ZDS"]
    )
    assert not re.search(r"[\x00-\x0c\x0e-\x1f\x7f]", made.content.decode())


@settings(max_examples=200)
@given(
    st.sampled_from(["STAT", "URGENT", "ROUTINE", ""]),
    st.sampled_from(["E", "I", "O", ""]),
    st.sampled_from(list(Verdict)),
    st.floats(0, 1),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(1, 3)),
)
def test_an_order_is_only_ever_raised_and_only_to_what_the_reading_order_says(
    known: str, patient_class: str, verdict: Verdict, probability: float, category: int, told: int | None
) -> None:
    found: Finding = replace(finding(verdict, category=category), probability=probability)
    place = decide(arrival=MADE_AT.timestamp(), order=known, patient_class=patient_class, finding=found)
    whole = write_back(
        **ordered(), result=result(found), priority=place, ordered=known, revision=4, replaces=told, earlier=None
    )
    made = change(whole, Hl7Order(host="ris"))
    if isinstance(made, OrderOutcome):
        return
    assert (verdict, place.level, told) == (Verdict.FLAGGED, "HIGH", None)
    assert known != "STAT"
    assert b"|S^Stat^HL70485" in made.content


def test_the_patients_words_are_in_no_error() -> None:
    with MllpListener(answer("AE")) as listener, pytest.raises(Retry) as raised:
        outcome_of(writer_to(listener.port))
    assert not [value for value in PATIENT.values() if value in repr(raised.value) and len(value) > 1]
