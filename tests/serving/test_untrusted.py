"""An exported directory whose files are somebody else's, and whose plsc.json fits them: one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from plsc.errors import ExportError, PlscError
from plsc.serving import Predictor
from plsc.serving.description import Description, read_description


def net(path: Path, outputs: list[list[int]], image: list, kind: str = "GlobalAveragePool") -> bytes:
    """An ONNX file with these outputs, each the mean over the pixels, for images [N, *image]."""
    nodes, infos = [], []
    for number, shape in enumerate(outputs):
        nodes.append(helper.make_node(kind, ["x"], [f"m{number}"]))
        nodes.append(helper.make_node("Flatten", [f"m{number}"], [f"y{number}"]))
        infos.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, ["N", *shape]))
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *image])
    model = helper.make_model(helper.make_graph(nodes, "net", [source], infos),
                              opset_imports=[helper.make_opsetid("", 13)], ir_version=8)  # fmt: skip
    return model.SerializeToString()


def directory(path: Path, data: bytes, **changes) -> Path:
    """An export of one ONNX file for images of 8 x 8 and an embedding of 3."""
    (path / "backbone.onnx").write_bytes(data)
    files = {"backbone.onnx": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    about = Description("0", "0", 1, "c", "x", [3, 8, 8], 127.5, 127.5, 3, None, False, False, ["embedding"],
                        {"onnx": ["backbone.onnx"]}, files, {})  # fmt: skip
    (path / "plsc.json").write_text(json.dumps({**json.loads(about.to_bytes()), **changes}))
    return path


def refusal(function, *arguments) -> str:
    with pytest.raises(PlscError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert isinstance(caught.value, ExportError) and "\n" not in message and len(message) < 600
    return message


def test_the_right_one(tmp_path):
    predictor = Predictor(directory(tmp_path, net(tmp_path, [[3]], [3, 8, 8])), "onnx")
    pixels = np.full((8, 8, 3), [0, 51, 255], np.uint8)
    found = predictor.embed([pixels, pixels])
    assert np.allclose(found, [(np.array([0, 51, 255]) - 127.5) / 127.5] * 2, atol=1e-6)  # float32


@pytest.mark.parametrize("data", [b"", b"junk", bytes(10_000), b"\x08\x08" + b"\xff" * 1000])
def test_what_is_no_onnx(tmp_path, data):
    assert "backbone.onnx: onnx cannot open it: " in refusal(Predictor, directory(tmp_path, data), "onnx")


def test_another_model_whose_input_is_other(tmp_path):
    predictor = Predictor(directory(tmp_path, net(tmp_path, [[3]], [3, 16, 16])), "onnx")
    assert "backbone.onnx: ONNX Runtime cannot run it: " in refusal(predictor.embed, np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(("outputs", "changes"), [
    ([[3], [3]], {}), ([[3]], {"embedding_size": 4}),
    ([[3]], {"num_classes": 3, "outputs": ["embedding", "scores"]}),
    ([[3], [3]], {"num_classes": 5, "outputs": ["embedding", "scores"]}),
])  # fmt: skip
def test_another_model_whose_outputs_are_other(tmp_path, outputs, changes):
    predictor = Predictor(directory(tmp_path, net(tmp_path, outputs, [3, 8, 8]), **changes), "onnx")
    assert "the files are of two models; export the model again" in refusal(
        predictor.embed, np.zeros((8, 8, 3), np.uint8)
    )


FILE = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(("changes", "field"), [
    ({"image_shape": [3, 10**9, 1]}, "image_shape"), ({"image_shape": [3, 16384, 16384]}, "image_shape"),
    ({"image_shape": [3, True, 1]}, "image_shape"), ({"pixel_std": 1e-300}, "pixel_std"),
    ({"pixel_std": "1"}, "pixel_std"),
    ({"pixel_mean": None}, "pixel_mean"), ({"embedding_size": 2**31}, "embedding_size"), ({"step": "1"}, "step"),
    ({"num_classes": 2**31}, "num_classes"), ({"num_classes": 0}, "num_classes"), ({"num_classes": 3}, "outputs"),
    ({"outputs": ["embedding", "scores"]}, "outputs"), ({"outputs": {}}, "outputs"), ({"agreement": 1}, "agreement"),
    ({"input_name": "a\nb"}, "input_name"), ({"files": {"..": FILE}}, "files"), ({"files": {"": FILE}}, "files"),
    ({"files": {"../x.onnx": FILE}}, "files"), ({"files": {"/x.onnx": FILE}}, "files"),
    ({"files": {"a/../../x.onnx": FILE}}, "files"), ({"files": {"a//x.onnx": FILE}}, "files"),
    ({"files": {"a\nb": FILE}}, "files"), ({"files": {"x.onnx": {"bytes": "1", "sha256": ""}}}, "files"),
    ({"files": {"x.onnx": {"bytes": 1, "sha256": []}}}, "files"), ({"models": {"onnx": [["x"]]}}, "models"),
    ({"models": {"onnx": []}}, "models"), ({"models": {}}, "models"),
    ({"models": {"other": ["backbone.onnx"]}}, "models"),
    ({"models": {"onnx": ["backbone.onnx", "backbone.onnx"]}}, "models"),
    ({"models": {"paddle": ["backbone.onnx", "backbone.onnx"]}}, "models"),  # a runtime may crash over another's
    ({"models": {"paddle": ["a.pdiparams", "a.pdmodel"]}, "files": {"a.pdiparams": FILE, "a.pdmodel": FILE}}, "models"),
    ({"models": {"onnx": [{}]}}, "models"), ({"agreement": float("nan")}, "NaN"), ({"step": 2**200}, "201 bits"),
])  # fmt: skip
def test_a_description_that_cannot_be_right(tmp_path, changes, field):
    message = refusal(read_description, str(directory(tmp_path, b"", **changes)))
    assert "plsc.json: damaged" in message and field in message
