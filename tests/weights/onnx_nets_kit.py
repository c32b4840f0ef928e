"""ONNX graphs as torch.onnx.export makes them of arcface_torch's MobileFaceNets and ViT, and of AdaFace's IR-SE.

Compared once with what torch 2.4 wrote of the classes of insightface (7fadd420) and AdaFace with opset 11, 13 and 17,
with and without constant folding: the same operations with the same arrays, except those on shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from tests.weights.onnx_kit import Builder, write

Arrays = Mapping[str, np.ndarray]
IMAGE = "input.1"


class Net(Builder):
    """folded: with torch's do_constant_folding; without it, slopes and matrices are turned in the graph."""

    def __init__(self, arrays: Arrays, fused: bool, epsilon: float, folded: bool):
        super().__init__(arrays, fused, epsilon)
        self.folded = folded

    def number(self, value) -> str:
        """A constant in the graph."""
        value = np.asarray(value, np.int64 if isinstance(value, (list, int)) else np.float32)
        return self.add("Constant", [], value=numpy_helper.from_array(value))

    def prelu(self, x: str, name: str) -> str:
        if self.folded:
            return super().prelu(x, name)
        slopes = self.array(f"{name}.weight", self.arrays[f"{name}.weight"])
        return self.add("PRelu", [x, self.add("Unsqueeze", [slopes], axes=[1, 2])])

    def matrix(self, x: str, name: str) -> str:
        weight = self.arrays[f"{name}.weight"]
        if self.folded:
            return self.add("MatMul", [x, self.array(f"{name}.turned", weight.T)])
        turned = self.add("Transpose", [self.array(f"{name}.weight", weight)], perm=[1, 0])
        return self.add("MatMul", [x, turned])

    def fc(self, x: str, name: str) -> str:
        return self.add("Add", [self.array(f"{name}.bias", self.arrays[f"{name}.bias"]), self.matrix(x, name)])

    def block(self, x: str, name: str, group: int = 1, stride: int = 1, linear: bool = False, **more) -> str:
        kernel = self.arrays[f"{name}.layers.0.weight"].shape[2]
        x = self.conv_bn(x, f"{name}.layers.0", f"{name}.layers.1", stride, kernel, group=group, **more)
        return x if linear else self.prelu(x, f"{name}.layers.2")

    def bottleneck(self, x: str, name: str, stride: int) -> str:
        x = self.block(x, f"{name}.layers.0")
        x = self.block(x, f"{name}.layers.1", len(self.arrays[f"{name}.layers.1.layers.0.weight"]), stride)
        return self.block(x, f"{name}.layers.2", linear=True)

    def layer_norm(self, x: str, name: str, whole: bool) -> str:
        weight, bias = (self.array(f"{name}.{part}", self.arrays[f"{name}.{part}"]) for part in ("weight", "bias"))
        if whole:
            return self.add("LayerNormalization", [x, weight, bias], axis=-1, epsilon=1e-5)
        centred = self.add("Sub", [x, self.add("ReduceMean", [x], axes=[-1])])
        variance = self.add("ReduceMean", [self.add("Pow", [centred, self.number(2.0)])], axes=[-1])
        root = self.add("Sqrt", [self.add("Add", [variance, self.number(1e-5)])])
        return self.add("Add", [self.add("Mul", [self.add("Div", [centred, root]), weight]), bias])

    def attention(self, x: str, name: str, tokens: int, width: int) -> str:
        shape = self.number([1, tokens, 3, 8, width // 8])
        parts = self.add("Reshape", [self.matrix(x, f"{name}.qkv"), shape])
        parts = self.add("Transpose", [parts], perm=[2, 0, 3, 1, 4])
        queries, keys, values = (self.add("Gather", [parts, self.number(i)], axis=0) for i in range(3))
        scores = self.add("MatMul", [queries, self.add("Transpose", [keys], perm=[0, 1, 3, 2])])
        scores = self.add("Softmax", [self.add("Mul", [scores, self.number((width // 8) ** -0.5)])], axis=-1)
        y = self.add("Transpose", [self.add("MatMul", [scores, values])], perm=[0, 2, 1, 3])
        return self.fc(self.add("Reshape", [y, self.number([1, tokens, width])]), f"{name}.proj")


def save_mobile(path: Path, arrays: Arrays, fused=True, folded=True, epsilon=1e-5) -> Path:
    net, width = Net(arrays, fused, epsilon, folded), len(arrays["conv_sep.layers.0.weight"]) // 8
    x = net.block(IMAGE, "layers.0", stride=2)
    if "layers.1.layers.0.weight" in arrays:
        x = net.block(x, "layers.1", group=width)
    for place in range(1, 8):
        if f"layers.{place}.layers.2.layers.1.weight" in arrays:
            x = net.bottleneck(x, f"layers.{place}", 2)
            continue
        unit = 0
        while f"layers.{place}.layers.{unit}.layers.0.layers.0.weight" in arrays:
            x, unit = net.add("Add", [x, net.bottleneck(x, f"layers.{place}.layers.{unit}", 1)]), unit + 1
    x = net.block(net.block(x, "conv_sep"), "features.layers.0", 8 * width, linear=True, pads=[0] * 4)
    x = net.add("Reshape", [x, net.number([1, -1])])
    return write(path, net, [net.bn(net.matrix(x, "features.layers.2"), "features.layers.3")])


def save_vit(path: Path, arrays: Arrays, folded=True, opset=11, bounds=(0.0, 6.0)) -> Path:
    """bounds: of ReLU6. From opset 17 on a layer norm is one operation."""
    net, (width, _, patch, _) = Net(arrays, False, 2e-5, folded), arrays["patch_embed.proj.weight"].shape
    tokens, whole = arrays["pos_embed"].shape[1], opset >= 17
    names = ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed")
    weight, bias, position = (net.array(name, arrays[name]) for name in names)
    x = net.add("Conv", [IMAGE, weight, bias], kernel_shape=[patch] * 2, strides=[patch] * 2)
    x = net.add("Transpose", [net.add("Reshape", [x, net.number([1, width, tokens])])], perm=[0, 2, 1])
    x, index = net.add("Add", [x, position]), 0
    while (at := f"blocks.{index}") and f"{at}.attn.qkv.weight" in arrays:
        x = net.add("Add", [x, net.attention(net.layer_norm(x, f"{at}.norm1", whole), f"{at}.attn", tokens, width)])
        y = net.fc(net.layer_norm(x, f"{at}.norm2", whole), f"{at}.mlp.fc1")
        y = net.fc(net.add("Clip", [y, *(net.number(bound) for bound in bounds)]), f"{at}.mlp.fc2")
        x, index = net.add("Add", [x, y]), index + 1
    x = net.add("Reshape", [net.layer_norm(x, "norm", whole), net.number([1, tokens * width])])
    x = net.bn(net.matrix(x, "feature.0"), "feature.1")
    return write(path, net, [net.bn(net.matrix(x, "feature.2"), "feature.3")], opset)


def save_adaface(path: Path, arrays: Arrays, fused=True, folded=True, normalised=True) -> Path:
    """IR and IR-SE. normalised: with the feature of length 1 and the length as outputs, as AdaFace's forward."""
    last, size = "output_layer.4", len(arrays["output_layer.3.bias"])
    arrays = {**arrays, f"{last}.weight": np.ones(size), f"{last}.bias": np.zeros(size)}
    net, index = Net(arrays, fused, 1e-5, folded), 0
    x = net.prelu(net.conv_bn(IMAGE, "input_layer.0", "input_layer.1", 1, 3), "input_layer.2")
    while (at := f"body.{index}") and f"{at}.res_layer.1.weight" in arrays:
        out, before = arrays[f"{at}.res_layer.1.weight"].shape[:2]
        stride, other = 2 if index == 0 or out != before else 1, x
        if out != before:
            other = net.conv_bn(x, f"{at}.shortcut_layer.0", f"{at}.shortcut_layer.1", stride, 1)
        else:
            other = net.add("MaxPool", [x], kernel_shape=[1, 1], strides=[stride] * 2)
        y = net.conv_bn(net.bn(x, f"{at}.res_layer.0"), f"{at}.res_layer.1", f"{at}.res_layer.2", 1, 3)
        y = net.prelu(y, f"{at}.res_layer.3")
        y = net.conv_bn(y, f"{at}.res_layer.4", f"{at}.res_layer.5", stride, 3)
        x, index = net.add("Add", [_excited(net, y, f"{at}.res_layer.se_block"), other]), index + 1
    x = net.add("Reshape", [net.bn(x, "output_layer.0"), net.number([1, -1])])
    given = [net.array(name, arrays[name]) for name in ("output_layer.3.weight", "output_layer.3.bias")]
    x = net.bn(net.add("Gemm", [x, *given], transB=1), last)
    if not normalised:
        return write(path, net, [x])
    length = net.add("ReduceL2", [x], axes=[1], keepdims=1)
    return write(path, net, [net.add("Div", [x, length]), length])


def _excited(net: Net, y: str, name: str) -> str:
    if f"{name}.fc1.weight" not in net.arrays:
        return y
    weights = [net.array(f"{name}.{part}.weight", net.arrays[f"{name}.{part}.weight"]) for part in ("fc1", "fc2")]
    hidden = net.add("Relu", [net.add("Conv", [net.add("GlobalAveragePool", [y]), weights[0]])])
    return net.add("Mul", [y, net.add("Sigmoid", [net.add("Conv", [hidden, weights[1]])])])
