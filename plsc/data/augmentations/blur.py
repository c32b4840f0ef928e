"""Gaussian blur."""

from __future__ import annotations

import numpy as np

from plsc.data.augmentations import register_augmentation
from plsc.data.pixels import gaussian_blur


@register_augmentation("blur", within={"probability": "[0, 1]", "smallest": "[0.1, 16]", "largest": "[{smallest}, 16]"})
def blur(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float = 0.1,
    smallest: float = 0.3,
    largest: float = 2.0,
) -> np.ndarray:
    """Gaussian blur with a random sigma from `smallest` to `largest` pixels."""
    if generator.random() >= probability:
        return image
    return gaussian_blur(image, generator.uniform(smallest, largest))
