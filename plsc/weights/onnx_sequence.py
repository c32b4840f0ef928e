"""A MobileFaceNet or ViT of arcface_torch from an ONNX graph, by the order of the operations that have weights.

In these nets one layer follows another, and what lies between layers with weights is known: so the layers of the net
are given the graph's weights in turn, and their shapes must fit. That strides, residual sums and heads are as there is
shown by the comparison with the graph itself (plsc.engine.weights.equality), before anything is written. A batch norm
may be merged into the convolution or the product before it; a layer norm may be one operation or several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plsc.errors import DataError
from plsc.models.tokens import LAYER_NORM_EPSILON
from plsc.models.wide_mobilefacenet import LAYOUTS
from plsc.weights.convert import Converted, convert
from plsc.weights.kinds import ARCFACE_MOBILE, ARCFACE_VIT, Kind
from plsc.weights.net import Layer
from plsc.weights.onnx_graph import Graph, Node
from plsc.weights.source import Source

SHAPES_ONLY = {"Reshape", "Flatten", "Transpose", "Shape", "Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Cast",
               "Identity", "Constant"}  # fmt: skip
MOBILE = SHAPES_ONLY | {"Conv", "BatchNormalization", "PRelu", "Add", "MatMul", "Gemm"}
VIT = SHAPES_ONLY | {"Conv", "BatchNormalization", "Add", "MatMul", "Gemm", "LayerNormalization", "Softmax", "Clip",
                     "Mul", "Div", "Sub", "Pow", "Sqrt", "ReduceMean", "Split"}  # fmt: skip
BLOCK_ORDER = (0, 2, 3, 1, 4, 5)  # of the layers of a block of the ViT, as they are computed
MAX_DEPTH = 1000
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """One array or more of one operation. what: conv, bn, prelu, matrix ([in, out]), add, scale or norm."""

    what: str
    arrays: list[np.ndarray]
    node: Node


def is_sequence(graph: Graph) -> bool:
    """Whether it may be one of these nets: with convolutions in groups, or with a softmax."""
    return any(node.kind == "Softmax" or node.attributes.get("group", 1.0) != 1.0 for node in graph.nodes)


def from_sequence(
    path: str, graph: Graph, adapt: Callable[[Kind], Kind], image_shape: list[int] | None
) -> tuple[Converted, Kind, list[str]]:
    """(our model, its kind, the names of the graph's outputs whose product is the feature).

    adapt: a kind as the user wants images to enter it. Raises DataError and CheckpointError for other nets.
    """
    depth = sum(node.kind == "Softmax" for node in graph.nodes)
    kind, layers = (ARCFACE_VIT, _vit_layers(depth)) if depth else (ARCFACE_MOBILE, _mobile_layers(graph))
    reader = _Reader(graph, VIT if depth else MOBILE, kind.epsilon)
    arrays = {name: array for layer in layers for name, array in reader.take(layer, kind).items()}
    output = reader.finish()
    if depth:  # trained, but of no use in the graph
        arrays["mask_token"] = np.zeros((1, 1, *arrays["patch_embed.proj.weight"].shape[:1]), np.float32)
    kind = dataclasses.replace(adapt(kind), epsilon=reader.epsilon)
    converted = convert(Source(path, kind, arrays), image_shape)
    return dataclasses.replace(converted, zeros=("backbone.mask_token",) if depth else ()), kind, [output]


def _mobile_layers(graph: Graph) -> list[Layer]:
    found = sum(node.kind == "Conv" for node in graph.nodes)
    known = {}
    for name in LAYOUTS:
        layers = ARCFACE_MOBILE.net.layers_of(name, {})
        known[name] = sum(layer.kind == "conv" for layer in layers)
        if known[name] == found:
            return layers
    all_known = ", ".join(f"{name} {count}" for name, count in known.items())
    raise DataError(f"its graph has {found} convolutions, some of them in groups; PLSC has {all_known}")


def _vit_layers(depth: int) -> list[Layer]:
    """In the order in which they are computed, without the token that only training uses."""
    if depth > MAX_DEPTH:
        raise DataError(f"its graph has {depth} softmaxes, more than any model of PLSC")
    position, _, patches, *layers = ARCFACE_VIT.net.layers_of("ViT-T", {"depth": depth})
    size = len(BLOCK_ORDER)
    blocks = [layers[size * block + place] for block in range(depth) for place in BLOCK_ORDER]
    return [patches, position, *blocks, *layers[size * depth :]]


class _Reader:
    """Gives out the weights of a graph in turn. epsilon: of the last batch norm, that of others is in their variances;
    the one given where all batch norms are merged into what is before them.

    Raises DataError, also for an operation whose kind is not in ``kinds``.
    """

    def __init__(self, graph: Graph, kinds: set[str], epsilon: float):
        self._graph, self._at = graph, 0
        other = sorted({node.kind for node in graph.nodes} - kinds)
        if other or len(graph.inputs) != 1:
            what = f"has {len(graph.inputs)} inputs" if not other else f"has {', '.join(other)[:100]}"
            raise DataError(f"its graph {what}: no MobileFaceNet or ViT that PLSC has")
        self._parts = [part for node in graph.nodes for part in self._parts_of(node)]
        epsilons = [_epsilon(part.node) for part in self._parts if part.what == "bn"]
        self.epsilon = epsilons[-1] if epsilons else epsilon
        self._bias: np.ndarray | None = None  # of a convolution or product that a batch norm is merged into

    def take(self, layer: Layer, kind: Kind) -> Arrays:
        """{their name: array} of the layer that is computed next."""
        if layer.kind != "bn" and self._bias is not None:
            raise DataError(f"its graph has a bias before {layer.theirs}: no MobileFaceNet or ViT that PLSC has")
        if layer.kind == "bn":
            found = self._bn()
        elif layer.kind == "conv":
            weight, *bias = self._next("conv", layer).arrays
            found, self._bias = [weight], bias[0] if bias else None
        elif layer.kind == "weight_and_bias" and layer.ours == kind.net.first:
            found = self._next("conv", layer).arrays
        elif layer.kind == "weight_and_bias":
            found = self._norm(layer)
        elif layer.kind in ("fc", "matrix"):
            product = self._next("matrix", layer)
            found = [np.ascontiguousarray(product.arrays[0].T)]
            if layer.kind == "fc":
                found += self._next("add", layer).arrays
            elif (after := self._peek()) is not None and after.node is product.node:  # a Gemm's own
                (self._bias,) = self._next("add").arrays
        else:
            found = self._next("prelu" if layer.kind == "prelu" else "add", layer).arrays
        names = [theirs for _, theirs in layer.tensors()]
        if len(names) != len(found):
            raise DataError(f"the layer {names[0]} has {len(found)} of {len(names)} arrays in its graph")
        return dict(zip(names, found))

    def finish(self) -> str:
        """The feature's name. Raises DataError where the graph goes on."""
        output = self._parts[self._at - 1].node.outputs[0]
        rest = [part.node.kind for part in self._parts[self._at :]]
        rest += [node.kind for node in self._graph.readers(output)]
        if rest or output not in self._graph.outputs:
            raise DataError(f"its graph goes on after the last batch norm ({', '.join(rest)[:80]})")
        return output

    def _next(self, what: str, layer: Layer | None = None) -> Part:
        part = self._peek()
        if part is None or part.what != what:
            found = "nothing" if part is None else f"a {part.node.kind}"
            name = f" for {layer.theirs}" if layer else ""
            raise DataError(f"its graph has {found} in place of a {what}{name}: no MobileFaceNet or ViT that PLSC has")
        self._at += 1
        return part

    def _peek(self) -> Part | None:
        return self._parts[self._at] if self._at < len(self._parts) else None

    def _bn(self) -> list[np.ndarray]:
        """Scale, shift, mean, variance; of a bias those of a batch norm that only adds it."""
        if (bias := self._bias) is not None:
            self._bias, one = None, np.ones(bias.size, np.float32)
            return [one, bias.reshape(-1), 0 * one, (one - np.float64(self.epsilon)).astype(np.float32)]
        part = self._next("bn")
        *others, variance = part.arrays
        wider = variance.astype(np.float64) + (_epsilon(part.node) - self.epsilon)
        return [*others, wider.astype(np.float32)]

    def _norm(self, layer: Layer) -> list[np.ndarray]:
        part = self._peek()
        if part is not None and part.what == "scale":
            return [*self._next("scale").arrays, *self._next("add", layer).arrays]
        return self._next("norm", layer).arrays

    def _parts_of(self, node: Node) -> list[Part]:
        """The parts of a node; [] for one without weights. Raises DataError for numbers that no such net has."""
        given = [self._graph.arrays[name] for name in node.inputs if name in self._graph.arrays]
        given = [array for array in given if array.dtype.kind == "f"]
        if not given or not node.outputs:
            return []
        what = {"Conv": "conv", "BatchNormalization": "bn", "LayerNormalization": "norm", "PRelu": "prelu",
                "MatMul": "matrix", "Gemm": "matrix", "Add": "add", "Mul": "scale"}.get(node.kind)  # fmt: skip
        if node.kind in ("Add", "Mul", "Clip") and all(array.size == 1 for array in given):
            _require_known(node.kind, [float(array.reshape(-1)[0]) for array in given])
            return []
        if what == "norm":
            _require_known("Add", [_epsilon(node)])
        if what == "matrix":
            return _matrix(node, given)
        if what == "bn" and len(given) != 4:
            raise DataError(f"damaged: a batch norm has {len(given)} of 4 arrays")
        if what == "prelu":
            given = [given[0].reshape(-1)]
        return [Part(what, given, node)] if what else []


def _matrix(node: Node, given: list[np.ndarray]) -> list[Part]:
    """A product, and the sum after it where a Gemm has one."""
    weight, *bias = given
    attributes = node.attributes
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA"):
        raise DataError("its Gemm does more than a product and a bias")
    parts = [Part("matrix", [weight.T if attributes.get("transB") else weight], node)]
    return [*parts, *(Part("add", [array], node) for array in bias)]


def _require_known(kind: str, numbers: list[float]) -> None:
    """Raise DataError unless single numbers are those of the nets: the layer norm's epsilon, the bounds of ReLU6."""
    known = {"Add": [LAYER_NORM_EPSILON], "Clip": [0.0, 6.0]}.get(kind)
    if known is not None and (len(numbers) != len(known) or not np.allclose(numbers, known, rtol=1e-5, atol=0)):
        what = "adds" if kind == "Add" else "is cut off at"
        raise DataError(f"a number {what} {numbers} in its graph, must be {known}: no ViT that PLSC has")


def _epsilon(node: Node) -> float:
    """As it was written: 1e-5, not the float32 next to it."""
    value = node.attributes.get("epsilon", 1e-5)
    if not isinstance(value, float):
        raise DataError(f"the epsilon of a {node.kind} is no number")
    return float(str(np.float32(value)))
