"""One image: whether training could use it, and two hashes by which copies of it are found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from plsc.data.datasets import SourceDataset
from plsc.data.pixels import luminance, to_pillow
from plsc.data.transforms import decode_image
from plsc.errors import DataError

REFUSE = "refuse"  # the value of data.resize with which an image of another size stops training
UNREADABLE, DAMAGED, WRONG_SIZE = "unreadable", "damaged", "wrong size"
KINDS = {
    UNREADABLE: "cannot be read, or has no usable label",
    DAMAGED: "cannot be decoded",
    WRONG_SIZE: "has another size than model.image_shape",
}
WORDS = 2  # of 64 bits, of a perceptual hash
_SIDE, _FREQUENCIES = 32, 16
_FLAT = 1e-6  # coefficients of an image of one value are 0, but for the rounding of float64


@dataclass(frozen=True)
class Seen:
    """What one image is like.

    label: -1 where it is not known. digest: 64 bits of its bytes, None for an image that cannot be read. perceptual:
    uint64 [2], None for one that cannot be decoded. kind, text: why training cannot use it; "" where it can.
    """

    label: int = -1
    digest: int | None = None
    perceptual: np.ndarray | None = None
    kind: str = ""
    text: str = ""


def look_at(dataset: SourceDataset, index: int) -> Seen:
    """Read and decode an image."""
    try:
        image, label = dataset.read(index)
    except DataError as error:
        return Seen(kind=UNREADABLE, text=str(error))
    digest = content_digest(image)
    if dataset.source.ready:
        return Seen(label, digest)
    name = dataset.source.name(index)
    channels, height, width = dataset.image_shape
    try:
        pixels = decode_image(image, name, channels=channels, jpeg=dataset.preparation.jpeg)
    except DataError as error:
        return Seen(label, digest, kind=DAMAGED, text=str(error))
    found = Seen(label, digest, perceptual_hash(pixels))
    if pixels.shape[:2] != (height, width):
        text = f"{name}: is {pixels.shape[1]} x {pixels.shape[0]} pixels (width x height), not {width} x {height}"
        if dataset.preparation.resize != REFUSE:
            text += f", and is resized (data.resize: {dataset.preparation.resize})"
        return Seen(label, digest, found.perceptual, WRONG_SIZE, text)
    return found


def content_digest(image: bytes | np.ndarray) -> int:
    """64 bits of BLAKE2b of encoded bytes, or of an array with its shape and dtype."""
    found = hashlib.blake2b(digest_size=8)
    if isinstance(image, np.ndarray) and image.ndim > 1:
        found.update(f"{image.dtype.str} {image.shape} ".encode())
    found.update(np.ascontiguousarray(image).tobytes() if isinstance(image, np.ndarray) else image)
    return int.from_bytes(found.digest(), "little")


def _cosines() -> np.ndarray:
    """float64 [16, 32]: the lowest frequencies of a cosine transform (DCT-II)."""
    place, frequency = np.arange(_SIDE), np.arange(_FREQUENCIES)[:, None]
    return np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE))


def _lowest() -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the 128 lowest frequencies without the mean, by their sum."""
    places = [(row, column) for row in range(_FREQUENCIES) for column in range(_FREQUENCIES) if row + column]
    places.sort(key=lambda place: (sum(place), place))
    rows, columns = zip(*places[: 64 * WORDS])
    return np.array(rows), np.array(columns)


_COSINES, _LOWEST = _cosines(), _lowest()


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """uint64 [2]: the signs of the 128 lowest frequencies of the luminance, made 32 x 32 pixels before.

    It hardly changes with JPEG, brightness and small changes of size. After Zauner 2010, Implementation and
    Benchmarking of Perceptual Image Hash Functions, with more bits, since aligned faces are alike.
    """
    small = to_pillow(luminance(pixels)).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    coefficients = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    return np.packbits(coefficients[_LOWEST] > _FLAT).view(np.uint64)
