"""Decoding of images to RGB or grey pixels, and normalization to the input of the model."""

from __future__ import annotations

import io
import os
from typing import Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from plsc.data.jpeg import JpegDecoder
from plsc.data.philox import FLIP, philox
from plsc.data.ppm import decode_ppm
from plsc.data.resize import wrong_size
from plsc.errors import DataError
from plsc.files import safe_open

ImageSource = Union[bytes, bytearray, memoryview, str, os.PathLike, np.ndarray, Image.Image]

PIXEL_MEAN = 127.5
# The accepted formats. Pillow has about thirty more; EPS is one that it passes to a program which executes the file.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")
# A file of a kilobyte may claim 65,535 x 65,535 pixels. Decoding 50 million pixels takes 0.4 GB, 0.9 GB for WebP.
MAX_PIXELS = 50_000_000
_ORIENTATION = 0x0112  # EXIF tag of the orientation
_SIDEWAYS, _MOST_ORIENTATION = 5, 8  # from the first on, height and width are exchanged


def decode_image(
    source: ImageSource,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    jpeg: JpegDecoder | None = None,
) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3] RGB, or [H, W, 1] grey with channels=1.

    source: encoded bytes (also as a one-dimensional uint8 array), a path (str or os.PathLike), a PIL image, or pixels:
    an array uint8 or uint16 [H,W], [H,W,1], [H,W,3] (RGB) or [H,W,4] (RGBA).
    name: its name in errors; default: the path, or the kind of source.
    size: the required (height, width); without it at most MAX_PIXELS pixels are allowed. Encoded images of a wrong size
    are refused by their header, before they are decoded.
    channels: 3, or 1 for grey, with the weights of Pillow's mode "L". jpeg: a faster decoder for encoded JPEG images,
    with the same result (see plsc.data.jpeg).

    Grey and palette images become RGB, CMYK is converted without a colour profile, 16-bit values keep their upper 8
    bits, alpha is dropped, and only the first frame of an animation is used. The EXIF orientation is applied, as in
    image viewers; an unreadable EXIF block is ignored.
    Raises DataError (file missing, none of FORMATS, truncated, size, pixels without a fixed range: 32-bit integer,
    float).
    """
    name = name or _describe_source(source)
    pixels = _decode(source, name, size, jpeg)
    if size is not None and pixels.shape[:2] != tuple(size):
        raise wrong_size(name, pixels.shape[1], pixels.shape[0], size)
    if channels == 3:
        return pixels
    if channels != 1:
        raise DataError(f"{name}: {unsupported_channels(channels)}")
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def unsupported_channels(channels: int) -> str:
    """The reason why images cannot have this number of channels; "" if they can."""
    if channels in (1, 3):
        return ""
    return (
        f"images are read with 3 channels (RGB) or 1 (grey), model.image_shape has {channels}; give such data as a "
        "train_dataset and a test_dataset of your own"
    )


def read_image(path: str | bytes | os.PathLike) -> bytes:
    """Read an image file. Raises OSError, also for other than regular files and for more than 256 MiB."""
    return safe_open.read_bytes(path, safe_open.IMAGE)


def _decode(source: ImageSource, name: str, size: tuple[int, int] | None, jpeg: JpegDecoder | None) -> np.ndarray:
    if isinstance(source, np.ndarray) and source.ndim > 1:
        return _pixels_to_rgb(source, name)
    try:
        if isinstance(source, Image.Image):
            _check_header(source, name, size)
            return _image_to_rgb(source, name)
        data = _read(source)
        for decode in (decode_ppm, jpeg):
            pixels = decode(data, lambda found: _is_allowed(found, size)) if decode else None
            if pixels is not None:
                return pixels
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, name, size)
            return _image_to_rgb(image, name)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image in one of {', '.join(FORMATS)}, or its header is damaged") from error
    except Image.DecompressionBombError as error:  # Pillow's limit, which is higher than MAX_PIXELS
        raise DataError(f"{name}: has far more than the maximum of {MAX_PIXELS:,} pixels: {error}") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error and others
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: cannot be decoded: {reason}") from error


def _is_allowed(found: tuple[int, int], size: tuple[int, int] | None) -> bool:
    return found == tuple(size) if size is not None else found[0] * found[1] <= MAX_PIXELS


def _check_header(image: Image.Image, name: str, size: tuple[int, int] | None) -> None:
    width, height = image.size
    if size is not None and sorted(image.size) != sorted(size):  # EXIF may rotate it, so either order is accepted
        turned = image.format == "JPEG" and _orientation(image) >= _SIDEWAYS  # of PNG, Pillow would decode it first
        raise wrong_size(name, height if turned else width, width if turned else height, size)
    if size is None and width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: is {width:,} x {height:,} pixels (width x height), the maximum is {MAX_PIXELS:,} pixels; "
            "reduce its size"
        )


def normalise(image: np.ndarray, pixel_std: float, flip: bool = False) -> np.ndarray:
    """Normalize uint8 [H, W, C] to float32 [C, H, W]: (x - 127.5) / pixel_std, mirrored left to right if flip.

    pixel_std: 127.5 gives [-1, 1], as in PLSC 2.x and insightface; PLSC 0.x has 128.0.
    """
    if flip:
        image = image[:, ::-1]
    return normalise_pixels(image.transpose(2, 0, 1), pixel_std)


def normalise_pixels(pixels: np.ndarray, pixel_std: float) -> np.ndarray:
    """(x - 127.5) / pixel_std of uint8 of any shape, as a new float32 array of that shape."""
    out = np.empty(pixels.shape, dtype=np.float32)
    np.subtract(pixels, np.float32(PIXEL_MEAN), out=out, dtype=np.float32)
    out /= np.float32(pixel_std)
    return out


def is_flipped(seed: int, epoch: int, index: int) -> bool:
    """Whether image `index` is mirrored in this epoch, with probability 1/2, as a function of the arguments only."""
    return bool(philox(seed, FLIP, epoch, index).integers(2))


def _read(source: object) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        return read_image(source)
    if isinstance(source, np.ndarray) and source.dtype != np.uint8:
        raise DataError(f"an encoded image must be bytes or uint8, not an array of {source.dtype}")
    if isinstance(source, (bytes, bytearray, memoryview, np.ndarray)):
        return bytes(source)
    raise DataError(f"an image must be bytes, a path, an array or a PIL image, not {type(source).__name__}")


def _describe_source(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        shown = repr(os.fsencode(source).decode("utf-8", "backslashreplace"))
        return shown if len(shown) <= 300 else f"{shown[:297]}..."
    if isinstance(source, np.ndarray):
        return f"image given as an array {source.dtype} {list(source.shape)}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image of {len(source)} bytes"
    return f"image given as {type(source).__name__}"


def _pixels_to_rgb(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: pixels must be uint8 or uint16 of shape [H,W], [H,W,1], [H,W,3] or [H,W,4]")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _image_to_rgb(image: Image.Image, name: str) -> np.ndarray:
    image.load()
    image = _apply_orientation(image)
    if image.mode.startswith("I;16"):
        return _pixels_to_rgb(np.asarray(image).astype(np.uint16), name)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # Pillow's mode for 16 bits in these two formats
        return _pixels_to_rgb(np.asarray(image).clip(0, 65535).astype(np.uint16), name)
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: 32-bit pixels (mode {image.mode}) have no fixed range; save it with 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 also for what is none."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is ignored
        return 1
    return found if isinstance(found, int) and 1 <= found <= _MOST_ORIENTATION else 1


def _apply_orientation(image: Image.Image) -> Image.Image:
    if _orientation(image) == 1:
        return image
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format  # exif_transpose drops it, and mode "I" needs it
    return turned
