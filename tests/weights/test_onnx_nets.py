"""ONNX graphs of MobileFaceNets, ViT and IR-SE: what is read of them, against the tensors that they were made of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from plsc.errors import CheckpointError
from plsc.weights.convert import convert
from plsc.weights.foreign import InputOptions, open_model
from plsc.weights.kinds import ADAFACE, ARCFACE_MOBILE, ARCFACE_VIT
from plsc.weights.source import Source
from plsc.weights.torch_names import state_dict_of
from tests.weights import onnx_nets_kit
from tests.weights import torch_kit as kit

NETS = {
    "mbf": (ARCFACE_MOBILE, kit.mobile_shapes(4, 6, side=2)),
    "mbf_large": (ARCFACE_MOBILE, kit.mobile_shapes(4, 6, large=True, side=2)),
    "ir_se": (ADAFACE, kit.adaface_shapes(18, 16, 6, 2, squeezed=True)),
    "ir": (ADAFACE, kit.adaface_shapes(18, 4, 6, 2)),
    "vit": (ARCFACE_VIT, kit.vit_shapes(16, 2, 6, patch=8, side=4)),
}  # fmt: skip
SAVE = {"mbf": onnx_nets_kit.save_mobile, "mbf_large": onnx_nets_kit.save_mobile, "ir": onnx_nets_kit.save_adaface,
        "ir_se": onnx_nets_kit.save_adaface, "vit": onnx_nets_kit.save_vit}  # fmt: skip
WITHOUT_FUSING = [(name, folded) for name in NETS for folded in (True, False)]


def random_net(name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in kit.random_net(NETS[name][1]).items() if array.shape}


def saved(path, name: str, **options) -> str:
    return str(SAVE[name](path, random_net(name), **options))


def formula(kind, arrays) -> np.ndarray:
    return kind.forward(arrays, kind.input.prepare(kit.pictures(32)), kind.epsilon)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert (np.linalg.norm(found - expected, axis=1) <= tolerance * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("name, folded", WITHOUT_FUSING)
def test_a_graph_gives_the_tensors_of_its_file(tmp_path, name, folded):
    """To the bit those that the import of the torch file gives, which test_other_nets holds against torch."""
    more = {} if name == "vit" else {"fused": False}
    net = open_model(saved(tmp_path / "net.onnx", name, folded=folded, **more), None, InputOptions())
    kind, _ = NETS[name]
    expected = convert(Source("x.pt", kind, random_net(name)), [3, 32, 32])
    assert net.converted.settings == expected.settings
    assert net.defaults == f"{kind.name}: {kind.input.describe()}"
    assert net.converted.arrays.keys() == expected.arrays.keys()
    for key, array in expected.arrays.items():
        if key == "backbone.mask_token":  # nothing in the graph
            assert not net.converted.arrays[key].any() and net.converted.arrays[key].shape == array.shape
        else:
            assert np.array_equal(net.converted.arrays[key], array), key
    # ONNX Runtime computes in float32, as torch does: 1e-5, as for all imports.
    assert_close(net.embed(kit.pictures(32)), formula(kind, random_net(name)), 1e-5)


# 3e-6: merged weights are rounded to float32, in 20 to 90 layers.
@pytest.mark.parametrize("name", [name for name in NETS if name != "vit"])
def test_merged_batch_norms(tmp_path, name):
    net = open_model(saved(tmp_path / "net.onnx", name), None, InputOptions())
    kind, found = state_dict_of("run", net.converted.settings, net.converted.arrays)
    assert_close(formula(kind, found), formula(kind, random_net(name)), 3e-6)
    assert_close(net.embed(kit.pictures(32)), formula(kind, random_net(name)), 1e-5)


def test_a_layer_norm_in_one_operation(tmp_path):
    whole = open_model(saved(tmp_path / "17.onnx", "vit", opset=17), None, InputOptions()).converted
    parts = open_model(saved(tmp_path / "11.onnx", "vit"), None, InputOptions()).converted
    assert all(np.array_equal(whole.arrays[key], array) for key, array in parts.arrays.items())


def test_other_epsilons_and_what_the_user_says(tmp_path):
    path = saved(tmp_path / "net.onnx", "mbf", fused=False, epsilon=3e-5)
    net = open_model(path, None, InputOptions("BGR", None, None, None, [3, 30, 20]))
    assert net.converted.settings["options"] == {"bn_epsilon": 3e-5}
    assert net.converted.settings["image_shape"] == [3, 30, 20]
    stem = random_net("mbf")["layers.0.layers.0.weight"][:, ::-1]
    assert np.array_equal(net.converted.arrays["backbone.stem.conv.weight"], stem)
    with pytest.raises(CheckpointError, match="--image-shape 3,64,64: its last convolution is 2x2"):
        open_model(path, None, InputOptions(image_shape=[3, 64, 64]))


def test_one_batch_norm_with_another_epsilon(tmp_path):
    """The last one's is that of our model; the difference is in the variances of the other."""
    path = saved(tmp_path / "net.onnx", "mbf", fused=False)
    model = onnx.load(path)
    nodes(model.graph, "BatchNormalization")[4].attribute[0].f = 1e-3
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    net = open_model(path, None, InputOptions())
    kind, found = state_dict_of("run", net.converted.settings, net.converted.arrays)
    assert net.converted.settings["options"] == {"bn_epsilon": 1e-5}
    assert_close(net.embed(kit.pictures(32)), formula(kind, found), 1e-5)


