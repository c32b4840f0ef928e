"""Reads images for the model, equally in training, verification and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plsc.config import Config
from plsc.data.jpeg import JpegDecoder, open_jpeg_decoder
from plsc.data.resize import WORDS, resize_image
from plsc.data.transforms import ImageSource, decode_image


@dataclass(frozen=True)
class ImageReader:
    """Reads images for a model.

    image_shape: (3, H, W), or (1, H, W) for grey. resize: for images of another size, "refuse",
    "stretch", "crop" or "pad" (see plsc.data.resize.resize_image). jpeg: a faster decoder of JPEG images (see
    plsc.data.jpeg).
    """

    image_shape: tuple[int, int, int]
    resize: str = "refuse"
    jpeg: JpegDecoder | None = None

    @classmethod
    def from_config(cls, config: Config, resize: str | None = None) -> ImageReader:
        """Reads as the settings say; ``resize`` in place of ``data.resize``, if given.

        Raises ConfigError for a decoder that cannot be used.
        """
        channels, height, width = config.model.image_shape
        jpeg = open_jpeg_decoder(config.data.decoder)
        return cls((channels, height, width), config.data.resize if resize is None else resize, jpeg)

    def resize_note(self) -> str:
        """What happens to images of another size, for a log."""
        _, height, width = self.image_shape
        return f"images of another size than {width} x {height} are {WORDS[self.resize]} (resize: {self.resize})"

    def __call__(self, source: ImageSource, name: str | None = None) -> np.ndarray:
        """Encoded bytes, a path, pixels or a PIL image to uint8 [H, W, C] of the model's size.

        name: its name in errors. Raises DataError.
        """
        return self.with_size(source, name)[0]

    def with_size(self, source: ImageSource, name: str | None = None) -> tuple[np.ndarray, tuple[int, int]]:
        """The same, and the original size (height, width)."""
        channels, height, width = self.image_shape
        size = (height, width) if self.resize == "refuse" else None  # then refused before it is decoded
        pixels = decode_image(source, name, size, channels, self.jpeg)
        found = pixels.shape[0], pixels.shape[1]
        return resize_image(pixels, height, width, self.resize, name or "image"), found
