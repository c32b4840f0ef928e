"""arcface_torch's vision transformers: names, shapes, our model, and what they compute in NumPy.

Source: recognition/arcface_torch/backbones/vit.py and __init__.py of insightface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plsc.errors import DataError
from plsc.models.vit import MLP_RATIO, SIZES
from plsc.weights.formula import bn, conv
from plsc.weights.net import Layer, Shapes, count, require_shape, square_side

HEADS = 8  # of all of them; the file does not tell
IMAGE_SIDE = 112  # of all of them; the file tells patches only
BASE_WIDTH = 64
_PATCHES, _LAST = "patch_embed.proj.weight", "feature.2.weight"
_BLOCK = (
    ("weight_and_bias", "norm1", "norm1"), ("weight_and_bias", "norm2", "norm2"),
    ("matrix", "attention.qkv", "attn.qkv"), ("fc", "attention.out", "attn.proj"), ("fc", "mlp.fc1", "mlp.fc1"),
    ("fc", "mlp.fc2", "mlp.fc2"),
)  # fmt: skip


class ArcfaceViT:
    """As a Net."""

    marker, first = _PATCHES, "patches"

    def layers(self, shapes: Shapes) -> list[Layer]:
        return _layers(_blocks(shapes))

    def layers_of(self, name: str, options: Mapping[str, Any]) -> list[Layer]:
        depth = options.get("depth")
        return _layers(SIZES[name].blocks if depth is None else depth)

    def expected(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        _size_of(shapes)
        patches, last = require_shape(shapes, _PATCHES, 4), require_shape(shapes, _LAST, 2)
        tokens, width, hidden = require_shape(shapes, "pos_embed", 3)[1], patches[0], MLP_RATIO * patches[0]
        weights = {
            "position": (1, tokens, width), "mask_token": (1, 1, width), "patches": (*patches[:3], patches[2]),
            "attention.qkv": (3 * width, width), "attention.out": (width, width), "mlp.fc1": (hidden, width),
            "mlp.fc2": (width, hidden), "head.fc1": (width, tokens * width), "head.fc2": (last[0], width),
            "head.feature_bn": (last[0],),
        }  # fmt: skip
        found = {}
        for layer in self.layers(shapes):
            place = layer.ours.partition(".")[2] if layer.ours.startswith("block") else layer.ours
            own: tuple[int, ...] = weights.get(place, (width,))
            found.update({theirs: own[:1] if theirs.endswith(".bias") else own for _, theirs in layer.tensors()})
        return found

    def settings(self, shapes: Shapes, image_shape: list[int] | None) -> dict[str, Any]:
        (name, base_width, options), patch = _size_of(shapes), shapes[_PATCHES]
        shape = _image_shape(patch[1], patch[2], shapes["pos_embed"][1], image_shape)
        options = {"patch_size": patch[2], "num_heads": HEADS, **options}
        return {"name": name, "embedding_size": shapes[_LAST][0], "image_shape": shape, "base_width": base_width,
                "options": options}  # fmt: skip

    def forward(self, weights: Mapping[str, np.ndarray], images: np.ndarray, epsilon: float) -> np.ndarray:
        weights = {name: array.astype(np.float64) for name, array in weights.items()}
        patch = weights[_PATCHES].shape[2]
        x = conv(images, weights[_PATCHES], patch, 0) + weights["patch_embed.proj.bias"][:, None, None]
        x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1) + weights["pos_embed"]
        for index in range(_blocks({name: array.shape for name, array in weights.items()})):
            at = f"blocks.{index}"
            x = x + _attention(_layer_norm(x, weights, f"{at}.norm1"), weights, f"{at}.attn")
            hidden = np.clip(_linear(_layer_norm(x, weights, f"{at}.norm2"), weights, f"{at}.mlp.fc1"), 0, 6)
            x = x + _linear(hidden, weights, f"{at}.mlp.fc2")
        x = _layer_norm(x, weights, "norm").reshape(len(x), -1)
        x = bn(_linear(x, weights, "feature.0"), weights, "feature.1", epsilon)
        return bn(_linear(x, weights, "feature.2"), weights, "feature.3", epsilon)


def _layers(depth: int) -> list[Layer]:
    found = [Layer("tensor", "position", "pos_embed"), Layer("tensor", "mask_token", "mask_token"),
             Layer("weight_and_bias", "patches", "patch_embed.proj")]  # fmt: skip
    for index in range(depth):
        found += [Layer(kind, f"block{index}.{ours}", f"blocks.{index}.{theirs}") for kind, ours, theirs in _BLOCK]
    return [
        *found, Layer("weight_and_bias", "norm", "norm"), Layer("matrix", "head.fc1", "feature.0"),
        Layer("bn", "head.bn", "feature.1"), Layer("matrix", "head.fc2", "feature.2"),
        Layer("bn", "head.feature_bn", "feature.3"),
    ]  # fmt: skip


def _blocks(shapes: Shapes) -> int:
    return count(shapes, "blocks.{}.attn.qkv.weight")


def _size_of(shapes: Shapes) -> tuple[str, int, dict[str, int]]:
    """(name, base_width, options) of our model with tokens of this width and so many blocks. Raises DataError."""
    width, blocks = require_shape(shapes, _PATCHES, 4)[0], _blocks(shapes)
    if not blocks or width % HEADS:
        raise DataError(f"it has {blocks} blocks of width {width}; PLSC has 1 or more, and widths that {HEADS} divides")
    fits = [name for name, size in SIZES.items() if size.blocks == blocks and width % size.multiple == 0]
    published = [name for name in fits if SIZES[name].multiple * BASE_WIDTH == width]
    name = (published or fits or list(SIZES))[0]
    options = {} if fits else {"depth": blocks}
    return name, width // SIZES[name].multiple, options


def _image_shape(channels: int, patch: int, tokens: int, given: list[int] | None) -> list[int]:
    """[C, H, W] that the user says, else 112 x 112 or the smallest square with so many patches."""
    side = square_side(tokens)
    if given is None and side:
        whole = IMAGE_SIDE if IMAGE_SIDE // patch == side else side * patch
        return [channels, whole, whole]
    if given is None:
        raise DataError(f"it has {tokens} patches, of images that are no square; say --image-shape C,H,W")
    if given[0] == channels and (given[1] // patch) * (given[2] // patch) == tokens:
        return given
    raise DataError(
        f"--image-shape {','.join(map(str, given))}: it has {tokens} patches of {patch} pixels, its images have "
        f"{channels} channels; give the shape that the model was trained with"
    )


def _layer_norm(x: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _linear(x: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def _attention(x: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    batch, tokens, width = x.shape
    parts = _linear(x, weights, f"{name}.qkv").reshape(batch, tokens, 3, HEADS, width // HEADS)
    queries, keys, values = parts.transpose(2, 0, 3, 1, 4)
    scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(width // HEADS)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    y = (scores / scores.sum(-1, keepdims=True)) @ values
    return _linear(y.transpose(0, 2, 1, 3).reshape(batch, tokens, width), weights, f"{name}.proj")
