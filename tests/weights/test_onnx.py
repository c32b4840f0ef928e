"""ONNX graphs of ResNets: what is read of them, against the formula of the net that they were made of."""

from __future__ import annotations

import resource
import time

import numpy as np
import onnx
import pytest

from plsc.errors import CheckpointError, DataError
from plsc.weights import formula
from plsc.weights.foreign import InputOptions, open_model
from plsc.weights.onnx_graph import read_graph
from tests.reference.backbones import NumpyNet
from tests.weights import onnx_kit
from tests.weights import torch_kit as kit

NET = kit.random_net(kit.arcface_shapes(18, 4, 6, 2))


def ours(net, pixels: np.ndarray) -> np.ndarray:
    """Our net in NumPy with what was read; BGR and scale are in its arrays and options."""
    settings = net.converted.settings
    arrays = {name[len("backbone.") :]: array for name, array in net.converted.arrays.items()}
    options = settings["options"]
    images = (pixels.astype(np.float64).transpose(0, 3, 1, 2) - 127.5) / 127.5
    images = images * options.get("input_scale", 1.0) + options.get("input_shift", 0.0)
    reference = NumpyNet(arrays, False, options["bn_epsilon"], options.get("projection", "shape") == "shape")
    return reference.resnet(images, int(settings["name"][len("ResNet") :]))


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert (np.linalg.norm(found - expected, axis=1) <= tolerance * np.linalg.norm(expected, axis=1)).all()


# 1e-6: weights that were fused are rounded to float32, in 20 layers; ONNX Runtime computes in float32, as torch does.
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("epsilon", [1e-5, 2e-5])
def test_the_net_is_that_of_the_graph(tmp_path, fused, epsilon):
    net = open_model(str(onnx_kit.save(tmp_path / "net.onnx", NET, fused, epsilon)), None, InputOptions())
    assert net.converted.settings == {
        "name": "ResNet18", "embedding_size": 6, "image_shape": [3, 32, 32], "base_width": 4,
        "options": {"bn_epsilon": 1e-5},
    }  # fmt: skip
    pixels = kit.pictures(32)
    expected = formula.arcface_forward(NET, (pixels.astype(np.float64).transpose(0, 3, 1, 2) - 127.5) / 127.5, epsilon)
    assert_close(ours(net, pixels), expected, 1e-6)
    assert_close(net.embed(pixels), expected, 1e-5)


def test_what_the_user_says_of_images(tmp_path):
    path = onnx_kit.save(tmp_path / "net.onnx", NET)
    net = open_model(str(path), "onnx", InputOptions("BGR", 0.0, 255.0, None, [3, 30, 20]))
    assert net.converted.settings["image_shape"] == [3, 30, 20]
    pixels = kit.pictures(32)
    expected = formula.arcface_forward(NET, pixels.transpose(0, 3, 1, 2)[:, ::-1] / 255.0, 1e-5)
    assert_close(ours(net, pixels), expected, 1e-6)
    assert_close(net.embed(pixels), expected, 1e-5)
    with pytest.raises(CheckpointError, match="leave out --bn-epsilon"):
        open_model(str(path), None, InputOptions(epsilon=1e-3))


def test_a_shortcut_without_weights(tmp_path):
    net = open_model(str(onnx_kit.save(tmp_path / "net.onnx", NET, pooled=True)), None, InputOptions())
    assert net.converted.settings["options"]["projection"] == "channels"
    assert "backbone.stage1.unit0.shortcut.conv.weight" not in net.converted.arrays
    assert_close(ours(net, kit.pictures(32)), net.embed(kit.pictures(32)), 1e-5)


def test_a_graph_that_goes_on(tmp_path):
    path = onnx_kit.save(tmp_path / "net.onnx", NET, after="Relu")
    with pytest.raises(CheckpointError, match=r"net.onnx: its graph goes on after the last batch norm \(Relu\)"):
        open_model(str(path), None, InputOptions())


def edited(path, change) -> str:
    model = onnx.load(str(path))
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return str(path)


def set_attribute(graph, kind: str, index: int, name: str, value) -> None:
    node = [node for node in graph.node if node.op_type == kind][index]
    (attribute,) = (attribute for attribute in node.attribute if attribute.name == name)
    attribute.CopyFrom(onnx.helper.make_attribute(name, value))


