"""DIMSE statuses by name and consequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.worklist.statuses import Answer, storage_status, workitem_status


@pytest.mark.parametrize(
    ("code", "name", "answer"),
    [
        (0x0000, "SUCCESS", Answer.DONE),
        (0xB000, "COERCION_OF_DATA_ELEMENTS", Answer.DONE),
        (0x0111, "DUPLICATE_SOP_INSTANCE", Answer.DONE),
        (0xA700, "OUT_OF_RESOURCES", Answer.LATER),
        (0xA7FF, "OUT_OF_RESOURCES", Answer.LATER),
        (0x0110, "PROCESSING_FAILURE", Answer.LATER),
        (None, "NO_ANSWER", Answer.LATER),
        (0xA900, "DATA_SET_DOES_NOT_MATCH_SOP_CLASS", Answer.REFUSED),
        (0xC123, "CANNOT_UNDERSTAND", Answer.REFUSED),
        (0x0122, "SOP_CLASS_NOT_SUPPORTED", Answer.REFUSED),
    ],
)
def test_an_answer_to_a_store_has_a_name_and_a_consequence(code: int | None, name: str, answer: Answer) -> None:
    status = storage_status(code)
    assert (status.name, status.answer) == (name, answer)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (0x0000, Answer.DONE),
        (0xB300, Answer.DONE),
        (0x0111, Answer.EXISTS),
        (0xC300, Answer.TAKEN),
        (0xC301, Answer.TAKEN),
        (0xC311, Answer.TAKEN),
        (0x0120, Answer.REFUSED),
        (0x0110, Answer.LATER),
        (None, Answer.LATER),
    ],
)
def test_an_answer_about_a_workitem_has_a_consequence(code: int | None, answer: Answer) -> None:
    assert workitem_status(code).answer is answer


@given(st.integers(0, 0xFFFF))
def test_no_failure_is_ever_taken_for_success(code: int) -> None:
    for status in (storage_status(code), workitem_status(code)):
        if status.answer is Answer.DONE:
            # PS3.7 Annex C: success and the warnings; "already there" is success for an archive.
            assert code in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or 0xB000 <= code <= 0xBFFF
