"""A backbone of ours by the names of arcface_torch or AdaFace, for a file that their users load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from plsc.errors import ExportError
from plsc.models.layers import BN_EPSILON
from plsc.models.resnet import UNITS
from plsc.models.se_resnet import SE_UNITS
from plsc.models.vit import SIZES
from plsc.models.wide_mobilefacenet import LAYOUTS
from plsc.weights.kinds import ADAFACE, ARCFACE, ARCFACE_MOBILE, ARCFACE_VIT, Kind
from plsc.weights.names import BGR
from plsc.weights.net import TRANSPOSED, Layer
from plsc.weights.vits import HEADS

# {the options that change what a net computes: the only values that their nets have}
NEUTRAL = {"input_scale": 1.0, "input_shift": 0.0, "num_heads": HEADS}
Arrays = dict[str, np.ndarray]


def state_dict_of(path: str, model: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> tuple[Kind, Arrays]:
    """(the kind of the net, {their name: array} in the order of their state_dict). model: the settings ``model``.

    The first layer takes channels in the order of the kind. Their nets add another epsilon to variances, so ours are
    stored with the difference added. path: of the checkpoint, for messages. Raises ExportError for a model that theirs
    cannot compute.
    """
    kind, options = _kind_of(path, model), model.get("options") or {}
    difference = options.get("bn_epsilon", BN_EPSILON) - kind.epsilon
    found: Arrays = {}
    for layer in kind.net.layers_of(model["name"], options):
        found.update(_theirs(path, layer, stored, kind))
        if layer.kind in ("bn", "plain_bn"):
            name = f"{layer.theirs}.running_var"
            found[name] = (found[name].astype(np.float64) + difference).astype(np.float32)
            if found[name].min() < 0:
                raise ExportError(
                    f"{path}: model.options bn_epsilon {options.get('bn_epsilon', BN_EPSILON)}: {name} would be below "
                    "0 there; export it as paddle or onnx"
                )
            found[f"{layer.theirs}.num_batches_tracked"] = np.zeros((), np.int64)
    if kind is ADAFACE:
        scale, shift = (stored[f"backbone.head.feature_bn.{part}"].astype(np.float64) for part in ("weight", "bias"))
        found.update(_without_scale(found, scale, shift, kind.epsilon))
    return kind, found


def _kind_of(path: str, model: Mapping[str, Any]) -> Kind:
    """Whose net computes our model. Raises ExportError where nobody's does."""
    name, options = model["name"], model.get("options") or {}
    projection = options.get("projection", ARCFACE.projection)
    families: list[tuple[Kind, Iterable[str]]] = [
        (ARCFACE, UNITS if projection == ARCFACE.projection else ()),
        (ADAFACE, {*UNITS, *SE_UNITS} if projection == ADAFACE.projection else ()),
        (ARCFACE_MOBILE, LAYOUTS), (ARCFACE_VIT, SIZES),
    ]  # fmt: skip
    kind = next((kind for kind, names in families if name in names), None)
    other = [f"{key}: {options[key]}" for key, value in NEUTRAL.items() if options.get(key, value) != value]
    if name in SE_UNITS and kind is None:
        other.append(f"projection: {projection}")
    if kind is None or other:
        what = f"model.options {', '.join(other)}" if other else f"model.name {name!r}"
        raise ExportError(f"{path}: {what}: arcface_torch and AdaFace have no such model; export it as paddle or onnx")
    return kind


def _theirs(path: str, layer: Layer, stored: Mapping[str, np.ndarray], kind: Kind) -> Arrays:
    found = {}
    for ours, theirs in layer.tensors():
        if ours not in stored:
            raise ExportError(f"{path}: holds no {ours}, which its model.name needs")
        array = stored[ours].T if layer.kind in TRANSPOSED and theirs.endswith(".weight") else stored[ours]
        first = layer.ours == kind.net.first and array.ndim > 1
        found[theirs] = array[:, ::-1] if first and kind.input.channels == BGR else array
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}


def _without_scale(found: Arrays, scale: np.ndarray, shift: np.ndarray, epsilon: float) -> Arrays:
    """AdaFace's last batch norm has no scale and shift: ours are merged into the layer before it, if they do anything.

    scale * (W x + c - mean) / sqrt(variance + epsilon) + shift is the new layer, and the batch norm then does nothing.
    """
    if (scale == 1).all() and not shift.any():
        return {}
    fc, bn = "output_layer.3", "output_layer.4"
    factor = scale / np.sqrt(found[f"{bn}.running_var"].astype(np.float64) + epsilon)
    merged = {
        f"{fc}.weight": found[f"{fc}.weight"] * factor[:, None],
        f"{fc}.bias": (found[f"{fc}.bias"].astype(np.float64) - found[f"{bn}.running_mean"]) * factor + shift,
        f"{bn}.running_mean": np.zeros_like(factor), f"{bn}.running_var": np.full_like(factor, 1 - epsilon),
    }  # fmt: skip
    return {name: array.astype(np.float32) for name, array in merged.items()}