def circle(graph) -> None:
    adds = [node for node in graph.node if node.op_type == "Add"]
    adds[3].output[0] = adds[1].output[0]


def external(graph) -> None:
    graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


@pytest.mark.parametrize("change, message", [
    (lambda graph: set_attribute(graph, "Conv", 1, "pads", [0] * 4), "stage1.unit0.conv1 is a convolution"),
    (lambda graph: set_attribute(graph, "Conv", 1, "strides", [2, 2]), "stage1.unit0.conv1 is a convolution"),
    (lambda graph: graph.node[0].attribute.append(onnx.helper.make_attribute("group", 3)), "has 21 convolutions, some"),
    (lambda graph: set_attribute(graph, "Conv", 3, "strides", [1, 1]), "stage1.unit0.shortcut.conv is a convolution"),
    (lambda graph: set_attribute(graph, "Gemm", 0, "transB", 0), "its last layer has 6 inputs"),
    (lambda graph: graph.node[-2].attribute.append(onnx.helper.make_attribute("alpha", 2.0)), "more than a product"),
    (lambda graph: graph.node[1].input.__setitem__(0, "7"), "after '1' a PRelu must follow, found nothing"),
    (lambda graph: graph.node[0].__setattr__("op_type", "Sub"), "after 'input.1' a Conv must follow, found Sub"),
    (circle, "goes round in a circle"), (external, "weights lie in another file"),
    (lambda graph: graph.initializer.pop(0), "must be an array of 4 axes in the file"),
    (lambda graph: graph.initializer[0].dims.__setitem__(0, 5), "damaged: the array 'conv1.fused'"),
    (lambda graph: graph.initializer[0].dims.extend([1] * 9), "damaged: the array"),
    (lambda graph: graph.input.append(onnx.helper.make_tensor_value_info("b", 1, [1])), "its graph has 2 inputs"),
])  # fmt: skip
def test_graphs_of_other_nets_are_refused(tmp_path, change, message):
    path = edited(onnx_kit.save(tmp_path / "net.onnx", NET), change)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_model(path, None, InputOptions())
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, with its length in four bytes."""
    size = [len(data) >> shift & 127 for shift in (0, 7, 14, 21)]
    return bytes([number << 3 | 2, *(part | 128 for part in size[:3]), size[3]]) + data


@pytest.mark.parametrize("content, message", [
    (b"\x08\x06", "it holds no graph"), (b"\x08" + b"\xff" * 20, "a number does not end"),
    (b"\x08\x06\x3a\xff\xff\xff\xff\x07", "extends beyond its message"), (b"\x08\x06\x0b", "a field of kind 3"),
    (b"\x08\x06\x38\x01", "a number in place of a message"),
    (b"\x08\x06" * 600_000, "more than 1,000,000 fields"),
    (b"\x08\x06" + field(7, field(5, field(7, b"\x01" * 60_000) * 20)), "more than 1,000,000 fields"),  # integers
    (b"\x08\x06\x3a" + b"\xc0\xc2\x07" + b"\x58\x01" * 61_600, "a number in place"),
])  # fmt: skip
def test_damage_is_one_line_and_takes_no_time(tmp_path, content, message):
    if content.startswith(b"\x08\x06" * 2):
        content *= 2
    (tmp_path / "net.onnx").write_bytes(content)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message):
        read_graph(str(tmp_path / "net.onnx"))
    assert time.monotonic() - began < 20 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_cut_file_is_refused_wherever_it_ends(tmp_path):
    path = onnx_kit.save(tmp_path / "net.onnx", NET)
    content = path.read_bytes()
    for end in range(1, len(content), len(content) // 50):
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            open_model(str(path), "onnx", InputOptions())


def test_long_lists_of_numbers(tmp_path):
    tensor = b"\x0a" + _varint(65540) + b"\x01" * 65540  # dims
    graph = b"\x2a" + _varint(len(tensor)) + tensor
    (tmp_path / "net.onnx").write_bytes(b"\x08\x06\x3a" + _varint(len(graph)) + graph)
    with pytest.raises(DataError, match="a list of integers has 65,540 bytes"):
        read_graph(str(tmp_path / "net.onnx"))


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes([*parts, value])
