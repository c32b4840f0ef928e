"""Image operations of augmentations: pure functions from uint8 [H, W, C], RGB or grey, to the same shape.

Sums are in float32, in a fixed order and without BLAS, so results do not depend on the number of threads.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from plsc.data.transforms import decode_image

_ATTEMPTS = 10  # to find a box that fits, as in torchvision's RandomResizedCrop and RandomErasing


def to_pillow(pixels: np.ndarray) -> Image.Image:
    """Pillow's image of mode RGB, or L for one channel."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def from_pillow(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, C] of an image of mode RGB or L."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def apply_pillow(pixels: np.ndarray, work: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Apply a function of Pillow images."""
    return from_pillow(work(to_pillow(pixels)))


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Grey uint8 [H, W, 1] with the weights of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B; one channel is unchanged."""
    return pixels if pixels.shape[2] == 1 else np.asarray(to_pillow(pixels).convert("L"))[:, :, None]


def rounded(values: np.ndarray) -> np.ndarray:
    """Round float values to uint8, clipped to 0..255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiply all values by ``factor``."""
    return rounded(np.arange(256) * factor)[pixels]


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Scale the difference of all values to the mean luminance by ``factor``."""
    mean = float(luminance(pixels).mean())
    return rounded(mean + (np.arange(256) - mean) * factor)[pixels]


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Scale the difference of all values to the luminance of their pixel by ``factor``; grey is unchanged."""
    if pixels.shape[2] == 1:
        return pixels
    grey = luminance(pixels).astype(np.float32)
    return rounded(grey + (pixels - grey) * np.float32(factor))


def hue(pixels: np.ndarray, shift: float) -> np.ndarray:
    """Shift the hue by ``shift``, a fraction of the colour circle in [-0.5, 0.5]; grey is unchanged.

    Uses Pillow's HSV with 8 bits per channel, as torchvision's adjust_hue for Pillow images.
    """
    if pixels.shape[2] == 1:
        return pixels
    turned, *others = to_pillow(pixels).convert("HSV").split()
    turned = turned.point([(value + round(shift * 255)) % 256 for value in range(256)])
    return np.asarray(Image.merge("HSV", (turned, *others)).convert("RGB"))


def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Scale the difference to a smoothed image (3 x 3, centre weight 5) by ``factor``; the border is unchanged."""
    smooth = apply_pillow(pixels, lambda image: image.filter(ImageFilter.SMOOTH)).astype(np.float32)
    return rounded(smooth + (pixels - smooth) * np.float32(factor))


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper ``bits`` of each value, 1 to 8."""
    return pixels & np.uint8(256 - 2 ** (8 - bits))


def solarize(pixels: np.ndarray, threshold: float) -> np.ndarray:
    """Invert values of ``threshold`` and above."""
    return np.where(pixels >= threshold, 255 - pixels, pixels)


def autocontrast(pixels: np.ndarray) -> np.ndarray:
    """Stretch each channel to 0..255."""
    return apply_pillow(pixels, ImageOps.autocontrast)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Equalize the histogram of each channel."""
    return apply_pillow(pixels, ImageOps.equalize)


def affine(pixels: np.ndarray, matrix: tuple[float, float, float, float], shift: tuple[float, float]) -> np.ndarray:
    """Affine transform, bilinear, black outside the image. The pixel at (x, y) from the centre is read from
    (a x + b y - shift x, c x + d y - shift y). matrix: (a, b, c, d)."""
    height, width = pixels.shape[:2]
    a, b, c, d = matrix
    right = width / 2 - a * width / 2 - b * height / 2 - shift[0]
    down = height / 2 - c * width / 2 - d * height / 2 - shift[1]
    values = (a, b, right, c, d, down)
    affine_kind, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return apply_pillow(pixels, lambda image: image.transform((width, height), affine_kind, values, bilinear))


def resize(pixels: np.ndarray, height: int, width: int, filter_: Image.Resampling) -> np.ndarray:
    """Resize with a Pillow filter, which antialiases when it shrinks."""
    return apply_pillow(pixels, lambda image: image.resize((width, height), filter_))


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian of ``sigma`` pixels, truncated at 4 sigma and reflected at the border."""
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
    """Encode as JPEG with this quality and 4:2:0 chroma subsampling, and decode."""
    file = io.BytesIO()
    to_pillow(pixels).save(file, "JPEG", quality=quality, subsampling=2 if pixels.shape[2] == 3 else 0)
    return decode_image(file.getvalue(), channels=pixels.shape[2])


def random_box(
    generator: np.random.Generator, size: tuple[int, int], areas: tuple[float, float], ratios: tuple[float, float]
) -> tuple[slice, slice] | None:
    """Draw a box (rows, columns) in an image of ``size`` (height, width); None if ten draws do not fit.

    areas: smallest and largest fraction of the image's area, uniform. ratios: of width to height, with a uniform
    logarithm.
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
