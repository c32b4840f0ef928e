"""A faster decoder for common JPEG files: simplejpeg, where it is installed and its pixels equal those of Pillow.

Both call libjpeg-turbo. With the accurate DCT and smooth chroma upsampling, which Pillow uses, the pixels of simplejpeg
are the same to the bit; its two faster settings give others. All files but the common kind are left to Pillow, and so
is every file that simplejpeg rejects, so that results and messages are those of Pillow.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import Any, Optional

import numpy as np
from PIL import Image

from plsc.errors import ConfigError
from plsc.extras import install

# Encoded bytes to RGB uint8 [H, W, 3], if the size (height, width) passes the check given; None: decode it with Pillow.
JpegDecoder = Callable[[bytes, Callable[[tuple[int, int]], bool]], Optional[np.ndarray]]

_FRAMES = (0xC0, 0xC2)  # baseline, progressive
_TABLES = (0xC4, 0xDB, 0xDD, 0xE0, 0xFE)  # Huffman, quantisation, restart interval, JFIF, comment
_SCAN = 0xDA
# The sampling factors of the components: grey, whose factor has no effect, and colours as 4:4:4, 4:2:2 and 4:2:0.
_SAMPLING = tuple(bytes([first, *rest]) for first in (0x11, 0x21, 0x22) for rest in ((), (0x11, 0x11)))


def open_jpeg_decoder(setting: str) -> JpegDecoder | None:
    """The decoder that ``data.decoder`` names; None for Pillow alone.

    Raises ConfigError where "simplejpeg" is not installed, or gives other pixels than Pillow.
    """
    if setting == "pillow":
        return None
    package = find_package()
    problem = "is not installed; " + install("jpeg") if package is None else ""
    if package is not None and not _equals_pillow(package):
        problem = f"{package.__version__} gives other pixels than this Pillow; install releases whose pixels are equal"
    if not problem:
        return _Fast(package)
    if setting == "auto":
        return None
    raise ConfigError(f"data.decoder={setting!r}: the package simplejpeg {problem}, or set data.decoder: auto")


def decoder_name(setting: str) -> str:
    """What decodes JPEG files, for comparison between ranks: "Pillow" or "simplejpeg"."""
    try:
        return "Pillow" if open_jpeg_decoder(setting) is None else "simplejpeg"
    except ConfigError:  # raised where the data are opened
        return "none"


def find_package() -> Any | None:
    """The package simplejpeg, or None."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


class _Fast:
    """A JpegDecoder by simplejpeg."""

    def __init__(self, package: Any) -> None:
        self._decode = package.decode_jpeg

    def __call__(self, data: bytes, is_good: Callable[[tuple[int, int]], bool]) -> np.ndarray | None:
        size = common_size(data)
        if size is None or not is_good(size):
            return None
        try:  # strict: also what libjpeg only warns of is an error
            return self._decode(data, "RGB", fastdct=False, fastupsample=False, strict=True)
        except Exception:  # Pillow says what is wrong, or reads it
            return None


def common_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file of the common kind; None for any other.

    JFIF, baseline or progressive, 8 bits, grey or YCbCr with 4:4:4, 4:2:2 or 4:2:0. No EXIF or XMP, which may say how
    to turn it, no Adobe marker, which may say other colours.
    """
    if data[:4] != b"\xff\xd8\xff\xe0" or data[6:11] != b"JFIF\0":
        return None
    place, size = 2, None
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN:
            return size
        if marker in _FRAMES and size is None:
            size = _frame_size(data[place + 4 : place + 2 + length])
            if size is None:
                return None
        elif marker not in _TABLES:
            return None
        place += 2 + length
    return None


def _frame_size(frame: bytes) -> tuple[int, int] | None:
    """(height, width) of a frame header: precision, height, width, count, and three bytes a component."""
    if len(frame) < 6 or frame[0] != 8 or len(frame) != 6 + 3 * frame[5]:
        return None
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if frame[7::3] not in _SAMPLING or not height or not width:
        return None
    return height, width


def _equals_pillow(package: Any) -> bool:
    """Whether both decode a few files of each kind to the same pixels."""
    fast = _Fast(package)
    for encoded in _samples():
        with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
            expected = np.asarray(image.convert("RGB"))
        found = fast(encoded, lambda size: True)
        if found is None or found.dtype != np.uint8 or not np.array_equal(found, expected):
            return False
    return True


def _samples() -> list[bytes]:
    """JPEG files of every kind that is read by the faster decoder, with odd sides, sharp edges and full range."""
    pixels = np.random.Generator(np.random.Philox(key=[0, 1])).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels[:5, :7]).resize((51, 37), Image.Resampling.BICUBIC)
    samples = []
    for image in (smooth, Image.fromarray(pixels), smooth.convert("L")):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                stream = io.BytesIO()
                image.save(stream, "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
                samples.append(stream.getvalue())
    return samples
