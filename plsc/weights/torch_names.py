"""A backbone of ours by the names of arcface_torch's iresnet, for a file that its users load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plsc.errors import ExportError
from plsc.models.layers import BN_EPSILON
from plsc.models.resnet import UNITS
from plsc.weights.kinds import ARCFACE
from plsc.weights.layouts import arcface_layers
from plsc.weights.net import Layer


def arcface_state_dict(path: str, model: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{their name: array} in the order of their state_dict. model: the settings of the section ``model``.

    Their model adds 1e-5 to variances, so ours are stored with the difference added. path: of the checkpoint, for
    messages. Raises ExportError for a model that theirs cannot compute.
    """
    options = model.get("options") or {}
    epsilon = options.get("bn_epsilon", BN_EPSILON)
    units = UNITS.get(model["name"])
    neutral = {"projection": "shape", "input_scale": 1.0, "input_shift": 0.0}
    other = [f"{key}: {options[key]}" for key, value in neutral.items() if options.get(key, value) != value]
    if units is None or other:
        what = f"model.options {', '.join(other)}" if other else f"model.name {model['name']!r}"
        raise ExportError(f"{path}: {what}: arcface_torch's iresnet has no such model; export it as paddle or onnx")
    found: dict[str, np.ndarray] = {}
    for layer in arcface_layers(units):
        found.update(_theirs(path, layer, stored))
        if layer.kind == "bn":
            name = f"{layer.theirs}.running_var"
            found[name] = (found[name].astype(np.float64) + (epsilon - ARCFACE.epsilon)).astype(np.float32)
            if found[name].min() < 0:
                raise ExportError(f"{path}: model.options bn_epsilon {epsilon}: {name} would be below 0 there")
            found[f"{layer.theirs}.num_batches_tracked"] = np.zeros((), np.int64)
    return found


def _theirs(path: str, layer: Layer, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for ours, theirs in layer.tensors():
        if ours not in stored:
            raise ExportError(f"{path}: holds no {ours}, which its model.name needs")
        found[theirs] = stored[ours].T if layer.kind == "fc" else stored[ours]
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}
