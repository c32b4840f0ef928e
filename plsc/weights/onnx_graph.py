"""The graph of an ONNX file: nodes in order, and the arrays in it. Fields: onnx/onnx.proto of the ONNX project."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Union

import numpy as np

from plsc.errors import DataError
from plsc.files import protobuf, safe_open
from plsc.files.protobuf import Reader, Value

MAGIC = b"\x08"  # the field 1, ir_version
MAX_FIELDS = 1_000_000  # a model of 200 layers has 30,000
MAX_BYTES = 2**31 - 1  # protobuf's own limit of a message
_TYPES = {1: "<f4", 10: "<f2", 11: "<f8", 6: "<i4", 7: "<i8"}  # of TensorProto.DataType
_MAX_AXES = 8


Attribute = Union[float, list, np.ndarray]  # the lists are of whole numbers


@dataclass(frozen=True)
class Node:
    """One operation. attributes: those that are numbers, lists of whole numbers, or arrays."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Attribute]


@dataclass
class Graph:
    """arrays: {name: float32, or of whole numbers}. inputs and outputs: names, of the graph's own."""

    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def readers(self, name: str) -> list[Node]:
        """The nodes that have this value as their first input, or as one of an Add or Mul."""
        return [
            node for node in self.nodes
            if name in node.inputs[:1] or (node.kind in ("Add", "Mul") and name in node.inputs)
        ]  # fmt: skip


def first_node_names(path: str, count: int) -> list[str]:
    """The names of the first nodes, "" for those without one. Raises DataError and OSError as read_graph."""
    reader = Reader(MAX_FIELDS)
    nodes = islice((value for number, value in _graph_fields(reader, path) if number == 1), count)
    return [next((protobuf.text(one) for number, one in reader.fields(node) if number == 3), "") for node in nodes]


def _graph_fields(reader: Reader, path: str) -> Iterator[tuple[int, Value]]:
    data = memoryview(safe_open.read_bytes(path, MAX_BYTES))
    graphs = [value for number, value in reader.fields(data) if number == 7]
    if len(graphs) != 1:
        raise DataError("is no ONNX model: it holds no graph")
    return reader.fields(graphs[0])


def read_graph(path: str) -> Graph:
    """Raises DataError, without the name of the file, and OSError."""
    reader, graph = Reader(MAX_FIELDS), Graph()
    for number, value in _graph_fields(reader, path):
        if number == 1:
            graph.nodes.append(_node(reader, value))
        elif number == 5:
            name, array = _tensor(reader, value)
            graph.arrays[name] = array
        elif number in (11, 12):
            (graph.inputs if number == 11 else graph.outputs).append(_name_of(reader, value))
    if any(node.kind == "CastLike" for node in graph.nodes):
        raise DataError(
            "is as torch.onnx.export with dynamo=True and optimize=False writes it, with operations that compute "
            "nothing between all others; export it with optimize=True"
        )
    _fold(graph)
    graph.inputs = [name for name in graph.inputs if name not in graph.arrays]
    return graph


def _fold(graph: Graph) -> None:
    """Take out nodes that are arrays: Constant, and Identity, Unsqueeze and Transpose of one."""
    kept = []
    for node in graph.nodes:
        constant = node.attributes.get("value") if node.kind == "Constant" else None
        if isinstance(constant, np.ndarray) and node.outputs:
            graph.arrays[node.outputs[0]] = constant
        elif (array := _turned(node, graph.arrays)) is not None and node.outputs:
            graph.arrays[node.outputs[0]] = array
        else:
            kept.append(node)
    graph.nodes = kept


def _turned(node: Node, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """The array that the node makes of one; None for other nodes. torch leaves these with do_constant_folding=False."""
    array = arrays.get(node.inputs[0]) if node.inputs else None
    if array is None or node.kind == "Identity":
        return array
    if node.kind == "Transpose":
        axes = node.attributes.get("perm", [*range(array.ndim)][::-1])
        return array.transpose(axes) if isinstance(axes, list) and sorted(axes) == [*range(array.ndim)] else None
    given = arrays[node.inputs[1]] if len(node.inputs) > 1 and node.inputs[1] in arrays else None
    axes = node.attributes.get("axes", []) if given is None else given.reshape(-1)[:_MAX_AXES].tolist()
    if node.kind != "Unsqueeze" or not isinstance(axes, list) or not 0 < len(axes) + array.ndim <= _MAX_AXES:
        return None
    try:
        return np.expand_dims(array, tuple(axes))
    except (ValueError, TypeError):  # NumPy's AxisError is a ValueError
        return None


def _node(reader: Reader, value: Value) -> Node:
    node = Node("", [], [], {})
    kind = ""
    for number, one in reader.fields(value):
        if number == 1:
            node.inputs.append(protobuf.text(one))
        elif number == 2:
            node.outputs.append(protobuf.text(one))
        elif number == 4:
            kind = protobuf.text(one)
        elif number == 5:
            name, attribute = _attribute(reader, one)
            if attribute is not None:
                node.attributes[name] = attribute
    return Node(kind, node.inputs, node.outputs, node.attributes)


def _attribute(reader: Reader, value: Value) -> tuple[str, Attribute | None]:
    name = ""
    found: Attribute | None = None
    ints: list[int] = []
    for number, one in reader.fields(value):
        if number == 1:
            name = protobuf.text(one)
        elif number == 2:
            found = protobuf.float32(one)
        elif number == 3 and isinstance(one, int):
            found = float(protobuf.signed(one))
        elif number == 5:
            found = _tensor(reader, one)[1]
        elif number == 8:
            ints += reader.packed_ints(one)
    return name, ints if ints else found


def _tensor(reader: Reader, value: Value) -> tuple[str, np.ndarray]:
    name, kind = "", 0
    shape: list[int] = []
    ints: list[int] = []
    data: list[memoryview] = []
    for number, one in reader.fields(value):
        if number == 1:
            shape += reader.packed_ints(one)
        elif number == 2 and isinstance(one, int):
            kind = one
        elif number in (4, 9):  # floats one by one or packed, or the numbers as they are
            data.append(protobuf.message(one))
        elif number == 7:
            ints += reader.packed_ints(one)
        elif number == 8:
            name = protobuf.text(one)
        elif number == 13 or (number == 14 and one):
            raise DataError(
                "its weights lie in another file; save it with them in one (torch.onnx.export: external_data=False)"
            )
    if kind not in _TYPES:
        return name, np.zeros(0, np.float32)  # a text, a truth value: no weight
    return name, _array(name, shape, kind, b"".join(data), ints)


def _array(name: str, shape: list[int], kind: int, data: bytes, ints: list[int]) -> np.ndarray:
    dtype = np.dtype(_TYPES[kind])
    whole = len(data) // dtype.itemsize * dtype.itemsize
    flat = np.array(ints, np.int64) if ints else np.frombuffer(data[:whole], dtype)
    small = len(shape) <= _MAX_AXES and all(size >= 0 for size in shape)
    if not small or math.prod(shape) != flat.size or len(data) % dtype.itemsize:
        raise DataError(f"damaged: the array {ascii(name)[:60]} {str(shape)[:60]} has {flat.size} numbers")
    array = flat.reshape(shape)
    return array.astype(np.float32) if dtype.kind == "f" else array


def _name_of(reader: Reader, value: Value) -> str:
    return next((protobuf.text(one) for number, one in reader.fields(value) if number == 1), "")
