from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from edge_node.demo.ups import UpsWorklist, judge_create
from edge_node.domain.status import Status

from .workitems import lock, workitem


def test_a_complete_workitem_is_accepted() -> None:
    assert judge_create(workitem()) == (Status.SUCCESS, ())


@pytest.mark.parametrize(
    "keyword",
    ["ProcedureStepLabel", "InputReadinessState", "TransactionUID", "AdmissionID", "ReferencedRequestSequence"],
)
def test_a_missing_required_attribute_is_named(keyword: str) -> None:
    item = workitem()
    delattr(item, keyword)
    assert judge_create(item) == (Status.MISSING_ATTRIBUTE, (keyword,))


def test_an_empty_type_1_attribute_is_refused() -> None:
    item = workitem()
    item.ProcedureStepLabel = ""
    assert judge_create(item) == (Status.MISSING_ATTRIBUTE_VALUE, ("ProcedureStepLabel",))


def test_a_workitem_can_only_be_created_scheduled() -> None:
    item = workitem()
    item.ProcedureStepState = "IN PROGRESS"
    assert judge_create(item)[0] is Status.UPS_NOT_SCHEDULED


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ScheduledProcedureStepPriority", "STAT"),
        ("InputReadinessState", "MAYBE"),
        ("TransactionUID", "2.25.1"),
        ("SOPInstanceUID", "2.25.1"),
        ("ScheduledProcedureStepModificationDateTime", "20260309"),
    ],
)
def test_a_wrong_value_or_an_attribute_of_the_scp_is_refused(keyword: str, value: str) -> None:
    item = workitem()
    setattr(item, keyword, value)
    status, reasons = judge_create(item)
    assert status is Status.INVALID_ATTRIBUTE_VALUE
    assert keyword in reasons[0]


def test_an_input_reference_without_instances_is_refused() -> None:
    item, source = workitem(), Dataset()
    source.TypeOfInstances = "DICOM"
    item.InputInformationSequence = [source]
    status, reasons = judge_create(item)
    assert status is Status.MISSING_ATTRIBUTE
    assert "InputInformationSequence.StudyInstanceUID" in reasons


def test_a_request_item_needs_its_type_2_attributes() -> None:
    item, request = workitem(), Dataset()
    request.StudyInstanceUID = "2.25.7"
    item.ReferencedRequestSequence = [request]
    assert "ReferencedRequestSequence.AccessionNumber" in judge_create(item)[1]


def test_the_same_workitem_twice_is_a_duplicate() -> None:
    worklist = UpsWorklist()
    assert worklist.create("2.25.1", workitem())[0] is Status.SUCCESS
    assert worklist.create("2.25.1", workitem())[0] is Status.DUPLICATE_SOP_INSTANCE
    assert len(worklist.ordered()) == 1


def test_the_reading_order_is_priority_then_due_then_start() -> None:
    worklist = UpsWorklist()
    rows = [
        ("2.25.1", "LOW", "20260309090000", "20260309080000"),
        ("2.25.2", "HIGH", "20260309110000", "20260309080000"),
        ("2.25.3", "HIGH", "20260309100000", "20260309090000"),
        ("2.25.4", "HIGH", "20260309100000", "20260309080000"),
        ("2.25.5", "MEDIUM", "20260309080000", "20260309080000"),
    ]
    for uid, *facts in rows:
        worklist.create(uid, workitem(*facts))
    without_due = workitem("HIGH")
    del without_due.ExpectedCompletionDateTime
    worklist.create("2.25.6", without_due)
    order = [str(item.SOPInstanceUID)[-1] for item in worklist.ordered()]
    assert order == ["4", "3", "2", "6", "5", "1"]


