"""RandAugment: random operations of one strength."""

from __future__ import annotations

import math

import numpy as np

from plsc.data import pixels
from plsc.data.augmentations import register_augmentation

STRONGEST = 30  # the largest magnitude
# The values at the largest magnitude: shear, shift relative to the side, degrees, change of a factor, dropped bits.
# As in the paper's code and in torchvision's RandAugment.
SHEAR, SHIFT, DEGREES, FACTOR, BITS = 0.3, 150 / 331, 30.0, 0.9, 4


def identity(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    """No change. For all operations: ``part`` of the largest value, in [0, 1]; ``sign``: 1 or -1."""
    return image


def shear_x(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.affine(image, (1.0, sign * part * SHEAR, 0.0, 1.0), (0.0, 0.0))


def shear_y(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.affine(image, (1.0, 0.0, sign * part * SHEAR, 1.0), (0.0, 0.0))


def shift_x(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.affine(image, (1.0, 0.0, 0.0, 1.0), (sign * round(part * SHIFT * image.shape[1]), 0.0))


def shift_y(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.affine(image, (1.0, 0.0, 0.0, 1.0), (0.0, sign * round(part * SHIFT * image.shape[0])))


def rotate(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    angle = math.radians(sign * part * DEGREES)
    cos, sin = math.cos(angle), math.sin(angle)
    return pixels.affine(image, (cos, sin, -sin, cos), (0.0, 0.0))


def brighten(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.brightness(image, 1 + sign * part * FACTOR)


def colour(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.saturation(image, 1 + sign * part * FACTOR)


def contrast(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.contrast(image, 1 + sign * part * FACTOR)


def sharpen(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.sharpness(image, 1 + sign * part * FACTOR)


def posterize(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.posterize(image, 8 - round(part * BITS))


def solarize(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.solarize(image, 255 * (1 - part))


def autocontrast(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.autocontrast(image)


def equalize(image: np.ndarray, part: float, sign: int) -> np.ndarray:
    return pixels.equalize(image)


CHANGES = (
    identity, shear_x, shear_y, shift_x, shift_y, rotate, brighten, colour, contrast, sharpen, posterize, solarize,
    autocontrast, equalize,
)  # fmt: skip


@register_augmentation(
    "rand_augment",
    source="Cubuk et al. 2020, RandAugment: Practical Automated Data Augmentation with a Reduced Search Space",
    within={"probability": "[0, 1]", "operations": "[1, 14]", "magnitude": f"[0, {STRONGEST}]"},
)
def rand_augment(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float = 1.0,
    operations: int = 2,
    magnitude: int = 9,
) -> np.ndarray:
    """Apply `operations` random operations out of fourteen with strength `magnitude`, 0 to 30.

    Identity, shear and shift in x and y, rotation, brightness, colour, contrast, sharpness, posterize, solarize,
    autocontrast, equalize. Pixels from outside the image are black. Colour operations do not change grey images.
    """
    if generator.random() >= probability:
        return image
    for number in generator.integers(len(CHANGES), size=operations):
        sign = 1 if generator.integers(2) else -1
        image = CHANGES[number](image, magnitude / STRONGEST, sign)
    return image
