"""`plsc export --to torch`, its names and numbers: an imported net goes back to the bit, another computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.errors import ExportError
from plsc.weights.convert import convert
from plsc.weights.kinds import ADAFACE, ARCFACE, ARCFACE_MOBILE, ARCFACE_VIT
from plsc.weights.source import Source
from plsc.weights.torch_names import state_dict_of
from tests.weights import torch_kit as kit

NETS = {
    "iresnet": (ARCFACE, kit.arcface_shapes(18, 4, 6, 2)), "ir": (ADAFACE, kit.adaface_shapes(18, 4, 6, 2)),
    "ir_se": (ADAFACE, kit.adaface_shapes(18, 16, 6, 2, squeezed=True)),
    "mbf": (ARCFACE_MOBILE, kit.mobile_shapes(4, 6, side=2)),
    "mbf_large": (ARCFACE_MOBILE, kit.mobile_shapes(4, 6, large=True, side=2)),
    "vit": (ARCFACE_VIT, kit.vit_shapes(16, 3, 6, patch=8, side=4)),
}  # fmt: skip


def imported(name: str):
    """(their arrays, our settings ``model``, our arrays) of a net of random numbers."""
    kind, shapes = NETS[name]
    net = {name: array for name, array in kit.random_net(shapes).items() if array.shape}
    found = convert(Source("x.pt", kind, net))
    return net, found.settings, found.arrays


def forward(kind, arrays, epsilon=None) -> np.ndarray:
    images = kind.input.prepare(kit.pictures(32))
    return kind.forward(arrays, images, kind.epsilon if epsilon is None else epsilon)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert (np.linalg.norm(found - expected, axis=1) <= tolerance * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("name", NETS)
def test_an_import_goes_back_to_the_bit(name):
    net, settings, arrays = imported(name)
    kind, found = state_dict_of("run", settings, arrays)
    assert kind is NETS[name][0] and found.keys() == NETS[name][1].keys()
    for key, array in net.items():
        assert found[key].dtype == np.float32 and np.array_equal(found[key], array), key
    assert all(found[key].dtype == np.int64 for key in found.keys() - net.keys())  # counters of batches


# What torch's own classes of insightface (7fadd420) and AdaFace say of the order: optimizers go by it.
@pytest.mark.parametrize("name, names", [
    ("vit", ["pos_embed", "mask_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "blocks.0.norm1.weight",
             "blocks.0.norm1.bias", "blocks.0.norm2.weight", "blocks.0.norm2.bias", "blocks.0.attn.qkv.weight"]),
    ("ir_se", ["input_layer.2.weight", "output_layer.0.weight", "output_layer.3.weight", "output_layer.3.bias",
               "body.0.res_layer.0.weight", "body.0.res_layer.5.weight", "body.0.res_layer.se_block.fc1.weight",
               "body.2.shortcut_layer.0.weight", "body.2.res_layer.0.weight"]),
    ("mbf", ["layers.0.layers.0.weight", "layers.1.layers.0.weight", "layers.2.layers.0.layers.0.weight",
             "layers.7.layers.1.layers.2.layers.1.weight", "conv_sep.layers.0.weight", "features.layers.2.weight"]),
])  # fmt: skip
def test_the_order_is_theirs(name, names):
    found = list(state_dict_of("run", *imported(name)[1:])[1])
    assert [key for key in found if key in names] == names


# 3e-6: variances are rounded to float32 in up to 91 layers; an epsilon that is not taken into account makes 1e-4.
@pytest.mark.parametrize("name", NETS)
def test_another_epsilon_computes_the_same(name):
    net, settings, arrays = imported(name)
    settings["options"]["bn_epsilon"] = 3e-5
    kind, found = state_dict_of("run", settings, arrays)
    assert_close(forward(kind, found), forward(kind, net, 3e-5), 3e-6)
    settings["options"]["bn_epsilon"] = 1e-12
    for array in arrays.values():
        array[...] = 1e-7
    with pytest.raises(ExportError, match="bn_epsilon 1e-12: .*running_var would be below 0 there"):
        state_dict_of("run", settings, arrays)


@pytest.mark.parametrize("name", ["ir", "ir_se"])
def test_adafaces_last_batch_norm_has_no_scale(name):
    """Trained on, it has: the formula knows them by the names that AdaFace leaves out."""
    net, settings, arrays = imported(name)
    draw = np.random.Generator(np.random.Philox(key=[5, 5]))
    for part in ("weight", "bias"):
        values = draw.normal(size=6).astype("<f4") * (np.arange(6) != 2)  # negative ones, and a zero
        arrays[f"backbone.head.feature_bn.{part}"] = net[f"output_layer.4.{part}"] = values
    kind, found = state_dict_of("run", settings, arrays)
    assert found.keys() == NETS[name][1].keys()
    assert_close(forward(kind, found), forward(kind, net), 1e-6)


@pytest.mark.parametrize("name, change, message", [
    ("vit", {"options": {"num_heads": 4, "depth": 3}}, "model.options num_heads: 4: arcface_torch and AdaFace have no"),
    ("ir_se", {"options": {}}, "model.options projection: shape: arcface_torch and AdaFace have no such model"),
    ("mbf", {"options": {"input_scale": 0.5}}, "model.options input_scale: 0.5: "),
    ("mbf", {"name": "MobileFaceNet"}, "model.name 'MobileFaceNet': arcface_torch and AdaFace have no such model"),
    ("vit", {"options": {"depth": 4}}, "run: holds no backbone.block3.norm1.weight, which its model.name needs"),
])  # fmt: skip
def test_nets_that_they_have_not(name, change, message):
    _, settings, arrays = imported(name)
    with pytest.raises(ExportError, match=message):
        state_dict_of("run", {**settings, **change}, arrays)
