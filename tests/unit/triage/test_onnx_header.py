"""ONNX files are read without running them; rubbish is refused and never crashes the reader."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.triage.onnx_header import NotOnnx, read_header
from tests.unit.triage.studies import REFERENCE
from tests.unit.triage.tiny_onnx import data, model, node, number, port, three_classes, varint, weight

WHOLE = three_classes((16, 32, 32))


def test_it_says_what_the_model_says():
    header = read_header(WHOLE)
    assert (header.ir, header.opset, header.producer, header.nodes) == (8, 17, "tests", 1)
    assert [(p.name, p.dtype, p.shape) for p in header.inputs] == [("image", "float32", ("n", 1, 16, 32, 32))]
    assert [(p.name, p.dtype, p.shape) for p in header.outputs] == [("classes", "float32", ("n", 3, 16, 32, 32))]
    assert not header.external


def test_onnxruntime_agrees():
    import onnxruntime

    for name in ("model.onnx", "model.fp32.onnx"):
        session = onnxruntime.InferenceSession(REFERENCE / name, providers=["CPUExecutionProvider"])
        header = read_header((REFERENCE / name).read_bytes())
        for ours, theirs in ((header.inputs, session.get_inputs()), (header.outputs, session.get_outputs())):
            assert [(p.name, list(p.shape)) for p in ours] == [(p.name, p.shape) for p in theirs]


def test_weights_that_old_exporters_list_among_the_inputs_are_none():
    made = model(
        [node("Add", ("x", "w"), ("y",))],
        [port("x", ("n",)), port("w", (1,))],
        [port("y", ("n",))],
        [weight("w", (1,), (1.0,))],
    )
    assert [p.name for p in read_header(made).inputs] == ["x"]


def test_weights_in_another_file_and_strange_operators_are_seen_even_inside_of_a_branch():
    outside = data(13, data(1, "location") + data(2, "../../etc/passwd")) + number(14, 1)
    inner = data(1, node("Evil", ("x",), ("y",), domain="com.evil")) + data(5, weight("w", (1,), (1.0,), outside))
    branch = node("If", ("x",), ("y",)) + data(5, data(1, "then_branch") + data(6, inner))
    header = read_header(model([branch], [port("x", ("n",))], [port("y", ("n",))]))
    assert header.external
    assert header.domains == {"", "com.evil"}
    assert header.nodes == 2


def test_graphs_inside_of_graphs_end_somewhere():
    inner = b""
    for _ in range(40):
        inner = data(1, node("If", (), ()) + data(5, data(6, inner)))
    deep = number(1, 8) + data(7, inner) + data(8, data(1, "") + number(2, 17))
    with pytest.raises(NotOnnx, match="nested"):
        read_header(deep)


@pytest.mark.parametrize("junk", [b"", b"hello", b"\x00" * 64, b"\xff" * 64, varint(7 << 3 | 2) + varint(10**12)])
def test_rubbish_is_refused(junk):
    with pytest.raises(NotOnnx):
        read_header(junk)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_never_crashes_the_reader(at, value):
    with contextlib.suppress(NotOnnx):
        read_header(WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(junk):
    with contextlib.suppress(NotOnnx):
        read_header(junk)
