"""Random crops."""

from __future__ import annotations

import numpy as np
from PIL import Image

from plsc.data.augmentations import register_augmentation
from plsc.data.pixels import random_box, resize

RATIOS = (3 / 4, 4 / 3)  # of width to height


@register_augmentation(
    "random_crop",
    source="Szegedy et al. 2015, Going Deeper with Convolutions; in_place: Kim et al. 2022, AdaFace",
    within={"probability": "[0, 1]", "smallest": "(0, 1]"},
)
def random_crop(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float = 0.2,
    smallest: float = 0.2,
    in_place: bool = False,
) -> np.ndarray:
    """Crop a random box with at least a fraction `smallest` of the area, and enlarge it to the size of the image.

    Its aspect ratio is from 3/4 to 4/3. in_place: keep the box at its position, and make the rest black.
    """
    if generator.random() >= probability:
        return image
    height, width = image.shape[:2]
    box = random_box(generator, (height, width), (smallest, 1.0), RATIOS)
    if box is None:
        return image
    if not in_place:
        return resize(image[box], height, width, Image.Resampling.BILINEAR)
    found = np.zeros_like(image)
    found[box] = image[box]
    return found
