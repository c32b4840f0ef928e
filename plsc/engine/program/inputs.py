"""The inputs of programs: images and labels. Images that are fed as pixels are normalized in the program."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import paddle

from plsc.backend.micro_batches import part
from plsc.config import Config
from plsc.config.extensions import SOURCE
from plsc.config.user_objects import UserObjects
from plsc.data.transforms import PIXEL_MEAN
from plsc.errors import ConfigError

LABEL = "label"
PIXELS = "uint8"  # the type of images that are fed as pixels


@dataclass(frozen=True)
class Inputs:
    """``feeds``: {name: data value of the program}. ``values``: {name: what the model gets}, which is the data value,
    or the normalized images where pixels are fed; of the first of ``parts`` micro-batches. ``pixel_std``: {name:
    divisor} of what is fed as pixels."""

    feeds: dict[str, Any]
    values: dict[str, Any]
    parts: int = 1
    pixel_std: dict[str, float] = field(default_factory=dict)

    def part(self, number: int) -> dict[str, Any]:
        """Append what the model gets of micro-batch ``number``, as in ``values``."""
        values = {}
        for name, fed in self.feeds.items():
            value = part(fed, number, self.parts) if self.parts > 1 else fed
            values[name] = normalise_in_program(value, self.pixel_std[name]) if name in self.pixel_std else value
        return values


def input_entries(config: Config) -> list[dict[str, Any]]:
    """Name, shape and dtype of each input of the model: those of model.input_info, or image and label."""
    return config.model.input_info or [
        {"name": "image", "shape": [-1, *config.model.image_shape], "dtype": "float32"},
        {"name": LABEL, "shape": [-1], "dtype": "int64"},
    ]


def input_names(config: Config) -> tuple[str, str]:
    """The names of the inputs that take image and label. Raises ConfigError where data cannot fill the inputs."""
    images = [entry["name"] for entry in input_entries(config) if entry["name"] != LABEL]
    if len(images) != 1:
        raise ConfigError(
            f"model.input_info: the data has one image and one label, the inputs besides label are {images}; "
            "leave exactly one"
        )
    return images[0], LABEL


def feeds_pixels(config: Config, user_objects: UserObjects) -> bool:
    """Whether the training program is fed pixels, uint8 [B, C, H, W], a quarter of the bytes, and not the inputs of the
    model: where PLSC reads the images."""
    own_data = user_objects.train_dataset is not None or user_objects.train_reader is not None
    return not own_data and not SOURCE.chosen(config.settings).ready


def make_inputs(config: Config, batch_size: int, with_label: bool, pixels: bool = False, parts: int = 1) -> Inputs:
    """The inputs of the program being built: ``image`` [B, C, H, W] float32, or uint8 for ``pixels``, and ``label`` [B]
    int64; or those of model.input_info, of which the image is fed as ``pixels``. ``parts``: the micro-batches."""
    feeds, divisors = {}, {}
    for entry in input_entries(config):
        name, as_pixels = entry["name"], pixels and entry["name"] != LABEL
        if name == LABEL and not with_label:
            continue
        dtype = PIXELS if as_pixels else entry["dtype"]
        feeds[name] = paddle.static.data(name, [batch_size, *entry["shape"][1:]], dtype)
        if as_pixels:
            divisors[name] = config.data.pixel_std
    inputs = Inputs(feeds, {}, parts, divisors)
    return replace(inputs, values=inputs.part(0))


def normalise_in_program(pixels, pixel_std: float):
    """(x - 127.5) / pixel_std as float32, the same to the bit as plsc.data.normalise.

    The divisor is a tensor: Paddle multiplies by the reciprocal of a number, which rounds otherwise.
    """
    return (paddle.cast(pixels, "float32") - PIXEL_MEAN) / paddle.full([1], pixel_std, "float32")
