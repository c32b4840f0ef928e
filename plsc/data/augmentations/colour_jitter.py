"""Random changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

import numpy as np

from plsc.data import pixels
from plsc.data.augmentations import register_augmentation


@register_augmentation(
    "colour_jitter",
    source="Howard 2013, Some Improvements on Deep Convolutional Neural Network Based Image Classification",
    within={"probability": "[0, 1]", "brightness": "[0, 1]", "contrast": "[0, 1]", "saturation": "[0, 1]",
            "hue": "[0, 0.5]"},
)  # fmt: skip
def colour_jitter(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float = 0.2,
    brightness: float = 0.5,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 0.0,
) -> np.ndarray:
    """Scale brightness, contrast and saturation by factors from 1 - x to 1 + x, and shift the hue by up to `hue`.

    The order is random. hue: a fraction of the colour circle. Grey images have neither saturation nor hue.
    """
    if generator.random() >= probability:
        return image
    factors = [generator.uniform(1 - most, 1 + most) for most in (brightness, contrast, saturation)]
    turn = generator.uniform(-hue, hue)
    steps = [
        (pixels.brightness, factors[0], 1.0),
        (pixels.contrast, factors[1], 1.0),
        (pixels.saturation, factors[2], 1.0),
        (pixels.hue, turn, 0.0),
    ]
    for number in generator.permutation(len(steps)):
        step, value, idle = steps[number]
        image = image if value == idle else step(image, value)
    return image
