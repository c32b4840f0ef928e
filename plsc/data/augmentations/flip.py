"""Mirror images."""

from __future__ import annotations

import numpy as np

from plsc.data.augmentations import register_augmentation


@register_augmentation("flip")
def flip(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Mirrored left to right, or not, with equal chances."""
    return image[:, ::-1] if generator.integers(2) else image
