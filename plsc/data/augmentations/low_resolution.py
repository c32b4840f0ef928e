"""Low resolution."""

from __future__ import annotations

import numpy as np
from PIL import Image

from plsc.data.augmentations import register_augmentation
from plsc.data.pixels import resize

FILTERS = (
    Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BOX, Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)  # fmt: skip


@register_augmentation(
    "low_resolution", source="Kim et al. 2022, AdaFace", within={"probability": "[0, 1]", "smallest": "(0, 1]"}
)
def low_resolution(
    image: np.ndarray, generator: np.random.Generator, probability: float = 0.2, smallest: float = 0.2
) -> np.ndarray:
    """Shrink the image by a random factor from `smallest` to 1, and enlarge it to its size again.

    Each step uses a random filter: nearest, bilinear, box, bicubic or Lanczos.
    """
    if generator.random() >= probability:
        return image
    share = generator.uniform(smallest, 1.0)
    down, up = (FILTERS[number] for number in generator.integers(len(FILTERS), size=2))
    height, width = image.shape[:2]
    small = resize(image, max(1, round(height * share)), max(1, round(width * share)), down)
    return resize(small, height, width, up)