def test_an_unlocked_workitem_can_be_reprioritised_and_a_locked_one_only_by_its_performer() -> None:
    worklist = UpsWorklist()
    worklist.create("2.25.1", workitem("LOW"))
    change = lock("")
    change.ScheduledProcedureStepPriority = "HIGH"
    assert worklist.update("2.25.1", change)[0] is Status.SUCCESS
    assert worklist.ordered()[0].ScheduledProcedureStepPriority == "HIGH"
    assert worklist.change_state("2.25.1", "IN PROGRESS", "2.25.99")[0] is Status.SUCCESS
    assert worklist.update("2.25.1", change)[0] is Status.UPS_WRONG_TRANSACTION_UID
    change.TransactionUID = "2.25.99"
    assert worklist.update("2.25.1", change)[0] is Status.SUCCESS


def test_the_lock_is_never_shown() -> None:
    worklist = UpsWorklist()
    worklist.create("2.25.1", workitem())
    worklist.change_state("2.25.1", "IN PROGRESS", "2.25.99")
    shown = worklist.get("2.25.1")
    assert shown is not None
    assert not shown.TransactionUID


def test_the_state_cannot_be_set_with_n_set() -> None:
    worklist = UpsWorklist()
    worklist.create("2.25.1", workitem())
    assert worklist.update("2.25.1", lock("", "COMPLETED"))[0] is Status.INVALID_ATTRIBUTE_VALUE


def test_a_workitem_walks_through_its_states_and_no_other_way() -> None:
    worklist = UpsWorklist()
    worklist.create("2.25.1", workitem())
    change = worklist.change_state
    assert change("2.25.1", "COMPLETED", "2.25.9")[0] is Status.UPS_NOT_IN_PROGRESS
    assert change("2.25.1", "IN PROGRESS", "")[0] is Status.UPS_WRONG_TRANSACTION_UID
    assert change("2.25.1", "IN PROGRESS", "2.25.9")[0] is Status.SUCCESS
    assert change("2.25.1", "IN PROGRESS", "2.25.8")[0] is Status.UPS_ALREADY_IN_PROGRESS
    assert change("2.25.1", "SCHEDULED", "2.25.9")[0] is Status.UPS_SCHEDULED_ONLY_BY_CREATE
    assert change("2.25.1", "CANCELED", "2.25.8")[0] is Status.UPS_WRONG_TRANSACTION_UID
    assert change("2.25.1", "COMPLETED", "2.25.9")[0] is Status.UPS_FINAL_STATE_NOT_MET
    performed, done = Dataset(), lock("2.25.9")
    performed.PerformedProcedureStepStartDateTime = performed.PerformedProcedureStepEndDateTime = "20260309103000"
    done.UnifiedProcedureStepPerformedProcedureSequence = [performed]
    assert worklist.update("2.25.1", done)[0] is Status.SUCCESS
    assert change("2.25.1", "COMPLETED", "2.25.9")[0] is Status.SUCCESS
    assert change("2.25.1", "COMPLETED", "2.25.9")[0] is Status.UPS_ALREADY_COMPLETED
    assert worklist.update("2.25.1", lock("2.25.9"))[0] is Status.UPS_NO_LONGER_UPDATABLE
    assert worklist.request_cancel("2.25.1")[0] is Status.UPS_ALREADY_COMPLETED_FAILURE


def test_only_a_workitem_nobody_has_taken_is_canceled_on_request() -> None:
    worklist = UpsWorklist()
    worklist.create("2.25.1", workitem())
    worklist.create("2.25.2", workitem())
    worklist.change_state("2.25.2", "IN PROGRESS", "2.25.9")
    assert worklist.request_cancel("2.25.1")[0] is Status.SUCCESS
    assert worklist.request_cancel("2.25.1")[0] is Status.UPS_ALREADY_CANCELED
    assert worklist.request_cancel("2.25.2")[0] is Status.UPS_PERFORMER_UNREACHABLE
    assert worklist.request_cancel("2.25.3")[0] is Status.UPS_UNKNOWN


def test_refusals_say_why_without_values() -> None:
    worklist = UpsWorklist()
    item = workitem()
    item.ScheduledProcedureStepPriority = item.PatientID
    _, reasons = worklist.create("2.25.1", item)
    assert reasons
    assert not any("TOY1" in reason for reason in reasons)
