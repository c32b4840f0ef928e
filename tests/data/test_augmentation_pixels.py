"""What augmentations do to pixels, held against SciPy, Pillow's ImageEnhance (torchvision's for images), colorsys and
formulas in NumPy."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import fft, ndimage

from plsc.data import pixels
from plsc.data.augmentations import rand_augment

HEIGHT, WIDTH = 37, 52


def natural(channels: int = 3, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Noise of all wavelengths from 0 to 255, as images have it; uint8."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    waves = ndimage.gaussian_filter(noise, (3, 3, 0)) * 8 + noise * 0.2
    low, high = waves.min(axis=(0, 1)), waves.max(axis=(0, 1))
    return np.rint((waves - low) / (high - low) * 255).astype(np.uint8)


def assert_close(found: np.ndarray, expected: np.ndarray, most: float) -> None:
    """Everywhere within ``most`` levels."""
    assert found.dtype == np.uint8 and found.shape == expected.shape and found.size
    assert np.abs(found.astype(float) - expected).max() <= most


FACTORS = (0.0, 0.4, 1.0, 1.7)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("work", "reference"),
    [
        (pixels.brightness, ImageEnhance.Brightness),
        (pixels.contrast, ImageEnhance.Contrast),
        (pixels.saturation, ImageEnhance.Color),
        (pixels.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_factors_are_those_of_pillow(work, reference, channels, factor):
    """Pillow cuts fractions off (below 1 level) and rounds the mean of contrast (half a level, times up to 1)."""
    image = natural(channels)
    expected = np.asarray(reference(pixels.to_pillow(image)).enhance(factor)).reshape(image.shape)
    assert_close(work(image, factor), expected, 1.5 if work is pixels.contrast else 1)


@pytest.mark.parametrize("factor", FACTORS)
def test_factors_by_formula(factor):
    image = natural().astype(float)
    grey = image @ [0.299, 0.587, 0.114]
    cases = {
        pixels.brightness: image * factor,
        pixels.contrast: grey.mean() + (image - grey.mean()) * factor,
        pixels.saturation: grey[:, :, None] + (image - grey[:, :, None]) * factor,
    }
    for work, expected in cases.items():
        # half a level each for the rounding of the result and, times up to 1, of the luminance
        assert_close(work(natural(), factor), expected.clip(0, 255), 1.01)


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.25])
def test_hue_is_turned(shift):
    """Of 8 bits: half a step of hue is 3 levels, as a sixth of the circle is 255 levels; half a step of saturation and
    the rounding of three conversions add 2."""
    image = natural(height=9, width=11)
    expected = np.empty(image.shape)
    for row, column in np.ndindex(image.shape[:2]):
        turned, saturation, value = colorsys.rgb_to_hsv(*(image[row, column] / 255))
        expected[row, column] = np.multiply(colorsys.hsv_to_rgb((turned + shift) % 1.0, saturation, value), 255)
    assert_close(pixels.hue(image, shift), expected, 5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0, 7.0])
def test_blur_is_a_gaussian(channels, sigma):
    """float32 against float64, both rounded: they differ where a value is half."""
    image = natural(channels)
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="mirror", truncate=4)
    assert_close(pixels.gaussian_blur(image, sigma), expected, 0.51)


def test_a_blur_that_is_wider_than_the_image():
    image = natural(3, 4, 3)
    expected = ndimage.gaussian_filter(image.astype(float), (5, 5, 0), mode="mirror", truncate=4)
    assert_close(pixels.gaussian_blur(image, 5), expected, 0.51)


def test_simple_changes_by_formula():
    image = natural()
    for bits in range(1, 9):
        np.testing.assert_array_equal(pixels.posterize(image, bits), image // 2 ** (8 - bits) * 2 ** (8 - bits))
    for threshold in (0, 100.5, 128, 255):
        values = [255 - value if value >= threshold else value for value in image.ravel().tolist()]
        np.testing.assert_array_equal(pixels.solarize(image, threshold).ravel(), values)
    assert_close(pixels.luminance(image), (image @ [0.299, 0.587, 0.114])[:, :, None], 0.51)


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_goes_from_0_to_255(channels):
    image = pixels.rounded(natural(channels) * 0.4 + 60)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    found = pixels.autocontrast(image)
    assert_close(found, (image.astype(float) - low) / (high - low) * 255, 1)  # Pillow cuts fractions off
    assert found.min() == 0 and found.max() == 255


def test_equalize_makes_histograms_even():
    """Its cumulative histogram is that of the even distribution, as far as the steps of 40 % of the values go."""
    image = pixels.rounded(natural(height=96, width=96) * 0.4 + 60)
    found = pixels.equalize(image)
    for channel in range(3):
        before, after = image[:, :, channel].ravel(), found[:, :, channel].ravel()
        below = np.searchsorted(np.sort(before), before) / len(before)  # the share of pixels that are darker
        assert np.abs(after - below * 255).max() <= 255 * np.bincount(before).max() / len(before) + 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("matrix", "shift"),
    [
        ((1.0, 0.0, 0.0, 1.0), (5, -3)),
        ((1.0, 0.3, 0.0, 1.0), (0, 0)),
        ((1.0, 0.0, -0.2, 1.0), (0, 0)),
        ((np.cos(0.4), np.sin(0.4), -np.sin(0.4), np.cos(0.4)), (0, 0)),
    ],
)
def test_affine_is_that_of_scipy(channels, matrix, shift):
    """Bilinear in float64; Pillow cuts fractions off, below 1 level. At the border the two fade out differently."""
    image = natural(channels)
    a, b, c, d = matrix
    rows_first = np.array([[d, c], [b, a]])  # SciPy takes (row, column)
    centre = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
    offset = centre - rows_first @ centre - np.array([shift[1], shift[0]])
    expected = np.stack(
        [
            ndimage.affine_transform(image[:, :, one].astype(float), rows_first, offset, order=1, cval=0)
            for one in range(channels)
        ],
        axis=2,
    )
    grid = np.stack(np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij"), axis=-1) @ rows_first.T + offset
    inside = ((grid >= 0.01) & (grid <= [HEIGHT - 1.01, WIDTH - 1.01])).all(axis=2)
    outside = ((grid < -1) | (grid > [HEIGHT, WIDTH])).any(axis=2)
    found = pixels.affine(image, matrix, shift)
    differences = found.astype(float) - expected
    assert inside.sum() > 300 and np.abs(differences[inside]).max() <= 1.01
    assert not outside.any() or not found[outside].any()


KERNELS = {
    Image.Resampling.BOX: (0.5, lambda x: (x > -0.5) & (x <= 0.5)),
    Image.Resampling.BILINEAR: (1, lambda x: 1 - np.abs(x)),
    Image.Resampling.BICUBIC: (2, lambda x: np.where(
        np.abs(x) < 1, 1.5 * np.abs(x) ** 3 - 2.5 * x**2 + 1,
        -0.5 * np.abs(x) ** 3 + 2.5 * x**2 - 4 * np.abs(x) + 2)),
    Image.Resampling.LANCZOS: (3, lambda x: np.sinc(x) * np.sinc(x / 3)),
}  # fmt: skip


def weights(length: int, target: int, kernel) -> np.ndarray:
    """float64 [target, length]: the kernel around each new pixel, as wide as a new pixel is in old ones."""
    support, function = kernel
    ratio = length / target
    wide = max(ratio, 1.0)
    distance = (np.arange(length) + 0.5 - (np.arange(target)[:, None] + 0.5) * ratio) / wide
    found = np.where(np.abs(distance) <= support, function(distance), 0.0)
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("size", [(12, 19), (37, 52), (61, 140)])
def test_resizing_is_a_convolution(kernel, size):
    """Pillow rounds after the columns and after the rows: half a level each, the first times the kernel's sum of
    absolute weights, up to 1.6 for Lanczos; and its fixed point."""
    image = pixels.rounded(natural() * 0.5 + 64)  # so that nothing goes beyond 0..255, where Pillow cuts in between
    rows, columns = weights(HEIGHT, size[0], KERNELS[kernel]), weights(WIDTH, size[1], KERNELS[kernel])
    expected = np.einsum("ah,hwc,bw->abc", rows, image.astype(float), columns).clip(0, 255)
    assert_close(pixels.resize(image, *size, kernel), expected, 2)


# Annex K of the JPEG standard (ITU-T T.81), table K.1: luminance
LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip


@pytest.mark.parametrize("quality", [5, 30, 50, 90])
def test_jpeg_is_a_quantised_cosine_transform(quality):
    """With the IJG's scale of qualities, within 1.5 levels for the rounding of both and libjpeg's fixed point, in most
    blocks. A coefficient near the half of a step may be rounded otherwise, which moves a block by a quarter of it."""
    image = natural(1, 64, 48)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = ((LUMINANCE * scale + 50) // 100).clip(1, 255)
    expected = np.empty(image.shape)
    for row, column in np.ndindex(8, 6):
        block = slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8), 0
        coefficients = np.rint(fft.dctn(image[block] - 128.0, norm="ortho") / steps) * steps
        expected[block] = fft.idctn(coefficients, norm="ortho") + 128
    found = pixels.through_jpeg(image, quality)
    differences = np.abs(found - expected.clip(0, 255))
    assert differences.max() <= 1.5 + steps.max() / 4
    assert (differences.reshape(8, 8, 6, 8).max(axis=(1, 3)) <= 1.5).mean() > 0.75
    assert np.abs(found - image.astype(float)).mean() > 4 * differences.mean()


def test_jpeg_of_colours_keeps_the_luminance():
    """As good as that of the luminance alone; colours have half the resolution."""
    image = natural(3, 64, 48)
    found = pixels.luminance(pixels.through_jpeg(image, 90))
    alone = pixels.through_jpeg(pixels.luminance(image), 90)
    assert np.abs(found.astype(float) - alone).mean() < 2
    assert np.abs(pixels.through_jpeg(image, 100).astype(float) - image).mean() > 1.5


@pytest.mark.parametrize("channels", [1, 3])
def test_changes_of_rand_augment_have_the_strength_of_the_paper(channels):
    """At magnitude 30 and 15 of 30, by the ranges that the paper's code has."""
    image = natural(channels)
    for part in (0.5, 1.0):
        for sign in (1, -1):
            factor = 1 + sign * 0.9 * part
            np.testing.assert_array_equal(rand_augment.brighten(image, part, sign), pixels.brightness(image, factor))
            np.testing.assert_array_equal(rand_augment.colour(image, part, sign), pixels.saturation(image, factor))
            np.testing.assert_array_equal(rand_augment.contrast(image, part, sign), pixels.contrast(image, factor))
            np.testing.assert_array_equal(rand_augment.sharpen(image, part, sign), pixels.sharpness(image, factor))
            wide = round(150 / 331 * WIDTH * part) * sign
            moved = rand_augment.shift_x(image, part, sign)
            kept = slice(wide, None) if wide > 0 else slice(None, wide)
            start = slice(None, -wide) if wide > 0 else slice(-wide, None)
            np.testing.assert_array_equal(moved[:, kept], image[:, start])
            assert moved[:, kept].size < moved.size and not np.delete(moved, np.arange(WIDTH)[kept], 1).any()
            down = rand_augment.shift_y(image.transpose(1, 0, 2), part, sign).transpose(1, 0, 2)
            np.testing.assert_array_equal(down, moved)
            sheared = rand_augment.shear_y(image.transpose(1, 0, 2), part, sign).transpose(1, 0, 2)
            assert_close(sheared[1:-1, 8:-8], rand_augment.shear_x(image, part, sign)[1:-1, 8:-8], 1)
            slope = np.array([[1, 0], [sign * 0.3 * part, 1]])  # SciPy takes (row, column)
            offset = [0, -sign * 0.3 * part * (HEIGHT - 1) / 2]
            for one in range(channels):
                expected = ndimage.affine_transform(image[:, :, one].astype(float), slope, offset, order=1)
                found = rand_augment.shear_x(image, part, sign)[1:-1, 8:-8, one]
                assert_close(found, expected[1:-1, 8:-8], 1.01)
            turned = ndimage.rotate(image.astype(float), -sign * 30 * part, reshape=False, order=1)
            middle = rand_augment.rotate(image, part, sign)[14:23, 18:34]
            assert_close(middle, turned[14:23, 18:34], 1.01)
        bits = 8 - int(4 * part)
        np.testing.assert_array_equal(rand_augment.posterize(image, part, 1), pixels.posterize(image, bits))
        np.testing.assert_array_equal(rand_augment.solarize(image, part, 1), pixels.solarize(image, 255 - 255 * part))
