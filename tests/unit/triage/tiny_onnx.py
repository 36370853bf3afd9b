"""Tiny ONNX models written byte by byte, so that tests need no package that makes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Shape = Sequence[int | str]


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def data(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def port(name: str, shape: Shape, dtype: int = 1) -> bytes:
    dims = b"".join(data(1, number(1, a) if isinstance(a, int) else data(2, a)) for a in shape)
    return data(1, name) + data(2, data(1, number(1, dtype) + data(2, dims)))


def weight(name: str, dims: Sequence[int], values: Sequence[float], extra: bytes = b"") -> bytes:
    raw = struct.pack(f"<{len(values)}f", *values)
    return b"".join(number(1, d) for d in dims) + number(2, 1) + data(8, name) + data(9, raw) + extra


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "") -> bytes:
    named = b"".join(data(1, one) for one in inputs) + b"".join(data(2, one) for one in outputs)
    return named + data(4, kind) + (data(7, domain) if domain else b"")


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    weights: Sequence[bytes] = (),
    *,
    opset: int = 17,
) -> bytes:
    graph = b"".join(data(1, one) for one in nodes) + data(2, "tiny")
    graph += b"".join(data(5, one) for one in weights)
    graph += b"".join(data(11, one) for one in inputs) + b"".join(data(12, one) for one in outputs)
    return number(1, 8) + data(2, "tests") + data(7, graph) + data(8, data(1, "") + number(2, opset))


def three_classes(patch: Sequence[int], *, name: str = "image", opset: int = 17) -> bytes:
    """A convolution of one voxel: background 0, `bright` 20 x - 10, `dark` 10 - 40 x, to be made a softmax of."""
    weights = [
        weight("w", (3, 1, 1, 1, 1), (0.0, 20.0, -40.0)),
        weight("b", (3,), (0.0, -10.0, 10.0)),
    ]
    nodes = [node("Conv", (name, "w", "b"), ("classes",))]
    return model(nodes, [port(name, ("n", 1, *patch))], [port("classes", ("n", 3, *patch))], weights, opset=opset)
