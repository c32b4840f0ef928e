"""From the arrays of a Source to those of our model, each checked against the shape that the model implies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.errors import CheckpointError, DataError
from plsc.weights.kinds import BGR, Kind
from plsc.weights.layouts import Layer, model_of
from plsc.weights.source import MAX_NAMED, Source

STRIDE = 16  # the last map has a number for each 16 x 16 pixels


@dataclass(frozen=True)
class Converted:
    """Our model for one of another project: the section `model` of its settings, and its arrays by our names."""

    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]


def convert(source: Source, image_shape: list[int] | None = None) -> Converted:
    """image_shape: [C, H, W] of the images, for models whose last layer does not tell. Raises CheckpointError."""
    kind = source.kind
    try:
        units = kind.units(source.shapes)
        name, layers = model_of(units), kind.layers(units)
        _require_fit(_expected_shapes(layers, source.shapes), source)
        arrays: dict[str, np.ndarray] = {}
        for layer in layers:
            arrays.update(_converted(layer, source.arrays))
        return build_converted(name, arrays, kind, image_shape)
    except DataError as error:
        raise CheckpointError(f"{source.path}: {error}") from None


def build_converted(name: str, arrays: dict[str, np.ndarray], kind: Kind, image_shape: list[int] | None) -> Converted:
    """Our model of that name with arrays that see images as ``kind`` says. Raises DataError for other images."""
    stem, last = arrays["backbone.stem.conv.weight"], arrays["backbone.head.fc.weight"]
    shape = image_shape_of(stem.shape[1], len(arrays["backbone.head.bn.bias"]), len(last), image_shape)
    turned = np.ascontiguousarray(stem[:, ::-1]) if kind.input.channels == BGR else stem
    options: dict[str, Any] = {"bn_epsilon": kind.epsilon, **kind.input.options()}
    if kind.projection != "shape":
        options["projection"] = kind.projection
    settings = {
        "name": name, "embedding_size": last.shape[1], "image_shape": shape, "base_width": len(stem),
        "options": options,
    }  # fmt: skip
    return Converted(settings, {**arrays, "backbone.stem.conv.weight": turned})


def _converted(layer: Layer, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{our variable: array} of one layer."""
    found = {ours: arrays[theirs] for ours, theirs in layer.tensors()}
    at = f"backbone.{layer.ours}"
    if layer.kind == "fc":
        found[f"{at}.weight"] = np.ascontiguousarray(found[f"{at}.weight"].T)
    elif layer.kind == "plain_bn":
        size = found[f"{at}.running_mean"].shape
        found.update({f"{at}.weight": np.ones(size, np.float32), f"{at}.bias": np.zeros(size, np.float32)})
    return found


def _expected_shapes(layers: list[Layer], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """{their tensor: its shape}, as the first convolution and the last layer imply it."""
    by_name = {layer.ours: f"{layer.theirs}.weight" for layer in layers}
    stem, last = shapes.get(by_name["stem.conv"], ()), shapes.get(by_name["head.fc"], ())
    for name, shape, axes in ((by_name["stem.conv"], stem, 4), (by_name["head.fc"], last, 2)):
        if len(shape) != axes or not all(shape):
            raise DataError(f"tensor {name} is {list(shape)}, must have {axes} axes")
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
        }.get(leaf, (out,))  # fmt: skip
        for _, theirs in layer.tensors():
            found[theirs] = sizes if theirs.endswith(".weight") or len(sizes) == 1 else sizes[:1]
    return found


def _require_fit(expected: Mapping[str, tuple[int, ...]], source: Source) -> None:
    """Raise DataError that names the tensors that are missing, or have another shape."""
    wrong = []
    for name, shape in expected.items():
        found = source.shapes.get(name)
        if found != shape:
            wrong.append(f"{name} is {'missing' if found is None else list(found)}, must be {list(shape)}")
    if wrong:
        more = f" (and {len(wrong) - MAX_NAMED} more)" if len(wrong) > MAX_NAMED else ""
        raise DataError("; ".join(wrong[:MAX_NAMED]) + more)


def image_shape_of(channels: int, width: int, inputs: int, given: list[int] | None) -> list[int]:
    """[C, H, W] that the user says, else of the square that the last layer was made for.

    width: channels of the last map; inputs: of the last layer. Raises DataError where they do not go together.
    """
    if not width or not channels:
        raise DataError("a tensor has no numbers")
    places, rest = divmod(inputs, width)
    side = math.isqrt(places)
    if rest == 0 and given is None and side and side * side == places:
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
