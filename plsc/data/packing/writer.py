"""What a container's writer is, and what all of them share."""

from __future__ import annotations

from typing import Any

from plsc.data.sources import Source
from plsc.errors import DataError

# (how it begins, the ending of its file)
_BEGINNINGS = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"BM", "bmp"), (b"GIF8", "gif"), (b"II*\0", "tif"),
    (b"MM\0*", "tif"), (b"P5", "pgm"), (b"P6", "ppm"), (b"\0\0\0\x0cjP  ", "jp2"), (b"\xff\x4f\xff\x51", "jp2"),
)  # fmt: skip


class Writer:
    """Writes images one after the other into files of a directory that is still being made.

    directory: of the files. state: what ``flush`` returned when so much was on disk, {} at the beginning: what was
    written after that is dropped. Raises OSError, and DataError for what the container cannot hold.
    """

    def __init__(self, directory: str, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def add(self, index: int, image: bytes, label: int) -> None:
        """The next image; index: its number among all."""
        raise NotImplementedError

    def flush(self) -> dict[str, Any]:
        """Bring to disk what was added; the state to go on from, as plain JSON."""
        raise NotImplementedError

    def finish(self, count: int, num_classes: int, size: tuple[int, int]) -> None:
        """Write what comes last, flush and close. size: (height, width) of the first image."""
        raise NotImplementedError

    @staticmethod
    def reader(directory: str, num_classes: int, size: tuple[int, int]) -> Source:
        """The source that reads what was written."""
        raise NotImplementedError


def ending_of(image: bytes, name: str) -> str:
    """The ending of an image's file by its first bytes. Raises DataError for what is in none of the formats."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    for beginning, ending in _BEGINNINGS:
        if image.startswith(beginning):
            return ending
    raise DataError(f"{name}: is in no image format that can be read again (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM)")
