"""The kinds of models that can be imported, with settings that their files do not contain: input and epsilon.

Sources: arcface_torch: dataset.py (RGB, mean and std 0.5) and backbones/ of insightface. AdaFace: README.md, net.py of
mk-minchul/AdaFace. MagFace: models/iresnet.py of IrvingMeng/MagFace and its inference (cv2, std 1). PLSC 2.4:
plsc/models/iresnet.py of PaddlePaddle/PLSC.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.weights import names
from plsc.weights.mobilefacenets import ArcfaceMobileFaceNet
from plsc.weights.names import BGR, RGB
from plsc.weights.net import Net
from plsc.weights.resnets import AdafaceResNet, ArcfaceResNet
from plsc.weights.vits import ArcfaceViT


@dataclass(frozen=True)
class Input:
    """How images enter a model: (pixel - mean) / std for pixels in 0..255, and the order of the channels."""

    channels: str = RGB
    mean: float = 127.5
    std: float = 127.5

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 RGB [B, H, W, C] -> float64 [B, C, H, W]."""
        images = pixels.astype(np.float64).transpose(0, 3, 1, 2)
        return ((images[:, ::-1] if self.channels == BGR else images) - self.mean) / self.std

    def describe(self) -> str:
        """The settings on one line."""
        return f"{self.channels}, (pixels - {self.mean:g}) / {self.std:g}"

    def options(self) -> dict[str, float]:
        """The model.options of PLSC that turn (pixel - 127.5) / 127.5 into this input."""
        scale, shift = 127.5 / self.std, (127.5 - self.mean) / self.std
        return {} if (scale, shift) == (1.0, 0.0) else {"input_scale": scale, "input_shift": shift}


@dataclass(frozen=True)
class Kind:
    """One family of one project's models, and their defaults. projection: an option of PLSC's ResNet."""

    name: str
    net: Net
    input: Input
    epsilon: float
    projection: str = "shape"

    def with_options(self, channels: str | None, mean: float | None, std: float | None, epsilon: float | None) -> Kind:
        """A copy with these settings; None keeps the default."""
        given: dict[str, Any] = {"channels": channels, "mean": mean, "std": std}
        own = dataclasses.replace(self.input, **{key: value for key, value in given.items() if value is not None})
        return dataclasses.replace(self, input=own, epsilon=self.epsilon if epsilon is None else epsilon)

    def forward(self, weights: Mapping[str, np.ndarray], images: np.ndarray, epsilon: float) -> np.ndarray:
        """See Net."""
        return self.net.forward(weights, images, epsilon)

    def describe(self) -> str:
        """The settings on one line."""
        return f"{self.name}: {self.input.describe()}, batch norm epsilon {self.epsilon:g}"


ARCFACE = Kind(names.ARCFACE, ArcfaceResNet(), Input(), 1e-5)
ARCFACE_MOBILE = dataclasses.replace(ARCFACE, net=ArcfaceMobileFaceNet())
ARCFACE_VIT = dataclasses.replace(ARCFACE, net=ArcfaceViT(), epsilon=2e-5)
MAGFACE = dataclasses.replace(ARCFACE, name=names.MAGFACE, input=Input(BGR, 0.0, 255.0), epsilon=2e-5)
PLSC24 = dataclasses.replace(ARCFACE, name=names.PLSC24)
ADAFACE = Kind(names.ADAFACE, AdafaceResNet(), Input(BGR), 1e-5, "channels")
# Each project's first family by its name; FAMILIES: those that their tensors tell apart.
KINDS = {kind.name: kind for kind in (ARCFACE, ADAFACE, MAGFACE, PLSC24)}
FAMILIES = (ADAFACE, ARCFACE, ARCFACE_MOBILE, ARCFACE_VIT)


def families(kind: Kind | None) -> list[Kind]:
    """Those of the same project; for None all that their tensors tell apart."""
    if kind is None:
        return list(FAMILIES)
    return [kind, *(one for one in FAMILIES if one.name == kind.name and one.net is not kind.net)]
