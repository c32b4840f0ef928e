"""A ResNet or SEResNet of PLSC from an ONNX graph, which is read from image to feature, operation by operation.

torch.onnx.export makes a convolution and the batch norm after it one Conv with a bias, and leaves those before a
convolution; with dynamo=True it does the same with the last product. So each Conv and the Gemm may have a
BatchNormalization behind it or not; of a bias a batch norm of ours is made that does nothing but add it. insightface's
w600k_r50.onnx is of this kind. AdaFace's graphs divide the feature by its length and have both as outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from plsc.errors import CheckpointError, DataError
from plsc.extras import install
from plsc.weights.convert import Converted, build_converted
from plsc.weights.kinds import ADAFACE, ARCFACE, Kind
from plsc.weights.layouts import Units, model_of
from plsc.weights.onnx_graph import Graph, Node

EPSILON = 1e-5
MAX_ARRAYS = 5000  # ResNet200 has 1,800
Arrays = dict[str, np.ndarray]


class GraphReader:
    """Reads a graph from its input to its output and collects arrays by PLSC's names without "backbone."."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self.squeezed: set[bool] = set()  # whether units have squeeze-and-excitation
        self.arrays: Arrays = {}

    def units(self, first: str) -> tuple[Units, str, set[bool]]:
        """From the input to the last unit: (units of each stage, the value after them, kinds of shortcuts).

        The third: whether the shortcut has a convolution, of each first unit of a stage that keeps its channels.
        """
        at = self.prelu(self.conv_bn(first, "stem", 1, 3), "stem.prelu")
        units: list[int] = []
        projected: set[bool] = set()
        while (branch := self._next(at, "BatchNormalization")) is not None and self._next(branch.outputs[0], "Conv"):
            if len(self.arrays) > MAX_ARRAYS:
                raise DataError("its graph goes round in a circle, or has more units than any model of PLSC")
            at = self._unit(at, units, projected)
        return tuple(units), at, projected

    def _unit(self, at: str, units: list[int], projected: set[bool]) -> str:
        conv = self._next(self._require(at, "BatchNormalization").outputs[0], "Conv")
        second = conv and self._after(conv)
        strides = self._strides(second) if second else 1
        if strides == 2:
            units.append(0)
        if not units or not second:
            raise DataError(f"the graph goes on with no unit of a ResNet at {_shown(at)}")
        units[-1] += 1
        name = f"stage{len(units)}.unit{units[-1] - 1}"
        y = self.bn(at, f"{name}.bn1")
        y = self.prelu(self.conv_bn(y, f"{name}.conv1", 1, 3, f"{name}.bn2"), f"{name}.prelu")
        y = self.squeeze(self.conv_bn(y, f"{name}.conv2", strides, 3, f"{name}.bn3"), f"{name}.se")
        add = self._require(y, "Add")
        other = next((value for value in add.inputs if value != y), y)
        shortcut = next((node for node in self._graph.readers(at) if other in self._reach(node)), None)
        if shortcut is None and other != at:
            raise DataError(f"the shortcut of {name} is none that a ResNet has")
        if shortcut is not None and shortcut.kind == "Conv" and len(shortcut.inputs) > 1:
            found = self.conv_bn(at, f"{name}.shortcut.conv", strides, 1, f"{name}.shortcut.bn", shortcut)
            if found != other:
                raise DataError(f"the shortcut of {name} goes on with something else")
        elif shortcut is not None and not _takes_every(shortcut, strides):
            raise DataError(f"the shortcut of {name} is a {shortcut.kind} that no ResNet has")
        weight = self.arrays[f"{name}.conv1.weight"]
        if units[-1] == 1 and weight.shape[0] == weight.shape[1]:
            projected.add(shortcut is not None and shortcut.kind == "Conv")
        return add.outputs[0]

    def _after(self, conv: Node) -> Node | None:
        """The convolution that follows, behind a batch norm and a PReLU."""
        at = conv.outputs[0]
        for kind in ("BatchNormalization", "PRelu"):
            node = self._next(at, kind)
            at = node.outputs[0] if node else at
        return self._next(at, "Conv")

    def squeeze(self, at: str, name: str) -> str:
        """Take squeeze-and-excitation where the unit has it: at * sigmoid(conv(relu(conv(means of at))))."""
        means = self._next(at, "GlobalAveragePool") or self._next(at, "ReduceMean")
        self.squeezed.add(means is not None)
        if means is None:
            return at
        flat = self._next(means.outputs[0], "Reshape")  # the newer exporter flattens them and turns them back
        turned = flat and self._next(flat.outputs[0], "Gather")
        y = (turned or means).outputs[0]
        y = self._require(self.pointwise(y, f"{name}.reduce"), "Relu").outputs[0]
        y = self._require(self.pointwise(y, f"{name}.expand"), "Sigmoid").outputs[0]
        product = self._require(y, "Mul", 2)
        if sorted(product.inputs) != sorted([at, y]):
            raise DataError(f"the Mul of {name} is not one of {_shown(at)} and {_shown(y)}")
        return product.outputs[0]

    def pointwise(self, at: str, name: str) -> str:
        """Take a 1x1 convolution that neither a bias nor a batch norm follows."""
        conv = self._require(at, "Conv", 2)
        if len(conv.inputs) > 2:
            raise DataError(f"{name} has a bias, which no SE model of PLSC has")
        self.arrays[f"{name}.weight"] = self._convolution(conv, name, 1, 1)
        return conv.outputs[0]

    def head(self, at: str) -> str:
        """Batch norm, flatten, product, batch norm if it is not merged into the product; the value after them."""
        at = self.bn(at, "head.bn")
        flat = self._next(at, "Flatten") or self._next(at, "Reshape")
        if flat is None:
            raise DataError(f"no Flatten or Reshape after the last map, at {_shown(at)}")
        product = self._next(flat.outputs[0], "Gemm")
        if product is None or len(product.inputs) != 3:
            raise DataError("no Gemm with a bias after the last map")
        weight = self._array(product.inputs[1], 2)
        attributes = product.attributes
        if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA"):
            raise DataError("its Gemm does more than a product and a bias")
        self.arrays["head.fc.weight"] = np.ascontiguousarray(weight.T if attributes.get("transB") else weight)
        bias = self.arrays["head.fc.bias"] = self._array(product.inputs[2], 1)
        if self._next(product.outputs[0], "BatchNormalization"):
            return self.bn(product.outputs[0], "head.feature_bn")
        self._adding(np.zeros_like(bias), "head.feature_bn")
        return product.outputs[0]

    def bn(self, at: str, name: str) -> str:
        """Take a BatchNormalization; one with another epsilon gets other variances."""
        node = self._require(at, "BatchNormalization", 5)
        parts = ("weight", "bias", "running_mean", "running_variance")
        for part, given in zip(parts, node.inputs[1:5]):
            self.arrays[f"{name}.{part}"] = self._array(given, 1)
        epsilon = node.attributes.get("epsilon", EPSILON)
        if not isinstance(epsilon, float):
            raise DataError(f"the epsilon of {name} is no number")
        if abs(epsilon - EPSILON) > 1e-9:
            wide = self.arrays[f"{name}.running_variance"].astype(np.float64) + (epsilon - EPSILON)
            self.arrays[f"{name}.running_variance"] = wide.astype(np.float32)
        return node.outputs[0]

    def conv_bn(
        self, at: str, name: str, stride: int, kernel: int, bn: str | None = None, node: Node | None = None
    ) -> str:
        """Take a Conv, and the batch norm in or after it. name: ours of the convolution ("stem" for the first)."""
        conv, bn = ("stem.conv", "stem.bn") if name == "stem" else (name, bn or "")
        node = node or self._require(at, "Conv", 2)
        weight = self.arrays[f"{conv}.weight"] = self._convolution(node, conv, stride, kernel)
        bias = self._array(node.inputs[2], 1) if len(node.inputs) > 2 else None
        if self._next(node.outputs[0], "BatchNormalization") and bias is None:
            return self.bn(node.outputs[0], bn)
        self._adding(np.zeros(len(weight), np.float32) if bias is None else bias, bn)
        return node.outputs[0]

    def _adding(self, bias: np.ndarray, bn: str) -> None:
        """Make a batch norm that does nothing but add a bias."""
        self.arrays[f"{bn}.weight"] = np.ones(bias.size, np.float32)
        self.arrays[f"{bn}.bias"] = bias
        self.arrays[f"{bn}.running_mean"] = np.zeros(bias.size, np.float32)
        self.arrays[f"{bn}.running_variance"] = np.full(bias.size, 1 - EPSILON, np.float32)

    def _convolution(self, node: Node, name: str, stride: int, kernel: int) -> np.ndarray:
        """The weight of a Conv. Raises DataError unless it has this shape."""
        weight = self._array(node.inputs[1], 4)
        padding = (kernel - 1) // 2
        fits = weight.shape[2:] == (kernel, kernel) and self._strides(node) == stride
        pads, groups = node.attributes.get("pads", [0] * 4), node.attributes.get("group", 1.0)
        dilations = node.attributes.get("dilations", [1, 1])
        if not fits or pads != [padding] * 4 or groups != 1.0 or dilations != [1, 1]:
            raise DataError(
                f"{name} is a convolution {list(weight.shape)} with other strides or paddings than a ResNet's"
            )
        return weight

    def prelu(self, at: str, name: str) -> str:
        """Take a PRelu with a slope for each channel."""
        node = self._require(at, "PRelu", 2)
        slopes = self._graph.arrays.get(node.inputs[1], np.zeros(0, np.float32))
        self.arrays[f"{name}.weight"] = slopes.reshape(-1).astype(np.float32)
        return node.outputs[0]

    def _array(self, name: str, axes: int) -> np.ndarray:
        array = self._graph.arrays.get(name)
        if array is None or array.ndim != axes or array.dtype.kind != "f":
            raise DataError(f"{_shown(name)} must be an array of {axes} axes in the file")
        return array

    def _strides(self, node: Node) -> int:
        strides = node.attributes.get("strides", [1, 1])
        return strides[0] if isinstance(strides, list) and strides in ([1, 1], [2, 2]) else 0

    def _next(self, at: str, kind: str) -> Node | None:
        return next((node for node in self._graph.readers(at) if node.kind == kind and node.outputs), None)

    def _require(self, at: str, kind: str, inputs: int = 1) -> Node:
        node = self._next(at, kind)
        if node is not None and len(node.inputs) < inputs:
            raise DataError(f"damaged: the {kind} after {_shown(at)} has {len(node.inputs)} of {inputs} inputs")
        if node is None:
            found = ", ".join(one.kind for one in self._graph.readers(at)) or "nothing"
            raise DataError(f"after {_shown(at)} a {kind} must follow, found {found[:100]}: no ResNet that PLSC has")
        return node

    def _reach(self, node: Node) -> list[str]:
        """What comes out of a node, and of the batch norm after it."""
        after = self._next(node.outputs[0], "BatchNormalization") if node.kind == "Conv" and node.outputs else None
        return [*node.outputs, *(after.outputs if after else [])]


