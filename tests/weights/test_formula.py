"""The NumPy formulas of others' nets against torch's own numbers, and the reading of their files."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from plsc.errors import CheckpointError
from plsc.weights import names
from plsc.weights.convert import convert
from plsc.weights.kinds import ADAFACE, ARCFACE, KINDS, MAGFACE
from plsc.weights.source import read_source
from tests.weights import torch_kit as kit

# torch 2.13 in float64, nets of nn.Conv2d, BatchNorm2d, PReLU, Linear, BatchNorm1d in the published order, loaded from
# torch_kit's files: the first four numbers of the first embedding of kit.pictures(), the length of the second one.
# The last digit is cut, so 1e-6 of the length is allowed.
TORCH = [
    ("arcface_torch", 18, 4, 6, [-3195.7, 830.1717, 1345.123, -3913.755], 12277.56),
    ("magface", 18, 4, 6, [-172.1821, -1742.19, -1601.074, -520.6454], 5764.658),
    ("adaface", 18, 4, 6, [97083.78, -7627.232, -5817.949, -1385.348], 141311.4),
    ("arcface_torch", 50, 16, 64, [-13123020000.0, 41475260000.0, -20334720000.0, 46833960000.0], 459698100000.0),
    ("adaface", 50, 16, 64, [-962738800000.0, -29447440000.0, 1428816000.0, -8418099000.0], 1653844000000.0),
]


def net_of(kind: str, depth: int, width: int, embedding: int) -> OrderedDict:
    shapes = kit.adaface_shapes if kind == "adaface" else kit.arcface_shapes
    return kit.random_net(shapes(depth, width, embedding, 7))


def file_of(kind: str, net: OrderedDict) -> object:
    """As each project saves it."""
    if kind == "adaface":
        head = {"head.kernel": np.ones((6, 5), "<f4"), "head.t": np.zeros(1, "<f4")}
        named = {f"model.{name}": array for name, array in net.items()}
        return {"epoch": 3, "global_step": 9, "state_dict": OrderedDict({**named, **head})}
    if kind == "magface":
        named = {f"features.module.{name}": array for name, array in net.items()}
        return {"epoch": 25, "arch": "iresnet18", "state_dict": {**named, "module.fc.weight": np.ones((6, 5), "<f4")}}
    return net


@pytest.mark.parametrize("kind, depth, width, embedding, first, length", TORCH)
def test_formulas_are_torchs(kind, depth, width, embedding, first, length):
    kind = KINDS[kind]
    images = kind.input.prepare(kit.pictures())
    found = kind.forward(net_of(kind.name, depth, width, embedding), images, kind.epsilon)
    assert found.shape == (2, embedding)
    np.testing.assert_allclose(found[0, :4], first, rtol=1e-6, atol=1e-6 * length)
    assert np.linalg.norm(found[1]) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("kind, depth, unused", [
    ("arcface_torch", 50, []), ("magface", 18, ["module.fc.weight"]), ("adaface", 18, ["head.t"]),
])  # fmt: skip
def test_what_a_file_holds_is_found_out(tmp_path, kind, depth, unused):
    net = net_of(kind, depth, 4, 6)
    source = read_source(str(kit.save(tmp_path / "model.pt", file_of(kind, net))))
    assert source.kind is KINDS[kind] and source.unused == unused
    trained = {name: array for name, array in net.items() if array.shape}
    assert source.arrays.keys() == trained.keys()
    assert all(np.array_equal(source.arrays[name], array) for name, array in trained.items())
    converted = convert(source)
    options = {"bn_epsilon": {"magface": 2e-5}.get(kind, 1e-5)}
    options.update({"input_scale": 0.5, "input_shift": 0.5} if kind == "magface" else {})
    options.update({"projection": "channels"} if kind == "adaface" else {})
    assert converted.settings == {
        "name": f"ResNet{depth}", "embedding_size": 6, "image_shape": [3, 112, 112], "base_width": 4,
        "options": options,
    }  # fmt: skip
    stem = next(iter(net.values()))
    stem = stem if kind == "arcface_torch" else stem[:, ::-1]
    np.testing.assert_array_equal(converted.arrays["backbone.stem.conv.weight"], stem)
    if kind == "adaface":
        assert (source.epoch, source.step) == (3, 9) and source.centres.shape == (5, 6)


def test_each_kind_has_its_name():
    assert (*KINDS, names.ONNX) == names.KIND_NAMES and all(kind.name == name for name, kind in KINDS.items())


def test_the_user_knows_better():
    kind = ARCFACE.with_options("BGR", 0.0, 255.0, 3e-5)
    assert (kind.input, kind.epsilon) == (MAGFACE.input, 3e-5)
    assert ADAFACE.with_options(None, None, None, None) == ADAFACE
    pixels = kit.pictures(2)
    np.testing.assert_allclose(kind.input.prepare(pixels)[0, 0, 1, 0], pixels[0, 1, 0, 2] / 255)
    np.testing.assert_allclose(ARCFACE.input.prepare(pixels)[1, 2, 0, 1], (pixels[1, 0, 1, 2] - 127.5) / 127.5)


def test_images_of_other_sizes(tmp_path):
    square = kit.save(tmp_path / "square.pt", kit.random_net(kit.arcface_shapes(18, 4, 6, 3)))
    assert convert(read_source(str(square))).settings["image_shape"] == [3, 48, 48]
    shapes = {**kit.arcface_shapes(18, 4, 6, 7), "fc.weight": (6, 32 * 7 * 6)}
    oblong = read_source(str(kit.save(tmp_path / "oblong.pt", kit.random_net(shapes))))
    assert convert(oblong, [3, 112, 96]).settings["image_shape"] == [3, 112, 96]
    for given in (None, [3, 112, 112], [1, 112, 96]):
        with pytest.raises(CheckpointError, match="oblong.pt: .*--image-shape"):
            convert(oblong, given)


@pytest.mark.parametrize("change, message", [
    ({"layer2.0.bn1.weight": (5,)}, r"layer2.0.bn1.weight is \[5\], must be \[4\]$"),
    ({"layer2.1.conv2.weight": None}, r"layer2.1.conv2.weight is missing, must be \[8, 8, 3, 3\]"),
    ({"features.running_var": (7,)}, r"features.running_var is \[7\], must be \[6\]"),
    ({"conv1.weight": (4, 3)}, r"conv1.weight is \[4, 3\], must have 4 axes"),
    ({"layer2.1.conv1.weight": None}, r"its stages have \[2, 1, 2, 2\] units; PLSC has ResNet10"),
    ({"layer1.0.conv1.weight": None}, "holds no model of these kinds: arcface_torch, adaface, magface.*conv1.weight"),
    ({f"layer1.{i}.{n}.bias": (9,) for i in (0, 1) for n in ("bn1", "bn2", "bn3")}, r"must be \[4\] \(and 1 more\)"),
])  # fmt: skip
def test_what_does_not_fit_is_named_tensor_by_tensor(tmp_path, change, message):
    shapes = {**kit.arcface_shapes(18, 4, 6, 7), **change}
    net = kit.random_net({name: shape for name, shape in shapes.items() if shape is not None})
    path = kit.save(tmp_path / "model.pt", net)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(read_source(str(path)))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("value, message", [
    ([1, 2], "holds list"), ({"a": 1}, "it has 0 tensors"), (3, "holds int"),
    ({"layer1.0.conv1.weight": np.zeros((4, 4, 3, 3), "<i4"), "conv1.weight": np.zeros((4, 3, 3, 3), "<f4")}, "<i4"),
    ({"layer1.0.conv1.weight": np.full((4, 4, 3, 3), np.nan, "<f4")}, "not finite"),
    ({f"{a}.layer1.0.conv1.weight": np.zeros((4, 4, 3, 3), "<f4") for a in "ab"}, r"holds 2 models, 'a\.', 'b\.'"),
])  # fmt: skip
def test_files_that_hold_something_else(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=f"x.pt: .*{message}"):
        read_source(str(kit.save(tmp_path / "x.pt", value)))
