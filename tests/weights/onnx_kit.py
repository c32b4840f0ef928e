"""ONNX graphs as torch.onnx.export makes them of iresnet: with the onnx package, of torch_kit's arrays.

Fused (the default there): a batch norm behind a convolution is in its weights and bias. Compared once with what torch
2.13 wrote of the same net: the same operations in the same order, fused and not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    def __init__(self, arrays: Mapping[str, np.ndarray], fused: bool, epsilon: float):
        self.arrays, self.fused, self.epsilon = arrays, fused, epsilon
        self.nodes, self.initializers, self.count = [], [], 0

    def add(self, kind: str, inputs: list[str], **attributes) -> str:
        self.count += 1
        self.nodes.append(helper.make_node(kind, inputs, [str(self.count)], **attributes))
        return str(self.count)

    def array(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def bn(self, x: str, name: str) -> str:
        parts = ("weight", "bias", "running_mean", "running_var")
        given = [self.array(f"{name}.{part}", self.arrays[f"{name}.{part}"]) for part in parts]
        return self.add("BatchNormalization", [x, *given], epsilon=self.epsilon)

    def conv_bn(self, x: str, name: str, bn: str, stride: int, kernel: int, **more) -> str:
        weight = self.arrays[f"{name}.weight"].astype(np.float64)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, **more}
        if not self.fused:
            return self.bn(self.add("Conv", [x, self.array(f"{name}.weight", weight)], **shape), bn)
        scale = self.arrays[f"{bn}.weight"] / np.sqrt(
            self.arrays[f"{bn}.running_var"].astype(np.float64) + self.epsilon
        )
        bias = self.arrays[f"{bn}.bias"] - self.arrays[f"{bn}.running_mean"] * scale
        given = [self.array(f"{name}.fused", weight * scale[:, None, None, None]), self.array(f"{name}.bias", bias)]
        return self.add("Conv", [x, *given], **shape)

    def prelu(self, x: str, name: str) -> str:
        return self.add("PRelu", [x, self.array(f"{name}.weight", self.arrays[f"{name}.weight"].reshape(-1, 1, 1))])

    def unit(self, x: str, at: str, stride: int, projected: bool) -> str:
        y = self.conv_bn(self.bn(x, f"{at}.bn1"), f"{at}.conv1", f"{at}.bn2", 1, 3)
        y = self.conv_bn(self.prelu(y, f"{at}.prelu"), f"{at}.conv2", f"{at}.bn3", stride, 3)
        if stride == 2 and projected:
            x = self.conv_bn(x, f"{at}.downsample.0", f"{at}.downsample.1", stride, 1)
        elif stride == 2:
            x = self.add("MaxPool", [x], kernel_shape=[1, 1], strides=[2, 2])
        return self.add("Add", [y, x])


def save(path: Path, arrays: Mapping[str, np.ndarray], fused=True, epsilon=1e-5, pooled=False, after=None) -> Path:
    """The graph of arcface_torch's arrays; pooled: the first unit's shortcut has no weights; after: one more node."""
    net = Builder(arrays, fused, epsilon)
    x = net.prelu(net.conv_bn("input.1", "conv1", "bn1", 1, 3), "prelu")
    for stage in range(1, 5):
        unit = 0
        while f"layer{stage}.{unit}.conv1.weight" in arrays:
            x = net.unit(x, f"layer{stage}.{unit}", 2 if unit == 0 else 1, not (pooled and stage == 1))
            unit += 1
    x = net.add("Flatten", [net.bn(x, "bn2")], axis=1)
    given = [net.array(name, arrays[name]) for name in ("fc.weight", "fc.bias")]
    x = net.bn(net.add("Gemm", [x, *given], transB=1), "features")
    x = x if after is None else net.add(after, [x])
    return write(path, net, [x])


def write(path: Path, net: Builder, outputs: list[str], opset: int = 11) -> Path:
    image = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["batch", 3, None, None])
    features = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in outputs]
    graph = helper.make_graph(net.nodes, "net", [image], features, net.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset > 13 else 6)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
