"""Compare the embeddings of a model of PLSC with those of another implementation, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from plsc.backend.cpu import prepare_cpu
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import normalise
from plsc.engine.program.build import build_eval
from plsc.engine.program.trained_backbone import Variables
from plsc.engine.run.start import threads
from plsc.errors import CheckpointError
from plsc.parallel.environment import Environment

IMAGES = 2
# Of an embedding's length. Float32 sums in another order: 1e-6 to 2e-6 for 18 to 100 layers of random weights; one
# epsilon of 1e-5 in place of 2e-5 makes 1e-5 and more.
TOLERANCE = 1e-5


def random_pixels(image_shape: list[int]) -> np.ndarray:
    """uint8 [IMAGES, H, W, C], the same each time."""
    channels, height, width = image_shape
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    return draw.integers(0, 256, (IMAGES, height, width, channels), dtype=np.uint8)


def model_input(pixels: np.ndarray, pixel_std: float) -> np.ndarray:
    """float32 [B, C, H, W] of pixels, as the models of PLSC take images."""
    return np.stack([normalise(image, pixel_std) for image in pixels])


def our_features(path: str, model: Mapping[str, Any], arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """[B, E] of images [B, C, H, W] by the evaluation program of the settings ``model`` with these variables.

    path: where they come from, for messages. Raises CheckpointError for what the model does not fit.
    """
    config, env = Config.from_dict({"model": dict(model)}), Environment()
    prepare_cpu(threads(config, env))
    paddle.enable_static()
    program, variables = build_eval(config, UserObjects(), env, -1), Variables(env)
    variables.run(program.startup, {}, [])
    variables.load(program.main, path, arrays)
    return variables.run(program.main, dict.fromkeys(program.feeds, images), [program.own_feature])[0]


def require_equal(path: str, what: str, found: np.ndarray, expected: np.ndarray) -> float:
    """The largest |found - expected| / |expected| of the embeddings. Raises CheckpointError above TOLERANCE."""
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    worst = float(np.max(np.linalg.norm(found.astype(np.float64) - expected, axis=1) / np.maximum(lengths, 1e-30)))
    if not worst <= TOLERANCE:  # also where it is NaN
        raise CheckpointError(
            f"{path}: the embeddings of PLSC's model differ from {what} by {worst:.1e} of their length, more than "
            f"{TOLERANCE:.0e}; nothing was written"
        )
    return worst
