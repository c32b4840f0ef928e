"""Vision transformers for faces, as those of arcface_torch.

Sources: ViT, arXiv:2010.11929; the sizes, ReLU6, the head over all tokens and masked tokens in training are those of
insightface, recognition/arcface_torch/backbones/vit.py; stochastic depth, arXiv:1603.09382, Eq. 2 and 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from plsc.errors import ConfigError
from plsc.models import tokens
from plsc.models.layers import BN_EPSILON, BuiltInModel, LayerBuilder
from plsc.models.registry import register_model

MLP_RATIO = 4  # hidden features of the MLP for each feature of a token


@dataclass(frozen=True)
class Size:
    """multiple: features of a token for each one of base_width; blocks: of attention and MLP."""

    multiple: int
    blocks: int


SIZES = {"ViT-T": Size(4, 12), "ViT-S": Size(8, 12), "ViT-B": Size(8, 24), "ViT-L": Size(12, 24)}


class ViT(BuiltInModel):
    """image [B, C, H, W] -> feature [B, E]: patches, pre-norm blocks of attention and MLP, two linear layers with BN.

    patch_size: pixels; what is left over of H and W at the end is not seen (4 of 112 pixels with 9). num_heads: of
    attention. depth: number of blocks, None for the published one. drop_path: in training, the probability that a
    sample skips the last block; it grows linearly from 0 at the first one, and what is kept is scaled by
    1 / (1 - probability). mask_ratio: in training, the share of the tokens of a sample that the blocks do not see; a
    trained token replaces them afterwards. Other options: BuiltInModel. Raises ConfigError for a value out of range.
    """

    def __init__(
        self,
        name: str,
        embedding_size: int = 512,
        image_shape=(3, 112, 112),
        base_width: int = 64,
        bn_epsilon: float = BN_EPSILON,
        input_scale: float = 1.0,
        input_shift: float = 0.0,
        patch_size: int = 9,
        num_heads: int = 8,
        depth: int | None = None,
        drop_path: float = 0.1,
        mask_ratio: float = 0.1,
    ):
        super().__init__(
            name, embedding_size, image_shape, base_width=base_width, bn_epsilon=bn_epsilon, input_scale=input_scale,
            input_shift=input_shift,
        )  # fmt: skip
        self.width = SIZES[name].multiple * base_width
        self.depth = SIZES[name].blocks if depth is None else _at_least_one("depth", depth)
        self.patch_size = _at_least_one("patch_size", patch_size)
        self.num_heads = _at_least_one("num_heads", num_heads)
        self.drop_path = _share("drop_path", drop_path)
        self.mask_ratio = _share("mask_ratio", mask_ratio)
        if patch_size > min(self.image_shape[1:]):
            raise ConfigError(
                f"model.options.patch_size: {patch_size} is larger than an image of {self.image_shape}; give at most "
                f"{min(self.image_shape[1:])}"
            )
        if self.width % num_heads:
            raise ConfigError(
                f"model.options.num_heads: {num_heads} does not divide the {self.width} features of a token "
                f"(model.base_width {base_width} x {SIZES[name].multiple}); change one of them"
            )

    def function_options(self) -> dict[str, float | str]:
        return {**super().function_options(), "num_heads": self.num_heads}

    @property
    def num_tokens(self) -> int:
        """Patches of an image."""
        return math.prod(side // self.patch_size for side in self.image_shape[1:])

    def network(self, builder: LayerBuilder, x):
        places = None
        with builder.stage("patches"):
            x = tokens.patches(builder, x, self.width, self.patch_size)
            x = builder.add(x, tokens.parameter("position", [1, self.num_tokens, self.width]))
            token = tokens.parameter("mask_token", [1, 1, self.width], trainable=self.mask_ratio > 0)
            if self.mask_ratio > 0 and builder.is_train:
                kept = max(int(self.num_tokens * (1 - self.mask_ratio)), 1)
                places = tokens.random_places(x, self.num_tokens, kept)
                x = tokens.select(x, places)
            builder.boundary(x)
        for index in range(self.depth):
            with builder.stage(f"block{index}"):
                rate = self.drop_path * index / max(self.depth - 1, 1)
                x = builder.boundary(self._block(builder, x, f"block{index}", rate if builder.is_train else 0.0))
        with builder.stage("feature"):
            x = tokens.layer_norm(x, "norm")
            if places is not None:
                x = tokens.put_back(x, places, token)
            x = x.reshape([-1, self.num_tokens * self.width])
            x = builder.bn(tokens.linear(x, "head.fc1", self.width, bias=False), "head.bn")
            return builder.bn(tokens.linear(x, "head.fc2", self.embedding_size, bias=False), "head.feature_bn")

    def _block(self, builder: LayerBuilder, x, name: str, drop_path: float):
        """x + attention(norm(x)), and then the same with an MLP: Eq. 2 and 3 of ViT."""
        y = tokens.attention(tokens.layer_norm(x, f"{name}.norm1"), f"{name}.attention", self.num_heads)
        x = builder.add(x, tokens.drop_path(y, drop_path))
        y = tokens.mlp(tokens.layer_norm(x, f"{name}.norm2"), f"{name}.mlp", MLP_RATIO)
        return builder.add(x, tokens.drop_path(y, drop_path))


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"model.options.{option}: {value} is not allowed; it must be a whole number of 1 or more")
    return value


def _share(option: str, value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"model.options.{option}: {value} is out of range; allowed: 0 <= {option} < 1")
    return float(value)


for _name in SIZES:
    register_model(_name, source="ViT, arXiv:2010.11929; arcface_torch")(ViT)
