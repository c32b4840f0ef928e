"""Images of another size than the model's, against Pillow's filter written out in float64."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plsc.config import RESIZE_MODES
from plsc.data import ImageReader, resize_image
from plsc.data.resize import WORDS
from plsc.errors import ConfigError, DataError

HEIGHT, WIDTH = 20, 30
SIZES = [(20, 30), (40, 60), (90, 31), (13, 77), (7, 9), (1, 1), (1, 200), (300, 2)]


def image(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def weights(size_in: int, size_out: int) -> np.ndarray:
    """float64 [out, in]: a triangle around the middle of each output pixel, as wide as the scale where it shrinks."""
    scale = size_in / size_out
    found = np.zeros((size_out, size_in))
    for place in range(size_out):
        middle = (place + 0.5) * scale
        for source in range(size_in):
            found[place, source] = max(0.0, 1 - abs(source + 0.5 - middle) / max(scale, 1.0))
    return found / found.sum(axis=1, keepdims=True)


def scaled(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    found = np.einsum("yh,hwc->ywc", weights(len(pixels), height), pixels.astype(np.float64))
    return np.einsum("xw,ywc->yxc", weights(pixels.shape[1], width), found)


def cropped(pixels: np.ndarray) -> np.ndarray:
    """The largest middle part with the proportions of the model, by counting pixels."""
    height, width = pixels.shape[:2]
    if height * WIDTH > width * HEIGHT:  # too high
        kept = max(1, round(width * HEIGHT / WIDTH))
        return pixels[(height - kept) // 2 :][:kept]
    kept = max(1, round(height * WIDTH / HEIGHT))
    return pixels[:, (width - kept) // 2 :][:, :kept]


def padded(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    if height * WIDTH > width * HEIGHT:
        inner = HEIGHT, max(1, round(width * HEIGHT / height))
    else:
        inner = max(1, round(height * WIDTH / width)), WIDTH
    out = np.zeros((HEIGHT, WIDTH, pixels.shape[2]))
    top, left = (HEIGHT - inner[0]) // 2, (WIDTH - inner[1]) // 2
    out[top : top + inner[0], left : left + inner[1]] = scaled(pixels, *inner)
    return out


REFERENCES = {
    "stretch": lambda pixels: scaled(pixels, HEIGHT, WIDTH),
    "crop": lambda pixels: scaled(cropped(pixels), HEIGHT, WIDTH),
    "pad": padded,
}


@pytest.mark.parametrize("how", REFERENCES)
@pytest.mark.parametrize("channels", [1, 3])
def test_against_the_filter_written_out(how, channels):
    for size in SIZES:
        given = image(*size, channels)
        found = resize_image(given, HEIGHT, WIDTH, how, "x")
        assert found.shape == (HEIGHT, WIDTH, channels) and found.dtype == np.uint8
        # Pillow rounds to whole numbers after each of its two passes: 0.5 each, and its weights to 22 bits
        assert np.abs(found - REFERENCES[how](given)).max() <= 1.01, size


@pytest.mark.parametrize("how", RESIZE_MODES)
def test_an_image_of_the_right_size_is_left_alone(how):
    given = image(HEIGHT, WIDTH)
    assert resize_image(given, HEIGHT, WIDTH, how, "x") is given


def test_the_proportions_of_crop_and_pad():
    """A square in a wide image stays a square, up to a pixel; stretched it does not."""
    given = np.full((60, 240, 3), 200, np.uint8)
    given[20:40, 110:130] = 0
    for how, side in (("crop", 20 * 20 / 60), ("pad", 20 * 30 / 240)):
        found = resize_image(given, HEIGHT, WIDTH, how, "x")[:, :, 0]
        rows = slice(None) if how == "crop" else slice(6, 14)  # 30 / 240 of 60 rows, in the middle, between black
        for axis in (0, 1):
            assert abs((found[rows] < 100).any(axis=axis).sum() - side) <= 1
    bars = resize_image(given, HEIGHT, WIDTH, "pad", "x")
    assert (bars[:6] == 0).all() and (bars[14:] == 0).all() and (bars[6:14, :3] == 200).all()


def test_other_sizes_are_refused_with_the_way_out():
    with pytest.raises(DataError, match=r"^x: is 31 x 90 pixels .*requires 30 x 20: .*stretch, crop or pad .data.res"):
        resize_image(image(90, 31), HEIGHT, WIDTH, "refuse", "x")
    with pytest.raises(ConfigError, match="resize='squash': must be one of refuse, stretch, crop, pad"):
        resize_image(image(90, 31), HEIGHT, WIDTH, "squash", "x")
    assert set(WORDS) == set(RESIZE_MODES)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reader_decodes_turns_and_then_resizes(channels):
    given, stream, exif = image(40, 60), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.fromarray(given).save(stream, "PNG", exif=exif)
    turned = np.rot90(given, -1)
    wanted = turned if channels == 3 else np.asarray(Image.fromarray(turned).convert("L"))[:, :, None]
    reader = ImageReader((channels, HEIGHT, WIDTH), "crop")
    expected = resize_image(np.ascontiguousarray(wanted), HEIGHT, WIDTH, "crop", "x")
    np.testing.assert_array_equal(reader(stream.getvalue()), expected)
    assert reader.with_size(stream.getvalue())[1] == (60, 40)
    with pytest.raises(DataError, match="x: is .* requires 30 x 20"):
        ImageReader((channels, HEIGHT, WIDTH))(stream.getvalue(), "x")
    assert reader.resize_note() == (
        "images of another size than 30 x 20 are cropped to the aspect ratio of the model's input and scaled "
        "(resize: crop)"
    )
