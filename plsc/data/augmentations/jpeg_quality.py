"""JPEG compression."""

from __future__ import annotations

import numpy as np

from plsc.data.augmentations import register_augmentation
from plsc.data.pixels import through_jpeg


@register_augmentation(
    "jpeg_quality", within={"probability": "[0, 1]", "lowest": "[1, 100]", "highest": "[{lowest}, 100]"}
)
def jpeg_quality(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float = 0.2,
    lowest: int = 20,
    highest: int = 90,
) -> np.ndarray:
    """Encode as JPEG with a random quality from `lowest` to `highest` (IJG scale, 1 to 100), and decode."""
    if generator.random() >= probability:
        return image
    return through_jpeg(image, int(generator.integers(lowest, highest + 1)))
