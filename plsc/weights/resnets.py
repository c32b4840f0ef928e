"""The ResNets of arcface_torch and its followers, and those of AdaFace, as Nets: see layouts and formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plsc.errors import DataError
from plsc.models.resnet import UNITS
from plsc.models.se_resnet import REDUCTION, SE_UNITS
from plsc.weights import formula, layouts
from plsc.weights.net import Layer, Shapes, require_shape, square_side

STRIDE = 16  # the last map has a number for each 16 x 16 pixels


class ArcfaceResNet:
    """The iresnet of arcface_torch, MagFace and PLSC 2.4, as a Net."""

    marker, first = "layer1.0.conv1.weight", "stem.conv"

    def layers(self, shapes: Shapes) -> list[Layer]:
        return layouts.arcface_layers(layouts.arcface_units(shapes))

    def layers_of(self, name: str, options: Mapping[str, Any]) -> list[Layer]:
        return layouts.arcface_layers(UNITS[name])

    def expected(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        layouts.model_of(layouts.arcface_units(shapes))
        return expected_shapes(self.layers(shapes), shapes)

    def settings(self, shapes: Shapes, image_shape: list[int] | None) -> dict[str, Any]:
        name = layouts.model_of(layouts.arcface_units(shapes))
        return resnet_settings(name, shapes["conv1.weight"], shapes["bn2.bias"][0], shapes["fc.weight"], image_shape)

    def forward(self, weights: Mapping[str, np.ndarray], images: np.ndarray, epsilon: float) -> np.ndarray:
        return formula.arcface_forward(weights, images, epsilon)


class AdafaceResNet:
    """The IR and IR-SE models of AdaFace, as a Net."""

    marker, first = "body.0.res_layer.1.weight", "stem.conv"

    def layers(self, shapes: Shapes) -> list[Layer]:
        return layouts.adaface_layers(layouts.adaface_units(shapes), layouts.is_squeezed(shapes))

    def layers_of(self, name: str, options: Mapping[str, Any]) -> list[Layer]:
        return layouts.adaface_layers({**UNITS, **SE_UNITS}[name], name in SE_UNITS)

    def expected(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        self._name(shapes)
        return expected_shapes(self.layers(shapes), shapes)

    def settings(self, shapes: Shapes, image_shape: list[int] | None) -> dict[str, Any]:
        stem, last = shapes["input_layer.0.weight"], shapes["output_layer.3.weight"]
        return resnet_settings(self._name(shapes), stem, shapes["output_layer.0.bias"][0], last, image_shape)

    def forward(self, weights: Mapping[str, np.ndarray], images: np.ndarray, epsilon: float) -> np.ndarray:
        return formula.adaface_forward(weights, images, epsilon)

    def _name(self, shapes: Shapes) -> str:
        return layouts.model_of(layouts.adaface_units(shapes), layouts.is_squeezed(shapes))


def resnet_settings(
    name: str, stem: tuple[int, ...], channels: int, last: tuple[int, ...], image_shape: list[int] | None
) -> dict[str, Any]:
    """The section ``model`` of a ResNet. stem: shape of the first convolution; channels: of the last map; last: [E,
    inputs] of the last layer. Raises DataError for images that do not go with it."""
    shape = image_shape_of(stem[1], channels, last[1], image_shape)
    return {"name": name, "embedding_size": last[0], "image_shape": shape, "base_width": stem[0], "options": {}}


def expected_shapes(layers: list[Layer], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """{their tensor: its shape}, as the first convolution and the last layer imply it."""
    by_name = {layer.ours: f"{layer.theirs}.weight" for layer in layers}
    stem, last = require_shape(shapes, by_name["stem.conv"], 4), require_shape(shapes, by_name["head.fc"], 2)
    width, found = stem[0], {}
    for layer in layers:
        place, _, leaf = layer.ours.rpartition(".")
        stage = int(place.split(".")[0][len("stage") :]) if place.startswith("stage") else 0
        out = width * 2 ** (stage - 1) if stage else width
        before = out // 2 if ".unit0" in place and stage > 1 else out
        sizes = {
            "stem.conv": (width, stem[1], 3, 3), "head.bn": (8 * width,), "head.fc": last,
            "head.feature_bn": (last[0],),
        }.get(layer.ours) or {
            "bn1": (before,), "conv1": (out, before, 3, 3), "conv2": (out, out, 3, 3), "conv": (out, before, 1, 1),
            "reduce": (max(out // REDUCTION, 1), out, 1, 1), "expand": (out, max(out // REDUCTION, 1), 1, 1),
        }.get(leaf, (out,))  # fmt: skip
        for _, theirs in layer.tensors():
            found[theirs] = sizes if theirs.endswith(".weight") or len(sizes) == 1 else sizes[:1]
    return found


def image_shape_of(channels: int, width: int, inputs: int, given: list[int] | None) -> list[int]:
    """[C, H, W] that the user says, else of the square that the last layer was made for.

    width: channels of the last map; inputs: of the last layer. Raises DataError where they do not go together.
    """
    if not width or not channels:
        raise DataError("a tensor has no numbers")
    places, rest = divmod(inputs, width)
    side = square_side(places)
    if rest == 0 and given is None and side:
        return [channels, side * STRIDE, side * STRIDE]
    if given is None:
        raise DataError(f"its last layer has {inputs} inputs, of images that are no square; say --image-shape C,H,W")
    height, wide = (-(-size // STRIDE) for size in given[1:])
    if rest == 0 and given[0] == channels and height * wide == places:
        return given
    raise DataError(
        f"--image-shape {','.join(map(str, given))}: its last layer has {inputs} inputs, its images have {channels} "
        "channels; give the shape that the model was trained with"
    )
