"""Resizes images to the model's input size, equally in training, verification and prediction."""

from __future__ import annotations

import numpy as np
from PIL import Image

from plsc.config import RESIZE_MODES
from plsc.errors import ConfigError, DataError

PAD_VALUE = 0  # black
# For messages: "images of another size are ...".
WORDS = {
    "stretch": "stretched",
    "crop": "cropped to the aspect ratio of the model's input and scaled",
    "pad": "scaled and padded with black",
    "refuse": "refused",
}


def resize_image(image: np.ndarray, height: int, width: int, how: str, name: str) -> np.ndarray:
    """Resize uint8 [H, W, C] to [height, width, C], C = 1 or 3.

    An image of this size is returned unchanged. Others are resized with Pillow's bilinear filter, with antialiasing:
    "stretch" changes the aspect ratio; "crop" first crops the longer side at both ends, to whole pixels, to the aspect
    ratio of the model's input; "pad" keeps the aspect ratio, scales to whole pixels and centres the image on black;
    "refuse" raises DataError, which begins with ``name``. Raises ConfigError for another mode.
    """
    if how not in RESIZE_MODES:
        raise ConfigError(f"resize={how!r:.40}: must be one of {', '.join(RESIZE_MODES)}")
    if image.shape[:2] == (height, width):
        return image
    if how == "refuse":
        raise wrong_size(name, image.shape[1], image.shape[0], (height, width))
    if how == "pad":
        return _pad(image, height, width)
    return _sample(_crop(image, height, width) if how == "crop" else image, height, width)


def wrong_size(name: str, width: int, height: int, size: tuple[int, int]) -> DataError:
    """The error for an image of another size than ``size`` (height, width)."""
    return DataError(
        f"{name}: is {width} x {height} pixels (width x height), model.image_shape requires {size[1]} x {size[0]}: "
        "resize the images first, or choose stretch, crop or pad (data.resize, predict.resize, Predictor's resize)"
    )


def _crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = min(image.shape[0] / height, image.shape[1] / width)
    kept = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (image.shape[0] - kept[0]) // 2, (image.shape[1] - kept[1]) // 2
    return np.ascontiguousarray(image[top : top + kept[0], left : left + kept[1]])


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out = np.full((height, width, image.shape[2]), PAD_VALUE, np.uint8)
    out[top : top + inner[0], left : left + inner[1]] = _sample(image, *inner)
    return out


def _sample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    pillow = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(pillow.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
