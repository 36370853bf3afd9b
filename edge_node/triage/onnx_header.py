"""What an ONNX file says of itself, read from its protobuf without running anything of it.

Only the fields that a card must match (onnx.proto, ModelProto): opset, inputs, outputs, and where weights lie. A file
that points to other files, to functions of its own or to operators of unknown makers is not of this house's packages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

DTYPES: Final = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_EXTERNAL: Final = 1  # TensorProto.DataLocation
_DEEPEST: Final = 16

Field = tuple[int, int | memoryview]


class NotOnnx(ValueError):
    """The bytes are no ONNX model; the message says why, without any of the bytes."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: `shape` has a number for a fixed axis, a name ("" if it has none) for a free one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """What `read_header` found. `external`: weights lie in other files; `domains` are those of operators."""

    ir: int
    opset: int
    producer: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: int
    domains: frozenset[str]
    external: bool


def read_header(data: bytes | memoryview) -> OnnxHeader:
    """Read the header of an ONNX model. Raises `NotOnnx`."""
    ir = opset = 0
    producer = ""
    graph: memoryview | None = None
    for number, value in _fields(memoryview(data)):
        if number == 1 and isinstance(value, int):
            ir = value
        elif number == 2:
            producer = _text(value)
        elif number == 7 and isinstance(value, memoryview):
            graph = value
        elif number == 8 and isinstance(value, memoryview):
            domain, version = _opset(value)
            opset = version if domain in ("", "ai.onnx") else opset
    if graph is None or not opset:
        raise NotOnnx("there is no graph or no opset in it")
    return _graph(graph, ir, opset, producer)


def _graph(graph: memoryview, ir: int, opset: int, producer: str) -> OnnxHeader:
    inputs: list[Port] = []
    outputs: list[Port] = []
    weights: set[str] = set()
    seen = _Seen()
    for number, value in _fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            seen.node(value, 0)
        elif number == 5:
            weights.add(seen.tensor(value))
        elif number == 11:
            inputs.append(_port(value))
        elif number == 12:
            outputs.append(_port(value))
    # Old exporters list the weights among the inputs.
    given = tuple(port for port in inputs if port.name not in weights)
    return OnnxHeader(ir, opset, producer, given, tuple(outputs), seen.nodes, frozenset(seen.domains), seen.external)


class _Seen:
    """What is met on the way through nodes, their attributes and the graphs inside of them."""

    def __init__(self) -> None:
        self.nodes = 0
        self.domains: set[str] = set()
        self.external = False

    def node(self, data: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise NotOnnx("its graphs are nested too deeply")
        self.nodes += 1
        domain = ""
        for number, value in _fields(data):
            if number == 7:
                domain = _text(value)
            elif number == 5 and isinstance(value, memoryview):
                self._attribute(value, depth)
        self.domains.add(domain)

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, value in _fields(data):
            if not isinstance(value, memoryview):
                continue
            if number in (5, 10):  # t, tensors
                self.tensor(value)
            elif number in (6, 11):  # g, graphs
                for inner, part in _fields(value):
                    if inner == 1 and isinstance(part, memoryview):
                        self.node(part, depth + 1)
                    elif inner == 5 and isinstance(part, memoryview):
                        self.tensor(part)

    def tensor(self, data: memoryview) -> str:
        name = ""
        for number, value in _fields(data):
            if number == 8:
                name = _text(value)
            elif (number == 14 and value == _EXTERNAL) or number == 13:
                self.external = True
        return name


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(data):
        if number == 1:
            domain = _text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _port(data: memoryview) -> Port:
    """ValueInfoProto: name (1), type (2) with tensor_type (1) of elem_type (1) and shape (2) of dim (1)."""
    name, dtype = "", "unknown"
    shape: list[int | str] = []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2 and isinstance(value, memoryview):
            for kind, tensor in _fields(value):
                if kind != 1 or not isinstance(tensor, memoryview):
                    continue
                for inner, part in _fields(tensor):
                    if inner == 1 and isinstance(part, int):
                        dtype = DTYPES.get(part, f"type {part}")
                    elif inner == 2 and isinstance(part, memoryview):
                        shape = [_axis(axis) for at, axis in _fields(part) if at == 1 and isinstance(axis, memoryview)]
    return Port(name, dtype, tuple(shape))


def _axis(data: memoryview) -> int | str:
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2:
            return _text(value)
    return ""


def _text(value: int | memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")[:256] if isinstance(value, memoryview) else ""


def _fields(data: memoryview) -> Iterator[Field]:
    """Fields of one protobuf message: number and value (varint as int, the rest as bytes)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise NotOnnx("it is not written in protobuf")
        if at + size > len(data):
            raise NotOnnx("it is cut off")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
    raise NotOnnx("it is cut off")
