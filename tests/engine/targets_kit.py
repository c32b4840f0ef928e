"""A tiny trained net of the size that insightface takes, exported for other programs, and what each should give."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plsc import Entry, Predictor
from tests import using_kit as kit

SIDE = 112
NET = {"model": {"image_shape": [3, SIDE, SIDE], "base_width": 4}}


def train(run_dir: Path, **changes) -> str:
    return kit.train(run_dir, train_steps=1, **NET, **changes)


def entry(run: str, save: Path, target: str, changes: dict | None = None, **keys) -> Entry:
    """An Entry that exports the run for ``target``."""
    export = {"target": target, **keys}
    return Entry(
        config=kit.settings(model_save_dir=str(save), checkpoint_dir=run, export=export, **{**NET, **(changes or {})})
    )


def photos(count: int = 3) -> list[np.ndarray]:
    """Pixels in RGB, uint8 [112, 112, 3]."""
    return [kit.pixels(seed, SIDE, SIDE) for seed in range(count)]


def predicted(directory: str) -> np.ndarray:
    """The embeddings of the photos by Predictor."""
    with Predictor(directory, "onnx") as predictor:
        return predictor.embed(photos())


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Each embedding within 1e-5 of its length: float32 rounding of the input and of a scale; measured 1e-7."""
    distance = np.linalg.norm(found.astype(np.float64) - expected, axis=1)
    assert found.shape == expected.shape and (distance <= 1e-5 * np.linalg.norm(expected, axis=1)).all(), distance