def test_adafaces_net_without_its_length(tmp_path):
    path = saved(tmp_path / "net.onnx", "ir_se", normalised=False)
    net = open_model(path, None, InputOptions())
    assert_close(net.embed(kit.pictures(32)), formula(ADAFACE, random_net("ir_se")), 1e-5)


def nodes(graph, kind: str) -> list:
    return [node for node in graph.node if node.op_type == kind]


def swap(graph, kind: str, first: int, second: int) -> None:
    """The weights of two operations."""
    one, two = nodes(graph, kind)[first], nodes(graph, kind)[second]
    one.input[1], two.input[1] = two.input[1], one.input[1]


@pytest.mark.parametrize("name, change, message", [
    ("mbf", lambda graph: swap(graph, "Conv", 0, 1), r"layers.1.layers.0.weight is \[8, 3, 3, 3\], must be \[8, 2"),
    ("mbf", lambda graph: nodes(graph, "PRelu")[3].__setattr__("op_type", "Relu"), "its graph has Relu: no Mobile"),
    ("mbf", lambda graph: graph.node.remove(nodes(graph, "PRelu")[3]), "has a Conv in place of a prelu for layers.2"),
    ("mbf", lambda graph: graph.node.remove(nodes(graph, "Conv")[5]), "its graph has 48 convolutions, some of them in"),
    ("mbf", lambda graph: graph.output.pop(), r"its graph goes on after the last batch norm \(\)"),
    ("mbf", lambda graph: graph.input.append(onnx.helper.make_tensor_value_info("b", 1, [1])), "graph has 2 inputs"),
    ("vit", lambda graph: swap(graph, "MatMul", 0, 3), r"qkv.weight is \[16, 16\], must be \[48, 16"),
    ("vit", lambda graph: nodes(graph, "Softmax")[0].__setattr__("op_type", "Sigmoid"), "has Sigmoid: no Mobile"),
    ("ir_se", lambda graph: nodes(graph, "Relu")[2].__setattr__("op_type", "Tanh"), "a Relu must follow, found Tanh"),
    ("ir_se", lambda graph: nodes(graph, "Mul")[1].input.__setitem__(0, "7"), "the Mul of stage1.unit1.se is not one"),
    ("ir_se", lambda graph: nodes(graph, "Div")[0].input.__setitem__(0, "7"), "goes on after the last batch norm"),
])  # fmt: skip
def test_graphs_of_other_nets_are_refused(tmp_path, name, change, message):
    path = saved(tmp_path / "net.onnx", name)
    model = onnx.load(path)
    change(model.graph)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=message) as caught:
        open_model(path, None, InputOptions())
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


def test_numbers_that_no_vit_has(tmp_path):
    path = saved(tmp_path / "net.onnx", "vit", bounds=(0.0, 8.0))
    with pytest.raises(CheckpointError, match=r"a number is cut off at \[0.0, 8.0\] in its graph, must be \[0"):
        open_model(path, None, InputOptions())
