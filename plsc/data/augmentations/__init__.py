"""Augmentations, one file each: functions of an image and a random generator. `data.augmentations` names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plsc.config.augmentations import PRESETS
from plsc.data.philox import AUGMENT, FLIP, philox
from plsc.errors import ConfigError, DataError, PlscError, reason_of
from plsc.registry import AUGMENTATIONS
from plsc.signatures import accepted, require_signature

__all__ = ["Augmentations", "register_augmentation"]


def register_augmentation(name: str, *, source: str = "", within: Mapping[str, str] | None = None) -> Callable:
    """Decorator that registers ``function(image, generator, ...) -> image`` under ``name``. source: the paper.

    image: uint8 [H, W, C], read-only. generator: a numpy.random.Generator, the only allowed source of randomness. The
    function returns uint8 of the same shape. Its other parameters are its options. within: {option: range}, as in
    {"smallest": "(0, 1]", "largest": "[{smallest}, 1]"}; braces refer to the value of another option.
    Raises ConfigError for a name that is registered already or is a preset, for a range of an unknown option, and for a
    wrong signature.
    """
    add = AUGMENTATIONS.register(name, source=source, within=within)

    def checked(value: Any) -> Any:
        require_signature(f"augmentation {name!r}", value, ("image", "generator"))
        if name in PRESETS and PRESETS[name] != [name]:
            raise ConfigError(f"augmentation {name!r}: is the name of a preset; choose another one")
        unknown = [option for option in within or {} if not accepted(value, [option], skip=2)]
        if unknown:
            raise ConfigError(f"augmentation {name!r}: within has a range of {unknown[0]}, which is no option of it")
        return add(value)

    return checked


class Augmentations:
    """A sequence of augmentations.

    steps: names, or mappings {name: options}. The generator of each augmentation depends only on the seed, the epoch,
    the image and the position of the augmentation, so images do not depend on the number of ranks and workers, and a
    resumed run has the same images.
    """

    def __init__(self, steps: Sequence[str | Mapping[str, Mapping[str, Any] | None]], seed: int) -> None:
        self._seed = seed
        self._steps: list[tuple[str, Callable[..., np.ndarray], Mapping[str, Any]]] = []
        for step in steps:
            ((name, options),) = [(step, None)] if isinstance(step, str) else step.items()
            self._steps.append((name, AUGMENTATIONS.find(name), options or {}))

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Augment an image. Raises DataError for an exception or a wrong result of an augmentation."""
        for place, (name, function, options) in enumerate(self._steps):
            given = image.view()
            given.flags.writeable = False  # it may belong to the source
            try:
                found = function(given, philox(self._seed, _stream(place), epoch, index), **options)
            except PlscError:
                raise
            except Exception as error:
                raise DataError(f"augmentation {name!r} raised {reason_of(error)}") from error
            if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != image.shape:
                raise DataError(
                    f"augmentation {name!r} returned {_what(found)}, must return an array uint8 {list(image.shape)}"
                )
            image = found
        return image


def _stream(place: int) -> int:
    """The stream of an augmentation. The first has that of random flips, so `[flip]` draws as in earlier versions."""
    return AUGMENT + place if place else FLIP


def _what(found: Any) -> str:
    return f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
