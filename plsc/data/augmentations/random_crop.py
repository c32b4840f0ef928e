"""A part of the image."""

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
    """A box of at least the share `smallest` of the area, enlarged to the whole image.

    Its sides have a ratio from 3/4 to 4/3. in_place: the box stays where it is, and the rest becomes black.
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
