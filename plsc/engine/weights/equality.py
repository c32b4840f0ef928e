"""Compare the embeddings of a model of PLSC with those of another implementation, before anything is written.

Both round to float32, in another order, so they are never the same to the bit. How far rounding alone may take them
apart depends on the weights. Usual ones stay below TOLERANCE. Where they do not, the model itself is asked: each of its
numbers is moved by one unit in its last place, up or down at random. Computing in float32 is a rounding of that size
at each operation, so what the embeddings move by is what rounding does to them (backward error analysis: Higham,
Accuracy and Stability of Numerical Algorithms, 2002, chapter 1). In 40 random nets, IR-SE nets that amplify rounding
100 times among them, the distance was at most 2.2 times the larger of two such moves.
"""

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
# Of an embedding's length, as LARGEST. 1e-6 to 4e-6 for 18 to 200 layers of usual weights; one epsilon of 1e-5 in place
# of 2e-5 makes 1e-5 and more.
TOLERANCE = 1e-5
ROUNDINGS = 8  # times what moving the weights by one unit does
LARGEST = 1e-3  # above it a model is not compared: a tensor in the wrong place could hide
MOVES = 2


def random_pixels(image_shape: list[int]) -> np.ndarray:
    """uint8 [IMAGES, H, W, C], the same each time."""
    channels, height, width = image_shape
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    return draw.integers(0, 256, (IMAGES, height, width, channels), dtype=np.uint8)


def model_input(pixels: np.ndarray, pixel_std: float) -> np.ndarray:
    """float32 [B, C, H, W] of pixels, as the models of PLSC take images."""
    return np.stack([normalise(image, pixel_std) for image in pixels])


class OurModel:
    """The evaluation program of the settings ``model`` with ``arrays`` as variables, for images [B, C, H, W].

    path: where they come from, for messages.
    """

    def __init__(self, path: str, model: Mapping[str, Any], arrays: Mapping[str, np.ndarray], images: np.ndarray):
        self.path, self._arrays, self._images = path, arrays, images
        config, env = Config.from_dict({"model": dict(model)}), Environment()
        prepare_cpu(threads(config, env))
        paddle.enable_static()
        self._program, self._variables = build_eval(config, UserObjects(), env, -1), Variables(env)
        self._variables.run(self._program.startup, {}, [])

    def features(self) -> np.ndarray:
        """[B, E]. Raises CheckpointError for arrays that do not fit the model."""
        return self._features(self._arrays)

    def moved_features(self, seed: int) -> np.ndarray:
        """[B, E] with each number of the model moved by one unit in its last place, at random up or down."""
        draw = np.random.Generator(np.random.Philox(key=[1, seed]))
        return self._features({name: _moved(array, draw) for name, array in self._arrays.items()})

    def _features(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        self._variables.load(self._program.main, self.path, dict(arrays))
        feeds = dict.fromkeys(self._program.feeds, self._images)
        return self._variables.run(self._program.main, feeds, [self._program.own_feature])[0]


def require_equal(model: OurModel, what: str, expected: np.ndarray) -> float:
    """The largest |found - expected| / |expected| of the embeddings of ``model``. what: what computed ``expected``.

    Raises CheckpointError above TOLERANCE and above what the rounding of float32 makes of this model.
    """
    found = model.features()
    worst, allowed, why = _distance(found, expected), TOLERANCE, ""
    if not worst <= allowed:  # also where it is NaN
        rounding = max(_distance(model.moved_features(seed), found) for seed in range(MOVES))
        allowed = min(max(allowed, ROUNDINGS * rounding), LARGEST)
        why = f" (moving its weights by one unit in the last place changes them by {rounding:.0e})"
    if not worst <= allowed:
        raise CheckpointError(
            f"{model.path}: the embeddings of PLSC's model differ from {what} by {worst:.1e} of their length, more "
            f"than {allowed:.0e}{why}; nothing was written"
        )
    return worst


def remark(distance: float) -> str:
    """What the note of an accepted distance says besides; "" for a usual one."""
    return "; its weights amplify the rounding of float32" if distance > TOLERANCE else ""


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    expected = expected.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(expected, axis=1), 1e-30)
    return float(np.max(np.linalg.norm(found.astype(np.float64) - expected, axis=1) / lengths))


def _moved(array: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    up = draw.integers(0, 2, array.shape, dtype=np.int8).astype(bool)
    return np.nextafter(array, np.where(up, np.inf, -np.inf).astype(array.dtype))