def _takes_every(node: Node, stride: int) -> bool:
    """Whether a MaxPool does nothing but leave out rows and columns."""
    kernel, pads = node.attributes.get("kernel_shape"), node.attributes.get("pads", [0] * 4)
    return (
        node.kind == "MaxPool"
        and (kernel, pads) == ([1, 1], [0] * 4)
        and (node.attributes.get("strides", [1, 1]) == [stride, stride])
    )


def _shown(name: str) -> str:
    return ascii(name)[:60]


def from_graph(
    graph: Graph, adapt: Callable[[Kind], Kind], image_shape: list[int] | None
) -> tuple[Converted, Kind, list[str]]:
    """(our model, its kind, the names of the graph's outputs whose product is the feature).

    adapt: a kind as the user wants images to enter it. Raises DataError for other models.
    """
    if len(graph.inputs) != 1:
        raise DataError(f"its graph has {len(graph.inputs)} inputs, must have one image")
    reader = GraphReader(graph)
    units, at, projected = reader.units(graph.inputs[0])
    outputs = _outputs(graph, reader.head(at))
    arrays = {f"backbone.{name}": np.ascontiguousarray(array) for name, array in reader.arrays.items()}
    if len(reader.squeezed) > 1:
        raise DataError("some of its units have squeeze-and-excitation, others have none")
    kind = ARCFACE if True in projected and not any(reader.squeezed) else ADAFACE
    kind = dataclasses.replace(adapt(kind), epsilon=EPSILON, projection="shape" if True in projected else "channels")
    return build_converted(model_of(units, any(reader.squeezed)), arrays, kind, image_shape), kind, outputs


