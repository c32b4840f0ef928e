"""Exports for insightface, Triton and KServe: held against the ONNX graph, and against Predictor."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from plsc import Predictor
from plsc.cli.main import main
from plsc.engine.export import insightface
from plsc.errors import ConfigError, ExportError
from plsc.weights.onnx_graph import first_node_names
from tests import using_kit as kit
from tests.engine.targets_kit import NET, assert_equal, entry, photos, predicted, train

STD = {"data": {"pixel_std": 128.0}}  # as PLSC 0.2 trained, and not as insightface divides


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    return train(tmp_path_factory.mktemp("targets") / "run", **STD)


def as_insightface(file: Path, pixels: list[np.ndarray]) -> np.ndarray:
    """What insightface's get_model(file).get_feat(BGR) computes, step by step (read in 2.1), without its packages."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    _, channels, height, width = session.get_inputs()[0].shape
    assert channels == 3 and height == width >= 112 and height % 16 == 0 and height != 192
    assert len(session.get_inputs()) == len(session.get_outputs()) == 1
    names = [node.name for node in onnx.load(str(file)).graph.node[:8]]
    own = [
        any(name.startswith(word) for name in names for word in pair) for pair in (("Sub", "_minus"), ("Mul", "_mul"))
    ]
    mean, std = (0.0, 1.0) if all(own) else (127.5, 127.5)
    bgr = [np.ascontiguousarray(image[:, :, ::-1]) for image in pixels]
    blob = np.stack([(image[:, :, ::-1].astype(np.float32) - mean) * (1.0 / std) for image in bgr]).transpose(
        0, 3, 1, 2
    )
    return session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(blob, np.float32)})[0]


def test_insightface_embeds_as_predictor_and_as_the_trained_net(run, tmp_path, capsys):
    """With the division by 128 in the graph, before the mirror image is made."""
    given = entry(run, tmp_path, "insightface", STD, fuse_flip=True, model_name="mine")
    directory = given.convert_for_prediction()
    assert Path(directory) == tmp_path / "insightface"
    assert "export.model_name='mine': has no effect with this export.target" in capsys.readouterr().out
    assert json.loads(Path(directory, "plsc.json").read_text())["pixel_std"] == 127.5
    found = as_insightface(Path(directory, "backbone.onnx"), photos())
    assert_equal(found, predicted(directory))
    images = np.stack([((image.astype(np.float64) - 127.5) / 128).transpose(2, 0, 1) for image in photos()])
    feature = sum(
        kit.evaluation_program(run, np.ascontiguousarray(given, np.float32), **NET).astype(np.float64) / 2
        for given in (images, images[:, :, :, ::-1])
    )
    assert_equal(found, feature)


def test_names_that_insightface_misreads(tmp_path):
    """Its own preprocessing is told by names alone."""
    file = tmp_path / "backbone.onnx"
    for words, refused in ((["Conv.0", "Sub.0", "Mul.0"], True), (["_minus0", "_mul0"], True), (["Mul.0"], False),
                           (["", "Sub", "Add"], False), (["Relu"] * 8 + ["Sub", "Mul"], False)):  # fmt: skip
        nodes = [onnx.helper.make_node("Relu", [f"x{i}"], [f"x{i + 1}"], name=name) for i, name in enumerate(words)]
        file.write_bytes(onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [], [])).SerializeToString())
        assert first_node_names(str(file), 8) == words[:8]
        if refused:
            with pytest.raises(ExportError, match="would feed other numbers"):
                insightface.write(None, str(tmp_path), "backbone.onnx")
        else:
            assert insightface.write(None, str(tmp_path), "backbone.onnx") == []


