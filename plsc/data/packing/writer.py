"""The base class of container writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plsc.data.sources import Source
from plsc.errors import DataError

# (first bytes, file suffix)
_BEGINNINGS = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"BM", "bmp"), (b"GIF8", "gif"), (b"II*\0", "tif"),
    (b"MM\0*", "tif"), (b"P5", "pgm"), (b"P6", "ppm"), (b"\0\0\0\x0cjP  ", "jp2"), (b"\xff\x4f\xff\x51", "jp2"),
)  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """All that was written. size: (height, width) of the first image."""

    images: int
    num_classes: int
    size: tuple[int, int]


class Writer:
    """Writes images into files of a temporary directory.

    directory: of the files. state: {} at the beginning, or the last result of ``flush``; later data are dropped.
    Raises OSError, and DataError for data that the container cannot store.
    """

    def __init__(self, directory: str, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def add(self, index: int, image: bytes, label: int) -> None:
        """Add the next image; index: its number among all."""
        raise NotImplementedError

    def flush(self) -> dict[str, Any]:
        """Flush all added images to disk; return the state to continue from, as plain JSON."""
        raise NotImplementedError

    def finish(self, contents: Contents) -> None:
        """Write the end of the container, flush and close."""
        raise NotImplementedError

    @staticmethod
    def reader(directory: str, num_classes: int, size: tuple[int, int]) -> Source:
        """Open the written data as a source."""
        raise NotImplementedError


def ending_of(image: bytes, name: str) -> str:
    """The file suffix of an image by its first bytes. Raises DataError for an unknown format."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    for beginning, ending in _BEGINNINGS:
        if image.startswith(beginning):
            return ending
    raise DataError(f"{name}: is in no image format that can be read again (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM)")
