"""Images of every kind against pixels worked out by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plsc.data import decode_image, normalise
from plsc.data.transforms import is_flipped
from plsc.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def _encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_every_way_to_hand_over_a_image(tmp_path) -> None:
    encoded = _encode(Image.fromarray(RGB))
    path = tmp_path / "a b.png"
    path.write_bytes(encoded)
    sources = [encoded, bytearray(encoded), memoryview(encoded), np.frombuffer(encoded, np.uint8), path, str(path)]
    for source in [*sources, Image.fromarray(RGB), RGB, RGB.astype(np.uint16) * 257]:
        out = decode_image(source)
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, RGB)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats(kind: str) -> None:
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(RGB), kind)), RGB)


def test_grey_palette_alpha_and_black_and_white() -> None:
    three = np.repeat(GREY[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(GREY))), three)
    np.testing.assert_array_equal(decode_image(GREY), three)
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA"))), three)
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(np.dstack([RGB, GREY])))), RGB)  # alpha dropped
    palette = Image.fromarray(GREY).quantize(256)  # 30 pixels: the palette holds every colour
    np.testing.assert_array_equal(decode_image(_encode(palette)), three)
    np.testing.assert_array_equal(decode_image(_encode(palette, transparency=0)), three)
    bits = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(decode_image(_encode(bits)), np.where(three > 127, 255, 0))


def test_cmyk() -> None:
    cmyk = np.dstack([255 - RGB, np.zeros_like(GREY)])  # no black ink: RGB = 255 - CMY
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(cmyk, "CMYK"), "TIFF")), RGB)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 255, 256, 1000], [32768, 40000, 65279, 65535]], dtype=np.uint16)
    out = decode_image(_encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(out, np.repeat((values // 256)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 2), (6, -1), (8, 1)])  # EXIF 6: turn clockwise to view
def test_exif_orientation_is_applied(orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(RGB), exif=exif)), np.rot90(RGB, turn))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_counts_as_none() -> None:
    encoded = _encode(Image.fromarray(RGB), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_image(encoded), RGB)


@pytest.mark.parametrize(
    "source, text",
    [
        (b"", "not an image"),
        (b"this is text", "not an image"),
        (_encode(Image.fromarray(np.repeat(RGB, 40, axis=0)), "JPEG")[:-300], "truncated"),
        (_encode(Image.fromarray(RGB))[:-40], "cannot be decoded"),
        ("/nowhere/x.png", "/nowhere/x.png.*No such file"),
        ("a\0b", "null byte"),
        ("a" * 5000, "aaa[.]{3}: cannot be decoded: File name too long"),
        (_encode(Image.fromarray(RGB[:, :, 0].astype(np.float32)), "TIFF"), "no fixed range"),
        (_encode(Image.fromarray(RGB[:, :, 0].astype(np.int32)), "TIFF"), "no fixed range"),
        (RGB.astype(np.float32), "must be uint8"),
        (RGB[:, :, :2], r"\[H,W,3\]"),
        (np.zeros(9), "float64"),
        (7, "not int"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(source: object, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        decode_image(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pixel_std", [127.5, 128.0])
@pytest.mark.parametrize("flip", [False, True])
def test_normalise(pixel_std: float, flip: bool) -> None:
    out = normalise(RGB, pixel_std, flip)
    assert out.dtype == np.float32 and out.flags.c_contiguous
    for c in range(3):
        for y in range(6):
            for x in range(5):
                value = (float(RGB[y, 4 - x if flip else x, c]) - 127.5) / pixel_std
                assert abs(out[c, y, x] - value) <= 6e-8  # half a float32 step below 1


def test_flips_are_fair_and_differ_between_epochs_images_and_seeds() -> None:
    def draw(seed: int, epoch: int) -> list[bool]:
        return [is_flipped(seed, epoch, index) for index in range(1000)]

    first = draw(1, 0)
    assert first == draw(1, 0)
    assert 420 <= sum(first) <= 580  # 5 standard deviations (15.8) of a fair coin
    for other in (draw(1, 1), draw(2, 0)):
        assert 420 <= sum(a == b for a, b in zip(first, other)) <= 580