@pytest.mark.parametrize("shape, keys, message", [
    ([3, 96, 96], {}, r"model.image_shape=\[3, 96, 96\]: it takes 3 channels and a square"),
    ([3, 112, 128], {}, "square image of at least 112"), ([3, 120, 120], {}, "divisible by 16"),
    ([3, 192, 192], {}, "not 192"), ([1, 112, 112], {}, "3 channels"),
    ([3, 112, 112], {"with_classifier": True}, "set export.with_classifier: false"),
])  # fmt: skip
def test_what_insightface_does_not_take_is_one_line_before_anything(run, tmp_path, shape, keys, message):
    with pytest.raises(ConfigError, match=message) as caught:
        other = {"model": {**NET["model"], "image_shape": shape}}
        entry(run, tmp_path / "out", "insightface", other, **keys).convert_for_prediction()
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_repository_of_kserve_is_bound_by_hash_and_predictor_reads_it(run, tmp_path, capsys):
    """From the command line, where an unfinished one lies."""
    (tmp_path / "kserve.unfinished" / "other" / "1").mkdir(parents=True)
    settings = ("export.max_batch_size=5", "export.model_name=arc-face", "export.with_classifier=true")
    words = [word for setting in settings for word in ("-o", setting)]
    main(["export", "--checkpoint", run, "--output", str(tmp_path), "--to", "kserve", "--quiet", *words])
    directory = Path(capsys.readouterr().out.split()[-1])
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    assert set(files) == {"plsc.json", "arc-face/config.pbtxt", "arc-face/1/model.onnx", "inference_service.yaml"}
    for name, facts in json.loads(files.pop("plsc.json").read_text())["files"].items():
        content = files.pop(name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert files == {} and not list(tmp_path.glob("kserve.*"))
    service = yaml.safe_load((directory / "inference_service.yaml").read_text())
    assert service == {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "arc-face"},
        "spec": {"predictor": {"model": {
            "modelFormat": {"name": "onnx", "version": "1"}, "runtime": "kserve-tritonserver",
            "protocolVersion": "v2", "storageUri": "s3://BUCKET/PATH",
        }}},
    }  # fmt: skip
    session = onnxruntime.InferenceSession(str(directory / "arc-face" / "1" / "model.onnx"))
    given = read_config(directory / "arc-face" / "config.pbtxt")
    assert given["name"] == ["arc-face"] and given["max_batch_size"] == [5] and given["dynamic_batching"] == [{}]
    assert given["platform"] == ["onnxruntime_onnx"]
    for kind, ports in (("input", session.get_inputs()), ("output", session.get_outputs())):
        expected = [{"name": [port.name], "data_type": ["TYPE_FP32"], "dims": [port.shape[1:]]} for port in ports]
        assert given[kind] == expected and all(port.type == "tensor(float)" for port in ports)
    feeds = {
        session.get_inputs()[0].name: np.concatenate(
            [kit.net_input(image) * np.float32(127.5 / 128) for image in photos()]
        )
    }
    embeddings, scores = session.run(None, feeds)
    with Predictor(directory) as predictor:
        assert_equal(embeddings, predictor.embed(photos()))
        assert_equal(scores, predictor.scores(photos()))


def read_config(file: Path) -> dict:
    """The text format of a message, as far as it is used here: {field: [values]}. Fails for anything else."""
    words = file.read_text().replace("[", " [ ").replace("]", " ] ").replace(",", " , ").split()

    def value():
        word = words.pop(0)
        if word == "[":
            numbers = []
            while words[0] != "]":
                numbers.append(int(words.pop(0)))
                assert words[0] in (",", "]")
                words.pop(0) if words[0] == "," else None
            words.pop(0)
            return numbers
        return json.loads(word) if word[0] in '"0123456789' else word

    def message() -> dict:
        found: dict = {}
        while words and words[0] != "}":
            name = words.pop(0)
            if name.endswith(":"):
                found.setdefault(name[:-1], []).append(value())
            else:
                assert words.pop(0) == "{", name
                found.setdefault(name, []).append(message())
                assert words.pop(0) == "}", name
        return found

    return message()


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a/b", "..", "a" * 64, "1a"])
def test_names_that_a_cluster_refuses(run, tmp_path, name):
    with pytest.raises(ConfigError, match="export.model_name=.*lower-case letters, digits and hyphens"):
        entry(run, tmp_path, "triton", model_name=name)
