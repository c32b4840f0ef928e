"""Synthetic images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plsc.config import SYNTHETIC_IMAGES
from plsc.data.philox import NOISE, PATTERN, philox
from plsc.data.sources import Source, register_source
from plsc.errors import DataError


@register_source("synthetic")
class SyntheticSource(Source):
    """Synthetic images that can be learned: a pattern of 8 x 8 pixel tiles per class, plus noise.

    Image i has the label i % num_classes. Pattern in [-0.75, 0.75], noise uniform in [-0.25, 0.25]: the range [-1, 1]
    of a normalised image. The same in every epoch, on every rank; patterns depend on the seed and the class only.
    """

    ready = True

    def __init__(
        self, num_classes: int | None, image_shape: Sequence[int], seed: int, train_image_num: int | None = None
    ) -> None:
        if num_classes is None:
            raise DataError(
                "classifier.num_classes: null counts the classes, and synthetic images have none of their own; set the "
                "number"
            )
        self._num_images = SYNTHETIC_IMAGES if train_image_num is None else train_image_num
        if self._num_images < 1 or num_classes < 1:
            raise DataError(
                f"synthetic data: {self._num_images} images of {num_classes} classes; both must be at least 1"
            )
        self._image_shape = tuple(int(side) for side in image_shape)
        self._num_classes = num_classes
        self._seed = seed

    def __len__(self) -> int:
        return self._num_images

    def read(self, index: int) -> tuple[np.ndarray, int]:
        label = index % self._num_classes
        channels, height, width = self._image_shape
        tiles = philox(self._seed, PATTERN, label).random((channels, -(-height // 8), -(-width // 8)), dtype=np.float32)
        pattern = (tiles * 1.5 - 0.75).repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
        noise = philox(self._seed, NOISE, index).random(self._image_shape, dtype=np.float32) * 0.5 - 0.25
        return pattern + noise, label

    def known_labels(self) -> np.ndarray:
        return np.arange(self._num_images) % self._num_classes

    def record(self, count: int | None = None) -> dict[str, Any]:
        """Empty: every record has the numbers of images and classes, which define these data."""
        return {}
