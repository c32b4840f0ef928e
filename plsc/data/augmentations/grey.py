"""Conversion to grey."""

from __future__ import annotations

import numpy as np

from plsc.data.augmentations import register_augmentation
from plsc.data.pixels import luminance


@register_augmentation("grey", within={"probability": "[0, 1]"})
def grey(image: np.ndarray, generator: np.random.Generator, probability: float = 0.1) -> np.ndarray:
    """Replace all channels by the luminance. Images of one channel do not change."""
    if generator.random() >= probability:
        return image
    return np.repeat(luminance(image), image.shape[2], axis=2)
