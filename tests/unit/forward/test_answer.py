from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.forward.answer import (
    CONTRADICTION,
    UNACCOUNTED,
    Account,
    Fate,
    Reason,
    UnreadableAnswer,
    judge,
    read_answer,
)
from tests.integration.peers_stow import response

A, B, C = "2.25.1", "2.25.2", "2.25.3"


def test_stored_refused_and_unmentioned_are_told_apart() -> None:
    accounts = read_answer(response([A], {B: Reason.CANNOT_UNDERSTAND}), [A, B, C])
    assert accounts == {
        A: Account(Fate.DELIVERED),
        B: Account(Fate.NEVER, "trainer.cannot-understand"),
        C: Account(Fate.RETRY, UNACCOUNTED),
    }


@pytest.mark.parametrize(
    ("number", "fate"),
    [
        (Reason.OUT_OF_RESOURCES, Fate.RETRY),
        (Reason.OUT_OF_RESOURCES + 0x42, Fate.RETRY),
        (Reason.PROCESSING_FAILURE, Fate.RETRY),
        (45071, Fate.RETRY),
        (45070, Fate.DELIVERED),
        (43264, Fate.NEVER),
        (45063, Fate.NEVER),
        (Reason.DATA_SET_MISMATCH + 1, Fate.NEVER),
        (Reason.CANNOT_UNDERSTAND, Fate.NEVER),
        (Reason.CANNOT_UNDERSTAND + 0x122, Fate.NEVER),
        (Reason.SOP_CLASS_NOT_SUPPORTED, Fate.NEVER),
        (Reason.NOT_AUTHORISED, Fate.RETRY),
        (12345, Fate.RETRY),
        (None, Fate.RETRY),
        ("43264", Fate.RETRY),
        (True, Fate.RETRY),
    ],
)
def test_each_failure_reason_has_its_fate(number: object, fate: Fate) -> None:
    assert judge(number).fate is fate
    assert judge(number).code.startswith("trainer.")


def test_a_warning_is_a_delivery_that_says_what_was_changed() -> None:
    plain = json.loads(response([A]))
    plain["00081199"]["Value"][0]["00081196"] = {"vr": "US", "Value": [int(Reason.ELEMENTS_COERCED)]}
    assert read_answer(json.dumps(plain).encode(), [A]) == {A: Account(Fate.DELIVERED, "trainer.stored-coerced")}


def test_a_trainer_that_contradicts_itself_is_not_believed() -> None:
    assert read_answer(response([A], {A: Reason.CANNOT_UNDERSTAND}), [A])[A] == Account(Fate.RETRY, CONTRADICTION)


def test_uids_that_were_not_sent_are_ignored() -> None:
    assert read_answer(response([A, B]), [A]) == {A: Account(Fate.DELIVERED)}


def test_padding_of_a_uid_does_not_hide_it() -> None:
    assert read_answer(response([A + "\0"]), [A])[A].fate is Fate.DELIVERED


def test_an_empty_answer_delivers_nothing() -> None:
    assert read_answer(b"{}", [A]) == {A: Account(Fate.RETRY, UNACCOUNTED)}


@pytest.mark.parametrize(
    "body",
    [b"", b"<NativeDicomModel/>", b'{"00081199":', b"[]", b"null", b'{"00081199":{"Value":{}}}', b'{"00081199":7}',
     b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_store_response_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read_answer(body, [A])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(A),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["00081199", "00081198", "00081155", "00081197", "Value", "vr"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(plain=_json)
def test_no_answer_delivers_an_instance_it_does_not_name(plain: object) -> None:
    try:
        accounts = read_answer(json.dumps(plain).encode(), [A, B])
    except UnreadableAnswer:
        return
    assert accounts[B].fate is Fate.RETRY
    if accounts[A].fate is Fate.DELIVERED:
        assert f'"{A}"' in json.dumps(plain)


@given(cut=st.integers(min_value=1, max_value=400))
def test_no_truncation_of_an_answer_is_readable(cut: int) -> None:
    whole = response([A, B], {C: Reason.OUT_OF_RESOURCES})
    with pytest.raises(UnreadableAnswer):
        read_answer(whole[: max(0, len(whole) - cut)], [A, B, C])
