"""A net of another project, as the import sees it: the layers by both names, their shapes, and what it computes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from plsc.errors import DataError

Shapes = Mapping[str, tuple[int, ...]]  # by their names

# {kind: {our part: torch's}}; a plain_bn has no scale and no shift, a matrix is an fc without a bias
PARTS = {
    "conv": {"weight": "weight"},
    "bn": {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_variance": "running_var"},
    "plain_bn": {"running_mean": "running_mean", "running_variance": "running_var"},
    "prelu": {"weight": "weight"},
    "fc": {"weight": "weight", "bias": "bias"},
    "matrix": {"weight": "weight"},
    "weight_and_bias": {"weight": "weight", "bias": "bias"},
    "tensor": {"": ""},
}
TRANSPOSED = ("fc", "matrix")  # ours is [in, out]


@dataclass(frozen=True)
class Layer:
    """One layer: its kind (a key of PARTS), our name without "backbone.", and theirs."""

    kind: str
    ours: str
    theirs: str

    def tensors(self) -> Iterable[tuple[str, str]]:
        """(our variable, their tensor) of each part."""
        for ours, theirs in PARTS[self.kind].items():
            yield _joined(f"backbone.{self.ours}", ours), _joined(self.theirs, theirs)


class Net(Protocol):
    """One family of nets in one project's names.

    marker: a tensor that every such net has. first: our name of the layer that sees the channels of the image.
    """

    marker: str
    first: str

    def layers(self, shapes: Shapes) -> list[Layer]:
        """The layers of the net that has these tensors, by the names that are there."""

    def expected(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """{their tensor: its shape}, as few of them imply all. Raises DataError for a net that PLSC does not have."""

    def layers_of(self, name: str, options: Mapping[str, Any]) -> list[Layer]:
        """The layers of our model of that name with these ``model.options``, in the order of their state_dict."""

    def settings(self, shapes: Shapes, image_shape: list[int] | None) -> dict[str, Any]:
        """The section ``model`` for shapes that are as expected. image_shape: [C, H, W] that the user says.

        Raises DataError for images that do not go with the net.
        """

    def forward(self, weights: Mapping[str, np.ndarray], images: np.ndarray, epsilon: float) -> np.ndarray:
        """images [B, C, H, W] -> embeddings [B, E] in NumPy, by their names alone."""


def require_shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor from which others follow. Raises DataError unless it has so many axes, none empty."""
    shape = shapes.get(name, ())
    if len(shape) != axes or not all(shape):
        raise DataError(f"tensor {name} is {list(shape)}, must have {axes} axes")
    return shape


def count(shapes: Shapes, name: str) -> int:
    """How many of the names, numbered from 0 at the place of {}, are there."""
    found = 0
    while name.format(found) in shapes:
        found += 1
    return found


def square_side(places: int) -> int:
    """The side of a square of so many places; 0 if there is none."""
    side = math.isqrt(places)
    return side if side * side == places else 0


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if part else name
