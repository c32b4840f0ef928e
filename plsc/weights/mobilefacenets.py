"""arcface_torch's MobileFaceNets, `mbf` and `mbf_large`: names, shapes, our model, and what they compute in NumPy.

Source: recognition/arcface_torch/backbones/mobilefacenet.py of insightface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plsc.errors import DataError
from plsc.models.wide_mobilefacenet import LAYOUTS, STAGES
from plsc.weights.formula import bn, conv, prelu
from plsc.weights.net import Layer, Shapes, count, require_shape

STRIDE = 16  # the last map has a place for each 16 x 16 pixels
PLACES = ((1,), (2, 3), (4, 5), (6, 7))  # in `layers`, of each stage: its first bottleneck, but of stage 1; the others
_STEM, _LAST = "layers.0.layers.0.weight", "features.layers.2.weight"
_GLOBAL = "features.layers.0.layers.0.weight"


class ArcfaceMobileFaceNet:
    """As a Net."""

    marker, first = "conv_sep.layers.0.weight", "stem.conv"

    def layers(self, shapes: Shapes) -> list[Layer]:
        return _layers(_repeats(shapes))

    def layers_of(self, name: str, options: Mapping[str, Any]) -> list[Layer]:
        return _layers(LAYOUTS[name][1])

    def expected(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        scale, _ = LAYOUTS[_name(shapes)]
        stem, last = require_shape(shapes, _STEM, 4), require_shape(shapes, _LAST, 2)
        kernel, width = require_shape(shapes, _GLOBAL, 4)[2:], stem[0] // scale
        sizes: dict[str, tuple[int, ...]] = {
            "stem": (scale * width, stem[1], 3, 3), "stem_grouped": (scale * width, scale, 3, 3),
            "expand": (8 * width, 2 * scale * width, 1, 1), "global_depthwise": (8 * width, 1, *kernel),
        }  # fmt: skip
        before = scale * width
        for ours, _ in _bottlenecks(_repeats(shapes)):
            multiple, first, others = STAGES[int(ours[len("stage")]) - 1]
            hidden = width * (first if first is not None and ours.endswith("unit0") else others)
            out = multiple * scale * width
            sizes.update({f"{ours}.expand": (hidden, before, 1, 1), f"{ours}.depthwise": (hidden, 1, 3, 3),
                          f"{ours}.project": (out, hidden, 1, 1)})  # fmt: skip
            before = out
        found: dict[str, tuple[int, ...]] = {}
        for layer in self.layers(shapes):
            own = {"head.fc": (last[0], 8 * width), "head.feature_bn": (last[0],)}.get(layer.ours)
            own = own or sizes[layer.ours.rpartition(".")[0]]
            own = own if layer.kind in ("conv", "matrix") else own[:1]
            found.update({theirs: own for _, theirs in layer.tensors()})
        return found

    def settings(self, shapes: Shapes, image_shape: list[int] | None) -> dict[str, Any]:
        name, stem, kernel = _name(shapes), shapes[_STEM], shapes[_GLOBAL][2:]
        return {
            "name": name, "embedding_size": shapes[_LAST][0], "image_shape": _image_shape(stem[1], kernel, image_shape),
            "base_width": stem[0] // LAYOUTS[name][0], "options": {},
        }  # fmt: skip

    def forward(self, weights: Mapping[str, np.ndarray], images: np.ndarray, epsilon: float) -> np.ndarray:
        def block(x, name, stride=1, padding=0, linear=False):
            x = bn(conv(x, weights[f"{name}.layers.0.weight"], stride, padding), weights, f"{name}.layers.1", epsilon)
            return x if linear else prelu(x, weights[f"{name}.layers.2.weight"])

        def bottleneck(x, name, stride):
            x = block(block(x, f"{name}.layers.0"), f"{name}.layers.1", stride, 1)
            return block(x, f"{name}.layers.2", linear=True)

        x = block(images, "layers.0", 2, 1)
        if "layers.1.layers.0.weight" in weights:
            x = block(x, "layers.1", 1, 1)
        for place in range(1, 8):
            unit = 0
            while f"layers.{place}.layers.{unit}.layers.0.layers.0.weight" in weights:
                x, unit = x + bottleneck(x, f"layers.{place}.layers.{unit}", 1), unit + 1
            if f"layers.{place}.layers.2.layers.1.weight" in weights and not unit:
                x = bottleneck(x, f"layers.{place}", 2)
        x = block(block(x, "conv_sep"), "features.layers.0", linear=True)
        x = x.reshape(len(x), -1) @ weights["features.layers.2.weight"].astype(np.float64).T
        return bn(x, weights, "features.layers.3", epsilon)


def _layers(repeats: tuple[int, ...]) -> list[Layer]:
    """repeats: bottlenecks of one shape in each stage."""
    found = _block("stem", "layers.0")
    if repeats[0] == 0:
        found += _block("stem_grouped", "layers.1")
    for ours, theirs in _bottlenecks(repeats):
        for index, part in enumerate(("expand", "depthwise", "project")):
            found += _block(f"{ours}.{part}", f"{theirs}.layers.{index}", linear=part == "project")
    found += _block("expand", "conv_sep") + _block("global_depthwise", "features.layers.0", linear=True)
    found.append(Layer("matrix", "head.fc", "features.layers.2"))
    return [*found, Layer("bn", "head.feature_bn", "features.layers.3")]


def _bottlenecks(repeats: tuple[int, ...]) -> list[tuple[str, str]]:
    """(our name, theirs) of each."""
    found = []
    for stage, (places, same) in enumerate(zip(PLACES, repeats), start=1):
        names = [f"layers.{places[0]}"] if len(places) == 2 else []
        names += [f"layers.{places[-1]}.layers.{unit}" for unit in range(same)]
        found += [(f"stage{stage}.unit{unit}", name) for unit, name in enumerate(names)]
    return found


def _repeats(shapes: Shapes) -> tuple[int, ...]:
    return tuple(count(shapes, f"layers.{places[-1]}.layers.{{}}.layers.0.layers.0.weight") for places in PLACES)


def _name(shapes: Shapes) -> str:
    """Of our model with so many bottlenecks. Raises DataError where there is none."""
    repeats = _repeats(shapes)
    for name, (_, known) in LAYOUTS.items():
        if repeats == known:
            return name
    all_known = ", ".join(f"{name} {list(known)}" for name, (_, known) in LAYOUTS.items())
    raise DataError(f"its stages have {list(repeats)} bottlenecks of one shape; PLSC has {all_known}")


def _image_shape(channels: int, kernel: tuple[int, ...], given: list[int] | None) -> list[int]:
    """[C, H, W] that the user says, else the largest of which the last map is as large as the kernel."""
    if given is None:
        return [channels, kernel[0] * STRIDE, kernel[1] * STRIDE]
    if given[0] == channels and [-(-side // STRIDE) for side in given[1:]] == list(kernel):
        return given
    raise DataError(
        f"--image-shape {','.join(map(str, given))}: its last convolution is {kernel[0]}x{kernel[1]}, its images have "
        f"{channels} channels; give the shape that the model was trained with"
    )


def _block(ours: str, theirs: str, linear: bool = False) -> list[Layer]:
    """Convolution, BN, and PReLU unless ``linear``."""
    found = [Layer("conv", f"{ours}.conv", f"{theirs}.layers.0"), Layer("bn", f"{ours}.bn", f"{theirs}.layers.1")]
    return found if linear else [*found, Layer("prelu", f"{ours}.prelu", f"{theirs}.layers.2")]
