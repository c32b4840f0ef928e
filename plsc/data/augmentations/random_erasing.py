"""Random erasing."""

from __future__ import annotations

import numpy as np

from plsc.data.augmentations import register_augmentation
from plsc.data.pixels import random_box

RATIOS = (0.3, 1 / 0.3)  # of width to height


@register_augmentation(
    "random_erasing",
    source="Zhong et al. 2020, Random Erasing Data Augmentation",
    within={"probability": "[0, 1]", "smallest": "(0, 1]", "largest": "[{smallest}, 1]"},
)
def random_erasing(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float = 0.2,
    smallest: float = 0.02,
    largest: float = 0.4,
) -> np.ndarray:
    """Replace a random box, a fraction from `smallest` to `largest` of the area, by uniform noise."""
    if generator.random() >= probability:
        return image
    box = random_box(generator, image.shape[:2], (smallest, largest), RATIOS)
    if box is None:
        return image
    found = image.copy()
    found[box] = generator.integers(0, 256, found[box].shape, dtype=np.uint8)
    return found
