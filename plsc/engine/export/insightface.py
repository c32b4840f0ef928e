"""The target insightface: ONNX that its model_zoo.get_model(file) loads and feeds rightly.

Read in insightface 2.1 (model_zoo/model_zoo.py, model_zoo/arcface_onnx.py) and in its repository at 7fadd42. The kind
of a model is told by its input and outputs: a square input of at least 112, divisible by 16 and not 192, and one output
make an ArcFaceONNX. That turns BGR into RGB and feeds (x - 127.5) / 127.5, except where names among the first eight
nodes begin with Sub and with Mul (or _minus and _mul): then it feeds x as it is. The division by another
``data.pixel_std`` is part of the exported model (plsc.engine.inference.saved_model).
"""

from __future__ import annotations

import os

from plsc.config import Config
from plsc.errors import ConfigError, ExportError
from plsc.weights.onnx_graph import first_node_names

_NODES_READ, _LANDMARK_SIDE = 8, 192


def check(config: Config) -> None:
    """Raise ConfigError for a model that get_model takes for another kind, or refuses."""
    shape = list(config.model.image_shape)
    channels, height, width = shape
    if channels != 3 or height != width or height < 112 or height % 16 or height == _LANDMARK_SIDE:
        raise ConfigError(
            f"export.target='insightface': model.image_shape={shape}: it takes 3 channels and a square image of at "
            f"least 112 pixels, divisible by 16, but not {_LANDMARK_SIDE}; use export.target: predictor with "
            "export.format: onnx"
        )
    if config.export.with_classifier:
        raise ConfigError("export.target='insightface': it takes one output; set export.with_classifier: false")


def write(config: Config, directory: str, onnx_file: str) -> list[str]:
    """Raise ExportError where the names of the first nodes would make insightface feed other numbers."""
    names = first_node_names(os.path.join(directory, onnx_file), _NODES_READ)
    if _any(names, "Sub", "_minus") and _any(names, "Mul", "_mul"):
        raise ExportError(
            f"export.target: insightface takes the model's first operations ({', '.join(names)}) for its own "
            "preprocessing, and would feed other numbers; let the backbone begin with another operation"
        )
    return []


def _any(names: list[str], *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in names)
