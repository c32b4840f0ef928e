"""plsc import of arcface_torch's MobileFaceNets and ViT, and of AdaFace's IR-SE: as torch computes them, or refused."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict

import numpy as np
import onnx
import pytest

from plsc import checkpoint
from plsc.cli.main import main
from plsc.errors import CheckpointError, ExportError
from plsc.files.torch_file import TorchFile
from plsc.weights.convert import convert
from plsc.weights.kinds import ADAFACE, ARCFACE, ARCFACE_MOBILE, ARCFACE_VIT
from plsc.weights.source import read_source
from tests.weights import onnx_nets_kit
from tests.weights import torch_kit as kit

# torch 2.14.1 in float64, the classes of insightface (7fadd420) and AdaFace (net.py, a quarter of the widths), which
# loaded torch_kit's tensors with load_state_dict: as in test_formula.
NETS = {
    "mbf": (ARCFACE_MOBILE, kit.mobile_shapes(64, 6), [5443941000.0, -8002246000.0, 1748961000.0, -1834388000.0],
            10290460000.0),
    "mbf_large": (ARCFACE_MOBILE, kit.mobile_shapes(64, 6, large=True),
                  [5.04254e17, -1.460274e17, 2.436053e17, 1.434244e17], 9.033432e17),
    "vit": (ARCFACE_VIT, kit.vit_shapes(16, 3, 6), [-1.434037, -0.2592274, 0.3676702, -1.070298], 3.055917),
    "ir_se": (ADAFACE, kit.adaface_shapes(18, 16, 6, 7, squeezed=True), [26125.84, 74.23944, -499.948, -213.4437],
              28577.55),
}  # fmt: skip
SETTINGS = {
    "mbf": {"name": "WideMobileFaceNet", "base_width": 64, "options": {"bn_epsilon": 1e-5}},
    "mbf_large": {"name": "LargeMobileFaceNet", "base_width": 64, "options": {"bn_epsilon": 1e-5}},
    "vit": {"name": "ViT-T", "base_width": 4,
            "options": {"bn_epsilon": 2e-5, "patch_size": 9, "num_heads": 8, "depth": 3}},
    "ir_se": {"name": "SEResNet18", "base_width": 16, "options": {"bn_epsilon": 1e-5, "projection": "channels"}},
}  # fmt: skip


def saved(path, name: str, **changes) -> str:
    """The file as its project writes it, with other tensors; None leaves one out."""
    net = OrderedDict({**kit.random_net(NETS[name][1]), **changes})
    net = OrderedDict((key, array) for key, array in net.items() if array is not None)
    if name == "ir_se":
        return str(kit.save(path, {"state_dict": OrderedDict((f"model.{key}", array) for key, array in net.items())}))
    return str(kit.save(path, net))


@pytest.mark.parametrize("name", NETS)
def test_formulas_are_torchs(name):
    kind, shapes, first, length = NETS[name]
    found = kind.forward(kit.random_net(shapes), kind.input.prepare(kit.pictures()), kind.epsilon)
    np.testing.assert_allclose(found[0, :4], first, rtol=1e-6, atol=1e-6 * length)  # the last digit is cut
    assert np.linalg.norm(found[1]) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_imported_embeddings_are_torchs(tmp_path, capsys, name):
    """`plsc import` itself holds our net against the formula, which test_formulas_are_torchs holds against torch."""
    main(["import", saved(tmp_path / "model.pt", name), "--to", str(tmp_path / "run")])
    said = capsys.readouterr().out
    kind, expected = NETS[name][0], SETTINGS[name]
    assert f"{expected['name']}, base_width {expected['base_width']}, embedding_size 6, images 3 x 112 x 112" in said
    assert f"defaults of {kind.describe()}" in said
    path = checkpoint.resolve(str(tmp_path / "run"))
    manifest = checkpoint.read_manifest(path)
    assert manifest.config["model"] == {**expected, "embedding_size": 6, "image_shape": [3, 112, 112]}
    assert manifest.extra["imported"]["distance"] <= 1e-5
    arrays = checkpoint.read_replicated(path, manifest)
    assert sum(array.size for array in kit.random_net(NETS[name][1]).values() if array.shape) == sum(
        array.size for name, array in arrays.items() if name.startswith("backbone.")
    ) - (12 if name == "ir_se" else 0)  # the scale and shift that AdaFace's last batch norm has not


SMALL = {
    "mbf": kit.mobile_shapes(4, 6, side=2), "vit": kit.vit_shapes(16, 2, 6, patch=8, side=4),
    "ir_se": kit.adaface_shapes(18, 16, 6, 2, squeezed=True),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_an_import_goes_back_to_the_same_file(tmp_path, capsys, name):
    """`plsc export --to torch` holds its file against the formula; names and order are in test_torch_names."""
    net = kit.gentle_net(SMALL[name])
    main(["import", str(kit.save(tmp_path / "model.pt", net)), "--to", str(tmp_path / "run")])
    out = tmp_path / "out"
    export = ["export", "--checkpoint", str(tmp_path / "run"), "--output", str(out), "--to", "torch"]
    main(export)
    project, channels = ("adaface", "BGR") if name == "ir_se" else ("arcface_torch", "RGB")
    said = capsys.readouterr().out
    assert f"names are those of {project}, its images enter as {channels}" in said and "class has 64 and 3" in said
    about = json.loads((out / "plsc.json").read_text())
    assert about["names"] == project and about["input"] == f"{channels}, (pixels - 127.5) / 127.5"
    assert about["files"]["model.pt"]["sha256"] == hashlib.sha256((out / "model.pt").read_bytes()).hexdigest()
    with TorchFile(str(out / "model.pt")) as file:
        for key, array in net.items():
            assert not array.shape or np.array_equal(file.value[key].read(), array), key
    with pytest.raises(ExportError, match="model.pt: is there already"):
        main(export)
    (out / "model.pt").unlink()
    with pytest.raises(ExportError, match="plsc.json: is there already"):
        main(export)


@pytest.mark.parametrize("name, changes, message", [
    ("mbf", {"layers.3.layers.1.layers.0.layers.0.weight": None}, r"its stages have \[0, 1, 6, 2\] bottlenecks"),
    ("mbf", {"conv_sep.layers.1.bias": np.zeros(3, "<f4")}, r"conv_sep.layers.1.bias is \[3\], must be \[512\]"),
    ("mbf", {"features.layers.2.weight": None}, r"tensor features.layers.2.weight is \[\], must have 2 axes"),
    ("vit", {"blocks.1.attn.proj.bias": None}, r"blocks.1.attn.proj.bias is missing, must be \[16\]"),
    ("vit", {"blocks.0.attn.qkv.weight": None}, "it has 0 blocks of width 16"),
    ("vit", {"mask_token": np.zeros((1, 1, 5), "<f4")}, r"mask_token is \[1, 1, 5\], must be \[1, 1, 16\]"),
    ("ir_se", {"body.3.res_layer.se_block.fc2.weight": None}, r"body.3.res_layer.se_block.fc2.weight is missing"),
])  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, name, changes, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(read_source(saved(tmp_path / "model.pt", name, **changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, save", [
    ("mbf", onnx_nets_kit.save_mobile), ("vit", onnx_nets_kit.save_vit), ("ir_se", onnx_nets_kit.save_adaface),
])  # fmt: skip
def test_graphs_are_imported(tmp_path, capsys, name, save):
    """Held against ONNX Runtime; what is read of the graph is in test_onnx_nets."""
    path = str(save(tmp_path / "net.onnx", kit.gentle_net(SMALL[name])))
    main(["import", path, "--to", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "of their length from its own graph in ONNX Runtime" in said
    assert ("backbone.mask_token: not in the file" in said) == (name == "vit")


def test_a_graph_that_computes_something_else_is_not_written(tmp_path):
    """Its weights are those of a ViT and in their order, its softmax is over the queries."""
    path = onnx_nets_kit.save_vit(tmp_path / "net.onnx", kit.random_net(SMALL["vit"]))
    model = onnx.load(str(path))
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.attribute[0].i = 2
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="embeddings of PLSC's model differ from its own graph in ONNX Runtime"):
        main(["import", str(path), "--to", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_images_of_other_sizes(tmp_path):
    shapes = {**kit.vit_shapes(16, 2, 6, patch=8, side=6), "feature.0.weight": (16, 36 * 16)}
    path = str(kit.save(tmp_path / "vit.pt", kit.random_net(shapes)))
    assert convert(read_source(path)).settings["image_shape"] == [3, 48, 48]
    assert convert(read_source(path), [3, 75, 32]).settings["image_shape"] == [3, 75, 32]
    mobile = str(kit.save(tmp_path / "mbf.pt", kit.random_net(kit.mobile_shapes(4, 6, side=3))))
    assert convert(read_source(mobile)).settings["image_shape"] == [3, 48, 48]
    assert convert(read_source(mobile), [3, 33, 48]).settings["image_shape"] == [3, 33, 48]
    for file, given in ((path, [3, 112, 112]), (path, [1, 48, 48]), (mobile, [3, 49, 48])):
        with pytest.raises(CheckpointError, match="--image-shape .*; give the shape that the model was trained with"):
            convert(read_source(file), given)


def test_a_named_project_has_several_families(tmp_path):
    path = saved(tmp_path / "model.pt", "vit")
    assert read_source(path, ARCFACE).kind is ARCFACE_VIT
    with pytest.raises(CheckpointError, match="holds no model of these kinds: adaface"):
        read_source(path, ADAFACE)
