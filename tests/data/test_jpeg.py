"""The faster JPEG decoder gives what Pillow gives, for good files and for damaged ones, or leaves them to Pillow."""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from plsc.config import Config
from plsc.data import ImageReader, decode_image, jpeg
from plsc.data.jpeg import common_size, decoder_name, find_package, open_jpeg_decoder
from plsc.errors import ConfigError, DataError
from tests.data.test_hostile_images import jpeg_that_says

FAST = open_jpeg_decoder("simplejpeg")


def pixels(height: int, width: int) -> Image.Image:
    """Smooth colours with noise, so that all coefficients are in use."""
    draw = np.random.default_rng(1000 * height + width)
    coarse = Image.fromarray(draw.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + draw.integers(-16, 17, smooth.shape)).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def outcome(data: bytes, **options) -> np.ndarray | str:
    """The pixels, or the message."""
    try:
        return decode_image(data, "x", **options)
    except DataError as error:
        return str(error)


def same(first: np.ndarray | str, second: np.ndarray | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return isinstance(first, str) and isinstance(second, str) and first == second
    return np.array_equal(first, second)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_equal_pixels_to_the_bit(mode, subsampling, progressive):
    assert FAST is not None
    for height, width in [(112, 112), (17, 33), (64, 9), (9, 250)]:
        for quality in (20, 75, 100):
            options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
            data = encode(pixels(height, width).convert(mode), **options)
            found = FAST(data, lambda size, expected=(height, width): size == expected)
            assert found is not None and found.dtype == np.uint8  # not left to Pillow
            np.testing.assert_array_equal(found, decode_image(data))
            for channels in (1, 3):
                assert same(outcome(data, channels=channels, jpeg=FAST), outcome(data, channels=channels))
    assert FAST(data, lambda size: False) is None


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><rdf:Description tiff:Orientation="6"/></rdf:RDF>'
COMMON = encode(pixels(24, 40))
LEFT_TO_PILLOW = {
    "turned by EXIF": encode(pixels(24, 40), exif=exif(6)),
    "turned by XMP": encode(pixels(24, 40), xmp=XMP),
    "CMYK": encode(pixels(24, 40).convert("CMYK")),
    "RGB kept": encode(pixels(24, 40), keep_rgb=True),
    "12 bits": COMMON.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    "4:1:1": COMMON.replace(b"\x01\x22\x00\x02\x11\x01", b"\x01\x41\x00\x02\x11\x01"),
    "arithmetic": COMMON.replace(b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11"),
    "no JFIF": COMMON.replace(b"JFIF", b"JFIX"),
    "two frames": COMMON[:20] + COMMON[slice(*(lambda at: (at, at + 19))(COMMON.index(b"\xff\xc0")))] + COMMON[20:],
    "a huge size": jpeg_that_says(50000, 50000),
    "no rows": jpeg_that_says(16, 0),
    "no end of the headers": COMMON[:100],
    "a length of zero": COMMON[:20] + b"\xff\xfe\x00\x00" + COMMON[20:],
    "a length of one": COMMON[:20] + b"\xff\xfe\x00\x01" + COMMON[20:],
    "too long a segment": COMMON[:20] + b"\xff\xfe\xff\xff" + COMMON[20:],
    "PNG": b"\x89PNG\r\n\x1a\n",
    "empty": b"",
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_all_else_is_left_to_pillow(name):
    data = LEFT_TO_PILLOW[name]
    fits = FAST(data, lambda size: size[0] * size[1] < 1e6)
    assert fits is None and (common_size(data) is None or name == "a huge size")
    assert same(outcome(data, jpeg=FAST), outcome(data))
    assert same(outcome(data, size=(24, 40), jpeg=FAST), outcome(data, size=(24, 40)))


def test_turned_images_come_out_turned():
    assert outcome(LEFT_TO_PILLOW["turned by EXIF"], jpeg=FAST).shape == (40, 24, 3)


def test_only_the_right_size_is_decoded(monkeypatch):
    """A kilobyte that says that it is huge takes no memory; another size is Pillow's message."""
    calls = []
    counted = SimpleNamespace(decode_jpeg=lambda *given, **named: calls.append(given))
    fast = jpeg._Fast(counted)
    for size in ((9000, 9000), (300, 200)):
        message = outcome(jpeg_that_says(*size), size=(112, 112), jpeg=fast)
        assert isinstance(message, str) and f"is {size[0]} x {size[1]} pixels" in message
    assert isinstance(outcome(jpeg_that_says(9000, 9000), jpeg=fast), str) and not calls


def test_damaged_files_give_what_pillow_gives():
    """Bytes exchanged at random, cut off, and put in: the same pixels or the same message, and no crash."""
    draw, kinds = np.random.default_rng(5), {"pixels": 0, "message": 0, "fast": 0}
    for number in range(600):
        subsampling, progressive = int(draw.integers(3)), bool(draw.integers(2))
        data = bytearray(encode(pixels(24, 40), subsampling=subsampling, progressive=progressive))
        change = number % 3
        place = int(draw.integers(2, len(data)))
        if change == 0:
            for _ in range(int(draw.integers(1, 4))):
                data[int(draw.integers(2, len(data)))] = int(draw.integers(256))
        elif change == 1:
            del data[place:]
        else:
            data[place:place] = draw.integers(0, 256, int(draw.integers(1, 9)), dtype=np.uint8).tobytes()
        kinds["fast"] += FAST(bytes(data), lambda size: size[0] * size[1] < 1e6) is not None
        expected = outcome(bytes(data))
        kinds["message" if isinstance(expected, str) else "pixels"] += 1
        assert same(outcome(bytes(data), jpeg=FAST), expected), (number, change)
    assert min(kinds.values()) > 50, kinds


def test_what_follows_the_image_does_not_count():
    for data in (COMMON + b"more", COMMON[:-2], COMMON[:-2] + b"\xff\xd9\xff\xd9"):
        assert same(outcome(data, jpeg=FAST), outcome(data))


@pytest.mark.parametrize("options", [{"fastdct": True}, {"fastupsample": True}])
def test_a_package_with_other_pixels_is_not_taken(monkeypatch, options):
    """The check at the start sees both settings that give other pixels."""

    def decode(data, colours, **named):
        return simplejpeg.decode_jpeg(data, colours, **{**named, **options})

    monkeypatch.setattr(jpeg, "find_package", lambda: SimpleNamespace(decode_jpeg=decode, __version__="9"))
    assert open_jpeg_decoder("auto") is None and decoder_name("auto") == "Pillow"
    with pytest.raises(ConfigError, match="data.decoder='simplejpeg': the package simplejpeg 9 gives other pixels"):
        open_jpeg_decoder("simplejpeg")
    assert decoder_name("simplejpeg") == "none"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    assert find_package() is None and open_jpeg_decoder("auto") is None
    with pytest.raises(ConfigError, match="is not installed; `pip install .simplejpeg>=.*or set data.decoder: auto"):
        ImageReader.from_config(Config.from_dict({"data": {"decoder": "simplejpeg"}}))


def test_the_setting_decides():
    for setting, name in (("auto", "simplejpeg"), ("simplejpeg", "simplejpeg"), ("pillow", "Pillow")):
        settings = {"data": {"decoder": setting}, "model": {"image_shape": [3, 24, 40]}}
        reader = ImageReader.from_config(Config.from_dict(settings))
        assert decoder_name(setting) == name and (reader.jpeg is None) == (setting == "pillow")
        np.testing.assert_array_equal(reader(COMMON), decode_image(COMMON))
    with pytest.raises(ConfigError, match="one of auto, pillow, simplejpeg"):
        Config.from_dict({"data": {"decoder": "turbo"}})


def test_the_headers_are_read_as_the_format_says():
    assert common_size(COMMON) == (24, 40)
    place = COMMON.index(b"\xff\xc0") + 5
    assert struct.unpack(">HH", COMMON[place : place + 4]) == (24, 40)
