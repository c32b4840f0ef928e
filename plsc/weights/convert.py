"""From the arrays of a Source to those of our model, each checked against the shape that the model implies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.errors import CheckpointError, DataError
from plsc.weights.kinds import BGR, Kind
from plsc.weights.net import TRANSPOSED, Layer
from plsc.weights.resnets import resnet_settings
from plsc.weights.source import MAX_NAMED, Source


@dataclass(frozen=True)
class Converted:
    """Our model for one of another project: the section `model` of its settings, and its arrays by our names.

    zeros: those of them that the file does not have, as only training uses them.
    """

    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]
    momentum: dict[str, np.ndarray] | None = None  # by our names, of those parameters that have one
    zeros: tuple[str, ...] = ()


def convert(source: Source, image_shape: list[int] | None = None) -> Converted:
    """image_shape: [C, H, W] of the images, for models whose last layer does not tell. Raises CheckpointError."""
    net, shapes = source.kind.net, source.shapes
    try:
        _require_fit(net.expected(shapes), source)
        settings, layers = net.settings(shapes, image_shape), net.layers(shapes)
        found = with_input(settings, _all_converted(layers, source.arrays), source.kind, net.first)
        return found if source.momentum is None else dataclasses.replace(found, momentum=_momentum(source, layers))
    except DataError as error:
        raise CheckpointError(f"{source.path}: {error}") from None


def build_converted(name: str, arrays: dict[str, np.ndarray], kind: Kind, image_shape: list[int] | None) -> Converted:
    """Our ResNet of that name with arrays that see images as ``kind`` says. Raises DataError for other images."""
    stem, last = arrays["backbone.stem.conv.weight"], arrays["backbone.head.fc.weight"]
    channels = len(arrays["backbone.head.bn.bias"])
    settings = resnet_settings(name, stem.shape, channels, last.shape[::-1], image_shape)
    return with_input(settings, arrays, kind, "stem.conv")


def with_input(settings: dict[str, Any], arrays: dict[str, np.ndarray], kind: Kind, first: str) -> Converted:
    """The model for images as ``kind`` says. first: our name of the layer that sees their channels."""
    name = f"backbone.{first}.weight"
    if kind.input.channels == BGR:
        arrays = {**arrays, name: np.ascontiguousarray(arrays[name][:, ::-1])}
    options: dict[str, Any] = {"bn_epsilon": kind.epsilon, **kind.input.options(), **settings["options"]}
    if kind.projection != "shape":
        options["projection"] = kind.projection
    return Converted({**settings, "options": options}, arrays)


def _momentum(source: Source, layers: list[Layer]) -> dict[str, np.ndarray]:
    """Turned as the parameters are, {our variable: array}."""
    stored = source.momentum or {}
    whole = {name: stored.get(name, np.zeros_like(array)) for name, array in source.arrays.items()}
    turned = with_input({"options": {}}, _all_converted(layers, whole), source.kind, source.kind.net.first).arrays
    own = {ours for layer in layers for ours, theirs in layer.tensors() if theirs in stored}
    return {name: array for name, array in turned.items() if name in own}


def _all_converted(layers: list[Layer], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{our variable: array} of all layers."""
    return {name: array for layer in layers for name, array in _converted(layer, arrays).items()}


def _converted(layer: Layer, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{our variable: array} of one layer."""
    found = {ours: arrays[theirs] for ours, theirs in layer.tensors()}
    at = f"backbone.{layer.ours}"
    if layer.kind in TRANSPOSED:
        found[f"{at}.weight"] = np.ascontiguousarray(found[f"{at}.weight"].T)
    elif layer.kind == "plain_bn":
        size = found[f"{at}.running_mean"].shape
        found.update({f"{at}.weight": np.ones(size, np.float32), f"{at}.bias": np.zeros(size, np.float32)})
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
