"""What augmentations are made of: pure functions of pixels uint8 [H, W, C], RGB or grey, to others of the same shape.

Sums are in float32 in a fixed order and without BLAS, so that the same numbers come out on any number of threads.
"""

from __future__ import annotations

import io
import math
from typing import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

_ATTEMPTS = 10  # to find a box that fits, as many as torchvision's RandomResizedCrop and RandomErasing make


def to_picture(pixels: np.ndarray) -> Image.Image:
    """Pillow's image of mode RGB, or L for one channel."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def from_picture(picture: Image.Image) -> np.ndarray:
    """uint8 [H, W, C] of an image of mode RGB or L."""
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def by_picture(pixels: np.ndarray, work: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """What Pillow makes of them."""
    return from_picture(work(to_picture(pixels)))


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Grey uint8 [H, W, 1] with the weights of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B; one channel as it is."""
    return pixels if pixels.shape[2] == 1 else np.asarray(to_picture(pixels).convert("L"))[:, :, None]


def rounded(values: np.ndarray) -> np.ndarray:
    """float to uint8: the nearest number, held within 0..255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """All values times ``factor``."""
    return rounded(np.arange(256) * factor)[pixels]


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The difference of all values from the mean luminance times ``factor``."""
    mean = float(luminance(pixels).mean())
    return rounded(mean + (np.arange(256) - mean) * factor)[pixels]


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The difference of all values from the luminance of their pixel times ``factor``; grey stays as it is."""
    if pixels.shape[2] == 1:
        return pixels
    grey = luminance(pixels).astype(np.float32)
    return rounded(grey + (pixels - grey) * np.float32(factor))


def hue(pixels: np.ndarray, shift: float) -> np.ndarray:
    """The hue turned by ``shift``, a share of the circle in [-0.5, 0.5]; grey stays as it is.

    By Pillow's HSV, of 8 bits for each of the three, as torchvision's adjust_hue for its images.
    """
    if pixels.shape[2] == 1:
        return pixels
    turned, *others = to_picture(pixels).convert("HSV").split()
    turned = turned.point([(value + round(shift * 255)) % 256 for value in range(256)])
    return np.asarray(Image.merge("HSV", (turned, *others)).convert("RGB"))


def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The difference from a smoothed image (3 x 3, the middle 5 times as heavy) times ``factor``; the border stays."""
    smooth = by_picture(pixels, lambda picture: picture.filter(ImageFilter.SMOOTH)).astype(np.float32)
    return rounded(smooth + (pixels - smooth) * np.float32(factor))


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """The upper ``bits`` of each value, 1 to 8."""
    return pixels & np.uint8(256 - 2 ** (8 - bits))


def solarize(pixels: np.ndarray, threshold: float) -> np.ndarray:
    """Values from ``threshold`` on are inverted."""
    return np.where(pixels >= threshold, 255 - pixels, pixels)


def autocontrast(pixels: np.ndarray) -> np.ndarray:
    """Each channel stretched so that it goes from 0 to 255."""
    return by_picture(pixels, ImageOps.autocontrast)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Each channel with a histogram that is as even as it can be."""
    return by_picture(pixels, ImageOps.equalize)


def affine(pixels: np.ndarray, matrix: tuple[float, float, float, float], shift: tuple[float, float]) -> np.ndarray:
    """The pixel at (x, y) from the centre comes from (a x + b y - shift x, c x + d y - shift y), bilinear; black beyond
    the border. matrix: (a, b, c, d)."""
    height, width = pixels.shape[:2]
    a, b, c, d = matrix
    right = width / 2 - a * width / 2 - b * height / 2 - shift[0]
    down = height / 2 - c * width / 2 - d * height / 2 - shift[1]
    values = (a, b, right, c, d, down)
    affine_kind, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return by_picture(pixels, lambda picture: picture.transform((width, height), affine_kind, values, bilinear))


def resize(pixels: np.ndarray, height: int, width: int, filter_: Image.Resampling) -> np.ndarray:
    """Another size. Each of Pillow's filters covers all pixels that a smaller one is made of."""
    return by_picture(pixels, lambda picture: picture.resize((width, height), filter_))


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Convolved with a Gaussian of ``sigma`` pixels, to 4 sigma; mirrored at the border, which is not repeated."""
    radius = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    found = pixels.astype(np.float32)
    for axis in (0, 1):
        widths = [(radius, radius) if number == axis else (0, 0) for number in range(3)]
        padded, length = np.pad(found, widths, mode="reflect"), found.shape[axis]
        found = np.zeros_like(found)
        for place, weight in enumerate(kernel):
            cut = slice(place, place + length)
            found += weight * (padded[cut] if axis == 0 else padded[:, cut])
    return rounded(found)


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Encoded as JPEG of this quality, colours at half the resolution, and decoded."""
    file = io.BytesIO()
    to_picture(pixels).save(file, "JPEG", quality=quality, subsampling=2 if pixels.shape[2] == 3 else 0)
    with Image.open(file, formats=("JPEG",)) as picture:
        return from_picture(picture)


def random_box(
    generator: np.random.Generator, size: tuple[int, int], areas: tuple[float, float], ratios: tuple[float, float]
) -> tuple[slice, slice] | None:
    """(rows, columns) of a box in an image of ``size`` (height, width), or None where ten draws gave none that fits.

    areas: smallest and largest share of the image's area, drawn evenly. ratios: of width to height, their logarithm
    drawn evenly.
    """
    height, width = size
    for _ in range(_ATTEMPTS):
        area = height * width * generator.uniform(*areas)
        ratio = math.exp(generator.uniform(math.log(ratios[0]), math.log(ratios[1])))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 1 <= rows <= height and 1 <= columns <= width:
            top, left = int(generator.integers(height - rows + 1)), int(generator.integers(width - columns + 1))
            return slice(top, top + rows), slice(left, left + columns)
    return None
