"""Exported models in the programs they are for (the extra interop): insightface itself, and Triton's own message."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.engine.targets_kit import assert_equal, entry, photos, predicted, train


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    return train(tmp_path_factory.mktemp("interop") / "run")


def test_insightface_embeds_as_predictor(run, tmp_path):
    """BGR in, with l2_normalise and without preparation by the caller; of another size, it is stretched."""
    from insightface.model_zoo import get_model
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    directory = entry(run, tmp_path, "insightface", l2_normalise=True).convert_for_prediction()
    model = get_model(str(Path(directory, "backbone.onnx")), providers=["CPUExecutionProvider"])
    assert type(model) is ArcFaceONNX and (model.input_mean, model.input_std) == (127.5, 127.5)
    assert model.input_size == (112, 112)
    found = model.get_feat([np.ascontiguousarray(image[:, :, ::-1]) for image in photos()])
    assert_equal(found, predicted(directory))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_triton_reads_its_configuration(run, tmp_path):
    """As the server does, by ModelConfig in the text format; what it names is in the graph."""
    from google.protobuf import text_format

    directory = Path(entry(run, tmp_path, "triton", max_batch_size=7).convert_for_prediction())
    config = text_format.Parse((directory / "backbone" / "config.pbtxt").read_text(), model_config().ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("backbone", "onnxruntime_onnx", 7)
    assert config.HasField("dynamic_batching") and not config.dynamic_batching.preferred_batch_size
    session = onnxruntime.InferenceSession(str(directory / config.name / "1" / "model.onnx"))
    for given, ports in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(one.name, list(one.dims)) for one in given] == [(port.name, port.shape[1:]) for port in ports]
        assert {one.data_type for one in given} == {model_config().TYPE_FP32}
        assert all(isinstance(port.shape[0], str) for port in ports)  # any batch
    assert len(config.input) == len(config.output) == 1


def model_config():
    """tritonclient's model_config.proto, without the rest of its client, which needs gRPC."""
    name = "model_config_pb2"
    if name not in sys.modules:
        (root,) = importlib.util.find_spec("tritonclient").submodule_search_locations
        spec = importlib.util.spec_from_file_location(name, Path(root, "grpc", f"{name}.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


if sys.version_info < (3, 10):  # for which the extra is empty; test_export_targets.py does what insightface does
    del test_insightface_embeds_as_predictor, test_triton_reads_its_configuration