def _outputs(graph: Graph, feature: str) -> list[str]:
    """The feature's name, or those of the feature of length 1 and its length, which AdaFace's graphs have instead."""
    if feature in graph.outputs:
        return [feature]
    after = graph.readers(feature)
    length = next((node.outputs[0] for node in after if node.kind == "ReduceL2" and node.outputs), None)
    unit = next((node.outputs[0] for node in after if node.kind == "Div" and node.inputs == [feature, length]), None)
    if unit in graph.outputs and length in graph.outputs and unit and length:
        return [unit, length]
    kinds = ", ".join(node.kind for node in after)
    raise DataError(f"its graph goes on after the last batch norm ({kinds[:80]}); export the model without that")


def run_onnx(path: str, outputs: list[str], images: np.ndarray) -> np.ndarray:
    """The feature [B, E] of images [B, C, H, W] by the graph itself: the product of these outputs. Raises
    CheckpointError."""
    try:
        import onnxruntime
    except ImportError:
        raise CheckpointError(
            f"{path}: ONNX Runtime, which it is held against, is not installed; install it with "
            f"{install('onnx', 'onnxruntime')}"
        ) from None
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (name,) = (one.name for one in session.get_inputs())
        found = [session.run(outputs, {name: images[i : i + 1].astype(np.float32)}) for i in range(len(images))]
    except Exception as error:  # ONNX Runtime's own have no base but this
        raise CheckpointError(f"{path}: ONNX Runtime cannot run it: {' '.join(str(error).split())[-300:]}") from error
    return np.concatenate([math.prod(parts[1:], start=parts[0]) for parts in found])
