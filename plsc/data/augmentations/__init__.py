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
    """Decorator: ``function(image, generator, ...) -> image`` becomes known as ``name``. ``source``: the paper.

    image: uint8 [H, W, C], read-only. generator: a numpy.random.Generator; all that is random must come from it. The
    function returns uint8 of the same shape. Its other parameters are its options. within: the ranges of options, by
    their names, as in {"smallest": "(0, 1]", "largest": "[{smallest}, 1]"}: in braces the value of another option.
    Raises ConfigError for a name that is taken or that of a preset, for a range of an option that there is not, and for
    another signature.
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
    """Several, one after the other.

    steps: names, or mappings {name: options}. The generator of each depends on the seed, the epoch, the image and the
    place of the augmentation among the others, and on nothing else: any number of ranks and workers, and a run that
    continues, give the same images.
    """

    def __init__(self, steps: Sequence[str | Mapping[str, Mapping[str, Any] | None]], seed: int) -> None:
        self._seed = seed
        self._steps: list[tuple[str, Callable[..., np.ndarray], Mapping[str, Any]]] = []
        for step in steps:
            ((name, options),) = [(step, None)] if isinstance(step, str) else step.items()
            self._steps.append((name, AUGMENTATIONS.find(name), options or {}))

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """The image as this epoch sees it. Raises DataError for what an augmentation raises or gives."""
        for place, (name, function, options) in enumerate(self._steps):
            given = image.view()
            given.flags.writeable = False  # it may be the source's own
            try:
                found = function(given, philox(self._seed, _stream(place), epoch, index), **options)
            except PlscError:
                raise
            except Exception as error:
                raise DataError(f"augmentation {name!r} raised {reason_of(error)}") from error
            if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != image.shape:
                raise DataError(
                    f"augmentation {name!r} gave {_what(found)}, it must give an array uint8 {list(image.shape)}"
                )
            image = found
        return image


def _stream(place: int) -> int:
    """The first draws where random flips always have: with `[flip]` they are those of earlier versions."""
    return AUGMENT + place if place else FLIP


def _what(found: Any) -> str:
    return f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
