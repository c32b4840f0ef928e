"""The averaged weights of a checkpoint (``ema.decay``): which of its weights are read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from plsc.checkpoint.manifest import Manifest
from plsc.checkpoint.read import read_replicated
from plsc.errors import CheckpointError

_PREFIX = "ema."  # of the average's name, before that of its weight
AUTO, AVERAGED, LAST = "auto", "ema", "last"


def average_name(weight: str) -> str:
    """The name of the average of a weight, in a program and in a checkpoint."""
    return _PREFIX + weight


def has_averages(names: Iterable[str]) -> bool:
    """True where averages are among the names of a checkpoint's tensors."""
    return any(name.startswith(_PREFIX) for name in names)


def uses_averages(path: str, manifest: Manifest, weights: str) -> bool:
    """Whether ``weights`` (the setting ema.weights) means the averages of this checkpoint.

    Raises CheckpointError where it asks for averages that the checkpoint does not have.
    """
    found = has_averages(spec.name for spec in manifest.replicated_tensors)
    if weights == AVERAGED and not found:
        raise CheckpointError(
            f"ema.weights='ema': {path} has no averaged weights, it was trained without ema.decay; set ema.weights: "
            "last or auto"
        )
    return found and weights != LAST


def read_weights(path: str, manifest: Manifest, weights: str) -> dict[str, np.ndarray]:
    """read_replicated, with averages in place of the weights they belong to where ``weights`` says so."""
    arrays = read_replicated(path, manifest)
    if not uses_averages(path, manifest, weights):
        return arrays
    averages = {name[len(_PREFIX) :]: array for name, array in arrays.items() if name.startswith(_PREFIX)}
    return {**arrays, **averages}
